//! System call filters.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use libc::sock_filter;
use nix::Result;
use nix::errno::Errno;

use super::call;

/// seccomp(2) `SECCOMP_SET_MODE_FILTER` for this thread, with `SECCOMP_FILTER_FLAG_*`; the
/// listener if `flags` ask for one. The kernel checks the program. Without no_new_privs it takes
/// CAP_SYS_ADMIN in the user namespace.
pub(crate) fn set_filter(program: &[sock_filter], flags: u64) -> Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions at `filter`, which `program` lends until the call
    // returns, and writes nothing.
    let fd = call(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
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
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, null)
    });
    result != Err(Errno::EINVAL)
}
