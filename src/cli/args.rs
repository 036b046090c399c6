//! The options of each command.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use crate::create::CreateOptions;
use crate::{list, log, update};

/// The word after `--log-level`.
const DEBUG: &str = "debug";

/// Options before the command.
#[derive(Debug, Args)]
pub(super) struct GlobalArgs {
    /// Directory of the containers' state [default: /run/rt]
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// Append warnings and errors to FILE
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    /// Format of the log: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) log_format: log::LogFormat,
    /// Log what is done as well, without --log to standard error
    #[arg(long)]
    pub(super) debug: bool,
    /// error, warning or debug, which is --debug
    #[arg(long, value_name = "LEVEL", hide = true, value_parser = ["error", "warning", DEBUG])]
    pub(super) log_level: Option<String>,
    /// Let systemd make the cgroups: linux.cgroupsPath is slice:prefix:name
    #[arg(long)]
    pub(super) systemd_cgroup: bool,
    /// Accepted for engines of other runtimes; has no effect
    #[arg(long, value_name = "WHEN", hide = true)]
    pub(super) rootless: Option<String>,
    /// cgroupfs, systemd or disabled
    #[arg(long, value_name = "MANAGER", hide = true)]
    pub(super) cgroup_manager: Option<String>,
    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::SetTrue)]
    pub(super) version: bool,
}

impl GlobalArgs {
    /// `--debug`, also in crun's words.
    pub(super) fn debugs(&self) -> bool {
        self.debug || self.log_level.as_deref() == Some(DEBUG)
    }
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) create: CreateOptions,
    /// Return when the program has started
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Do not delete the container when it has ended
    #[arg(long)]
    pub(super) keep: bool,
    /// Leave orphans of the container to the engine
    #[arg(long)]
    pub(super) no_subreaper: bool,
}

#[derive(Debug, Args)]
pub(super) struct IdArgs {
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct KillArgs {
    /// Signal every process of the container
    #[arg(short, long)]
    pub(super) all: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// Name or number
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    pub(super) signal: String,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// Take everything from this JSON file, - for standard input: other limits are ignored
    #[arg(short, long, value_name = "FILE")]
    pub(super) resources: Option<PathBuf>,
    #[command(flatten)]
    pub(super) values: update::Values,
    #[command(flatten)]
    pub(super) schemata: update::Schemata,
    #[command(flatten)]
    pub(super) obsolete: update::Obsolete,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct PsArgs {
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) format: list::ListFormat,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// Options for ps [default: -ef]
    #[arg(
        value_name = "OPTION",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(super) options: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Print the statistics once
    #[arg(long)]
    pub(super) stats: bool,
    /// Time between statistics, such as 500ms or 1m
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(super) interval: Duration,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// Kill it first if it runs; succeed if it does not exist
    #[arg(short, long)]
    pub(super) force: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: list::ListFormat,
}

impl ListArgs {
    pub(super) fn format(self) -> list::ListFormat {
        if self.quiet {
            list::ListFormat::Quiet
        } else {
            self.format
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct SpecArgs {
    /// Directory to write config.json to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(super) bundle: PathBuf,
    /// For an ordinary user
    #[arg(long)]
    pub(super) rootless: bool,
}
