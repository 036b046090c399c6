//! Turns the results of system calls (-1 and errno) into [`Result`]s.

use std::ffi::c_long;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::Result;
use nix::errno::Errno;

pub(super) fn call(result: c_long) -> Result<c_long> {
    Errno::result(result)
}

pub(super) fn call_fd(result: c_long) -> Result<OwnedFd> {
    let fd = call(result)?;
    // SAFETY: the callers pass the result of a system call that returns, on success, a new file
    // descriptor, which nothing else in this process owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
