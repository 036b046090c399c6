//! Decides which cgroups of a record can be the container's. A record may have been damaged or
//! changed, so its paths are believed only as far as they agree with the id and with the copy of
//! the configuration.

use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use super::cgroup_dir::CgroupDir;
use super::cgroups::Cgroup;
use super::place::normalise;
use super::walk::is_gone;
use super::{hierarchy, systemd};
use crate::sys;

/// Where the cgroups of a container have to be, as far as its id and its configuration tell.
#[derive(Debug)]
pub struct Expected {
    /// The end of the path of cgroups that `rt` makes.
    end: Option<PathBuf>,
    /// The name of the scope, if systemd makes the cgroups.
    scope: Option<String>,
}

impl Expected {
    /// Returns the expectation for container `id`; `path` is `linux.cgroupsPath`.
    pub fn new(path: Option<&str>, id: &str) -> Self {
        let end = normalise(Path::new(path.unwrap_or(id))).ok();
        let end = end.map(|path| path.strip_prefix("/").map(Path::to_owned).unwrap_or(path));
        let scope = systemd::scope(path.unwrap_or_default(), id, "").ok();
        Self {
            end,
            scope: scope.map(|(_, name)| name),
        }
    }

    fn is(&self, directory: &Path) -> bool {
        let is_scope = |part: Component<'_>| {
            self.scope
                .as_deref()
                .is_some_and(|scope| part.as_os_str() == scope)
        };
        self.end
            .as_deref()
            .is_some_and(|end| directory.ends_with(end))
            || directory.components().any(is_scope)
    }
}

impl Cgroup {
    /// Removes from this list the cgroups that are in no cgroup hierarchy, and returns their paths.
    /// The others may be removed if they are empty, but nothing in them may be killed.
    pub fn leave_out_misplaced(&mut self) -> Vec<PathBuf> {
        self.leave_out(CgroupDir::is_below_a_mount)
    }

    /// Removes from this list the cgroups that are not where the container's have to be, and
    /// returns their paths. Processes in the others may be killed.
    pub fn leave_out_foreign(&mut self, expected: &Expected) -> Vec<PathBuf> {
        self.leave_out(|cgroup| cgroup.is_at(expected))
    }

    /// Whether every cgroup has the name of container `id`.
    pub fn is_named(&self, id: &str) -> bool {
        self.cgroups
            .iter()
            .all(|cgroup| cgroup.directory.file_name().is_some_and(|name| name == id))
    }

    fn leave_out(&mut self, is_good: impl Fn(&CgroupDir) -> bool) -> Vec<PathBuf> {
        let (good, bad) = self.cgroups.drain(..).partition(is_good);
        self.cgroups = good;
        bad.into_iter()
            .map(|cgroup: CgroupDir| cgroup.directory)
            .collect()
    }

    /// Whether process `pid` is in one of the cgroups or below; None if none of the cgroups exists.
    pub fn includes(&self, pid: i32) -> Option<bool> {
        if !self.cgroups.iter().any(|cgroup| cgroup.directory.exists()) {
            return None;
        }
        let own = hierarchy::memberships(&pid.to_string()).unwrap_or_default();
        let is_in = |cgroup: &CgroupDir| {
            let own = own.iter().find(|own| own.controllers == cgroup.controllers);
            own.is_some_and(|own| cgroup.shows(&own.path))
        };
        // The paths of a process in another cgroup namespace differ, so the pids are compared, too.
        Some(self.cgroups.iter().any(is_in) || self.pids().is_ok_and(|pids| pids.contains(&pid)))
    }
}

impl CgroupDir {
    /// Whether the directory can be a cgroup: a plain path below a mount point of cgroups.
    fn is_below_a_mount(&self) -> bool {
        let is_plain = |path: &Path| {
            let mut parts = path.components();
            parts.next() == Some(Component::RootDir)
                && parts.all(|part| matches!(part, Component::Normal(_)))
        };
        let depth = self
            .directory
            .strip_prefix(hierarchy::ROOT)
            .map(|path| path.iter().count());
        is_plain(&self.directory)
            && self.directory.starts_with(&self.existing)
            && (depth.is_ok_and(|depth| depth > 0) || is_cgroup(&self.existing))
    }

