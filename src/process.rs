//! Processes by pid and start time: a pid alone may name somebody else by the time it is used.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::sys;

/// A process: its pid, and its start time in clock ticks after boot
/// (proc_pid_stat(5) field 22), which a later process of the same pid does not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
}

impl Process {
    /// The process `pid` as it is now.
    pub(crate) fn now(pid: i32) -> Result<Self> {
        match Self::look(pid)? {
            Some(start_time) => Ok(Self { pid, start_time }),
            None => bail!("process {pid} is gone"),
        }
    }

    /// A pidfd if the process still lives.
    pub(crate) fn open(self) -> Result<Option<OwnedFd>> {
        let pidfd = match sys::pidfd_open(self.pid) {
            Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
            result => result.with_context(|| format!("process {}", self.pid))?,
        };
        // Looked at after the open: the pidfd cannot change its process any more.
        let same = Self::look(self.pid)? == Some(self.start_time);
        Ok((same && !has_ended(pidfd.as_fd())?).then_some(pidfd))
    }

    /// When it started, to the second; None where the kernel does not say how long it has been up.
    pub(crate) fn started(self) -> Option<SystemTime> {
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let up = uptime.split('.').next()?.parse().ok()?;
        let boot = SystemTime::now().checked_sub(Duration::from_secs(up))?;
        boot.checked_add(Duration::from_secs(self.start_time / TICKS))
    }

    /// The start time of `pid`.
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

/// USER_HZ, in which the kernel tells times to programs.
const TICKS: u64 = 100;

/// Says why process `pid`, which has been killed, is still there, for the line that names it.
pub(crate) fn what_holds(pid: i32) -> String {
    let Some(fields) = fields(pid) else {
        return "it has just ended".to_owned();
    };
    match (fields.first().map(String::as_str), fields.get(1)) {
        (Some("D"), _) => "it is in an uninterruptible wait of the kernel".to_owned(),
        (Some("Z"), Some(parent)) if !is_first(pid) => {
            format!("process {parent} does not wait for it")
        }
        _ => match companion(pid) {
            Some(other) => format!("process {other} of its pid namespace is still there"),
            None => "it is stuck in the kernel".to_owned(),
        },
    }
}

/// Whether SIGKILL has been sent to a process that has not acted on it yet.
pub(crate) fn is_killed(pid: i32) -> bool {
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

/// The fields of `/proc/PID/stat` after the command name.
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

/// Another process of the pid namespace whose first one `pid` is: that one ends last.
fn companion(pid: i32) -> Option<String> {
    if !is_first(pid) {
        return None;
    }
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let (first, own) = (pid.to_string(), namespace(&pid.to_string())?);
    let entries = sys::list_directory("/proc").ok()?.into_iter();
    let names = entries.filter_map(|entry| entry.name.into_string().ok());
    let mut pids = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    pids.find(|pid| *pid != first && namespace(pid).as_ref() == Some(&own))
}

/// The command name, field 2, is in parentheses and may hold anything, so count from its end.
fn parse_stat(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let text = std::str::from_utf8(&stat[end + 1..]).ok()?;
    text.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// A pidfd is readable once every thread of its process has ended, reaped or not.
fn has_ended(pidfd: BorrowedFd<'_>) -> nix::Result<bool> {
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
