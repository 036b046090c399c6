//! The mount API that works on file descriptors.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::Result;

use super::call::{call, call_fd};

// <linux/fcntl.h>, which libc does not have.
const AT_RECURSIVE: u32 = 0x8000;
// <linux/mount.h>, which libc does not have.
const FSPICK_CLOEXEC: u32 = 1;
const FSPICK_EMPTY_PATH: u32 = 8;

/// Opens the mount at `path`, relative to `dir` (open_tree(2)); close-on-exec.
pub(crate) fn open_tree(dir: BorrowedFd<'_>, path: &CStr, flags: u32) -> Result<OwnedFd> {
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    call_fd(unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags | libc::O_CLOEXEC as u32,
        )
    })
}

/// Returns a detached copy of the mount at `fd`; if `recursive`, with all mounts below it.
pub(crate) fn clone_mount(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    open_tree(
        fd,
        c"",
        libc::OPEN_TREE_CLONE | recursive | libc::AT_EMPTY_PATH as u32,
    )
}

/// Attaches or moves the mount `from` onto the object that `to` refers to (move_mount(2)).
pub(crate) fn move_mount(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    move_mount_at(from, to, c"")
}

/// Attaches or moves the mount `from` onto `name` in the directory `to` (move_mount(2)).
pub(crate) fn move_mount_at(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH
        | if name.is_empty() {
            libc::MOVE_MOUNT_T_EMPTY_PATH
        } else {
            0
        };
    // SAFETY: both paths are NUL-terminated and outlive the call, as the descriptors do.
    call(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from.as_raw_fd(),
            c"".as_ptr(),
            to.as_raw_fd(),
            name.as_ptr(),
            flags,
        )
    })
    .map(drop)
}

/// Changes attributes of the mount `fd`, and of all mounts below it if `recursive`
/// (mount_setattr(2)). `set` and `clear` are `MOUNT_ATTR_*`; `propagation` is one of `MS_SHARED`,
/// `MS_SLAVE`, `MS_PRIVATE` and `MS_UNBINDABLE`, or 0 for no change.
pub(crate) fn mount_setattr(
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
pub(crate) fn set_propagation(path: &CStr, recursive: bool, propagation: u64) -> Result<()> {
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
pub(crate) fn map_ids(fd: BorrowedFd<'_>, recursive: bool, users: BorrowedFd<'_>) -> Result<()> {
    let users = users.as_raw_fd() as u64;
    mount_setattr_at(fd, c"", recursive, [libc::MOUNT_ATTR_IDMAP, 0, 0, users])
}

/// Returns the id (as in mountinfo) of the mount whose root `fd` is; `None` if `fd` is not the
/// root of a mount.
pub(crate) fn id_of_mount_at(fd: BorrowedFd<'_>) -> Result<Option<u64>> {
    let stat = statx(fd)?;
    let is_root = stat.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0;
    Ok(is_root.then_some(stat.stx_mnt_id))
}

/// Returns the id (as in mountinfo) of the mount that `fd` is in.
pub(crate) fn id_of_mount(fd: BorrowedFd<'_>) -> Result<u64> {
    Ok(statx(fd)?.stx_mnt_id)
}

fn statx(fd: BorrowedFd<'_>) -> Result<libc::statx> {
    // SAFETY: statx is a plain structure of integers.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is NUL-terminated, and `stat` outlives the call.
    call(unsafe {
        libc::statx(
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_MNT_ID,
            &raw mut stat,
        )
        .into()
    })?;
    Ok(stat)
}

/// Begins a new mount of the file system type `file_system` (fsopen(2)).
pub(crate) fn fsopen(file_system: &CStr) -> Result<OwnedFd> {
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    call_fd(unsafe { libc::syscall(libc::SYS_fsopen, file_system.as_ptr(), libc::FSOPEN_CLOEXEC) })
}

/// Opens the file system that is mounted at `mount`, to change its options (fspick(2)).
pub(crate) fn fspick(mount: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = FSPICK_EMPTY_PATH | FSPICK_CLOEXEC;
    // SAFETY: the path is NUL-terminated and outlives the call, as the descriptor does.
    call_fd(unsafe { libc::syscall(libc::SYS_fspick, mount.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Applies the options that were set since [`fspick`] (fsconfig(2) `FSCONFIG_CMD_RECONFIGURE`).
pub(crate) fn reconfigure(fs: BorrowedFd<'_>) -> Result<()> {
    let null = std::ptr::null::<u8>();
    // SAFETY: CMD_RECONFIGURE takes no key and no value.
    call(unsafe {
        let command = libc::FSCONFIG_CMD_RECONFIGURE;
        libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, null, null, 0)
    })
    .map(drop)
}

/// Sets the option `key`: to `value`, or as a flag if there is no value (fsconfig(2)).
pub(crate) fn fsconfig(fs: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> Result<()> {
    let (command, value) = match value {
        Some(value) => (libc::FSCONFIG_SET_STRING, value.as_ptr()),
        None => (libc::FSCONFIG_SET_FLAG, std::ptr::null()),
    };
    // SAFETY: the strings are NUL-terminated and outlive the call; SET_FLAG wants a null value.
    call(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            command,
            key.as_ptr(),
            value,
            0,
        )
    })
    .map(drop)
}

/// Sets the option `key` to the descriptor `value` (fsconfig(2) `FSCONFIG_SET_FD`).
pub(crate) fn fsconfig_fd(fs: BorrowedFd<'_>, key: &CStr, value: BorrowedFd<'_>) -> Result<()> {
    let null = std::ptr::null::<u8>();
    // SAFETY: the key is NUL-terminated and outlives the call, as both descriptors do; SET_FD takes
    // a null value, and the descriptor as the last argument.
    call(unsafe {
        let (fs, value) = (fs.as_raw_fd(), value.as_raw_fd());
        libc::syscall(
            libc::SYS_fsconfig,
            fs,
            libc::FSCONFIG_SET_FD,
            key.as_ptr(),
            null,
            value,
        )
    })
    .map(drop)
}

/// Creates the file system (fsconfig(2) `FSCONFIG_CMD_CREATE`) and returns a detached mount of it
/// with the attributes `MOUNT_ATTR_*` (fsmount(2)).
pub(crate) fn fsmount(fs: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    let null = std::ptr::null::<u8>();
    // SAFETY: CMD_CREATE takes no key and no value.
    call(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            libc::FSCONFIG_CMD_CREATE,
            null,
            null,
            0,
        )
    })?;
    // SAFETY: integers only.
    call_fd(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            fs.as_raw_fd(),
            libc::FSMOUNT_CLOEXEC,
            attributes as u32,
        )
    })
}
