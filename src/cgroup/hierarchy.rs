//! Where the hierarchies of this host are mounted, found without reading the mount table: its
//! cost grows with everything that the host has mounted.

use std::cell::OnceCell;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use procfs::process::MountInfo;

use super::Group;
use crate::sys::{self, mount_table};

/// Where every distribution mounts cgroups.
pub(super) const ROOT: &str = "/sys/fs/cgroup";

/// Where the hierarchy of version 2 is below [`ROOT`] on a hybrid host.
pub(super) const UNIFIED: &str = "unified";

/// The two interfaces of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// The version that the file system of `directory` has; None if there is no such directory or
/// it is something else.
fn version(directory: &Path) -> Result<Option<Version>> {
    match statfs(directory) {
        Ok(stat) if stat.filesystem_type() == CGROUP2_SUPER_MAGIC => Ok(Some(Version::V2)),
        Ok(stat) if stat.filesystem_type() == CGROUP_SUPER_MAGIC => Ok(Some(Version::V1)),
        Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENODEV) => Ok(None),
        Err(errno) => Err(errno).with_context(|| directory.display().to_string()),
    }
}

/// Whether the host has the unified hierarchy alone.
pub(super) fn host_is_unified() -> Result<bool> {
    Ok(version(Path::new(ROOT))? == Some(Version::V2))
}

/// One line of `/proc/PID/cgroup`: a hierarchy and the group that the process is in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Membership {
    /// `cpu,cpuacct`, `name=systemd`, or nothing for version 2.
    pub(super) controllers: String,
    /// From the root of the hierarchy, or of the reader's cgroup namespace; absolute.
    pub(super) path: PathBuf,
}

impl Membership {
    pub(super) fn version(&self) -> Version {
        if self.controllers.is_empty() {
            Version::V2
        } else {
            Version::V1
        }
    }
}

/// The groups of a process; `process` is a pid or `self`.
pub(super) fn memberships(process: &str) -> Result<Vec<Membership>> {
    let path = format!("/proc/{process}/cgroup");
    let text = sys::read_file_at(AT_FDCWD, &path).with_context(|| path.clone())?;
    parse(&String::from_utf8_lossy(&text)).context(path)
}

fn parse(text: &str) -> Result<Vec<Membership>> {
    let line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        match (fields.next(), fields.next()) {
            (Some(controllers), Some(path)) if path.starts_with('/') => Ok(Membership {
                controllers: controllers.to_owned(),
                path: path.into(),
            }),
            _ => bail!("unexpected line {line:?}"),
        }
    };
    text.lines().map(line).collect()
}

/// Names that the mount point of a version 1 hierarchy may have below [`ROOT`], likely ones first.
pub(super) fn mount_names(controllers: &str) -> Vec<String> {
    if let Some(name) = controllers.strip_prefix("name=") {
        return vec![name.to_owned()];
    }
    let mut names = vec![controllers.to_owned()];
    if controllers.contains(',') {
        let single: Vec<&str> = controllers.split(',').collect();
        names.push(single.iter().rev().copied().collect::<Vec<_>>().join(","));
        names.extend(single.into_iter().map(str::to_owned));
    }
    names
}

/// A mounted hierarchy: `root` is the group that shows at `point`.
#[derive(Clone, Debug)]
struct Mount {
    point: PathBuf,
    root: PathBuf,
}

/// Finds the directories of groups; reads the mount table at most once, and only for a version 1
/// hierarchy that is not where its name says.
#[derive(Default)]
pub(super) struct Finder {
    mounts: OnceCell<Vec<MountInfo>>,
}

impl Finder {
    /// The group `path`: absolute from the root of the hierarchy, or relative to the group
    /// `own` on version 1 and to the one above it on version 2, where limits are only for groups
    /// beside processes. None if the hierarchy is mounted nowhere.
    pub(super) fn place(&self, own: &Membership, path: &Path) -> Result<Option<Group>> {
        self.first(own, |mount| {
            let mut inside = mount.inside(&own.path).unwrap_or_default();
            if own.version() == Version::V2 {
                inside.pop();
            }
            let mut bases = vec![PathBuf::new()];
            if path.is_relative() && inside != bases[0] {
                bases.insert(0, inside);
            }
            for base in bases {
                let base = mount.point.join(base);
                let directory = base.join(path.strip_prefix("/").unwrap_or(path));
                if let Some(existing) = existing_ancestor(&directory, &base, own.version())? {
                    let controllers = own.controllers.clone();
                    return Ok(Some(Group {
                        controllers,
                        directory,
                        existing,
                    }));
                }
            }
            Ok(None)
        })
    }

    /// The existing group that `membership` names. None if the hierarchy is mounted nowhere.
    pub(super) fn existing(&self, membership: &Membership) -> Result<Option<Group>> {
        refuse_outside(membership)?;
        self.first(membership, |mount| {
            let Some(inside) = mount.inside(&membership.path) else {
                return Ok(None);
            };
            let directory = mount.point.join(inside);
            Ok(
                (version(&directory)? == Some(membership.version())).then(|| Group {
                    controllers: membership.controllers.clone(),
                    existing: directory.clone(),
                    directory,
                }),
            )
        })
    }

