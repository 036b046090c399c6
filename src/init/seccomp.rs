//! The filter, the last thing before the program: what a profile forbids it forbids the program
//! only.

use std::hint::spin_loop;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};

use crate::seccomp::Filter;
use crate::{sync, sys};

/// What the second thread needs for its stack, in bytes.
const STACK: usize = 256 << 10;

/// From the thread that is under the filter to the one that is not, and back.
static STARTER: OnceLock<sync::Init> = OnceLock::new();
static LISTENER: OnceLock<OwnedFd> = OnceLock::new();
static IS_PASSED_ON: AtomicBool = AtomicBool::new(false);

/// Makes the messenger of a filter that has a listener, before the limits are set: none of them has
/// room for it.
pub(super) fn prepare(filter: &Filter) -> Result<()> {
    if filter.has_listener() {
        let thread = thread::Builder::new().stack_size(STACK).spawn(|| messenger());
        // Neither waited for nor taken apart: either takes system calls.
        std::mem::forget(thread.context("a thread for linux.seccomp.listenerPath")?);
    }
    Ok(())
}

/// Whoever gets the listener to its agent: not the thread that loads the filter, whose every call
/// may be forbidden by then, or wait for the very agent that has not got the listener yet. The
/// filter holds for that thread alone.
fn messenger() -> ! {
    let starter = STARTER.wait();
    // By now the other thread can make no call that would wake this one.
    let listener = loop {
        match LISTENER.get() {
            Some(listener) => break listener,
            None => thread::yield_now(),
        }
    };
    if starter.listener(listener.as_fd()).is_err() {
        // Nobody is left who would answer for this process.
        sys::exit_now(1);
    }
    starter.executing();
    IS_PASSED_ON.store(true, Ordering::Release);
    // The program ends it. To end by itself would take calls while execve(2) runs.
    loop {
        thread::park();
    }
}

/// Loads a filter that was [prepared](prepare) for. From here to execve(2) there is no system call.
pub(super) fn load(filter: &Filter, starter: &sync::Init) -> Result<()> {
    let context = "linux.seccomp";
    if !filter.has_listener() {
        starter.executing();
        return sys::set_filter(&filter.program, filter.terms.flags).map(drop).context(context);
    }
    let _ = STARTER.set(starter.try_clone()?);
    let listener = sys::set_filter(&filter.program, filter.terms.flags).context(context)?;
    if let Some(listener) = listener {
        let _ = LISTENER.set(listener);
    }
    // As long as the caller and the agent need; if they go away, the messenger ends us both.
    while !IS_PASSED_ON.load(Ordering::Acquire) {
        spin_loop();
    }
    Ok(())
}
