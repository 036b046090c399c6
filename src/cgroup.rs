//! The groups of a container on every hierarchy of the host: version 1, hybrid and version 2.
//!
//! | file | what is in it |
//! |---|---|
//! | `hierarchy` | where the hierarchies are mounted |
//! | `limits` `v1` `v2` `devices` | `linux.resources` as writes to control files |
//! | `group` | the directory of one hierarchy: made, looked at, removed |
//! | `members` | processes: list, signal, kill |
//! | `walk` | groups below a group, however deep; removal |
//! | `file` | reading and writing control files |

mod devices;
mod file;
mod group;
mod hierarchy;
mod limits;
mod members;
mod v1;
mod v2;
mod walk;

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use group::{Group, Made};
use hierarchy::{Finder, Version};
pub(crate) use limits::Limits;

/// How long `kill` and `remove` wait for the kernel.
const PATIENCE: Duration = Duration::from_secs(10);

/// The groups of one container on every hierarchy, as its state records them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    /// The host has version 2 alone, so that there is one group at most.
    unified: bool,
    groups: Vec<Group>,
}

/// One group as a `cgroup` mount in the container shows it.
pub(crate) struct GroupView<'a> {
    /// The directory below `/sys/fs/cgroup` inside: `cpu,cpuacct`, `systemd`, `unified`; empty on
    /// a host with version 2 alone.
    pub(crate) name: &'a str,
    /// Absolute, on the host.
    pub(crate) directory: &'a Path,
    /// Options of a version 1 mount of this hierarchy: `cpu,cpuacct` or `none,name=systemd`.
    pub(crate) options: Cow<'a, str>,
    pub(crate) is_v2: bool,
}

impl Cgroup {
    /// Decides where the groups of container `id` go, without any side effect. `path` is
    /// `linux.cgroupsPath`: absolute from the mount of each hierarchy; relative, or absent for
    /// `id`, below the runtime's own group on version 1 and beside it on version 2.
    pub(crate) fn plan(path: Option<&Path>, id: &str) -> Result<Self> {
        let path = normalise(path.unwrap_or(Path::new(id))).with_context(|| {
            format!(
                "linux.cgroupsPath: {}",
                path.unwrap_or(Path::new(id)).display()
            )
        })?;
        if hierarchy::host_is_unified()? {
            let own = if path.is_absolute() {
                vec![]
            } else {
                hierarchy::memberships("self")?
            };
            let own = own.iter().find(|own| own.version() == Version::V2);
            return Ok(Self {
                unified: true,
                groups: vec![hierarchy::place_unified(own, &path)?],
            });
        }
        let finder = Finder::default();
        let mut groups = Vec::new();
        for own in hierarchy::memberships("self")? {
            groups.extend(finder.place(&own, &path)?);
        }
        Ok(Self {
            unified: false,
            groups,
        })
    }

    /// The groups that process `pid` is in now: a systemd in a container moves itself. Nothing
    /// of them is ever removed.
    pub(crate) fn of_process(pid: i32) -> Result<Self> {
        let unified = hierarchy::host_is_unified()?;
        let finder = Finder::default();
        let mut groups = Vec::new();
        for membership in hierarchy::memberships(&pid.to_string())? {
            match (unified, membership.version()) {
                (true, Version::V2) => groups.push(hierarchy::existing_unified(&membership)?),
                (true, Version::V1) => {}
                (false, _) => groups.extend(finder.existing(&membership)?),
            }
        }
        Ok(Self { unified, groups })
    }

    /// Makes all groups and opens them. Refuses a group that is frozen or has processes. On an
    /// error all that was made is gone again and the groups are not the container's: neither
    /// `kill` nor `remove` may be called then, they might be another container's.
    pub(crate) fn create(&self) -> Result<OpenCgroup> {
        let mut made = Made::default();
        for group in &self.groups {
            group.make(&mut made)?;
            if group.has_controller("cpuset") {
                v1::fill_cpuset(&group.directory, made.includes(&group.directory))?;
            }
        }
        if self.unified {
            self.groups
                .iter()
                .try_for_each(|group| v2::enable_controllers(&group.directory))?;
        }
        // Also if the group is new: it would be frozen by one above, and init would hang in it.
        if let Some(group) = self
            .freezer()
            .filter(|group| group.is_frozen().unwrap_or(false))
        {
            bail!(
                "container's cgroup is frozen: {}",
                group.directory.display()
            );
        }
        let open = self.open()?;
        made.keep();
        Ok(open)
    }

