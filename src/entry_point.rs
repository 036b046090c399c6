//! The start of the program, in place of the standard library's start-up code.
#![allow(unsafe_code)]

mod command;
#[cfg(all(target_env = "gnu", not(any(test, fuzzing))))]
mod stack;

use std::ffi::{c_char, c_int};

use crate::sys;

/// The function that the C library calls. Does what is needed of Rust's start-up code, and makes
/// sure that there is enough stack, before it calls [`command::run`].
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
    command::run()
}
