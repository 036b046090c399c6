//! A user namespace that exists has to be joined before the clone, and nobody comes back from it.
//! A middle process goes there, forks init as a child of the caller (`CLONE_PARENT`) and ends.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;
use nix::sys::wait::{Id, WaitPidFlag, waitid};

use super::{NEWTIME, Namespaces, hide, words};
use crate::sys::{self, Fork};

impl Namespaces {
    /// Like [`Self::clone`]. The middle process shares the caller's descriptor table, so that
    /// init's pidfd is the caller's as well.
    pub(super) fn clone_through_user(&self, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork> {
        let (reader, mut writer) = std::io::pipe().context("a pipe")?;
        let fork = sys::clone3(libc::CLONE_FILES as u64, cgroup)
            .with_context(|| super::clone_of(cgroup))?;
        let Fork::Parent { pidfd: middle, .. } = fork else {
            match self.become_child_of_user() {
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

    fn become_child_of_user(&self) -> Result<Fork> {
        hide()?;
        // Init is seen in a pid namespace that it joins.
        sys::clear_command_line();
        if !self.is_ordinary {
            self.join_kinds((CloneFlags::all() | NEWTIME) - CloneFlags::CLONE_NEWUSER)?;
            self.join_kinds(CloneFlags::CLONE_NEWUSER)?;
        } else {
            // What an ordinary user may join at all belongs to that user namespace.
            self.join_kinds(CloneFlags::CLONE_NEWUSER)?;
            self.join_kinds((CloneFlags::all() | NEWTIME) - CloneFlags::CLONE_NEWUSER)?;
        }
        self.become_builder()?;
        self.unshare_time()?;
        let flags = self.flags_at_clone().bits() as u64 | libc::CLONE_PARENT as u64;
        sys::clone3(flags, None)
            .with_context(|| format!("clone into new namespaces ({})", words(self.new)))
    }
}

/// What a process that shares our descriptors has written before its end: two numbers, or an error.
pub(crate) fn answer(
    process: &OwnedFd,
    mut reader: PipeReader,
    writer: PipeWriter,
) -> Result<[i32; 2]> {
    // The table is shared until it ends: only then is the pipe's other end closed in both.
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
