//! What is stored of a container between commands, and what the commands that work on a container
//! share.

pub(crate) mod foreground;
pub(crate) mod hooks;
pub(crate) mod pid_file;
pub(crate) mod protocol;
pub(crate) mod seccomp_agent;
pub(crate) mod service;
pub(crate) mod state;