    /// Opens groups that exist.
    pub(crate) fn open(&self) -> Result<OpenCgroup> {
        let open = |group: &Group| {
            let directory = self.unified.then(|| {
                file::open(&group.directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
                    .with_context(|| group.directory.display().to_string())
            });
            let procs = (!self.unified).then(|| group.open_procs());
            let (directory, procs) = (directory.transpose()?, procs.transpose()?);
            Ok(OpenGroup {
                group: group.clone(),
                directory,
                procs,
            })
        };
        let groups = self.groups.iter().map(open).collect::<Result<_>>()?;
        Ok(OpenCgroup {
            unified: self.unified,
            groups,
        })
    }

    /// Every process of the groups and their sub-groups, as host pids, sorted, each once. A
    /// missing group has none.
    pub(crate) fn pids(&self) -> Result<Vec<i32>> {
        members::pids(&self.groups)
    }

    /// Whether the processes of the container are frozen. A missing group is not.
    pub(crate) fn is_frozen(&self) -> Result<bool> {
        self.freezer().map_or(Ok(false), Group::is_frozen)
    }

    /// Sends `signal` to every process of the groups and sub-groups, also to those that are
    /// forked meanwhile. Refuses if the caller is one of them.
    pub(crate) fn signal_all(&self, signal: i32) -> Result<()> {
        members::signal_all(&self.groups, signal)
    }

    /// Kills every process of the groups and sub-groups and waits until there is none, at most
    /// 10 s; leaves nothing frozen. Refuses if the caller is one of them. Missing groups are
    /// success.
    pub(crate) fn kill(&self) -> Result<()> {
        members::kill(&self.groups)
    }

    /// Removes sub-groups, groups, and those above that `create` made and nobody else uses. It
    /// waits at most 10 s for processes that are just going. Missing groups are success. A group
    /// that was there before the container stays as it is.
    pub(crate) fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let results: Vec<Result<()>> = self
            .groups
            .iter()
            .map(|group| group.remove(deadline))
            .collect();
        results.into_iter().collect()
    }

    /// The groups for `cgroup` mounts in the container.
    pub(crate) fn groups(&self) -> impl Iterator<Item = GroupView<'_>> {
        self.groups.iter().map(|group| {
            let controllers = group.controllers.as_str();
            let named = controllers.strip_prefix("name=");
            let name = if self.unified {
                ""
            } else {
                named.unwrap_or(controllers)
            };
            GroupView {
                name: if group.is_v2() && !self.unified {
                    "unified"
                } else {
                    name
                },
                directory: &group.directory,
                options: match named {
                    Some(_) => format!("none,{controllers}").into(),
                    None => controllers.into(),
                },
                is_v2: group.is_v2(),
            }
        })
    }

    /// Whether the host has version 2 alone.
    pub(crate) fn is_unified(&self) -> bool {
        self.unified
    }

    /// The absolute directories of all groups.
    pub(crate) fn paths(&self) -> Vec<&Path> {
        self.groups
            .iter()
            .map(|group| group.directory.as_path())
            .collect()
    }

    /// The group that can be frozen: that of the version 1 controller, else that of version 2.
    fn freezer(&self) -> Option<&Group> {
        v1::with_controller(&self.groups, "freezer")
            .or_else(|| self.groups.iter().find(|group| group.is_v2()))
    }
}

/// Removes `.` and doubled slashes; refuses what would lead out or name no group of its own.
fn normalise(path: &Path) -> Result<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => bail!("`..` is not allowed"),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    if normal.file_name().is_none() {
        bail!("names no group");
    }
    Ok(normal)
}

