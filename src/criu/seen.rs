//! Checks what a restored container sees of the host. CRIU repeats a mount of something below the
//! container's root by its path, in a mount namespace that has the host's root. A link that was put
//! there since the checkpoint would therefore lead out of the container's root. So the mounts are
//! checked before any restored process continues.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, stat};
use procfs::process::MountInfo;

use super::external::{self, ExternalSource};
use crate::plan::RootfsPlan;
use crate::sys::rootfd::RootFd;
use crate::sys::{self, Fork, mount_table};

/// A part of a file system of the host.
#[derive(Debug)]
struct HostPlace {
    device: String,
    root: PathBuf,
    /// Where it is mounted in the container.
    destination: PathBuf,
    /// The attributes of [`TAKING`] that a mount of it must have.
    taken: u64,
}

impl HostPlace {
    fn shows(&self, mount: &MountInfo) -> bool {
        self.device == mount.majmin && mount_table::root_of(mount).starts_with(&self.root)
    }
}

/// Mount attributes that take rights away, with their names in mountinfo.
const TAKING: [(u64, &str); 4] = [
    (libc::MOUNT_ATTR_RDONLY, "ro"),
    (libc::MOUNT_ATTR_NOSUID, "nosuid"),
    (libc::MOUNT_ATTR_NODEV, "nodev"),
    (libc::MOUNT_ATTR_NOEXEC, "noexec"),
];

fn taken(mount: &MountInfo) -> u64 {
    let given = TAKING
        .iter()
        .filter(|(_, name)| mount.mount_options.contains_key(*name));
    given.fold(0, |all, (attribute, _)| all | attribute)
}

/// The host's mounts, and the parts of them that the configuration gives to the container.
pub(super) struct HostMounts<'a> {
    mounts: Vec<MountInfo>,
    places: Vec<HostPlace>,
    known_kinds: BTreeSet<&'a str>,
}

impl<'a> HostMounts<'a> {
    /// Reads the mounts for the container whose first process is `init`. With `whole`, a mount must
    /// also have the attributes that its source has on the host now, which may have changed since
    /// the container was created.
    pub(super) fn of(root: &'a RootfsPlan, init: i32, whole: bool) -> Result<Self> {
        let mounts = mount_table::of_process("self")?;
        let inside = root_of(init)?;
        let mounted = mount_table::of_process(&init.to_string())?;
        let mut places = Vec::new();
        for mut external in external::sources(root) {
            // The destination may lead through links of the image, such as /var/run.
            if let Ok(found) = inside.open(&external.destination, OFlag::O_PATH)
                && let Some(mount) = mount_at(&mounted, &found)?
            {
                external.destination = mount_table::point_of(mount);
            }
            let context = || external.source.display().to_string();
            places.extend(shown(&mounts, &external, whole).with_context(context)?);
        }
        Ok(Self {
            mounts,
            places,
            known_kinds: known_kinds(root, init)?,
        })
    }

    /// Whether `mount` shows exactly `source`, neither more nor only a part of it.
    pub(super) fn is_all_of(&self, source: &Path, mount: &MountInfo) -> Result<bool> {
        let path = fs::canonicalize(source).with_context(|| source.display().to_string())?;
        let id = id_of_mount(&path).with_context(|| source.display().to_string())?;
        let Some((own, root)) = at(&self.mounts, &path, id) else {
            return Ok(false);
        };
        Ok(own.majmin == mount.majmin && root == mount_table::root_of(mount))
    }

    /// Returns the attributes of [`TAKING`] that `mount` must have and lacks. The container may
    /// have moved the mount: if the configuration has nothing at its mount point, the attributes of
    /// every entry that shows the same part of the file system count.
    fn lacking(&self, mount: &MountInfo) -> u64 {
        let point = mount_table::point_of(mount);
        let places = self.places.iter().filter(|place| place.shows(mount));
        let own = places.clone().find(|place| place.destination == point);
        let all = || places.fold(0, |all, place| all | place.taken);
        own.map_or_else(all, |place| place.taken) & !taken(mount)
    }

    /// Refuses a mount that shows a part of the host that neither belongs to the root file system
    /// nor is named by the configuration. Refuses a mount that gives more rights than the
    /// configuration or the host gives there, too.
    pub(super) fn check(&self, mount: &MountInfo) -> Result<()> {
        self.check_attributes(mount)?;
        let is_hosts = self.mounts.iter().any(|other| other.majmin == mount.majmin);
        let known = self.known_kinds.contains(&*mount.fs_type);
        ensure!(
            !is_hosts || known || self.places.iter().any(|place| place.shows(mount)),
            "{}: shows {} of the host's file system {}, which the configuration does not name",
            mount_table::point_of(mount).display(),
            mount.root,
            mount.majmin
        );
        Ok(())
    }

