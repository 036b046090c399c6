//! Waits for a process in the foreground: passes signals on, reaps children, relays a terminal. All
//! signals are blocked *before* the program runs and read from a descriptor, so that none can be
//! lost between its start and the wait. A signal that asks `rt` to end while it still sets things
//! up ends the command, so that nothing can hold it for ever, neither a payload that stops the
//! process nor a hook that hangs.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::child::{ENDING, Interruption, ending};
use crate::container::service::NotifyRelay;
use crate::pty::Relay;
use crate::sys;

/// Blocks the signals of `set`. pthread_sigmask(3) is not used, because it returns its error as its
/// result, which nix takes for success.
fn block(set: &SigSet) -> Result<()> {
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(set), None).context("the signal mask")
}

fn signal_fd(set: &SigSet) -> Result<SignalFd> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(set, flags).context("signalfd")
}

/// The signals of this process, from before the clone on.
#[derive(Debug)]
pub struct Foreground {
    signals: SignalFd,
}

impl Foreground {
    /// Blocks every signal, SIGSEGV and the like included: a real fault ends `rt` whatever the
    /// mask, and such a signal from another process is passed on like any other. [`Interruption`]
    /// sees the signals that ask `rt` to end, so that the command can remove what it has made. As a
    /// sub-reaper `rt` also gets the children that init leaves behind.
    pub fn prepare(subreaper: bool) -> Result<Self> {
        block(&SigSet::all())?;
        if subreaper {
            prctl::set_child_subreaper(true).context("PR_SET_CHILD_SUBREAPER")?;
        }
        Interruption::listen()?;
        Ok(Self {
            signals: signal_fd(&SigSet::all())?,
        })
    }

    /// Blocks the signals for a command that has nothing to remove: until [`Self::take_over`],
    /// signals that ask it to end do so at once.
    pub fn prepare_to_end() -> Result<Self> {
        for signal in ENDING {
            // The default action also replaces an inherited "ignore": shells have jobs in the
            // background ignore SIGINT.
            sys::set_signal_disposition(signal, false).context("sigaction")?;
        }
        let mut set = SigSet::all();
        ENDING.into_iter().for_each(|signal| set.remove(signal));
        block(&set)?;
        Ok(Self {
            signals: signal_fd(&SigSet::all())?,
        })
    }

    /// Blocks the signals that ask `rt` to end, so that none is lost from now on. [`Interruption`]
    /// sees them until the program runs; afterwards they are passed on to the program.
    pub fn take_over(&self) -> Result<()> {
        block(&ending())?;
        Interruption::listen()?;
        Ok(())
    }

    /// Waits for the end of `process`, a child of this process. Returns its exit status, or 128 +
    /// signal.
    pub fn wait(
        &self,
        process: Pid,
        mut relay: Option<Relay>,
        mut notify: Option<NotifyRelay>,
    ) -> Result<i32> {
        if let Some(relay) = &mut relay {
            relay.resume(stop_to_read)?;
        }
        let status = loop {
            let mut events = vec![self.signals.as_fd()];
            events.extend(notify.as_ref().map(AsFd::as_fd));
            match &mut relay {
                Some(relay) => relay.until(&events)?,
                None => wait_for_one(&events)?,
            }
            self.pass_on(process, relay.as_mut())?;
            let status = reap(process)?;
            // This also passes on what came before the end. The manager watches this process, which
            // ends with the container.
            if notify
                .as_ref()
                .is_some_and(|notify| notify.pass_on(std::process::id()))
            {
                notify = None;
            }
            if let Some(status) = status {
                break status;
            }
        };
        if let Some(relay) = relay {
            relay.finish(self.signals.as_fd(), || self.is_told_to_end())?;
        }
        Ok(status)
    }

    fn pass_on(&self, process: Pid, mut relay: Option<&mut Relay>) -> Result<()> {
        while let Some(signal) = self.next_signal()? {
            match (signal, relay.as_deref_mut()) {
                (libc::SIGCHLD, _) => continue,
                (libc::SIGWINCH, Some(relay)) => {
                    relay.resize();
                    continue;
                }
                _ => sys::kill(process, signal),
            }
            match (signal, relay.as_deref_mut()) {
                (libc::SIGTSTP, None) => stop_by(Signal::SIGTSTP),
                (libc::SIGTSTP, Some(relay)) => {
                    relay.suspend();
                    stop_by(Signal::SIGTSTP);
                    relay.resume(stop_to_read)?;
                }
                (libc::SIGCONT, Some(relay)) => relay.resume(stop_to_read)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns the number of the next signal from another process. The signals of `rt` itself are
    /// skipped: they are for a broken pipe, which the write has reported, or have done what they
    /// were for.
    fn next_signal(&self) -> Result<Option<i32>> {
        while let Some(info) = self.signals.read_signal().context("signalfd")? {
            if info.ssi_signo as i32 == libc::SIGCHLD || info.ssi_pid != std::process::id() {
                return Ok(Some(info.ssi_signo as i32));
            }
        }
        Ok(None)
    }

    /// Whether a signal asks `rt` to end, after the end of the process, when there is nobody to
    /// pass signals on to.
    fn is_told_to_end(&self) -> Result<bool> {
        while let Some(signal) = self.next_signal()? {
            if ENDING.into_iter().any(|ending| ending as i32 == signal) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn wait_for_one(events: &[BorrowedFd<'_>]) -> Result<()> {
    let mut fds: Vec<_> = events
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno).context("poll"),
    }
}

/// Stops this process as `signal` would if it were not blocked. The process in the container has a
/// session of its own, so that the client's shell neither stops nor continues it.
fn stop_by(signal: Signal) {
    let mut set = SigSet::empty();
    set.add(signal);
    let _ = raise(signal);
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None);
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None);
}

fn stop_to_read() {
    stop_by(Signal::SIGTTIN);
}

/// Reaps every child that has ended. Returns the status of `process` if it is one of them.
///
/// # Errors
/// `process` is no child of this process any more (`ECHILD`): its status is lost.
fn reap(process: Pid) -> Result<Option<i32>> {
    loop {
        match sys::reap_child() {
            Ok(Some((pid, status))) if pid == process.as_raw() => return Ok(Some(status)),
            Ok(None) => return Ok(None),
            Ok(Some(_)) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("waitpid"),
        }
    }
}
