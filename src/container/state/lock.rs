//! The lock of a container, by which one command at a time has the right to change it (flock(2) of
//! its state directory).

use std::fs::{self, File, TryLockError};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::stat::fstat;

use crate::sys;

/// The exclusive right to change a container, until dropped. It is an open file description of its
/// own, so that closing it is all that is needed.
#[derive(Debug)]
pub struct StateLock(pub(super) File);

/// Waits, up to `deadline`, until no other command works on the container (flock(2)). Returns
/// `None` if the container was removed meanwhile: the directory has no name any more.
pub(super) fn lock_by(
    directory: OwnedFd,
    id: &str,
    deadline: Instant,
) -> Result<Option<StateLock>> {
    let lock = StateLock(directory.into());
    loop {
        match lock.0.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockBusy {
                    id: id.to_owned(),
                    holder: holder(&lock.0),
                }
                .into());
            }
            Err(TryLockError::Error(error)) => return Err(error).context("flock"),
        }
        sys::sleep(Duration::from_millis(5));
    }
    Ok((fstat(&lock.0)?.st_nlink != 0).then_some(lock))
}

/// Returns the pid of the process that has locked `directory` (proc_locks(5)).
fn holder(directory: &File) -> Option<i32> {
    let inode = format!(":{}", fstat(directory).ok()?.st_ino);
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let fields = |line: &str| {
        let mut fields = line
            .split_ascii_whitespace()
            .skip_while(|field| *field != "WRITE")
            .skip(1);
        let (pid, file) = (fields.next()?, fields.next()?);
        file.ends_with(&inode).then(|| pid.parse().ok()).flatten()
    };
    locks
        .lines()
        .filter(|line| line.contains("FLOCK"))
        .find_map(fields)
}

/// The error that another command holds the lock.
#[derive(Debug)]
pub struct LockBusy {
    id: String,
    holder: Option<i32>,
}

impl std::fmt::Display for LockBusy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: another command is working on this container",
            self.id
        )?;
        self.holder
            .map_or(Ok(()), |pid| write!(f, ": process {pid}"))
    }
}

impl std::error::Error for LockBusy {}