    /// Whether the cgroup is at its expected place, and neither the root of a hierarchy nor a slice
    /// in which systemd has other cgroups.
    fn is_at(&self, expected: &Expected) -> bool {
        let above = self.directory.parent().unwrap_or(Path::new("/"));
        let is_slice = self
            .directory
            .extension()
            .is_some_and(|kind| kind == "slice");
        self.is_below_a_mount()
            && expected.is(&self.directory)
            && (is_cgroup(above) || !self.directory.exists())
            && !(is_slice && self.has_groups_below())
    }

    /// Whether there are cgroups below, or that cannot be determined.
    fn has_groups_below(&self) -> bool {
        match sys::list_directory(&self.directory) {
            Ok(entries) => entries.iter().any(|entry| entry.is_directory),
            Err(errno) => !is_gone(errno),
        }
    }

    /// Whether a process in the cgroup `path` of this hierarchy is in this cgroup or below.
    fn shows(&self, path: &Path) -> bool {
        let Ok(inside) = self.directory.strip_prefix(hierarchy::ROOT) else {
            return false;
        };
        let below_mount =
            |skipped| Path::new("/").join(inside.iter().skip(skipped).collect::<PathBuf>());
        // On a host with version 2 alone the hierarchy has no directory of its own.
        [1, 0]
            .map(below_mount)
            .iter()
            .any(|own| own.parent().is_some() && path.starts_with(own))
    }
}

fn is_cgroup(directory: &Path) -> bool {
    statfs(directory).is_ok_and(|stat| {
        [CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC].contains(&stat.filesystem_type())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(directory: &str, existing: &str) -> CgroupDir {
        CgroupDir {
            controllers: "pids".into(),
            directory: directory.into(),
            existing: existing.into(),
        }
    }

    #[test]
    fn a_path_counts_only_below_a_mount_of_cgroups() {
        for good in ["/sys/fs/cgroup/pids/x", "/sys/fs/cgroup/pids/a/b"] {
            assert!(
                cgroup(good, "/sys/fs/cgroup/pids").is_below_a_mount(),
                "{good}"
            );
        }
        for (bad, existing) in [
            ("/sys/fs/cgroup", "/sys/fs"),
            ("/sys/fs/cgroup/pids/../../x", "/sys/fs/cgroup/pids"),
            ("/tmp/x", "/tmp"),
            ("/tmp/x", "/"),
            ("sys/fs/cgroup/pids/x", "sys"),
            ("", ""),
            ("/sys/fs/cgroup/pids/x", "/sys/fs/cgroup/cpu"),
        ] {
            assert!(!cgroup(bad, existing).is_below_a_mount(), "{bad}");
        }
    }

    #[test]
    fn a_place_is_expected_by_the_id_or_the_configuration() {
        let is = |path: Option<&str>, directory: &str| {
            Expected::new(path, "box").is(Path::new(directory))
        };
        assert!(is(None, "/sys/fs/cgroup/pids/own/box"));
        assert!(is(Some("/a/../b/c"), "/sys/fs/cgroup/pids/b/c"));
        assert!(is(
            Some("x.slice:cri:1"),
            "/sys/fs/cgroup/x.slice/cri-1.scope/sub"
        ));
        assert!(!is(None, "/sys/fs/cgroup/pids/own/my-box"));
        assert!(!is(Some("/b/c"), "/sys/fs/cgroup/pids/box"));
        assert!(!is(Some("/b/c"), "/sys/fs/cgroup/pids/xb/c"));
    }

    #[test]
    fn a_process_is_in_a_group_or_below() {
        let shows = |directory: &str, path: &str| cgroup(directory, "/").shows(Path::new(path));
        assert!(shows("/sys/fs/cgroup/pids/a/b", "/a/b"));
        assert!(shows("/sys/fs/cgroup/pids/a/b", "/a/b/c"));
        assert!(shows("/sys/fs/cgroup/a/b", "/a/b"));
        assert!(!shows("/sys/fs/cgroup/pids/a/b", "/a"));
        assert!(!shows("/sys/fs/cgroup/pids", "/x"));
    }
}
