//! The command line of `rt netns`, built from the tables of options that annotations use as well.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::examples::examples;
use crate::netns::{
    self, DEFAULT_NETWORKS, DEFAULT_STATE, Host, NETWORK_OPTIONS, NamespacePlace, OPTIONS, Options,
    SpecParts, Verb,
};

/// Returns the options of a table; each that has a value may be given several times.
fn options(table: &'static [(&'static str, &'static str, &'static str)]) -> Vec<Arg> {
    let arg = |(name, value, help): &(&'static str, &'static str, &'static str)| {
        let arg = Arg::new(*name).long(*name).help(*help);
        match *value {
            "" => arg.action(ArgAction::SetTrue),
            value => arg.value_name(value).action(ArgAction::Append),
        }
    };
    table.iter().map(arg).collect()
}

/// Adds the options of a container's network, and those for the directories of networks. `rt spec`
/// has them too, and writes them into the configuration.
pub(super) fn container_options(command: Command) -> Command {
    let path = |long: &'static str, default: &'static str, help: &'static str| {
        let arg = Arg::new(long).long(long).value_name("DIR").help(help);
        arg.default_value(default)
            .value_parser(value_parser!(PathBuf))
    };
    command
        .arg(path(
            "networks",
            DEFAULT_NETWORKS,
            "Directory of the networks' files",
        ))
        .arg(path(
            "state",
            DEFAULT_STATE,
            "Directory of the networks in use",
        ))
        .args(options(&OPTIONS))
}

fn name(what: &'static str) -> Arg {
    Arg::new("name").value_name(what).required(true)
}

fn switch(long: &'static str, help: &'static str) -> Arg {
    Arg::new(long)
        .long(long)
        .help(help)
        .action(ArgAction::SetTrue)
}

pub(super) fn parser(command: Command) -> Command {
    let json = || switch("json", "Print JSON");
    let new = |name: &'static str, about: &'static str| {
        let command = Command::new(name).about(about);
        command.after_help(examples(&format!("netns {name}")))
    };
    container_options(command).subcommands([
        new("add", "Give a container its network")
            .arg(name("ID"))
            .arg(
                Arg::new("pid")
                    .long("pid")
                    .value_name("PID")
                    .help("A process of the container")
                    .value_parser(value_parser!(i32)),
            )
            .arg(
                Arg::new("netns")
                    .long("netns")
                    .value_name("PATH")
                    .help("Its network namespace")
                    .value_parser(value_parser!(PathBuf)),
            )
            .args(options(&OPTIONS)),
        new("del", "Take a container's network away").arg(name("ID")),
        new("list", "List the containers that have a network").arg(json()),
        new("inspect", "Show a container's network, or a network")
            .arg(name("NAME"))
            .arg(json()),
        new("check", "Say what is not as it should be").arg(switch("repair", "Put it right")),
        new("prune", "Remove what containers that are gone have left"),
        new("create", "Describe a network")
            .arg(name("NETWORK"))
            .args(options(&NETWORK_OPTIONS)),
        new("serve", "The helper process of a network")
            .hide(true)
            .arg(name("NETWORK")),
        new("rm", "Remove a network's description").arg(name("NETWORK")),
    ])
}

/// Returns the given options of a table, as name and value.
fn given(matches: &ArgMatches, table: &[(&str, &str, &str)]) -> Options {
    let mut pairs = Vec::new();
    for (name, value, _) in table {
        if value.is_empty() {
            if matches.get_flag(name) {
                pairs.push(((*name).to_owned(), "true".to_owned()));
            }
            continue;
        }
        let values = matches.get_many::<String>(name).into_iter().flatten();
        pairs.extend(values.map(|value| ((*name).to_owned(), value.clone())));
    }
    pairs
}

fn place(matches: &ArgMatches) -> Result<NamespacePlace> {
    match (
        matches.get_one::<i32>("pid"),
        matches.get_one::<PathBuf>("netns"),
    ) {
        (Some(pid), None) => Ok(NamespacePlace::Pid(*pid)),
        (None, Some(path)) => Ok(NamespacePlace::Path(path.clone())),
        _ => bail!("netns add: needs --pid PID or --netns PATH, and not both"),
    }
}

fn host(matches: &ArgMatches) -> Host {
    let path = |name| {
        matches
            .get_one::<PathBuf>(name)
            .cloned()
            .unwrap_or_default()
    };
    Host {
        networks: path("networks"),
        state: path("state"),
    }
}

/// Returns the network that is asked for in `rt spec`, if any: the options, and the parts of the
/// configuration that they lead to.
pub(super) fn spec_network(
    matches: &ArgMatches,
    root: impl FnOnce() -> Result<PathBuf>,
) -> Result<Option<(Options, SpecParts)>> {
    let options = given(matches, &OPTIONS);
    if options.is_empty() {
        return Ok(None);
    }
    let parts = netns::parts(&host(matches), &root()?, &options)?;
    Ok(Some((options, parts)))
}

/// Runs `rt netns`; returns the text for standard output.
pub(super) fn dispatch(matches: &ArgMatches) -> Result<String> {
    let host = host(matches);
    let outer = given(matches, &OPTIONS);
    let Some((verb, matches)) = matches.subcommand() else {
        return netns::run(&host, Verb::Hook(outer));
    };
    if let Some((name, _)) = outer.first() {
        bail!("--{name}: stands behind `add`, or without a command for the hook");
    }
    let name = || {
        matches
            .get_one::<String>("name")
            .cloned()
            .unwrap_or_default()
    };
    let verb = match verb {
        "add" => Verb::Add {
            id: name(),
            place: place(matches)?,
            options: given(matches, &OPTIONS),
        },
        "del" => Verb::Del { id: name() },
        "list" => Verb::List {
            json: matches.get_flag("json"),
        },
        "inspect" => Verb::Inspect {
            name: name(),
            json: matches.get_flag("json"),
        },
        "check" => Verb::Check {
            repair: matches.get_flag("repair"),
        },
        "prune" => Verb::Prune,
        "create" => Verb::Create {
            name: name(),
            options: given(matches, &NETWORK_OPTIONS),
        },
        "serve" => Verb::Serve { name: name() },
        "rm" => Verb::Rm { name: name() },
        other => bail!("netns {other}: no such command"),
    };
    netns::run(&host, verb)
}
