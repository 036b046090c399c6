//! The hierarchies of this host: which version a directory belongs to, and which cgroups a process
//! is in.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use crate::sys;

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

/// Returns the cgroup version of the file system of `directory`; None if there is no such directory
/// or the file system is something else.
pub(super) fn version(directory: &Path) -> Result<Option<Version>> {
    match statfs(directory) {
        Ok(stat) if stat.filesystem_type() == CGROUP2_SUPER_MAGIC => Ok(Some(Version::V2)),
        Ok(stat) if stat.filesystem_type() == CGROUP_SUPER_MAGIC => Ok(Some(Version::V1)),
        Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENODEV) => Ok(None),
        Err(errno) => Err(errno).with_context(|| directory.display().to_string()),
    }
}

/// Whether the host has version 2 alone.
pub(super) fn host_is_unified() -> Result<bool> {
    Ok(version(Path::new(ROOT))? == Some(Version::V2))
}

/// One line of `/proc/PID/cgroup`: a hierarchy, and the cgroup that the process is in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Membership {
    /// `cpu,cpuacct`, `name=systemd`, or empty for version 2.
    pub(super) controllers: String,
    /// Absolute, from the root of the hierarchy or of the reader's cgroup namespace.
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

/// Returns the cgroups of a process; `process` is a pid or `self`.
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

/// Returns names that the mount point of a version 1 hierarchy may have below [`ROOT`], the likely
/// ones first.
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

/// Returns the closest version 2 cgroup at or above both `directory` and the cgroup `own`.
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

/// Returns the deepest existing cgroup at or above `directory` but not above `base`.
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
}