    /// Tries `find` on the mounts of a hierarchy, those that can be guessed first.
    fn first(
        &self,
        membership: &Membership,
        find: impl Fn(&Mount) -> Result<Option<Group>>,
    ) -> Result<Option<Group>> {
        let controllers = &membership.controllers;
        let unified = membership.version() == Version::V2;
        let names = if unified {
            vec![UNIFIED.to_owned()]
        } else {
            mount_names(controllers)
        };
        for name in names {
            let found = find(&Mount {
                point: Path::new(ROOT).join(name),
                root: "/".into(),
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        if unified {
            return Ok(None);
        }
        for info in self
            .mounts()?
            .iter()
            .filter(|info| shows(info, controllers))
        {
            let mount = Mount {
                point: mount_table::point_of(info),
                root: mount_table::root_of(info),
            };
            let found = find(&mount)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn mounts(&self) -> Result<&[MountInfo]> {
        if let Some(mounts) = self.mounts.get() {
            return Ok(mounts);
        }
        let mounts = mount_table::of("self")?;
        Ok(self.mounts.get_or_init(|| mounts))
    }
}

impl Mount {
    /// `path` of the hierarchy as a path below the mount point; None if it does not show there.
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.root).ok().map(Path::to_owned)
    }
}

fn shows(info: &MountInfo, controllers: &str) -> bool {
    let has = |option: &str| match option.split_once('=') {
        Some((key, value)) => info.super_options.get(key) == Some(&Some(value.to_owned())),
        None => info.super_options.contains_key(option),
    };
    info.fs_type == "cgroup" && controllers.split(',').all(has)
}

/// The group `path` on a host with the unified hierarchy alone. A relative path is a sibling of
/// the group `own`: below it no controller could be enabled, since it holds processes.
pub(super) fn place_unified(own: Option<&Membership>, path: &Path) -> Result<Group> {
    let root = Path::new(ROOT);
    let above = own
        .and_then(|own| own.path.parent())
        .unwrap_or(Path::new("/"));
    let above = root.join(above.strip_prefix("/").unwrap_or(above));
    for base in [above.as_path(), root] {
        let directory = base.join(path.strip_prefix("/").unwrap_or(path));
        if let Some(existing) = existing_ancestor(&directory, base, Version::V2)? {
            return Ok(Group {
                controllers: String::new(),
                directory,
                existing,
            });
        }
    }
    bail!("{ROOT}: not a cgroup2 file system")
}

/// The closest group of version 2 at or above both `directory` and the group `own`.
pub(super) fn common(directory: &Path, own: &Path) -> Option<PathBuf> {
    let root = [Path::new(ROOT), &Path::new(ROOT).join("unified")]
        .into_iter()
        .rev()
        .find(|root| directory.starts_with(root))?
        .to_owned();
    let own = root.join(own.strip_prefix("/").unwrap_or(own));
    let above = directory
        .ancestors()
        .take_while(|above| above.starts_with(&root));
    above
        .into_iter()
        .find(|above| own.starts_with(above))
        .map(Path::to_owned)
}

/// The existing group that `membership` names on such a host.
pub(super) fn existing_unified(membership: &Membership) -> Result<Group> {
    refuse_outside(membership)?;
    let path = &membership.path;
    let directory = Path::new(ROOT).join(path.strip_prefix("/").unwrap_or(path));
    Ok(Group {
        controllers: String::new(),
        existing: directory.clone(),
        directory,
    })
}

/// A process of another cgroup namespace has a path that leads out of this one's root.
fn refuse_outside(membership: &Membership) -> Result<()> {
    if membership
        .path
        .components()
        .any(|part| part == Component::ParentDir)
    {
        bail!(
            "{}: outside of this cgroup namespace",
            membership.path.display()
        );
    }
    Ok(())
}

/// The deepest existing group at or above `directory` and not above `base`.
pub(super) fn existing_ancestor(
    directory: &Path,
    base: &Path,
    wanted: Version,
) -> Result<Option<PathBuf>> {
    for ancestor in directory
        .ancestors()
        .take_while(|ancestor| ancestor.starts_with(base))
    {
        if version(ancestor)? == Some(wanted) {
            return Ok(Some(ancestor.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_cgroup() {
        let text = "12:cpu,cpuacct:/a/b:c\n1:name=systemd:/\n0::/user.slice\n";
        let lines = parse(text).unwrap();
        assert_eq!(lines[0].controllers, "cpu,cpuacct");
        assert_eq!(lines[0].path, Path::new("/a/b:c"));
        assert_eq!(lines[1].version(), Version::V1);
        assert_eq!(lines[2].version(), Version::V2);
        assert!(parse("12:cpu\n").is_err());
        assert!(parse("0::relative\n").is_err());
    }

    #[test]
    fn mount_points_are_guessed_by_name() {
        assert_eq!(mount_names("name=systemd"), ["systemd"]);
        assert_eq!(mount_names("pids"), ["pids"]);
        assert_eq!(
            mount_names("cpu,cpuacct"),
            ["cpu,cpuacct", "cpuacct,cpu", "cpu", "cpuacct"]
        );
    }

    #[test]
    fn the_group_above_two_groups() {
        let common = |directory: &str, own: &str| common(Path::new(directory), Path::new(own));
        let root = Path::new(ROOT);
        assert_eq!(
            common("/sys/fs/cgroup/a/b/x", "/a/b/y"),
            Some(root.join("a/b"))
        );
        assert_eq!(common("/sys/fs/cgroup/x", "/a/b"), Some(root.to_owned()));
        assert_eq!(
            common("/sys/fs/cgroup/unified/a/x", "/a"),
            Some(root.join("unified/a"))
        );
        assert_eq!(common("/elsewhere/x", "/a"), None);
    }

    #[test]
    fn a_bind_mounted_part_of_a_hierarchy() {
        let mount = Mount {
            point: "/c".into(),
            root: "/docker/x".into(),
        };
        assert_eq!(mount.inside(Path::new("/docker/x/rt")), Some("rt".into()));
        assert_eq!(mount.inside(Path::new("/docker/xy")), None);
    }
}
