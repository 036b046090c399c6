//! The command, run in a process that has what every command relies on.

use std::ffi::c_int;

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::{cli, sealed_exe, sys};

/// Runs the command; returns its exit status. Before that SIGPIPE is ignored, and `/dev/null` is
/// opened for each standard stream that the engine closed, so that no descriptor of `rt` gets its
/// number and becomes the output of a container.
pub(super) fn run() -> c_int {
    if let Err((what, errno)) = prepare() {
        eprintln!("rt: {what}: {}", errno.desc());
        return 1;
    }
    cli::main(sealed_exe::runs_again())
}

/// Sets up what every command relies on: standard streams and signal dispositions.
///
/// # Errors
/// What could not be set up, and the cause.
fn prepare() -> std::result::Result<(), (&'static str, Errno)> {
    open_standard_streams().map_err(|errno| ("/dev/null", errno))?;
    // A hook need not read the state on its standard input. With the default action of SIGPIPE, a
    // command would end silently whenever such a hook ended before the state was written.
    sys::set_signal_disposition(Signal::SIGPIPE, true).map_err(|errno| ("SIGPIPE", errno))?;
    // If the engine ignored SIGCHLD, the kernel would reap the children before `rt` can wait for
    // them.
    sys::set_signal_disposition(Signal::SIGCHLD, false).map_err(|errno| ("SIGCHLD", errno))
}

fn open_standard_streams() -> Result<()> {
    let mut streams = sys::standard_streams().map(|stream| PollFd::new(stream, PollFlags::empty()));
    poll(&mut streams, PollTimeout::ZERO)?;
    let is_closed = |stream: &&PollFd<'_>| stream.revents() == Some(PollFlags::POLLNVAL);
    for _ in streams.iter().filter(is_closed) {
        // open(2) returns the lowest free number, which is that of a closed stream.
        let null = nix::fcntl::open(c"/dev/null", OFlag::O_RDWR, Mode::empty())?;
        std::mem::forget(null);
    }
    Ok(())
}
