//! Checks the `process` object of a container or of `exec --process`.

use std::fmt::Arguments;

use anyhow::{Result, bail, ensure};
use oci_spec::runtime::{PosixRlimit, Process, User};

use crate::config::scheduling;
use crate::config::text::{path_text, text};
use crate::security::lsm;

/// The kernel's `NGROUPS_MAX`.
const GROUPS: usize = 65536;

/// Refuses a process that could not be started as configured.
///
/// # Errors
/// `process.…: what is wrong`.
pub fn check_process(process: &Process) -> Result<()> {
    scheduling::check_scheduling(process)?;
    lsm::check_process(process)?;
    let cwd = process.cwd();
    path_text("process.cwd", cwd)?;
    ensure!(
        !cwd.as_os_str().is_empty(),
        "process.cwd: Cwd property must not be empty"
    );
    ensure!(
        cwd.is_absolute(),
        "process.cwd {}: Cwd must be an absolute path",
        cwd.display()
    );
    let args = process.args().as_deref().unwrap_or_default();
    ensure!(!args.is_empty(), "process.args: args must not be empty");
    ensure!(!args[0].is_empty(), "process.args[0]: empty");
    for (i, arg) in args.iter().enumerate() {
        text(format_args!("process.args[{i}]"), arg)?;
    }
    for (i, variable) in process.env().iter().flatten().enumerate() {
        environment(format_args!("process.env[{i}]"), variable)?;
    }
    user(process.user())?;
    rlimits(process.rlimits().as_deref().unwrap_or_default())?;
    if let Some(adj) = process.oom_score_adj() {
        ensure!(
            (-1000..=1000).contains(&adj),
            "process.oomScoreAdj: {adj} is not in -1000..1000"
        );
    }
    if let (Some(true), Some(size)) = (process.terminal(), process.console_size()) {
        let fits = size.height().max(size.width()) <= u64::from(u16::MAX);
        ensure!(fits, "process.consoleSize: larger than {}", u16::MAX);
    }
    // Nothing else needs a check: every combination of capabilities and noNewPrivileges is
    // possible, and commandLine and user.username are for other platforms.
    Ok(())
}

/// Checks `NAME=value`. The error does not show it, since it may be a secret.
fn environment(path: Arguments<'_>, variable: &str) -> Result<()> {
    text(path, variable)?;
    match variable.find('=') {
        None => bail!("{path}: invalid environment variable: missing '='"),
        Some(0) => bail!("{path}: without a name"),
        Some(_) => Ok(()),
    }
}

fn user(user: &User) -> Result<()> {
    // For setresuid(2) -1 means "unchanged".
    ensure!(
        user.uid() != u32::MAX,
        "process.user.uid: {} is no user",
        u32::MAX
    );
    ensure!(
        user.gid() != u32::MAX,
        "process.user.gid: {} is no group",
        u32::MAX
    );
    if let Some(mask) = user.umask() {
        ensure!(
            mask <= 0o777,
            "process.user.umask: {mask} (octal {mask:o}) is beyond octal 777"
        );
    }
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    ensure!(
        groups.len() <= GROUPS,
        "process.user.additionalGids: more than {GROUPS}"
    );
    match groups.iter().position(|gid| *gid == u32::MAX) {
        Some(i) => bail!("process.user.additionalGids[{i}]: {} is no group", u32::MAX),
        None => Ok(()),
    }
}

fn rlimits(rlimits: &[PosixRlimit]) -> Result<()> {
    for (i, rlimit) in rlimits.iter().enumerate() {
        let (typ, soft, hard) = (rlimit.typ(), rlimit.soft(), rlimit.hard());
        let twice = rlimits[..i].iter().any(|other| other.typ() == typ);
        ensure!(!twice, "process.rlimits[{i}]: {typ} is given twice");
        ensure!(
            soft <= hard,
            "process.rlimits[{i}]: {typ}: soft {soft} is above hard {hard}"
        );
    }
    Ok(())
}
