//! Loads the seccomp filter, the last thing before the program: what a profile forbids is then
//! forbidden to the program only. With an agent, a second thread, the messenger, hands the seccomp
//! notify fd over, because the thread under the filter may be unable to.

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

/// The size of the messenger's stack, in bytes.
const STACK: usize = 256 << 10;
/// The time between two checks whether the filter is loaded, which takes the kernel some
/// microseconds.
const LOOK: Duration = Duration::from_micros(100);

/// What the thread under the filter hands to the messenger, and the messenger's answer.
static STARTER: OnceLock<(protocol::InitEnd, FilterUser)> = OnceLock::new();
static LISTENER: OnceLock<OwnedFd> = OnceLock::new();
static IS_PASSED_ON: AtomicU32 = AtomicU32::new(0);

/// The system calls that a builder, and the process that it clones, still make under the filter, up
/// to execve(2).
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
/// The system calls that find out why a program could not be executed. A filter may refuse them
/// with an error.
const CALLS_AFTER_FAILURE: [i64; 5] = [
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pread64,
];

/// Whether the filter may be loaded before the process is cloned: it neither stops a call that `rt`
/// still makes, nor notifies an agent of it.
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

/// Which program will run under the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FilterUser {
    Program,
    /// A startContainer hook; the program is still to come.
    Hook,
}

/// Makes the messenger of a filter with an agent. This comes before the limits are set, which have
/// no room for a thread of `rt`.
pub(super) fn prepare(filter: &SeccompFilter) -> Result<()> {
    if filter.has_listener() {
        let wait = wait(filter)?;
        let thread = thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || messenger(wait));
        // The handle is neither joined nor dropped: both make system calls.
        std::mem::forget(thread.context("a thread for linux.seccomp.listenerPath")?);
    }
    Ok(())
}

/// Returns the system call in which the thread under the filter waits for the messenger.
fn wait(filter: &SeccompFilter) -> Result<WaitCall> {
    let (number, arguments) = sys::futex_wait_call(&IS_PASSED_ON);
    filter.wait(WaitSyscall { number, arguments }).context(
        "linux.seccomp: no native call is ever notified, and futex(2) is not allowed: \
         init cannot wait for the agent",
    )
}

/// Hands the seccomp notify fd to the parent, which passes it to the agent. The thread that loads
/// the filter cannot do so: by then each of its calls may be forbidden, or wait for the very agent
/// that does not have the notify fd yet. The filter holds for that thread alone.
fn messenger(wait: WaitCall) -> ! {
    let (starter, who) = STARTER.wait();
    // From now on the other thread can make no call that would wake this one.
    let listener = loop {
        match LISTENER.get() {
            Some(listener) => break listener.as_fd(),
            None => sys::sleep(LOOK),
        }
    };
    // The notification is received before the agent could see it.
    let question = match wait {
        WaitCall::Notified(_) => sys::receive_notification(listener).ok(),
        WaitCall::Allowed(_) => None,
    };
    if starter.listener(listener).is_err() {
        // Nobody is left to answer the calls of this process.
        sys::exit_now(1);
    }
    who.executing(starter);
    IS_PASSED_ON.store(1, Ordering::Release);
    match wait {
        WaitCall::Notified(_) => answer(listener, question),
        WaitCall::Allowed(_) => sys::futex_wake(&IS_PASSED_ON),
    }
    // execve(2) of the program ends this thread. To end by itself it would have to make system
    // calls while execve(2) runs.
    loop {
        thread::park();
    }
}

/// Ends the call in which the other thread waits. If a signal has interrupted that call, it is made
/// and notified again, and the agent or this thread, whichever receives the notification first,
/// answers it.
fn answer(listener: BorrowedFd<'_>, mut question: Option<u64>) {
    while let Some(id) = question {
        match sys::refuse_notification(listener, id) {
            Ok(()) => return,
            Err(_) => question = sys::receive_notification(listener).ok(),
        }
    }
}

/// Loads a filter that was [prepared](prepare) for. From here to execve(2) this thread makes no
/// system call but the one in which it waits.
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
    // The wait lasts as long as the parent and the agent take. If they go away, the messenger ends
    // the process.
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
