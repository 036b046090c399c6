//! The system calls that nix does not wrap, behind safe signatures. Outside of `sys` only
//! `entry_point` and `sealed_exe/entry.rs` have `unsafe` blocks. A new file descriptor is returned
//! as an [`OwnedFd`] or as an error, never as -1. This file holds the calls about descriptors; the
//! other calls are in one file for each kind of object (processes, mounts, terminals and so on).
#![allow(unsafe_code)]

mod bpf;
mod call;
mod directory;
mod file;
mod landlock;
mod lsm;
mod mount;
pub(crate) mod mount_table;
mod process;
pub(crate) mod procfd;
pub(crate) mod rootfd;
mod scheduling;
mod seccomp;
mod terminal;
mod xattr;

use std::ffi::{CStr, c_char, c_long};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::Result;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

pub(crate) use bpf::*;
use call::{call, call_fd};
pub(crate) use directory::*;
pub(crate) use file::*;
pub(crate) use landlock::*;
pub(crate) use lsm::*;
pub(crate) use mount::*;
pub(crate) use process::*;
pub(crate) use scheduling::*;
pub(crate) use seccomp::*;
pub(crate) use terminal::*;
pub(crate) use xattr::*;

/// The argument list that execve(2) has put on the stack; null before [`remember_command_line`].
static ARGUMENTS: AtomicPtr<*mut c_char> = AtomicPtr::new(std::ptr::null_mut());
static ENVIRONMENT: AtomicPtr<*mut c_char> = AtomicPtr::new(std::ptr::null_mut());

/// Stores the argument list and the environment of execve(2), which live as long as the process.
pub(crate) fn remember_command_line(args: *mut *mut c_char, env: *mut *mut c_char) {
    ARGUMENTS.store(args, Ordering::Relaxed);
    ENVIRONMENT.store(env, Ordering::Relaxed);
}

/// Overwrites the command line and the environment with zeros: both what other processes see in
/// `/proc/PID/cmdline` and `/proc/PID/environ`, and what this process would read. Only for a child
/// that needs neither.
pub(crate) fn clear_command_line() {
    for list in [&ARGUMENTS, &ENVIRONMENT] {
        let mut at = list.load(Ordering::Relaxed);
        // SAFETY: both lists come from execve(2): each ends with a null pointer and each string
        // with a NUL, all of them are in this process's own stack for as long as it runs, and
        // nothing borrows them, because the standard library returns copies.
        unsafe {
            while !at.is_null() && !(*at).is_null() {
                std::ptr::write_bytes(*at, 0, libc::strlen(*at));
                at = at.add(1);
            }
        }
    }
}

/// Closes the descriptors `first..=last` (close_range(2)).
fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: close_all_but is called by child processes, which close what their copies of the
    // parent's objects own and never run the destructors of these, and once at the start of a
    // command, when only the log and what the engine left open exist. close_together owns the
    // descriptors that it closes.
    call(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Closes every descriptor from `first` on, except those in `keep`.
pub(crate) fn close_all_but(mut keep: Vec<RawFd>, mut first: u32) -> Result<()> {
    keep.sort_unstable();
    for fd in keep.into_iter().filter_map(|fd| u32::try_from(fd).ok()) {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

/// Closes `fds`, with one close_range(2) for each run of consecutive numbers.
pub(crate) fn close_together(fds: Vec<OwnedFd>) {
    let mut fds: Vec<u32> = fds.into_iter().map(|fd| fd.into_raw_fd() as u32).collect();
    fds.sort_unstable();
    for run in fds.chunk_by(|one, next| one + 1 == *next) {
        let _ = close_range(run[0], run[run.len() - 1]);
    }
}

/// Whether the inherited descriptor `fd` is open.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads the descriptor's flags and fails with EBADF if `fd` is not open.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Brings up the interface `name` of this network namespace (netdevice(7)).
pub(crate) fn bring_interface_up(socket: BorrowedFd<'_>, name: &str) -> Result<()> {
    // SAFETY: ifreq is integers and a union of such, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .zip(name.bytes().take(libc::IFNAMSIZ - 1))
    {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads the name and the flags of one ifreq.
    Errno::result(unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    })
    .map(drop)
}

/// Whether the file at `path` is protected by fs-verity, so that its content cannot be changed.
pub(crate) fn has_verity(path: &CStr) -> bool {
    // SAFETY: statx is a plain structure of integers; the call fills it.
    let mut data: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is NUL-terminated; `data` outlives the call.
    let result = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), 0, 0, &raw mut data) };
    result == 0 && data.stx_attributes & libc::STATX_ATTR_VERITY as u64 != 0
}

/// Accepts a connection with accept4(2); the new descriptor is close-on-exec.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    let null = std::ptr::null_mut();
    // SAFETY: null address and length ask for no peer address.
    call_fd(c_long::from(unsafe {
        libc::accept4(listener.as_raw_fd(), null, null.cast(), libc::SOCK_CLOEXEC)
    }))
}

/// Receives one message into `buffer` (recvmsg(2)). Returns its length (0 = end of file) and the
/// first descriptor that came with it; further descriptors are closed.
///
/// # Errors
/// `EMSGSIZE` if the message is longer than `buffer`.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Option<OwnedFd>)> {
    let (length, received) = receive_many(socket, buffer)?;
    Ok((length, received.into_iter().next()))
}

/// Receives one message like [`receive`], and returns all descriptors that came with it: at most
/// 253 (`SCM_MAX_FD` of the kernel).
pub(crate) fn receive_many(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 253]);
    let mut vectors = [std::io::IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut vectors,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: SCM_RIGHTS put these new descriptors into this process, each once.
            received.extend(
                fds.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    Ok((message.bytes, received))
}

/// Returns a copy of `fd`, close-on-exec, with the lowest free number from `first` on.
pub(crate) fn duplicate_above(fd: BorrowedFd<'_>, first: RawFd) -> Result<OwnedFd> {
    // SAFETY: fcntl takes any two integers for this command.
    call_fd(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first).into() })
}

/// Returns a copy, close-on-exec, of the descriptor that the engine has passed as `number`.
pub(crate) fn duplicate(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: fcntl takes any two integers for this command.
    call_fd(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3).into() })
}

/// Copies the descriptor `fd` to `number` (dup2(2)). No object of this process may own `number`:
/// only for a process that is about to execute another program.
pub(crate) fn duplicate_to(fd: RawFd, number: RawFd) -> Result<()> {
    // SAFETY: dup2 takes any two integers.
    call(unsafe { libc::dup2(fd, number).into() }).map(drop)
}

/// Takes ownership of the descriptor `fd`, which another process opened in the descriptor table
/// that this process shares with it.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller has got the number from the process that opened the descriptor for it,
    // and that process has ended, so nothing else owns the descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Returns the standard stream `fd` (0, 1 or 2).
pub(crate) fn stdio(fd: RawFd) -> BorrowedFd<'static> {
    debug_assert!((0..3).contains(&fd));
    // SAFETY: `entry_point` makes sure that 0, 1 and 2 are open, and they are never closed.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
