//! Where the program begins, in place of the standard library's start-up.
#![allow(unsafe_code)]

#[cfg(all(target_env = "gnu", not(any(test, fuzzing))))]
mod stack;

use std::ffi::{c_char, c_int};

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::{cli, sealed_exe, sys};

/// What the C library calls. Does what Rust's start-up would have done and is needed, besides
/// [`begin`]: there is enough stack.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
#[cfg_attr(
    any(test, fuzzing),
    allow(dead_code, reason = "the harness has its own")
)]
extern "C" fn main(_count: c_int, args: *mut *mut c_char, env: *mut *mut c_char) -> c_int {
    sys::remember_command_line(args, env);
    #[cfg(all(target_env = "gnu", not(any(test, fuzzing))))]
    return stack::run();
    #[cfg(not(all(target_env = "gnu", not(any(test, fuzzing)))))]
    begin()
}

/// Runs the command; its exit status. SIGPIPE is ignored, and standard streams that the caller closed
/// become `/dev/null`, so that no descriptor of ours takes their number and ends up as the output of
/// a container.
fn begin() -> c_int {
    if let Err((what, errno)) = prepare() {
        eprintln!("rt: {what}: {}", errno.desc());
        return 1;
    }
    cli::main(sealed_exe::runs_again())
}

/// Gives the process what every command counts on; the error is what it is about, and why.
fn prepare() -> std::result::Result<(), (&'static str, Errno)> {
    open_standard_streams().map_err(|errno| ("/dev/null", errno))?;
    // A hook need not read its state. If the signal had its default, whether a command goes on or
    // ends without a word would depend on whether the hook has ended before the state is written.
    sys::set_signal_disposition(Signal::SIGPIPE, true).map_err(|errno| ("SIGPIPE", errno))?;
    // A caller that ignores it would have the kernel reap our children behind our back.
    sys::set_signal_disposition(Signal::SIGCHLD, false).map_err(|errno| ("SIGCHLD", errno))
}

fn open_standard_streams() -> Result<()> {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    });
    // SAFETY: the pointer and the count are those of `streams`.
    Errno::result(unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) })?;
    for _ in streams
        .iter()
        .filter(|stream| stream.revents & libc::POLLNVAL != 0)
    {
        // The lowest number that is free is one of the closed ones.
        let null = nix::fcntl::open(c"/dev/null", OFlag::O_RDWR, Mode::empty())?;
        std::mem::forget(null);
    }
    Ok(())
}