    /// Whether something is mounted below `source`.
    pub(super) fn has_mounts_below(&self, source: &Path) -> bool {
        self.mounts
            .iter()
            .map(mount_table::point_of)
            .any(|point| point != source && point.starts_with(source))
    }

    fn check_attributes(&self, mount: &MountInfo) -> Result<()> {
        let lacking = self.lacking(mount);
        let Some((_, name)) = TAKING.iter().find(|(bit, _)| lacking & bit != 0) else {
            return Ok(());
        };
        bail!(
            "{}: shows {} of file system {} without {name}, which the configuration or the host has there",
            mount_table::point_of(mount).display(),
            mount_table::root_of(mount).display(),
            mount.majmin
        )
    }

    /// Sets the attributes that the mounts of process `pid` must have, as far as that is possible.
    /// CRIU takes the attributes of a mount for set if another mount of the same file system has
    /// them (`do_bind_mount` of its `mount.c`), and the images may name other attributes.
    fn set_attributes(&self, pid: i32, mounts: &[MountInfo]) -> Result<()> {
        if mounts.iter().all(|mount| self.lacking(mount) == 0) {
            return Ok(());
        }
        let path = format!("/proc/{pid}/ns/mnt");
        let namespace = fs::File::open(&path).context(path)?;
        let (pid, process) = match sys::clone3(0, None).context("clone3")? {
            Fork::Parent { pid, pidfd } => (pid, pidfd),
            Fork::Child => {
                if setns(namespace, CloneFlags::CLONE_NEWNS).is_ok() {
                    // The check afterwards finds a mount for which this fails.
                    mounts
                        .iter()
                        .for_each(|mount| drop(set(mount, self.lacking(mount))));
                }
                sys::exit_now(0)
            }
        };
        super::worker::wait_for(process.as_fd())
            .map(drop)
            .with_context(|| format!("process {pid}"))
    }
}

/// Adds `attributes` to `mount`. The calling process must be in the mount namespace of `mount`. If
/// its mount point leads to another mount, which covers it, it is left as it is.
fn set(mount: &MountInfo, attributes: u64) -> Result<()> {
    if attributes == 0 {
        return Ok(());
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = RootFd::new(open("/", flags, Mode::empty())?);
    let found = root.open_without_links(&mount_table::point_of(mount), OFlag::O_PATH)?;
    if sys::id_of_mount_at(found.as_fd())? == Some(mount.mnt_id as u64) {
        sys::mount_setattr(found.as_fd(), false, attributes, 0, 0)?;
    }
    Ok(())
}

/// File systems that have one instance for the whole host.
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

/// Checks all mounts of `init` and its descendants with [`HostMounts::check`], after it has set
/// missing attributes.
pub fn check(root: &RootfsPlan, init: i32) -> Result<()> {
    let host = HostMounts::of(root, init, true)?;
    let mut all = Vec::new();
    descendants(init, &mut all)?;
    // Each mount namespace is checked once.
    let mut looked = BTreeSet::new();
    for pid in all {
        let Some(namespace) = of_living(namespace(pid, "mnt"))? else {
            continue;
        };
        if looked.contains(&namespace) {
            continue;
        }
        let mounts = || of_living(mount_table::of_process(&pid.to_string()));
        let Some(before) = mounts()? else { continue };
        host.set_attributes(pid, &before)?;
        let Some(mounts) = mounts()? else { continue };
        looked.insert(namespace);
        mounts.iter().try_for_each(|mount| host.check(mount))?;
    }
    Ok(())
}

/// Turns the error about a process that has ended, even if nobody has waited for it yet, into
/// `None`.
fn of_living<T>(result: Result<T>) -> Result<Option<T>> {
    let ended = |errno: Errno| matches!(errno, Errno::ENOENT | Errno::ESRCH | Errno::EINVAL);
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error
            .downcast_ref::<Errno>()
            .copied()
            .filter(|errno| ended(*errno))
        {
            Some(_) => Ok(None),
            None => Err(error),
        },
    }
}

fn namespace(pid: impl Display, kind: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/ns/{kind}");
    Ok(stat(path.as_str()).context(path)?.st_ino)
}

/// Appends process `pid` and all its descendants to `all`: the processes that CRIU has made. None
/// of them runs yet.
fn descendants(pid: i32, all: &mut Vec<i32>) -> Result<()> {
    all.push(pid);
    let path = format!("/proc/{pid}/task");
    let tasks = match sys::list_directory(&path) {
        Err(Errno::ENOENT | Errno::ESRCH) => return Ok(()),
        result => result.with_context(|| path.clone())?,
    };
    for task in tasks {
        let task = Path::new(&path).join(task.name);
        let children = match fs::read_to_string(task.join("children")) {
            Err(_) if !task.exists() => continue,
            result => result.with_context(|| format!("{}/children", task.display()))?,
        };
        children
            .split_whitespace()
            .try_for_each(|child| descendants(child.parse()?, all))?;
    }
    Ok(())
}

