//! The filter, the last thing before the program: what a profile forbids it forbids the program
//! only.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::container::protocol;
use crate::security::seccomp::SeccompFilter;
use crate::security::seccomp::wait::{WaitCall, WaitSyscall};
use crate::sys;

/// What the second thread needs for its stack, in bytes.
const STACK: usize = 256 << 10;
/// Between two looks whether the filter is loaded, which takes the kernel some microseconds.
const LOOK: Duration = Duration::from_micros(100);

/// From the thread that is under the filter to the one that is not, and back.
static STARTER: OnceLock<(protocol::InitEnd, FilterUser)> = OnceLock::new();
static LISTENER: OnceLock<OwnedFd> = OnceLock::new();
static IS_PASSED_ON: AtomicU32 = AtomicU32::new(0);

/// What a builder still calls under the filter, and the process that it clones, up to execve(2).
const CALLS: [i64; 24] = [
    libc::SYS_accept4,
    libc::SYS_brk,
    libc::SYS_capset,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_execve,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_ioctl,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_pidfd_send_signal,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_recvmsg,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sendmsg,
    libc::SYS_setsid,
    libc::SYS_write,
];
/// What is called to find out why a program could not be executed. An error is good enough.
const CALLS_AFTER_FAILURE: [i64; 5] = [
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pread64,
];

/// Whether the process may come under the filter before it is cloned: no call that `rt` still makes
/// is stopped or told to an agent.
pub(super) fn may_come_early(filter: &SeccompFilter) -> bool {
    let is_allowed = |call: &i64| filter.action_of(*call, None) == Some(libc::SECCOMP_RET_ALLOW);
    let is_survived = |call: &i64| {
        filter.action_of(*call, None).is_some_and(|action| {
            let action = action & libc::SECCOMP_RET_ACTION_FULL;
            matches!(action, libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_ERRNO)
        })
    };
    let clone = filter.action_of(libc::SYS_clone, Some(sys::SIBLING_FLAGS));
    !filter.has_listener()
        && clone == Some(libc::SECCOMP_RET_ALLOW)
        && CALLS.iter().all(is_allowed)
        && CALLS_AFTER_FAILURE.iter().all(is_survived)
}

/// Whose filter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FilterUser {
    Program,
    /// A startContainer hook, after which the program is still to come.
    Hook,
}

/// Makes the messenger of a filter that has a listener, before the limits are set: none of them has
/// room for it.
pub(super) fn prepare(filter: &SeccompFilter) -> Result<()> {
    if filter.has_listener() {
        let wait = wait(filter)?;
        let thread = thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || messenger(wait));
        // Neither waited for nor taken apart: either takes system calls.
        std::mem::forget(thread.context("a thread for linux.seccomp.listenerPath")?);
    }
    Ok(())
}

/// How the thread under the filter waits for the messenger.
fn wait(filter: &SeccompFilter) -> Result<WaitCall> {
    let (number, arguments) = sys::futex_wait_call(&IS_PASSED_ON);
    filter.wait(WaitSyscall { number, arguments }).context(
        "linux.seccomp: no native call is ever notified, and futex(2) is not allowed: \
         init cannot wait for the agent",
    )
}

/// Whoever gets the listener to its agent: not the thread that loads the filter, whose every call
/// may be forbidden by then, or wait for the very agent that has not got the listener yet. The
/// filter holds for that thread alone.
fn messenger(wait: WaitCall) -> ! {
    let (starter, who) = STARTER.wait();
    // By now the other thread can make no call that would wake this one.
    let listener = loop {
        match LISTENER.get() {
            Some(listener) => break listener.as_fd(),
            None => sys::sleep(LOOK),
        }
    };
    // Before the agent could see it.
    let question = match wait {
        WaitCall::Notified(_) => sys::receive_notification(listener).ok(),
        WaitCall::Allowed(_) => None,
    };
    if starter.listener(listener).is_err() {
        // Nobody is left who would answer for this process.
        sys::exit_now(1);
    }
    who.executing(starter);
    IS_PASSED_ON.store(1, Ordering::Release);
    match wait {
        WaitCall::Notified(_) => answer(listener, question),
        WaitCall::Allowed(_) => sys::futex_wake(&IS_PASSED_ON),
    }
    // The program ends it. To end by itself would take calls while execve(2) runs.
    loop {
        thread::park();
    }
}

/// Lets the call go on in which the other thread waits. If a signal has interrupted it, it is made
/// again, and whoever hears of that first answers it.
fn answer(listener: BorrowedFd<'_>, mut question: Option<u64>) {
    while let Some(id) = question {
        match sys::refuse_notification(listener, id) {
            Ok(()) => return,
            Err(_) => question = sys::receive_notification(listener).ok(),
        }
    }
}

/// Loads a filter that was [prepared](prepare) for. From here to execve(2) there is no system call
/// but the one in which this thread waits.
pub(super) fn load(
    filter: &SeccompFilter,
    starter: &protocol::InitEnd,
    who: FilterUser,
) -> Result<()> {
    let context = "linux.seccomp";
    if !filter.has_listener() {
        who.executing(starter);
        return sys::set_filter(&filter.program, filter.terms.flags)
            .map(drop)
            .context(context);
    }
    let (WaitCall::Allowed(call) | WaitCall::Notified(call)) = wait(filter)?;
    let _ = STARTER.set((starter.try_clone()?, who));
    let listener = sys::set_filter(&filter.program, filter.terms.flags).context(context)?;
    if let Some(listener) = listener {
        let _ = LISTENER.set(listener);
    }
    // As long as the caller and the agent need; if they go away, the messenger ends us both.
    while IS_PASSED_ON.load(Ordering::Acquire) == 0 {
        sys::call_and_ignore(call.number, call.arguments);
    }
    Ok(())
}

impl FilterUser {
    fn executing(self, starter: &protocol::InitEnd) {
        if self == Self::Program {
            starter.executing();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(profile: &str) -> SeccompFilter {
        SeccompFilter::compile(&serde_json::from_str(profile).unwrap()).unwrap()
    }

    fn with(names: &str, action: &str) -> SeccompFilter {
        let call = format!(r#"{{"names": [{names}], "action": "{action}"}}"#);
        filter(&format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{call}]}}"#
        ))
    }

    #[test]
    fn a_filter_that_lets_through_what_is_still_called_may_come_early() {
        assert!(may_come_early(&filter(include_str!(
            "../security/seccomp/tests/docker.json"
        ))));
        assert!(may_come_early(&with(
            r#""clone3", "mkdir", "setns""#,
            "SCMP_ACT_KILL_PROCESS"
        )));
        // It only costs the reason why a program cannot be executed.
        assert!(may_come_early(&with(r#""openat2""#, "SCMP_ACT_ERRNO")));
    }

    #[test]
    fn a_filter_that_stops_what_is_still_called_comes_last() {
        for name in [
            "clone",
            "execve",
            "sendmsg",
            "setsid",
            "capset",
            "exit_group",
            "prctl",
        ] {
            assert!(
                !may_come_early(&with(&format!("{name:?}"), "SCMP_ACT_ERRNO")),
                "{name}"
            );
        }
        assert!(!may_come_early(&with(
            r#""openat2""#,
            "SCMP_ACT_KILL_PROCESS"
        )));
        assert!(!may_come_early(&with(r#""getpid""#, "SCMP_ACT_LOG")));
        // What depends on an argument is not known before it is there.
        let rule = r#"{"names": ["prctl"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}"#;
        let profile = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#);
        assert!(!may_come_early(&filter(&profile)));
    }
}
