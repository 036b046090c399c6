//! Signals that ask a command to end while it still sets things up. They end the waits of the
//! set-up, so that nothing can hold the command for ever, neither a payload that stops the process
//! nor a hook that hangs.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that ask a command to end.
pub const ENDING: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// Becomes readable when one of [`ENDING`] has come to a command in the foreground.
static INTERRUPTION: OnceLock<SignalFd> = OnceLock::new();
/// Set when a wait has been given up because of one of [`ENDING`].
static INTERRUPTED: OnceLock<Interrupted> = OnceLock::new();

/// The error of a command that a signal has ended while it was still setting things up.
#[derive(Clone, Copy, Debug)]
pub struct Interrupted(Signal);

impl Interrupted {
    /// The exit status of the command, as a shell gives it.
    pub fn status(self) -> i32 {
        128 + self.0 as i32
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted by {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// A descriptor that becomes readable when the command is asked to end. The waits of the set-up
/// have to watch it as well.
#[derive(Clone, Copy, Debug)]
pub struct Interruption(&'static SignalFd);

impl Interruption {
    /// Returns that of this command; `None` if the signal itself ends the command. Only for `rt`
    /// itself: a child closes the descriptor, and its number may be that of another one there.
    pub fn of_command() -> Option<Self> {
        INTERRUPTION.get().map(Self)
    }

    /// Receives the signals from here on. They must be blocked.
    pub fn listen() -> Result<()> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&ending(), flags).context("signalfd")?;
        let _ = INTERRUPTION.set(signals);
        Ok(())
    }

    /// Returns the error for a wait that a signal has ended, if one has.
    pub fn check(self) -> Result<(), Interrupted> {
        let signal = self.0.read_signal().ok().flatten();
        let signal = signal.and_then(|info| Signal::try_from(info.ssi_signo as i32).ok());
        signal.map_or(Ok(()), |signal| {
            Err(*INTERRUPTED.get_or_init(|| Interrupted(signal)))
        })
    }
}

impl AsFd for Interruption {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns the signal that has ended this command while it still set things up, if one has.
pub fn interrupted() -> Option<Interrupted> {
    INTERRUPTED.get().copied()
}

pub fn ending() -> SigSet {
    ENDING.into_iter().collect()
}
