//! What is stored of a container between commands, and what the commands that work on a container
//! share.

pub mod foreground;
pub mod hooks;
pub mod pid_file;
pub mod protocol;
pub mod seccomp_agent;
pub mod service;
pub mod state;