/// Groups that exist, open.
pub(crate) struct OpenCgroup {
    unified: bool,
    groups: Vec<OpenGroup>,
}

/// An open group. What is open is what the first process needs: on a host with version 2 alone
/// the directory, to be born in it; else `cgroup.procs`.
struct OpenGroup {
    group: Group,
    directory: Option<OwnedFd>,
    procs: Option<OwnedFd>,
}

impl OpenCgroup {
    /// The directory for `CLONE_INTO_CGROUP`; None unless the host has version 2 alone, since
    /// one call cannot enter the other hierarchies.
    pub(crate) fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.groups.first()?.directory.as_ref().map(AsFd::as_fd)
    }

    /// Puts process `pid` into every group where [`Self::clone_into`] cannot have put it.
    pub(crate) fn enter(&self, pid: i32) -> Result<()> {
        if self.unified {
            Ok(())
        } else {
            self.enter_all(pid)
        }
    }

    /// Puts process `pid` into every group.
    pub(crate) fn enter_all(&self, pid: i32) -> Result<()> {
        let pid = pid.to_string();
        for OpenGroup { group, procs, .. } in &self.groups {
            let result = match procs {
                Some(procs) => file::write_to(procs, &pid),
                None => file::write_to(group.open_procs()?, &pid),
            };
            result.with_context(|| group.directory.join("cgroup.procs").display().to_string())?;
        }
        Ok(())
    }

    /// Writes all limits.
    pub(crate) fn apply(&self, limits: &Limits) -> Result<()> {
        let groups: Vec<Group> = self.groups.iter().map(|open| open.group.clone()).collect();
        if self.unified {
            v2::apply(&groups, limits)
        } else {
            v1::apply(&groups, limits)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(controllers: &str, directory: &str, existing: &str) -> Group {
        Group {
            controllers: controllers.into(),
            directory: directory.into(),
            existing: existing.into(),
        }
    }

    #[test]
    fn a_path_stays_below_its_hierarchy() {
        assert_eq!(normalise(Path::new("/a//./b/")).unwrap(), Path::new("/a/b"));
        assert_eq!(normalise(Path::new("a/b")).unwrap(), Path::new("a/b"));
        assert_eq!(
            normalise(Path::new("system.slice:rt:1"))
                .unwrap()
                .as_os_str(),
            "system.slice:rt:1"
        );
        for bad in ["/..", "../x", "a/../b", "/", ".", ""] {
            assert!(normalise(Path::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn views_for_mounts() {
        let groups = vec![
            group(
                "cpu,cpuacct",
                "/sys/fs/cgroup/cpu,cpuacct/x",
                "/sys/fs/cgroup/cpu,cpuacct",
            ),
            group(
                "name=systemd",
                "/sys/fs/cgroup/systemd/x",
                "/sys/fs/cgroup/systemd",
            ),
            group("", "/sys/fs/cgroup/unified/x", "/sys/fs/cgroup/unified"),
        ];
        let cgroup = Cgroup {
            unified: false,
            groups,
        };
        let views: Vec<_> = cgroup
            .groups()
            .map(|v| (v.name, v.options, v.is_v2))
            .collect();
        assert_eq!(views[0], ("cpu,cpuacct", "cpu,cpuacct".into(), false));
        assert_eq!(views[1], ("systemd", "none,name=systemd".into(), false));
        assert_eq!(views[2], ("unified", "".into(), true));
        let unified = Cgroup {
            unified: true,
            groups: vec![group("", "/sys/fs/cgroup/x", "/")],
        };
        assert_eq!(
            unified.groups().map(|view| view.name).collect::<Vec<_>>(),
            [""]
        );
    }

    #[test]
    fn no_groups_is_a_state_of_its_own() {
        let none = Cgroup::default();
        assert!(none.pids().unwrap().is_empty());
        assert!(!none.is_frozen().unwrap());
        none.kill().unwrap();
        none.remove().unwrap();
    }
}
