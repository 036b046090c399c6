//! What a restored container sees of the host. CRIU makes a mount of something below the root again
//! by its path, in a namespace that has the host's root: a link that has come there since the
//! checkpoint leads out of the container's. So it is looked at before anything of it goes on.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::sys::stat::{Mode, stat};
use procfs::process::MountInfo;

use super::mounts;
use crate::plan::Root;
use crate::{state, sys};

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

/// File systems of which the whole host has one.
const SINGLE: [&str; 10] = [
    "binfmt_misc",
    "configfs",
    "debugfs",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "pstore",
    "securityfs",
    "selinuxfs",
    "tracefs",
];

/// Refuses mounts of the processes from `init` on that show something of the host's that is neither
/// of the root file system nor named by the configuration.
pub(crate) fn check(root: &Root, init: i32) -> Result<()> {
    let host = mounts_of("self")?;
    let mut places = Vec::new();
    for (path, recursive) in mounts::sources(root) {
        places.extend(shown(&host, &path, recursive).with_context(|| path.display().to_string())?);
    }
    let known_kinds = known_kinds(root, init)?;
    let mut all = Vec::new();
    descendants(init, &mut all)?;
    // One look for each mount namespace.
    let mut looked = BTreeSet::new();
    for pid in all {
        let Some(namespace) = of_living(namespace(pid, "mnt"))? else { continue };
        if looked.contains(&namespace) {
            continue;
        }
        let Some(mounts) = of_living(mounts_of(&pid.to_string()))? else { continue };
        looked.insert(namespace);
        for mount in mounts {
            let is_hosts = host.iter().any(|other| other.majmin == mount.majmin);
            let known = known_kinds.contains(&*mount.fs_type);
            ensure!(
                !is_hosts || known || places.iter().any(|place| place.shows(&mount)),
                "{}: shows {} of the host's file system {}, which the configuration does not name",
                point_of(&mount).display(),
                mount.root,
                mount.majmin
            );
        }
    }
    Ok(())
}

/// `None` of a process that has ended, and be it that nobody has waited for it yet.
fn of_living<T>(result: Result<T>) -> Result<Option<T>> {
    let ended = |errno: Errno| matches!(errno, Errno::ENOENT | Errno::ESRCH | Errno::EINVAL);
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.downcast_ref::<Errno>().copied().filter(|errno| ended(*errno)) {
            Some(_) => Ok(None),
            None => Err(error),
        },
    }
}

fn namespace(pid: impl Display, kind: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/ns/{kind}");
    Ok(stat(path.as_str()).context(path)?.st_ino)
}

/// The process and all below it: what CRIU has made. None of them runs yet.
fn descendants(pid: i32, all: &mut Vec<i32>) -> Result<()> {
    all.push(pid);
    let path = format!("/proc/{pid}/task");
    let Ok(tasks) = fs::read_dir(&path) else { return Ok(()) };
    for task in tasks {
        let task = task?.path();
        let children = match fs::read_to_string(task.join("children")) {
            Err(_) if !task.exists() => continue,
            result => result.with_context(|| format!("{}/children", task.display()))?,
        };
        children.split_whitespace().try_for_each(|child| descendants(child.parse()?, all))?;
    }
    Ok(())
}

/// The file systems of the configuration that are the host's, since there is one for all, or one
/// for each namespace and the container is in the host's.
fn known_kinds(root: &Root, init: i32) -> Result<BTreeSet<&str>> {
    let of_namespaces = [("proc", "pid"), ("sysfs", "net"), ("mqueue", "ipc")];
    let mut known = BTreeSet::new();
    for (_, kind) in mounts::file_systems(root) {
        let Ok(kind) = kind.to_str() else { continue };
        let is_hosts = match of_namespaces.iter().find(|(name, _)| *name == kind) {
            Some((_, of)) => namespace(init, of)? == namespace("self", of)?,
            None => SINGLE.contains(&kind),
        };
        if is_hosts {
            known.insert(kind);
        }
    }
    Ok(known)
}

/// Names need not be UTF-8: what is not ASCII goes as proc_pid_mountinfo(5) has a space.
pub(super) fn mounts_of(process: &str) -> Result<Vec<MountInfo>> {
    let path = format!("/proc/{process}/mountinfo");
    let text = ascii(&state::read_at(AT_FDCWD, &path).with_context(|| path.clone())?);
    text.lines().map(|line| MountInfo::from_line(line).context(path.clone())).collect()
}

fn ascii(bytes: &[u8]) -> String {
    let escape = |byte: &u8| match byte {
        0..128 => char::from(*byte).to_string(),
        _ => format!("\\{byte:03o}"),
    };
    bytes.iter().map(escape).collect()
}

/// What `path` shows: of its mount, and if `recursive` of those below.
fn shown(host: &[MountInfo], path: &Path, recursive: bool) -> Result<Vec<Place>> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let id = sys::id_of_mount(open(path, flags, Mode::empty())?.as_fd())?;
    Ok(places(host, path, id, recursive))
}

/// `id` is that of the mount that `path` is in.
fn places(host: &[MountInfo], path: &Path, id: u64, recursive: bool) -> Vec<Place> {
    let place = |mount: &MountInfo, below: &Path| Place {
        device: mount.majmin.clone(),
        root: unescaped(mount.root.as_bytes()).join(below),
    };
    let own = host.iter().find(|mount| mount.mnt_id as u64 == id);
    let own = own.and_then(|mount| Some(place(mount, path.strip_prefix(point_of(mount)).ok()?)));
    let below = host.iter().filter(|mount| recursive && point_of(mount).starts_with(path));
    own.into_iter().chain(below.map(|mount| place(mount, Path::new("")))).collect()
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
    fn a_path_is_its_mount_and_those_below() {
        let host = mounts(&[
            "20 1 254:0 / / rw - ext4 /dev/vda rw",
            "21 20 0:30 / /var/lib rw - tmpfs tmpfs rw",
            "22 21 0:31 /sub /var/lib/a\\040b rw - btrfs /dev/vdb rw",
            "23 22 0:32 / /var/lib/a\\040b/c/d rw - tmpfs tmpfs rw",
        ]);
        let shown = |path: &str, id, recursive| -> Vec<String> {
            let places = places(&host, Path::new(path), id, recursive);
            places.iter().map(|p| format!("{} {}", p.device, p.root.display())).collect()
        };
        assert_eq!(shown("/etc/x", 20, true), ["254:0 /etc/x"]);
        assert_eq!(shown("/var/lib/a b/c", 22, true), ["0:31 /sub/c", "0:32 /"]);
        assert_eq!(shown("/var/lib/a b/c", 22, false), ["0:31 /sub/c"]);
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
        assert_eq!(ascii(b"a\xffb"), "a\\377b");
        assert_eq!(unescaped(b"a\\377b").as_os_str().as_bytes(), b"a\xffb");
    }
}
