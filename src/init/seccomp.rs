//! The filter, the last thing before the program: what a profile forbids it forbids the program
//! only.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::seccomp::Filter;
use crate::seccomp::wait::{Call, Wait};
use crate::{sync, sys};

/// What the second thread needs for its stack, in bytes.
const STACK: usize = 256 << 10;
/// Between two looks whether the filter is loaded, which takes the kernel some microseconds.
const LOOK: Duration = Duration::from_micros(100);

/// From the thread that is under the filter to the one that is not, and back.
static STARTER: OnceLock<sync::Init> = OnceLock::new();
static LISTENER: OnceLock<OwnedFd> = OnceLock::new();
static IS_PASSED_ON: AtomicU32 = AtomicU32::new(0);

/// Makes the messenger of a filter that has a listener, before the limits are set: none of them has
/// room for it.
pub(super) fn prepare(filter: &Filter) -> Result<()> {
    if filter.has_listener() {
        let wait = wait(filter)?;
        let thread = thread::Builder::new().stack_size(STACK).spawn(move || messenger(wait));
        // Neither waited for nor taken apart: either takes system calls.
        std::mem::forget(thread.context("a thread for linux.seccomp.listenerPath")?);
    }
    Ok(())
}

/// How the thread under the filter waits for the messenger.
fn wait(filter: &Filter) -> Result<Wait> {
    let (number, arguments) = sys::futex_wait_call(&IS_PASSED_ON);
    filter.wait(Call { number, arguments }).context(
        "linux.seccomp: no native call is ever notified, and futex(2) is not allowed: \
         init cannot wait for the agent",
    )
}

/// Whoever gets the listener to its agent: not the thread that loads the filter, whose every call
/// may be forbidden by then, or wait for the very agent that has not got the listener yet. The
/// filter holds for that thread alone.
fn messenger(wait: Wait) -> ! {
    let starter = STARTER.wait();
    // By now the other thread can make no call that would wake this one.
    let listener = loop {
        match LISTENER.get() {
            Some(listener) => break listener.as_fd(),
            None => sys::sleep(LOOK),
        }
    };
    // Before the agent could see it.
    let question = match wait {
        Wait::Notified(_) => sys::receive_notification(listener).ok(),
        Wait::Allowed(_) => None,
    };
    if starter.listener(listener).is_err() {
        // Nobody is left who would answer for this process.
        sys::exit_now(1);
    }
    starter.executing();
    IS_PASSED_ON.store(1, Ordering::Release);
    match wait {
        Wait::Notified(_) => answer(listener, question),
        Wait::Allowed(_) => sys::futex_wake(&IS_PASSED_ON),
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
pub(super) fn load(filter: &Filter, starter: &sync::Init) -> Result<()> {
    let context = "linux.seccomp";
    if !filter.has_listener() {
        starter.executing();
        return sys::set_filter(&filter.program, filter.terms.flags).map(drop).context(context);
    }
    let (Wait::Allowed(call) | Wait::Notified(call)) = wait(filter)?;
    let _ = STARTER.set(starter.try_clone()?);
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
