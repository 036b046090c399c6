//! Waiting for a process in the foreground: signals are passed on, children reaped, a terminal
//! relayed. All signals are blocked *before* the clone and read from a descriptor, so that none
//! can be lost between the clone and the wait.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::pty::Relay;
use crate::sys;

/// Signals that mean that `rt` itself is broken, and must end it.
const FAULTS: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGABRT,
    Signal::SIGTRAP,
    Signal::SIGSYS,
];

/// The signals of this process, from before the clone on.
#[derive(Debug)]
pub(crate) struct Foreground {
    signals: SignalFd,
}

impl Foreground {
    /// Blocks the signals. As a sub-reaper `rt` also gets the children that init leaves behind.
    pub(crate) fn prepare(subreaper: bool) -> Result<Self> {
        let mut set = SigSet::all();
        FAULTS.into_iter().for_each(|signal| set.remove(signal));
        // Not pthread_sigmask(3), whose error is its result and is taken for success by nix.
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).context("the signal mask")?;
        if subreaper {
            prctl::set_child_subreaper(true).context("PR_SET_CHILD_SUBREAPER")?;
        }
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { signals: SignalFd::with_flags(&set, flags).context("signalfd")? })
    }

    /// Waits for the end of `process`, a child of ours; its exit status, or 128 + signal.
    pub(crate) fn wait(&self, process: Pid, mut relay: Option<Relay>) -> Result<i32> {
        let status = loop {
            // Before the first wait as well: it may have ended already.
            if let Some(status) = reap(process)? {
                break status;
            }
            match &mut relay {
                Some(relay) => relay.until(self.signals.as_fd())?,
                None => self.wait_for_signal()?,
            }
            self.pass_on(process, relay.as_ref())?;
        };
        if let Some(relay) = relay {
            relay.finish()?;
        }
        Ok(status)
    }

    fn wait_for_signal(&self) -> Result<()> {
        let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno).context("poll"),
        }
    }

    fn pass_on(&self, process: Pid, relay: Option<&Relay>) -> Result<()> {
        while let Some(info) = self.signals.read_signal().context("signalfd")? {
            let signal = info.ssi_signo as i32;
            match (signal, relay) {
                (libc::SIGCHLD | libc::SIGURG, _) => {}
                (libc::SIGWINCH, Some(relay)) => relay.resize(),
                _ => sys::kill(process, signal),
            }
        }
        Ok(())
    }
}

/// Reaps whatever has ended; the status of `process` if it is among it. That it is no child of
/// ours any more (`ECHILD`) is an error: its status is lost.
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
