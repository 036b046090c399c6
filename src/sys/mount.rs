//! The mount API that works on file descriptors.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::Result;
use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags};
use rustix::mount::{self, FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::call::{call, errno};

// <linux/fcntl.h>, which libc does not have.
const AT_RECURSIVE: u32 = 0x8000;

/// Opens the mount at `path`, relative to `dir` (open_tree(2)); close-on-exec.
pub fn open_tree(dir: BorrowedFd<'_>, path: &CStr, flags: OpenTreeFlags) -> Result<OwnedFd> {
    mount::open_tree(dir, path, flags | OpenTreeFlags::OPEN_TREE_CLOEXEC).map_err(errno)
}

/// Returns a detached copy of the mount at `fd`; if `recursive`, with all mounts below it.
pub fn clone_mount(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(fd, c"", flags)
}

/// Attaches or moves the mount `from` onto the object that `to` refers to (move_mount(2)).
pub fn move_mount(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    move_mount_at(from, to, c"")
}

/// Attaches or moves the mount `from` onto `name` in the directory `to` (move_mount(2)).
pub fn move_mount_at(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    flags.set(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH, name.is_empty());
    mount::move_mount(from, c"", to, name, flags).map_err(errno)
}

/// Changes attributes of the mount `fd`, and of all mounts below it if `recursive`
/// (mount_setattr(2)). `set` and `clear` are `MOUNT_ATTR_*`; `propagation` is one of `MS_SHARED`,
/// `MS_SLAVE`, `MS_PRIVATE` and `MS_UNBINDABLE`, or 0 for no change.
pub fn mount_setattr(
    fd: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
) -> Result<()> {
    mount_setattr_at(fd, c"", recursive, [set, clear, propagation, 0])
}

/// Sets the propagation (`MS_*`) of the mount whose root is at `path`, and of all mounts below it
/// if `recursive`.
///
/// # Errors
/// `EINVAL` if `path` is not the root of a mount.
pub fn set_propagation(path: &CStr, recursive: bool, propagation: u64) -> Result<()> {
    mount_setattr_at(
        nix::fcntl::AT_FDCWD,
        path,
        recursive,
        [0, 0, propagation, 0],
    )
}

/// Calls mount_setattr(2). `attributes` are attr_set, attr_clr, propagation and userns_fd.
fn mount_setattr_at(
    dir: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    attributes: [u64; 4],
) -> Result<()> {
    let empty = if path.is_empty() {
        libc::AT_EMPTY_PATH as u32
    } else {
        0
    };
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `attributes` has the layout of struct mount_attr, and its size is passed as well;
    // `path` is NUL-terminated.
    call(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            empty | recursive,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    })
    .map(drop)
}

/// Maps the ids of the detached mount `fd`, and of all mounts below it if `recursive`, as in the
/// user namespace `users` (mount_setattr(2) `MOUNT_ATTR_IDMAP`).
pub fn map_ids(fd: BorrowedFd<'_>, recursive: bool, users: BorrowedFd<'_>) -> Result<()> {
    let users = users.as_raw_fd() as u64;
    mount_setattr_at(fd, c"", recursive, [libc::MOUNT_ATTR_IDMAP, 0, 0, users])
}

/// Returns the id (as in mountinfo) of the mount whose root `fd` is; `None` if `fd` is not the
/// root of a mount.
pub fn id_of_mount_at(fd: BorrowedFd<'_>) -> Result<Option<u64>> {
    let stat = statx(fd)?;
    let is_root = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    Ok(is_root.then_some(stat.stx_mnt_id))
}

/// Returns the id (as in mountinfo) of the mount that `fd` is in.
pub fn id_of_mount(fd: BorrowedFd<'_>) -> Result<u64> {
    Ok(statx(fd)?.stx_mnt_id)
}

fn statx(fd: BorrowedFd<'_>) -> Result<Statx> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map_err(errno)
}

/// Whether the file at `path` is protected by fs-verity, so that its content cannot be changed.
pub fn has_verity(path: &CStr) -> bool {
    let stat = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::empty(), StatxFlags::empty());
    stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::VERITY))
}

/// Begins a new mount of the file system type `file_system` (fsopen(2)).
pub fn fsopen(file_system: &CStr) -> Result<OwnedFd> {
    mount::fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC).map_err(errno)
}

/// Opens the file system that is mounted at `mount`, to change its options (fspick(2)).
pub fn fspick(mount: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
    mount::fspick(mount, c"", flags).map_err(errno)
}

/// Applies the options that were set since [`fspick`] (fsconfig(2) `FSCONFIG_CMD_RECONFIGURE`).
pub fn reconfigure(fs: BorrowedFd<'_>) -> Result<()> {
    mount::fsconfig_reconfigure(fs).map_err(errno)
}

/// Sets the option `key`: to `value`, or as a flag if there is no value (fsconfig(2)).
pub fn fsconfig(fs: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> Result<()> {
    match value {
        Some(value) => mount::fsconfig_set_string(fs, key, value),
        None => mount::fsconfig_set_flag(fs, key),
    }
    .map_err(errno)
}

/// Sets the option `key` to the descriptor `value` (fsconfig(2) `FSCONFIG_SET_FD`).
pub fn fsconfig_fd(fs: BorrowedFd<'_>, key: &CStr, value: BorrowedFd<'_>) -> Result<()> {
    mount::fsconfig_set_fd(fs, key, value).map_err(errno)
}

/// Creates the file system (fsconfig(2) `FSCONFIG_CMD_CREATE`) and returns a detached mount of it
/// with the attributes `MOUNT_ATTR_*` (fsmount(2)).
pub fn fsmount(fs: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    mount::fsconfig_create(fs).map_err(errno)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as _);
    mount::fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(errno)
}
