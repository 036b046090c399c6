//! Known attacks on container runtimes, each as a test that a vulnerable runtime fails.
//!
//! The names in comments are the public advisories. Where both are safe, a refused container and
//! one that is confined, either passes; the canary on the host has to live in any case.

mod devices;
mod engines;
mod groups;
mod image;
mod paths;
mod races;
mod strings;
mod tracing;
mod unseen;

use crate::harness::{Bundle, Done};

/// Runs it in the foreground: a refusal and an end are both fine, a hang is not.
#[track_caller]
fn try_run(bundle: &Bundle) -> Done {
    bundle.launch(&["run"], &bundle.id()).run()
}
