//! System call filters, the notifications of their agents, and the calls that `init/seccomp.rs`
//! waits with.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;

use libc::sock_filter;
use nix::Result;
use nix::errno::Errno;
use rustix::thread::futex;

use super::call::{call, call_fd};

/// Loads a filter for this thread (seccomp(2) `SECCOMP_SET_MODE_FILTER`) with `flags`
/// (`SECCOMP_FILTER_FLAG_*`). Returns the seccomp notify fd if the flags ask for one. The kernel
/// checks the program; without no_new_privs it requires CAP_SYS_ADMIN in the user namespace.
pub fn set_filter(program: &[sock_filter], flags: u64) -> Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    let listens = flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0;
    // SAFETY: the kernel reads `len` instructions at `filter`, which stay borrowed until the call
    // returns, and writes nothing. With that flag the call returns a new descriptor.
    unsafe {
        let (operation, program) = (libc::SECCOMP_SET_MODE_FILTER, &raw const program);
        let result = libc::syscall(libc::SYS_seccomp, operation, flags, program);
        match listens {
            true => call_fd(result).map(Some),
            false => call(result).map(|_| None),
        }
    }
}

/// Whether this kernel knows the flags. Loads no filter: seccomp(2) checks the flags first
/// (`EINVAL`), and fails with `EFAULT` afterwards.
pub fn knows_filter_flags(flags: u64) -> bool {
    let null = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: the kernel cannot read a program at address 0, so that the call fails.
    let result = call(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            null,
        )
    });
    result != Err(Errno::EINVAL)
}

/// Waits for a notified system call and returns its id (seccomp_unotify(2)
/// `SECCOMP_IOCTL_NOTIF_RECV`). Skips a call that has been interrupted before it could be received.
pub fn receive_notification(listener: BorrowedFd<'_>) -> Result<u64> {
    loop {
        // The kernel requires zeros.
        let mut request = libc::seccomp_notif {
            id: 0,
            pid: 0,
            flags: 0,
            data: libc::seccomp_data {
                nr: 0,
                arch: 0,
                instruction_pointer: 0,
                args: [0; 6],
            },
        };
        // SAFETY: the number of the operation contains the size of the structure, which the kernel
        // fills and which outlives the call.
        let result = call(unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_RECV as _,
                &raw mut request,
            )
            .into()
        });
        match result {
            Err(Errno::EINTR | Errno::ENOENT) => {}
            result => return result.map(|_| request.id),
        }
    }
}

/// Answers the notified call `id` with `EINTR`, so that the kernel does not carry it out
/// (`SECCOMP_IOCTL_NOTIF_SEND`).
///
/// # Errors
/// `ENOENT` if the call has been interrupted.
pub fn refuse_notification(listener: BorrowedFd<'_>, id: u64) -> Result<()> {
    let mut response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: -libc::EINTR,
        flags: 0,
    };
    // SAFETY: the number of the operation contains the size of the structure, which outlives the
    // call; the kernel only reads it.
    call(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND as _,
            &raw mut response,
        )
        .into()
    })
    .map(drop)
}

/// Returns the number and the arguments of a futex(2) call that waits while `word` is 0.
pub fn futex_wait_call(word: &'static AtomicU32) -> (u32, [u64; 6]) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    (
        libc::SYS_futex as u32,
        [word.as_ptr().addr() as u64, operation as u64, 0, 0, 0, 0],
    )
}

/// Wakes one thread that waits with the call of [`futex_wait_call`] for `word`.
pub fn futex_wake(word: &'static AtomicU32) {
    let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
}

/// Makes a call that only waits: the call of [`futex_wait_call`], or a call that the filter of this
/// thread notifies and that the receiver of the notification refuses.
pub fn call_and_ignore(number: u32, [a, b, c, d, e, f]: [u64; 6]) {
    // SAFETY: the call is not carried out, or waits for a static. A call that an agent lets through
    // after a signal has arguments that are no addresses of this process
    // (`security/seccomp/wait.rs`).
    unsafe { libc::syscall(number.into(), a, b, c, d, e, f) };
}
