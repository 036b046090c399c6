//! A user namespace that exists has to be joined before the clone, and a process cannot leave it
//! again. Therefore a middle process joins it, clones init as a child of the parent
//! (`CLONE_PARENT`), and ends.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};

use crate::child::HelperAnswer;
use crate::sys::{self, Fork};

/// Clones init through a middle process, which calls `clone`. `context` says what the clone of the
/// middle process was for if it fails.
pub(super) fn clone_through(
    cgroup: Option<BorrowedFd<'_>>,
    context: impl FnOnce() -> &'static str,
    clone: impl FnOnce() -> Result<Fork>,
) -> Result<Fork> {
    let answer = HelperAnswer::new()?;
    let fork = sys::clone3(0, cgroup).with_context(context)?;
    let Fork::Parent { pidfd: middle, .. } = fork else {
        match clone() {
            Ok(Fork::Child) => return Ok(Fork::Child),
            Ok(Fork::Parent { pid, pidfd }) => answer.send(Ok((pid, pidfd))),
            Err(error) => answer.send(Err(error)),
        }
    };
    let (pid, pidfd) = answer.receive(&middle)?;
    Ok(Fork::Parent { pid, pidfd })
}
