//! Processes, identified by pid and start time: when a pid alone is used, it may already belong to
//! another process.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::sys;

/// A process: its pid, and its start time in clock ticks after boot (proc_pid_stat(5) field 22),
/// which differs for a later process with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub pid: i32,
    pub start_time: u64,
}

impl Process {
    /// Returns the process that has `pid` now.
    pub fn now(pid: i32) -> Result<Self> {
        match Self::look(pid)? {
            Some(start_time) => Ok(Self { pid, start_time }),
            None => bail!("process {pid} is gone"),
        }
    }

    /// Returns a pidfd if the process is still alive.
    pub fn open(self) -> Result<Option<OwnedFd>> {
        let pidfd = match sys::pidfd_open(self.pid) {
            Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
            result => result.with_context(|| format!("process {}", self.pid))?,
        };
        // The start time is read after the open, when the pidfd refers to one process for good.
        let same = Self::look(self.pid)? == Some(self.start_time);
        Ok((same && !has_ended(pidfd.as_fd())?).then_some(pidfd))
    }

    /// Whether the process is ending: its last thread has begun to exit and has closed its
    /// descriptors, but its pidfd does not report the end yet. The first process of a pid namespace
    /// stays like this until everything in the namespace has ended (pid_namespaces(7)).
    pub fn is_ending(self) -> bool {
        let number = |fields: &[String], index: usize| fields.get(index)?.parse::<u64>().ok();
        fields(self.pid).is_some_and(|fields| {
            let flags = number(&fields, FLAGS_FIELD).unwrap_or(0);
            flags & PF_EXITING != 0 && number(&fields, THREADS_FIELD) == Some(1)
        })
    }

    /// Returns when the process started, to the second; `None` if the uptime cannot be read.
    pub fn started(self) -> Option<SystemTime> {
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let up = uptime.split('.').next()?.parse().ok()?;
        let boot = SystemTime::now().checked_sub(Duration::from_secs(up))?;
        boot.checked_add(Duration::from_secs(self.start_time / TICKS))
    }

    /// Returns the start time of `pid` in clock ticks after boot; `None` if there is no such
    /// process.
    fn look(pid: i32) -> Result<Option<u64>> {
        let path = format!("/proc/{pid}/stat");
        match sys::read_file_at(AT_FDCWD, &path) {
            Ok(stat) => parse_stat(&stat)
                .map(Some)
                .ok_or_else(|| anyhow!("{path}: unreadable")),
            Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
            Err(errno) => Err(errno).context(path),
        }
    }
}

/// Clock ticks per second (`USER_HZ`), the unit in which the kernel gives times to programs.
const TICKS: u64 = 100;

/// `PF_EXITING` of <linux/sched.h>, in the flags of `/proc/PID/stat`.
const PF_EXITING: u64 = 0x4;
/// The places of the flags and of the number of threads among [`fields`]: fields 9 and 20 of
/// proc_pid_stat(5).
const FLAGS_FIELD: usize = 6;
const THREADS_FIELD: usize = 17;

/// Returns the reason why process `pid`, which has been killed, still exists, for an error line.
pub fn what_holds(pid: i32) -> String {
    let Some(fields) = fields(pid) else {
        return "it has just ended".to_owned();
    };
    match (fields.first().map(String::as_str), fields.get(1)) {
        (Some("D"), _) => "it is in an uninterruptible wait of the kernel".to_owned(),
        (Some("Z"), Some(parent)) if !is_first(pid) => {
            format!("process {parent} does not wait for it")
        }
        _ => match companion(pid) {
            Some(other) => what_keeps(other),
            None => "it is stuck in the kernel".to_owned(),
        },
    }
}

/// Returns why process `pid` is still in the pid namespace whose first process ends.
fn what_keeps(pid: i32) -> String {
    let fields = fields(pid).unwrap_or_default();
    match (fields.first().map(String::as_str), fields.get(1)) {
        (Some("Z"), Some(parent)) => {
            format!("process {parent} does not wait for process {pid} of its pid namespace")
        }
        _ => format!("process {pid} of its pid namespace is still there"),
    }
}

/// Whether SIGKILL is pending for the process: it was sent, and the process has not acted on it.
pub fn is_killed(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = |line: &str| {
        let mask = line
            .strip_prefix("SigPnd:")
            .or_else(|| line.strip_prefix("ShdPnd:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
    };
    status
        .lines()
        .filter_map(pending)
        .any(|mask| mask & (1 << (libc::SIGKILL - 1)) != 0)
}

/// Returns the fields of `/proc/PID/stat` after the command name.
fn fields(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let text = String::from_utf8_lossy(&stat[end + 1..]).into_owned();
    Some(text.split_ascii_whitespace().map(str::to_owned).collect())
}

/// Whether `pid` is the first process of a pid namespace below this one.
fn is_first(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let pids: Vec<&str> = line.unwrap_or_default().split_ascii_whitespace().collect();
    pids.len() > 1 && pids.last() == Some(&"1")
}

/// Returns another process of the pid namespace whose first process is `pid`, if there is one: the
/// first process ends last.
fn companion(pid: i32) -> Option<i32> {
    if !is_first(pid) {
        return None;
    }
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(pid)?;
    let entries = sys::list_directory("/proc").ok()?.into_iter();
    let mut pids = entries.filter_map(|entry| entry.name.to_str()?.parse().ok());
    pids.find(|other| *other != pid && namespace(*other).as_ref() == Some(&own))
}

/// Returns the start time from `/proc/PID/stat`. The command name (field 2) is in parentheses and
/// may contain anything, so fields are counted from its end.
fn parse_stat(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let text = std::str::from_utf8(&stat[end + 1..]).ok()?;
    text.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether the process has ended: a pidfd is readable as soon as every thread has ended, even if
/// the process has not been reaped.
pub fn has_ended(pidfd: BorrowedFd<'_>) -> nix::Result<bool> {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_cannot_fake_the_start_time() {
        let tail = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        let stat = format!("42 (a) R 1) 2 (b){tail}");
        assert_eq!(parse_stat(stat.as_bytes()), Some(4711));
        assert_eq!(parse_stat(b"42 sh S"), None);
    }

    #[test]
    fn this_process_is_itself_and_nobody_else() {
        let me = Process::now(std::process::id() as i32).unwrap();
        assert!(me.open().unwrap().is_some());
        let other = Process {
            start_time: me.start_time + 1,
            ..me
        };
        assert!(other.open().unwrap().is_none());
        let (start, now) = (me.started().unwrap(), SystemTime::now());
        assert!(
            start <= now && now < start + Duration::from_secs(3600),
            "{start:?} {now:?}"
        );
    }
}
