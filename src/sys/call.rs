//! Turns the results of system calls into [`Result`]s: -1 and errno of the C library, and the errors
//! of rustix.

use std::ffi::c_long;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::Result;
use nix::errno::Errno;

pub(super) fn call(result: c_long) -> Result<c_long> {
    Errno::result(result)
}

/// Returns the new descriptor that a system call has returned.
///
/// # Safety
/// `result` is the result of a system call that returns, on success, a new file descriptor, which
/// nothing else in this process owns.
pub(super) unsafe fn call_fd(result: c_long) -> Result<OwnedFd> {
    let fd = call(result)?;
    // SAFETY: the descriptor is new, see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Returns the error of rustix as the error type of the whole program.
pub(super) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}
