//! The command line of `exec`.

use std::path::PathBuf;

use clap::Args;
use oci_spec::runtime::Capability;

use super::user;
use crate::cgroup::SubCgroup;
use crate::engine::EngineOptions;
use crate::plan::Extras;

/// Options of `exec`. They stand before the command: everything after its name belongs to it.
#[derive(Debug, Args)]
pub struct ExecOptions {
    #[command(flatten)]
    pub engine: EngineOptions,
    /// Return when the program has started
    #[arg(short, long)]
    pub detach: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Process object to run as it is, whatever other options and arguments say
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Directory in the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Set a variable of the environment (more than once if need be)
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Numbers of user and group; without GID the group stays
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<user::User>,
    /// Add a group by its number (more than once if need be)
    #[arg(short = 'g', long, value_name = "GID", value_parser = user::id)]
    pub additional_gids: Vec<u32>,
    /// Add a capability, never to the inheritable set (more than once if need be)
    #[arg(short, long, value_name = "NAME", value_parser = user::capability)]
    pub cap: Vec<Capability>,
    /// Set no_new_privs, or with =false leave it unset
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub no_new_privs: Option<bool>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// Cgroup below that of the container, on version 1 in all hierarchies or in some
    #[arg(long, value_name = "[CTRL[,CTRL]:]PATH")]
    pub cgroup: Vec<SubCgroup>,
    /// Wait until a paused container is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
    /// Program and arguments
    #[arg(
        value_name = "CMD",
        required_unless_present = "process",
        trailing_var_arg = true
    )]
    pub args: Vec<String>,
}

/// What the command line asks for.
#[derive(Debug)]
pub struct ExecRequest {
    /// `--root`.
    pub root: PathBuf,
    pub options: ExecOptions,
    /// The content of the file that `--process` names. It is read before the engine's descriptors
    /// are closed, since the file may be one of them.
    pub process: Option<Vec<u8>>,
    /// The descriptors that are passed on.
    pub extras: Extras,
}
