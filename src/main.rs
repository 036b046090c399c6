//! `rt`, an OCI container runtime: one stateless executable that reads a bundle and gives the
//! process in it its own world. `docs/architecture.md` is the map.
//!
//! The C library calls `entry_point::main`: Rust's own start-up reads `/proc/self/maps` and installs
//! handlers, seventeen system calls twice over, for a stack overflow that would end us anyway.
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
mod entry_point;
mod error;
mod events;
mod exec;
mod features;
#[cfg(any(test, fuzzing))]
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
