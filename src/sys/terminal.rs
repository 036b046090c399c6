//! Terminals (ioctl_tty(2)).

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::Result;
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

use super::call::errno;

/// Opens the other end of the pseudoterminal `master` without its path (ioctl_tty(2)
/// `TIOCGPTPEER`).
pub fn terminal_peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    ioctl_tiocgptpeer(master, flags).map_err(errno)
}

/// Unlocks the pseudoterminal `master` (`TIOCSPTLCK`).
pub fn unlock_terminal(master: BorrowedFd<'_>) -> Result<()> {
    unlockpt(master).map_err(errno)
}

/// Makes `terminal` the controlling terminal of this session (`TIOCSCTTY`); does not take it from
/// another session.
pub fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> Result<()> {
    ioctl_tiocsctty(terminal).map_err(errno)
}

/// Returns the rows and columns of `terminal`, in characters (`TIOCGWINSZ`).
pub fn window_size(terminal: BorrowedFd<'_>) -> Result<Winsize> {
    tcgetwinsize(terminal).map_err(errno)
}

/// Sets the rows and columns of `terminal` (`TIOCSWINSZ`).
pub fn set_window_size(terminal: BorrowedFd<'_>, size: Winsize) -> Result<()> {
    tcsetwinsize(terminal, size).map_err(errno)
}