/// Returns the kinds of file systems of the configuration whose instance is the host's: kinds with
/// one instance for the whole host, and kinds with one for each namespace if the container is in
/// the host's namespace.
fn known_kinds(root: &RootfsPlan, init: i32) -> Result<BTreeSet<&str>> {
    let of_namespaces = [("proc", "pid"), ("sysfs", "net"), ("mqueue", "ipc")];
    let mut known = BTreeSet::new();
    for (_, kind) in external::file_systems(root) {
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

/// Returns the parts of the host that `external` shows: of the mount that its source is in and, if
/// it is recursive, of the mounts below.
fn shown(host: &[MountInfo], external: &ExternalSource<'_>, whole: bool) -> Result<Vec<HostPlace>> {
    let id = id_of_mount(&external.source)?;
    Ok(places(host, external, id, whole))
}

fn id_of_mount(path: &Path) -> Result<u64> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    Ok(sys::id_of_mount(open(path, flags, Mode::empty())?.as_fd())?)
}

/// Returns mount `id`, which `path` is in, and the place of `path` in its file system.
fn at<'a>(host: &'a [MountInfo], path: &Path, id: u64) -> Option<(&'a MountInfo, PathBuf)> {
    let own = host.iter().find(|mount| mount.mnt_id as u64 == id)?;
    let below = path.strip_prefix(mount_table::point_of(own)).ok()?;
    let root = mount_table::root_of(own);
    // `join` with an empty path would add a slash at the end.
    Some((
        own,
        if below.as_os_str().is_empty() {
            root
        } else {
            root.join(below)
        },
    ))
}

fn places(
    host: &[MountInfo],
    external: &ExternalSource<'_>,
    id: u64,
    whole: bool,
) -> Vec<HostPlace> {
    let path = &*external.source;
    let place = |mount: &MountInfo, root: PathBuf, below: bool| HostPlace {
        device: mount.majmin.clone(),
        root,
        destination: match mount_table::point_of(mount).strip_prefix(path) {
            Ok(rest) if below => external.destination.join(rest),
            _ => external.destination.clone(),
        },
        taken: external.attributes(if whole { taken(mount) } else { 0 }, below),
    };
    let own = at(host, path, id).map(|(mount, root)| place(mount, root, false));
    let is_below = |mount: &&MountInfo| {
        external.recursive
            && mount_table::point_of(mount).starts_with(path)
            && mount.mnt_id as u64 != id
    };
    let below = host.iter().filter(is_below);
    let below = below.map(|mount| place(mount, mount_table::root_of(mount), true));
    own.into_iter().chain(below).collect()
}

/// Opens the root of process `pid`.
pub(super) fn root_of(pid: i32) -> Result<RootFd> {
    let path = format!("/proc/{pid}/root");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(RootFd::new(
        open(path.as_str(), flags, Mode::empty()).context(path)?,
    ))
}

/// Returns the mount, of those of a process, that `file` is in.
pub(super) fn mount_at<'a>(
    mounted: &'a [MountInfo],
    file: &OwnedFd,
) -> Result<Option<&'a MountInfo>> {
    let id = sys::id_of_mount_at(file.as_fd())?;
    Ok(mounted.iter().find(|mount| Some(mount.mnt_id as u64) == id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(lines: &[&str]) -> Vec<MountInfo> {
        lines
            .iter()
            .map(|line| MountInfo::from_line(line).unwrap())
            .collect()
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
            let places = places(&host, &ExternalSource::plain(path, recursive), id, true);
            places
                .iter()
                .map(|p| format!("{} {}", p.device, p.root.display()))
                .collect()
        };
        assert_eq!(shown("/etc/x", 20, true), ["254:0 /etc/x"]);
        assert_eq!(shown("/var/lib/a b/c", 22, true), ["0:31 /sub/c", "0:32 /"]);
        assert_eq!(shown("/var/lib/a b/c", 22, false), ["0:31 /sub/c"]);
        let place = HostPlace {
            device: "0:31".into(),
            root: "/sub/c".into(),
            destination: "/".into(),
            taken: 0,
        };
        for (root, expected) in [
            ("/sub/c", true),
            ("/sub/c/x//deleted", true),
            ("/sub/cc", false),
        ] {
            let line = format!("40 1 0:31 {root} /x rw - btrfs /dev/vdb rw");
            assert_eq!(place.shows(&mounts(&[&line])[0]), expected, "{root}");
        }
    }
}
