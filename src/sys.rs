//! The system calls that neither rustix nor nix wraps, or that need a type of their own, behind safe
//! signatures. Only here, in `entry_point` and in `sealed_exe/entry.rs` is `unsafe_code` allowed. A new file descriptor is returned
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
pub mod mount_table;
mod process;
pub mod procfd;
pub mod rootfd;
mod scheduling;
mod seccomp;
mod terminal;
mod xattr;

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use rustix::io::{fcntl_dupfd_cloexec, fcntl_getfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketFlags, accept_with,
    recvmsg,
};
pub use rustix::stdio::{stderr, stdin, stdout};

pub use bpf::*;
use call::{call, errno};
pub use directory::*;
pub use file::*;
pub use landlock::*;
pub use lsm::*;
pub use mount::*;
pub use process::*;
pub use scheduling::*;
pub use seccomp::*;
pub use terminal::*;
pub use xattr::*;

/// The argument list that execve(2) has put on the stack; null before [`remember_command_line`].
static ARGUMENTS: AtomicPtr<*mut c_char> = AtomicPtr::new(std::ptr::null_mut());
static ENVIRONMENT: AtomicPtr<*mut c_char> = AtomicPtr::new(std::ptr::null_mut());

/// Stores the argument list and the environment of execve(2), which live as long as the process.
pub fn remember_command_line(args: *mut *mut c_char, env: *mut *mut c_char) {
    ARGUMENTS.store(args, Ordering::Relaxed);
    ENVIRONMENT.store(env, Ordering::Relaxed);
}

/// Overwrites the command line and the environment with zeros: both what other processes see in
/// `/proc/PID/cmdline` and `/proc/PID/environ`, and what this process would read. Only for a child
/// that needs neither.
pub fn clear_command_line() {
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
pub fn close_all_but(mut keep: Vec<RawFd>, mut first: u32) -> Result<()> {
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
pub fn close_together(fds: Vec<OwnedFd>) {
    let mut fds: Vec<u32> = fds.into_iter().map(|fd| fd.into_raw_fd() as u32).collect();
    fds.sort_unstable();
    for run in fds.chunk_by(|one, next| one + 1 == *next) {
        let _ = close_range(run[0], run[run.len() - 1]);
    }
}

/// Whether the inherited descriptor `number` is open.
pub fn is_open(number: RawFd) -> bool {
    fcntl_getfd(inherited(number)).is_ok()
}

/// Returns the descriptor with that number, for one call that fails with EBADF if it is not open.
fn inherited(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: descriptors that the engine has passed are no objects of this process, and are not
    // closed before `rt` has looked at those that it was told of.
    unsafe { BorrowedFd::borrow_raw(number.max(0)) }
}

/// `struct ifreq` of netdevice(7) with the flags of an interface, in the kernel's size.
#[repr(C)]
#[derive(Default)]
struct InterfaceFlags {
    name: [u8; libc::IFNAMSIZ],
    flags: i16,
    unused: [u16; 11],
}

/// Brings up the interface `name` of this network namespace (netdevice(7)).
pub fn bring_interface_up(socket: BorrowedFd<'_>, name: &str) -> Result<()> {
    let mut request = InterfaceFlags {
        flags: (libc::IFF_UP | libc::IFF_RUNNING) as i16,
        ..InterfaceFlags::default()
    };
    // The last byte stays zero.
    let room = &mut request.name[..libc::IFNAMSIZ - 1];
    for (to, from) in room.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: SIOCSIFFLAGS reads the name and the flags of one ifreq.
    call(unsafe {
        let request = &raw const request;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, request).into()
    })
    .map(drop)
}

/// Accepts a connection with accept4(2); the new descriptor is close-on-exec.
pub fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    accept_with(listener, SocketFlags::CLOEXEC).map_err(errno)
}

/// Receives one message into `buffer` (recvmsg(2)). Returns its length (0 = end of file) and the
/// first descriptor that came with it; further descriptors are closed.
///
/// # Errors
/// `EMSGSIZE` if the message is longer than `buffer`.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let (length, received) = receive_many(socket, buffer)?;
    Ok((length, received.into_iter().next()))
}

/// Receives one message like [`receive`], or nothing if there is none, without waiting.
pub fn receive_at_once(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Option<OwnedFd>)> {
    match receive_with(socket, buffer, RecvFlags::DONTWAIT) {
        Err(Errno::EAGAIN) => Ok((0, None)),
        result => result.map(|(length, received)| (length, received.into_iter().next())),
    }
}

/// Receives one message like [`receive`], and returns all descriptors that came with it: at most
/// 253 (`SCM_MAX_FD` of the kernel).
pub fn receive_many(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    receive_with(socket, buffer, RecvFlags::empty())
}

fn receive_with(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: RecvFlags,
) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut vectors = [std::io::IoSliceMut::new(buffer)];
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(socket, &mut vectors, &mut control, flags).map_err(errno)?;
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    let mut received = Vec::new();
    for control in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = control {
            received.extend(fds);
        }
    }
    Ok((message.bytes, received))
}

/// Returns a copy of `fd`, close-on-exec, with the lowest free number from `first` on.
pub fn duplicate_above(fd: BorrowedFd<'_>, first: RawFd) -> Result<OwnedFd> {
    fcntl_dupfd_cloexec(fd, first).map_err(errno)
}

/// Returns a copy, close-on-exec, of the descriptor that the engine has passed as `number`.
pub fn duplicate(number: RawFd) -> Result<OwnedFd> {
    duplicate_above(inherited(number), 3)
}

/// Copies `fds` to the numbers from `first` on, in place of what is there. For a process that is
/// about to execute another program, to which they are passed; `fds` have higher numbers.
pub fn pass_from(first: RawFd, fds: &[OwnedFd]) -> Result<()> {
    let count = RawFd::try_from(fds.len()).map_err(|_| Errno::EMFILE)?;
    close_range(first as u32, (first + count - 1) as u32)?;
    for fd in fds {
        // This takes the lowest free number.
        fcntl(fd, FcntlArg::F_DUPFD(first))?;
    }
    Ok(())
}

/// Returns the standard streams. `entry_point` makes sure that they are open, and they are never
/// closed.
pub fn standard_streams() -> [BorrowedFd<'static>; 3] {
    [stdin(), stdout(), stderr()]
}
