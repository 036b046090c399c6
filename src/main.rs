//! `rt`, an OCI container runtime: one stateless executable that reads a bundle and gives the
//! process in it its own world. `docs/design.md` is the map.
//!
//! The C library calls `sys::main`: Rust's own start-up reads `/proc/self/maps` and installs
//! handlers, seventeen system calls twice over, for a stack overflow that would end us anyway.
#![cfg_attr(not(test), no_main)]

mod annotations;
mod capabilities;
mod cgroup;
mod checkpoint;
mod cli;
mod cpus;
mod create;
mod criu;
mod delete;
mod error;
mod events;
mod exec;
mod features;
mod foreground;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod hooks;
mod image;
mod init;
mod kill;
mod landlock;
mod launch;
mod lend;
mod list;
mod log;
mod lsm;
mod memory_policy;
mod mount_options;
mod mount_table;
mod namespace;
mod netns;
mod pause;
mod pid_file;
mod plan;
mod process;
mod procfd;
mod ps;
mod pty;
mod rdt;
mod restore;
mod rootfd;
mod rootless;
mod seccomp;
mod service;
mod spec;
mod spec_cmd;
mod start;
mod state;
mod sync;
mod sys;
mod update;

/// The version of runtime-spec that `rt` implements.
const OCI_VERSION: &str = "1.3.0";
