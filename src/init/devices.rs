//! Makes the devices and links of `/dev`. What the image has there is hostile: every step works on
//! the directory's descriptor, no link is followed, and an existing node counts only if it is the
//! right device.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use crate::plan::{DeviceNode, RootfsPlan};
use crate::sys;
use crate::sys::rootfd::{Missing, RootFd, kind};

/// The links that runtime-linux.md demands, and the one to the pseudoterminal multiplexer of the
/// container's own devpts.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes the devices and the links below `/dev`.
pub(super) fn create(root: &RootFd, devices: &[DeviceNode], plan: &RootfsPlan) -> Result<()> {
    let dev = directory(root)?;
    for device in devices {
        let origin = || format!("device {}", device.path.display());
        let (directory, name) = locate(root, &device.path).with_context(origin)?;
        let parent = directory.as_ref().unwrap_or(&dev);
        let made = match plan.devices_by_bind && device.kind != SFlag::S_IFIFO {
            true => bind(parent, name, device),
            // In a user namespace, even if it is only the one that `rt` runs in, no process can
            // make devices.
            false => match make_node(parent, name, device) {
                Err(error) if error.downcast_ref() == Some(&Errno::EPERM) => {
                    bind(parent, name, device)
                }
                made => made,
            },
        };
        made.with_context(origin)?;
    }
    let core = plan.has_kcore.then_some(("core", "/proc/kcore"));
    for (name, target) in LINKS.into_iter().chain(core) {
        link(&dev, name, target).with_context(|| format!("/dev/{name}"))?;
    }
    Ok(())
}

/// Opens or makes the container's `/dev`, which must be a directory and no link to one.
pub(super) fn directory(root: &RootFd) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    match root.open_without_links(Path::new("/dev"), flags) {
        Err(Errno::ENOENT) => root.open_or_create(Path::new("/dev"), Missing::Directory),
        Err(Errno::ELOOP | Errno::ENOTDIR) => {
            bail!("/dev: must be a directory in the root file system, not a symbolic link")
        }
        result => result,
    }
    .context("/dev")
}

/// Returns the directory of `path`, `None` for `/dev` itself, and the last name.
fn locate<'a>(root: &RootFd, path: &'a Path) -> Result<(Option<OwnedFd>, &'a OsStr)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("not the path of a device");
    };
    if parent == Path::new("/dev") {
        return Ok((None, name));
    }
    Ok((Some(root.open_or_create(parent, Missing::Directory)?), name))
}

fn make_node(parent: &OwnedFd, name: &OsStr, device: &DeviceNode) -> Result<()> {
    let mode = Mode::from_bits_truncate(device.mode);
    let mut made = mknodat(parent, name, device.kind, mode, device.number);
    if made == Err(Errno::EEXIST) {
        if is(&look(parent, name)?, device) {
            return Ok(());
        }
        if device.configured {
            bail!("another file is there already");
        }
        unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
        made = mknodat(parent, name, device.kind, mode, device.number);
    }
    match made {
        // CAP_MKNOD is missing: the host is a container itself.
        Err(Errno::EPERM) => return bind(parent, name, device),
        made => made?,
    }
    // Only the node that was just made changes its owner, never a file that was there before.
    if (device.uid, device.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        fchownat(
            parent,
            name,
            Some(uid),
            Some(gid),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )?;
    }
    Ok(())
}

/// Binds the host's device onto an empty file, if it is the device that its name promises.
fn bind(parent: &OwnedFd, name: &OsStr, device: &DeviceNode) -> Result<()> {
    let host = openat(AT_FDCWD, &device.path, no_follow(), Mode::empty()).context("on the host")?;
    if !is(&fstat(&host)?, device) {
        bail!("is another device on the host");
    }
    let tree = sys::clone_mount(host.as_fd(), false)?;
    let target = empty_file(parent, name)?;
    Ok(sys::move_mount(tree.as_fd(), target.as_fd())?)
}

/// Makes an empty file at `name` to mount something on, or opens the file that is there. A link is
/// replaced; a directory is an error.
pub(super) fn empty_file(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    let mode = Mode::from_bits_truncate(0o666);
    match mknodat(parent, name, SFlag::S_IFREG, mode, 0) {
        Err(Errno::EEXIST) if kind(&look(parent, name)?) == SFlag::S_IFLNK => {
            unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
            mknodat(parent, name, SFlag::S_IFREG, mode, 0)?;
        }
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let file = openat(parent, name, no_follow(), Mode::empty())?;
    match kind(&fstat(&file)?) {
        SFlag::S_IFLNK | SFlag::S_IFDIR => bail!("changed while it was made"),
        _ => Ok(file),
    }
}

fn link(dev: &OwnedFd, name: &str, target: &str) -> Result<()> {
    match symlinkat(target, dev, name) {
        Err(Errno::EEXIST) => {}
        result => return Ok(result?),
    }
    if readlinkat(dev, name).is_ok_and(|existing| existing == target) {
        return Ok(());
    }
    // A mount of the configuration is here, and is meant to be.
    match unlinkat(dev, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EBUSY | Errno::EISDIR) => Ok(()),
        result => {
            result?;
            Ok(symlinkat(target, dev, name)?)
        }
    }
}

fn look(parent: &OwnedFd, name: &OsStr) -> nix::Result<FileStat> {
    nix::sys::stat::fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn is(stat: &FileStat, device: &DeviceNode) -> bool {
    kind(stat) == device.kind && (stat.st_rdev == device.number || device.kind == SFlag::S_IFIFO)
}

fn no_follow() -> OFlag {
    OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}
