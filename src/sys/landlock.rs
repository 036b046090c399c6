//! Landlock (landlock(7)).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::Result;

use super::call::call;

/// Enforces the rules on this thread and on what it executes. The kernel requires no_new_privs or
/// CAP_SYS_ADMIN. The landlock crate would consume the ruleset, which the program needs as well as
/// each startContainer hook.
pub fn landlock_restrict(ruleset: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: integers only.
    call(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
        .map(drop)
}
