//! Terminals (ioctl_tty(2)).

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;

use super::call::call_fd;

/// Opens the other end of the pseudoterminal `master` without its path (ioctl_tty(2)
/// `TIOCGPTPEER`).
pub(crate) fn terminal_peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is an integer of open(2) flags.
    call_fd(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) }.into())
}

/// Unlocks the pseudoterminal `master` (`TIOCSPTLCK`).
pub(crate) fn unlock_terminal(master: BorrowedFd<'_>) -> Result<()> {
    let unlock: c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })
        .map(drop)
}

/// Makes `terminal` the controlling terminal of this session (`TIOCSCTTY`).
pub(crate) fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the argument is the integer 0: the terminal is not taken from another session.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Returns the rows and columns of `terminal`, in characters (`TIOCGWINSZ`).
pub(crate) fn window_size(terminal: BorrowedFd<'_>) -> Result<libc::winsize> {
    // SAFETY: winsize is four integers for which zero is valid.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(size)
}

/// Sets the rows and columns of `terminal` (`TIOCSWINSZ`).
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, size: &libc::winsize) -> Result<()> {
    // SAFETY: TIOCSWINSZ reads one winsize.
    Errno::result(unsafe {
        libc::ioctl(
            terminal.as_raw_fd(),
            libc::TIOCSWINSZ,
            std::ptr::from_ref(size),
        )
    })
    .map(drop)
}
