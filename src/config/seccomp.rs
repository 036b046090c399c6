//! Checks `linux.seccomp`. Unknown actions, operators, architectures and flags do not get here: the
//! parser refuses them.

use std::fmt::Arguments;

use anyhow::{Result, ensure};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};

use crate::annotations;
use crate::config::text::{absolute, text};
use crate::security::seccomp::{is_call, notifies};

/// The number of arguments of a system call.
const ARGUMENTS: usize = 6;
/// The largest errno that the kernel lets a filter return (`MAX_ERRNO`).
const ERRNO_MAX: u32 = 4095;
/// The largest number in a message to a tracer (`SECCOMP_RET_DATA`).
const TRACE_MAX: u32 = 0xffff;

pub(super) fn check_seccomp(seccomp: &LinuxSeccomp) -> Result<()> {
    let path = format_args!("linux.seccomp.defaultErrnoRet");
    errno(path, seccomp.default_action(), seccomp.default_errno_ret())?;
    for (i, entry) in seccomp.syscalls().iter().flatten().enumerate() {
        check_entry(format_args!("linux.seccomp.syscalls[{i}]"), entry)?;
    }
    let metadata = seccomp.listener_metadata();
    let agent = seccomp.listener_path().as_ref();
    match agent.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => {
            absolute("linux.seccomp.listenerPath", path)?;
            text(
                "linux.seccomp.listenerMetadata",
                metadata.as_deref().unwrap_or_default(),
            )
        }
        None => {
            let path = "linux.seccomp.listenerPath";
            ensure!(!notifies(seccomp), "{path}: required for SCMP_ACT_NOTIFY");
            let empty = metadata.as_ref().is_none_or(String::is_empty);
            ensure!(empty, "linux.seccomp.listenerMetadata: needs listenerPath");
            Ok(())
        }
    }
}

/// Refuses names of unknown system calls, which only get a warning otherwise.
pub(super) fn check_names(seccomp: &LinuxSeccomp) -> Result<()> {
    for (i, entry) in seccomp.syscalls().iter().flatten().enumerate() {
        for (j, name) in entry.names().iter().enumerate() {
            let path = format_args!("linux.seccomp.syscalls[{i}].names[{j}]");
            let origin = annotations::origin(annotations::UNKNOWN_CALLS);
            ensure!(is_call(name), "{path}: no system call {name:?} ({origin})");
        }
    }
    Ok(())
}

fn check_entry(path: Arguments<'_>, entry: &LinuxSyscall) -> Result<()> {
    ensure!(
        !entry.names().is_empty(),
        "{path}.names: at least one is required"
    );
    for (i, name) in entry.names().iter().enumerate() {
        ensure!(!name.is_empty(), "{path}.names[{i}]: empty");
    }
    errno(
        format_args!("{path}.errnoRet"),
        entry.action(),
        entry.errno_ret(),
    )?;
    for (i, argument) in entry.args().iter().flatten().enumerate() {
        let index = argument.index();
        let path = format_args!("{path}.args[{i}].index");
        ensure!(
            index < ARGUMENTS,
            "{path}: {index}, but calls have {ARGUMENTS} arguments"
        );
    }
    Ok(())
}

/// Refuses a number for an action that does not use one, as the specification demands, and one that
/// is too large.
fn errno(path: Arguments<'_>, action: LinuxSeccompAction, errno: Option<u32>) -> Result<()> {
    let Some(errno) = errno else { return Ok(()) };
    let most = match action {
        LinuxSeccompAction::ScmpActErrno => ERRNO_MAX,
        LinuxSeccompAction::ScmpActTrace => TRACE_MAX,
        other => anyhow::bail!("{path}: {other} returns no errno"),
    };
    ensure!(errno <= most, "{path}: {errno} is above {most}");
    Ok(())
}
