//! Which commands there are, and what each takes.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Args, Command};

use super::args::{
    DeleteArgs, EventsArgs, GlobalArgs, IdArgs, KillArgs, ListArgs, PsArgs, RunArgs, SpecArgs,
    UpdateArgs,
};
use super::examples::examples;
use super::netns;
use crate::create::CreateOptions;
use crate::exec::ExecOptions;
use crate::{checkpoint, restore};

/// The commands, with the line that the help gives each.
pub(super) const COMMANDS: [(&str, &str); 18] = [
    ("create", "Create a container from a bundle"),
    ("start", "Run the program of a created container"),
    ("run", "Create and start a container, and wait for it"),
    ("exec", "Run one more process in a container"),
    ("kill", "Send a signal to a container"),
    ("pause", "Stop every process of a container for a while"),
    ("resume", "Let the processes of a paused container go on"),
    ("update", "Change the limits of a container"),
    (
        "checkpoint",
        "Write the processes of a container into a directory, with CRIU",
    ),
    ("restore", "Go on with a container from its checkpoint"),
    (
        "delete",
        "Remove a container and everything that was made for it",
    ),
    ("state", "Print the state of a container as JSON"),
    ("list", "List the containers"),
    ("ps", "List the processes of a container"),
    (
        "events",
        "Print what a container uses, and when it runs out of memory",
    ),
    ("spec", "Write a config.json to start from"),
    ("features", "Print what this version can do as JSON"),
    (
        "netns",
        "Networks of containers; without a command: the OCI hook",
    ),
];

/// As runc's help begins.
const HELP: &str = "NAME:\n   {bin} - {about}\n\nUSAGE:\n   {usage}\n\n{all-args}{after-help}";

/// The parser of one command.
fn parser((name, about): (&'static str, &'static str)) -> Command {
    let command = Command::new(name);
    let command = match name {
        // crun's, and of no effect there either.
        "create" => CreateOptions::augment_args(command).arg(switch("no-subreaper").hide(true)),
        "run" => RunArgs::augment_args(command),
        "exec" => ExecOptions::augment_args(command),
        "kill" => KillArgs::augment_args(command),
        "delete" => DeleteArgs::augment_args(command),
        "list" => ListArgs::augment_args(command),
        "update" => UpdateArgs::augment_args(command),
        "checkpoint" => checkpoint::CheckpointOptions::augment_args(command),
        "restore" => restore::RestoreOptions::augment_args(command),
        "ps" => PsArgs::augment_args(command),
        "events" => EventsArgs::augment_args(command),
        "spec" => netns::container_options(SpecArgs::augment_args(command)),
        "features" => command,
        "netns" => netns::parser(command),
        _ => IdArgs::augment_args(command),
    };
    finished(command, about).after_help(examples(name))
}

fn switch(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

/// `about` in the place of what the type of the options is described with. Of an option that is
/// repeated the last one counts: callers put their own behind those of their users.
fn finished(command: Command, about: &'static str) -> Command {
    command
        .about(about)
        .long_about(None)
        .help_template(HELP)
        .args_override_self(true)
}

pub(super) fn command_line(chosen: Option<&str>) -> Command {
    let commands: Vec<_> = COMMANDS
        .into_iter()
        .filter(|(name, _)| chosen.is_none_or(|chosen| chosen == *name))
        .map(parser)
        .collect();
    let command = GlobalArgs::augment_args(Command::new("rt")).subcommands(commands);
    finished(command, "An OCI container runtime")
}

/// The first argument that is neither a global option nor the value of one.
pub(super) fn chosen(args: &[OsString]) -> Option<&'static str> {
    let mut args = args.iter().skip(1);
    while let Some(arg) = args.next() {
        let arg = arg.to_string_lossy();
        match arg
            .strip_prefix('-')
            .map(|name| name.strip_prefix('-').unwrap_or(name))
        {
            Some("root" | "log" | "log-format" | "log-level" | "rootless" | "cgroup-manager") => {
                args.next();
            }
            Some(_) => {}
            None => {
                return COMMANDS
                    .iter()
                    .map(|(known, _)| *known)
                    .find(|known| *known == arg);
            }
        }
    }
    None
}
