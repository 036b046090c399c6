//! `rt`, an OCI container runtime: one stateless executable that reads a bundle and runs its
//! program in a container. `docs/architecture.md` gives an overview of the code.
//!
//! The C library calls `entry_point::main` instead of Rust's own start-up code. That reads
//! `/proc/self/maps` and installs handlers for a stack overflow, which would end the process
//! anyway: seventeen system calls, in each of the two starts of a command.
#![cfg_attr(not(test), no_main)]

mod annotations;
mod cgroup;
mod checkpoint;
mod child;
mod cli;
mod config;
mod container;
mod create;
mod criu;
mod delete;
mod engine;
mod entry_point;
mod error;
mod events;
mod exec;
mod features;
#[cfg(any(test, fuzzing))]
#[path = "../fuzz/targets.rs"]
mod fuzz;
mod id;
mod init;
mod interfaces;
mod kill;
mod launch;
mod list;
mod log;
mod namespace;
mod netlink;
mod netns;
mod pause;
mod plan;
mod process;
mod ps;
mod pty;
mod rdt;
mod restore;
mod sealed_exe;
mod security;
mod spec_template;
mod start;
mod sys;
mod update;
