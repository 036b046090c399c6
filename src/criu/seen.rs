//! What a restored container sees of the host. CRIU makes a mount of something below the root again
//! by its path, in a namespace that has the host's root: a link that has come there since the
//! checkpoint leads out of the container's. So it is looked at before anything of it goes on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sched::CloneFlags;
use nix::sys::stat::stat;
use procfs::process::{MountInfo, Process};

use super::mounts;
use crate::namespace::Namespaces;
use crate::plan::Root;

/// A part of a file system of the host's.
#[derive(Debug)]
struct Place {
    device: String,
    root: PathBuf,
}

impl Place {
    fn shows(&self, mount: &MountInfo) -> bool {
        self.device == mount.majmin && unescaped(mount.root.as_bytes()).starts_with(&self.root)
    }
}

/// Refuses mounts of the processes `pids` that show something of the host's that is neither of the
/// root file system nor named by the configuration. What shares the mount namespace of process
/// `worker` is CRIU's.
pub(crate) fn check(root: &Root, namespaces: &Namespaces, pids: &[i32], worker: i32) -> Result<()> {
    let host = mounts_of("self")?;
    let sources = mounts::sources(root).into_iter().filter_map(|path| fs::canonicalize(path).ok());
    let places: Vec<Place> =
        sources.chain([root.path.clone()]).flat_map(|path| places(&host, &path)).collect();
    let own = own_kinds(namespaces);
    let namespace = |pid: i32| stat(format!("/proc/{pid}/ns/mnt").as_str()).map(|link| link.st_ino);
    // One look for each mount namespace. A helper of CRIU's may have ended meanwhile.
    let all = pids.iter().filter_map(|pid| Some((namespace(*pid).ok()?, *pid)));
    let mut looks: BTreeMap<_, _> = all.collect();
    looks.remove(&namespace(worker)?);
    for pid in looks.values() {
        for mount in mounts_of(&pid.to_string())? {
            let is_hosts = host.iter().any(|other| other.majmin == mount.majmin);
            let known = own.contains(&&*mount.fs_type) || places.iter().any(|p| p.shows(&mount));
            ensure!(
                !is_hosts || known,
                "{}: shows {} of the host's file system {}, which the configuration does not name",
                mount.mount_point.display(),
                mount.root,
                mount.majmin
            );
        }
    }
    Ok(())
}

/// The file systems of which there is one for each namespace, where the container has the host's.
fn own_kinds(namespaces: &Namespaces) -> Vec<&'static str> {
    let kinds = [
        ("proc", CloneFlags::CLONE_NEWPID),
        ("sysfs", CloneFlags::CLONE_NEWNET),
        ("mqueue", CloneFlags::CLONE_NEWIPC),
    ];
    kinds.into_iter().filter(|(_, kind)| !namespaces.has_new(*kind)).map(|(name, _)| name).collect()
}

fn mounts_of(process: &str) -> Result<Vec<MountInfo>> {
    let path = format!("/proc/{process}/mountinfo");
    let read =
        || anyhow::Ok(Process::new_with_root(format!("/proc/{process}").into())?.mountinfo()?);
    Ok(read().context(path)?.0)
}

/// What `path` shows, with everything that is mounted below it.
fn places(host: &[MountInfo], path: &Path) -> Vec<Place> {
    let place = |mount: &MountInfo, below: &Path| Place {
        device: mount.majmin.clone(),
        root: unescaped(mount.root.as_bytes()).join(below),
    };
    let points = || host.iter().map(|mount| (mount, point_of(mount)));
    let around =
        points().filter_map(|(mount, point)| Some((mount, path.strip_prefix(point).ok()?)));
    // The nearest one; of two at one place the later one is on top.
    let nearest = around.min_by_key(|(mount, below)| (below.components().count(), -mount.mnt_id));
    let below = points().filter(|(_, point)| point.starts_with(path));
    let below = below.map(|(mount, _)| place(mount, Path::new("")));
    nearest.map(|(mount, below)| place(mount, below)).into_iter().chain(below).collect()
}

pub(super) fn point_of(mount: &MountInfo) -> PathBuf {
    unescaped(mount.mount_point.as_os_str().as_bytes())
}

/// proc_pid_mountinfo(5): space, tab, newline and backslash are octal numbers.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let number = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match number.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                plain.push(byte);
                rest = &after[3..];
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(lines: &[&str]) -> Vec<MountInfo> {
        lines.iter().map(|line| MountInfo::from_line(line).unwrap()).collect()
    }

    #[test]
    fn a_path_is_the_nearest_mount_and_those_below() {
        let host = mounts(&[
            "20 1 254:0 / / rw - ext4 /dev/vda rw",
            "21 20 0:30 / /var/lib rw - tmpfs tmpfs rw",
            "22 21 0:31 /sub /var/lib/a\\040b rw - btrfs /dev/vdb rw",
            "23 22 0:32 / /var/lib/a\\040b/c/d rw - tmpfs tmpfs rw",
        ]);
        let shown = |path: &str| -> Vec<String> {
            let places = places(&host, Path::new(path));
            places.iter().map(|p| format!("{} {}", p.device, p.root.display())).collect()
        };
        assert_eq!(shown("/etc/x"), ["254:0 /etc/x"]);
        assert_eq!(shown("/var/lib/a b/c"), ["0:31 /sub/c", "0:32 /"]);
        let place = Place { device: "0:31".into(), root: "/sub/c".into() };
        for (root, expected) in [("/sub/c", true), ("/sub/c/x//deleted", true), ("/sub/cc", false)]
        {
            let line = format!("40 1 0:31 {root} /x rw - btrfs /dev/vdb rw");
            assert_eq!(place.shows(&mounts(&[&line])[0]), expected, "{root}");
        }
    }

    #[test]
    fn octal_numbers_of_mountinfo_are_bytes() {
        for (text, plain) in
            [("/a\\040b", "/a b"), ("\\134040", "\\040"), ("/a\\0", "/a\\0"), ("", "")]
        {
            assert_eq!(unescaped(text.as_bytes()), Path::new(plain));
        }
    }
}
