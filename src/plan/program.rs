//! The user's program, and what it is allowed.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::path::PathBuf;

use anyhow::{Context, Result};
use oci_spec::runtime::{PosixRlimit, PosixRlimitType, Process};

use super::scheduling::Scheduling;
use super::strings::c_strings;
use crate::config::capabilities::{self, Capabilities};
use crate::security::landlock::LandlockRules;
use crate::security::lsm::SecurityLabels;
use crate::security::seccomp::SeccompFilter;
use crate::sys;

/// Where a program is looked up when the process has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The user's program and what it is allowed.
#[derive(Debug)]
pub struct ProgramPlan {
    /// Never empty.
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    /// The directories in which the program is looked up.
    pub path: String,
    /// Whether HOME is absent or empty, and therefore taken from the container's passwd.
    pub wants_home: bool,
    pub cwd: PathBuf,
    pub terminal: bool,
    /// Rows and columns of the terminal, in characters.
    pub console_size: Option<(u16, u16)>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Whether the program keeps the groups of the parent in place of `groups`.
    pub keeps_groups: bool,
    /// `None`: that of the parent with `exec`, 022 in a new container.
    pub umask: Option<u32>,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    /// The labels that security modules put on the program.
    pub labels: SecurityLabels,
    pub oom_score_adj: Option<i32>,
    /// The execution domain, as personality(2) takes it.
    pub personality: Option<u32>,
    pub scheduling: Scheduling,
    pub rlimits: Vec<ResourceLimit>,
    /// Whether sockets of a service manager are passed on: `LISTEN_PID` is then the process's own
    /// pid.
    pub has_sockets: bool,
    pub landlock: Option<LandlockRules>,
    pub filter: Option<SeccompFilter>,
}

/// One entry of `process.rlimits`.
#[derive(Debug)]
pub struct ResourceLimit {
    /// `process.rlimits[0] RLIMIT_NOFILE`, for errors.
    pub origin: String,
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

impl ProgramPlan {
    pub(super) fn from_spec(
        process: &Process,
        has_user: bool,
        personality: Option<u32>,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let env = last_wins(process.env().as_deref().unwrap_or_default());
        let value = |name: &str| {
            env.iter()
                .find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
        };
        let user = process.user();
        let (held, last) = grantable(has_user)?;
        let size = process.console_size();
        let clip = |cells: u64| u16::try_from(cells).unwrap_or(u16::MAX);
        let wants_home = value("HOME").is_none_or(str::is_empty);
        Ok(Self {
            args: c_strings(process.args().iter().flatten(), "process.args")?,
            path: value("PATH").unwrap_or(DEFAULT_PATH).to_string(),
            wants_home,
            env: c_strings(
                env.iter()
                    .copied()
                    .filter(|entry| !wants_home || !entry.starts_with("HOME=")),
                "process.env",
            )?,
            cwd: process.cwd().clone(),
            terminal: process.terminal().unwrap_or(false),
            console_size: size
                .as_ref()
                .map(|size| (clip(size.height()), clip(size.width()))),
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            keeps_groups: false,
            umask: user.umask(),
            capabilities: capabilities::from_spec(
                process.capabilities().as_ref(),
                held,
                last,
                warnings,
            ),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            labels: SecurityLabels::from_process(process)?,
            oom_score_adj: process.oom_score_adj(),
            personality,
            scheduling: Scheduling::from_spec(process),
            rlimits: process
                .rlimits()
                .iter()
                .flatten()
                .enumerate()
                .map(rlimit)
                .collect(),
            has_sockets: false,
            landlock: None,
            filter: None,
        })
    }
}

impl ProgramPlan {
    /// Sets a variable of the environment, in place of any setting in the configuration.
    pub fn set_variable(&mut self, name: &str, value: &[u8]) -> Result<()> {
        set_variable(&mut self.env, name, value).with_context(|| name.to_string())
    }
}

/// Appends `name=value`, and removes every other setting of that variable.
pub fn set_variable(env: &mut Vec<CString>, name: &str, value: &[u8]) -> Result<()> {
    let start = [name.as_bytes(), b"="].concat();
    env.retain(|entry| !entry.as_bytes().starts_with(&start));
    env.push(CString::new([start.as_slice(), value].concat())?);
    Ok(())
}

/// Returns the capabilities that can be given to the program, and the number of the last one. These
/// are the ones that this process holds, but in another user namespace all that the kernel knows.
fn grantable(has_user: bool) -> Result<(u64, u8)> {
    if !has_user {
        let held = sys::permitted_capabilities().context("capget")?;
        return Ok((held, u8::try_from(held.checked_ilog2().unwrap_or(0))?));
    }
    let path = "/proc/sys/kernel/cap_last_cap";
    let last = std::fs::read_to_string(path).context(path)?;
    Ok((u64::MAX, last.trim().parse().context(path)?))
}

/// Returns the last setting of each variable, in the order of these last settings.
fn last_wins(env: &[String]) -> Vec<&str> {
    let name = |entry: &str| {
        entry
            .split_once('=')
            .map_or(entry.len(), |(name, _)| name.len())
    };
    let mut seen = BTreeSet::new();
    let mut kept: Vec<&str> = env
        .iter()
        .rev()
        .map(String::as_str)
        .filter(|e| seen.insert(&e[..name(e)]))
        .collect();
    kept.reverse();
    kept
}

fn rlimit((i, limit): (usize, &PosixRlimit)) -> ResourceLimit {
    let resource = match limit.typ() {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    };
    ResourceLimit {
        origin: format!("process.rlimits[{i}] {}", limit.typ()),
        resource,
        soft: limit.soft(),
        hard: limit.hard(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_duplicate_variables_the_last_wins() {
        let env = ["A=1", "B=2", "A=3", "C"].map(String::from);
        assert_eq!(last_wins(&env), ["B=2", "A=3", "C"]);
    }
}
