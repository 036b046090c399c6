//! What an engine names on the command line of `create`, `run` and `exec`, to get hold of the process
//! that they make.

use std::path::PathBuf;

use clap::Args;

/// Options of `create`, `run` and `exec` alike.
#[derive(Debug, Default, Args)]
pub struct EngineOptions {
    /// Unix socket that takes the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that takes the process's pidfd
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// File that takes the process's pid
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Pass N more file descriptors on, from 3
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
}
