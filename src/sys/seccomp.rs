//! System call filters.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU32;

use libc::sock_filter;
use nix::Result;
use nix::errno::Errno;

use super::call::call;

/// seccomp(2) `SECCOMP_SET_MODE_FILTER` for this thread, with `SECCOMP_FILTER_FLAG_*`; the
/// listener if `flags` ask for one. The kernel checks the program. Without no_new_privs it takes
/// CAP_SYS_ADMIN in the user namespace.
pub(crate) fn set_filter(program: &[sock_filter], flags: u64) -> Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads `len` instructions at `filter`, which `program` lends until the call
    // returns, and writes nothing.
    let fd = call(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    })?;
    let listens = flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0;
    // SAFETY: with that flag, what a success returns is a new descriptor that nobody owns yet.
    Ok(listens.then(|| unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

/// Whether this kernel knows the flags. Changes nothing: seccomp(2) looks at them first, and
/// answers `EFAULT` only then.
pub(crate) fn knows_filter_flags(flags: u64) -> bool {
    let null = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: the kernel cannot read a program at address 0 and gives up.
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

/// seccomp_unotify(2) `SECCOMP_IOCTL_NOTIF_RECV`: waits for a call that is notified; its id. One that
/// has been interrupted meanwhile is passed over.
pub(crate) fn receive_notification(listener: BorrowedFd<'_>) -> Result<u64> {
    loop {
        // SAFETY: the structure is integers, for which zero is valid, and has to be zero.
        let mut request: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the number of the operation has the size of the structure, which the kernel fills
        // and which outlives the call.
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

/// `SECCOMP_IOCTL_NOTIF_SEND`: the call `id` is not carried out. `ENOENT`: it has been interrupted.
pub(crate) fn refuse_notification(listener: BorrowedFd<'_>, id: u64) -> Result<()> {
    let mut response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: -libc::EINTR,
        flags: 0,
    };
    // SAFETY: as above; the kernel only reads it.
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

/// The number and the arguments of futex(2) that waits as long as `word` is 0.
pub(crate) fn futex_wait_call(word: &'static AtomicU32) -> (u32, [u64; 6]) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    (
        libc::SYS_futex as u32,
        [word.as_ptr().addr() as u64, operation as u64, 0, 0, 0, 0],
    )
}

/// Wakes who waits by [`futex_wait_call`].
pub(crate) fn futex_wake(word: &'static AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel looks for waiters by the address and touches nothing.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 1) };
}

/// Makes a call that only waits: the one of [`futex_wait_call`], or one that a filter of this thread
/// has somebody asked about, who refuses it.
pub(crate) fn call_and_ignore(number: u32, [a, b, c, d, e, f]: [u64; 6]) {
    // SAFETY: the call is not carried out, or waits for a static. What an agent lets through after a
    // signal has arguments that are no addresses of this process (`security/seccomp/wait.rs`).
    unsafe { libc::syscall(number.into(), a, b, c, d, e, f) };
}
