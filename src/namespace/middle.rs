//! A user namespace that exists has to be joined before the clone, and a process cannot leave it
//! again. Therefore a middle process joins it, clones init as a child of the parent
//! (`CLONE_PARENT`), and ends.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::sys::wait::{Id, WaitPidFlag, waitid};

use crate::sys::{self, Fork};

/// Clones init through a middle process, which calls `clone`. It shares the parent's descriptor
/// table, so that the pidfd of init is open in the parent as well. `context` says what the clone of
/// the middle process was for if it fails.
pub(super) fn clone_through(
    cgroup: Option<BorrowedFd<'_>>,
    context: impl FnOnce() -> &'static str,
    clone: impl FnOnce() -> Result<Fork>,
) -> Result<Fork> {
    let (reader, mut writer) = std::io::pipe().context("a pipe")?;
    let fork = sys::clone3(libc::CLONE_FILES as u64, cgroup).with_context(context)?;
    let Fork::Parent { pidfd: middle, .. } = fork else {
        match clone() {
            Ok(Fork::Child) => return Ok(Fork::Child),
            Ok(Fork::Parent { pid, pidfd }) => {
                let fd = std::mem::ManuallyDrop::new(pidfd).as_raw_fd();
                let _ = writer.write_all(&[pid.to_ne_bytes(), fd.to_ne_bytes()].concat());
            }
            Err(error) => {
                let _ = writer.write_all(crate::error::line(&error).as_bytes());
            }
        }
        sys::exit_now(0);
    };
    let [pid, pidfd] = answer(&middle, reader, writer)?;
    let pidfd = sys::own(pidfd);
    Ok(Fork::Parent { pid, pidfd })
}

/// Waits for the end of a process that shares this process's descriptor table, and returns the two
/// numbers that it has written to the pipe.
///
/// # Errors
/// The line that the process has written instead, or that it was killed before it wrote.
pub(crate) fn answer(
    process: &OwnedFd,
    mut reader: PipeReader,
    writer: PipeWriter,
) -> Result<[i32; 2]> {
    // The table is shared until the process ends: if either side closed the pipe's writing end
    // before, it would be closed in both.
    waitid(Id::PIDFd(process.as_fd()), WaitPidFlag::WEXITED).context("a helper process")?;
    drop(writer);
    let mut answer = Vec::new();
    reader
        .read_to_end(&mut answer)
        .context("a helper process")?;
    match <[u8; 8]>::try_from(answer.as_slice()) {
        Ok([a, b, c, d, e, f, g, h]) => Ok([
            i32::from_ne_bytes([a, b, c, d]),
            i32::from_ne_bytes([e, f, g, h]),
        ]),
        Err(_) if answer.is_empty() => {
            bail!("a helper process was killed (if not by you: out of memory?)")
        }
        Err(_) => bail!("{}", String::from_utf8_lossy(&answer)),
    }
}
