//! The command line: the commands and options of runc, and the calls of the modules that carry the
//! commands out. Prints the error that ends a command, and returns the exit status.
//!
//! Only the parser of the chosen command is built, because building all of them takes longer than
//! most commands. The general help and errors about unknown commands need all of them.

pub mod args;
mod commands;
mod examples;
mod netns;
mod words;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::cgroup::{Cgroup, Manager};
use crate::child::{Interrupted, interrupted};
use crate::container::service;
use crate::create::{CreateOptions, CreateRequest};
use crate::engine::EngineOptions;
use crate::namespace::is_root_of_host;
use crate::plan::Extras;
use crate::{
    checkpoint, config, create, delete, error, events, exec, features, kill, list, log, pause, ps,
    pty, restore, sealed_exe, spec_template, start, sys, update,
};

use args::{
    DeleteArgs, EventsArgs, GlobalArgs, IdArgs, KillArgs, ListArgs, PsArgs, RunArgs, SpecArgs,
    UpdateArgs,
};
use commands::{chosen, command_line};

/// The exit status for every error of `rt`, except errors of `exec`, as in runc.
const FAILED: i32 = 1;
/// The exit status for errors of `exec`, to differ from the usual statuses of the program.
const EXEC_FAILED: i32 = 255;

/// Returns how many descriptors, from 3 on and without a gap, the engine has passed.
fn inherited_fds() -> u32 {
    (3..).take_while(|fd| sys::is_open(*fd)).count() as u32
}

/// Runs the command line; returns the exit status. `again` says that this is the second run, from
/// the sealed executable.
pub fn main(again: bool) -> i32 {
    std::panic::set_hook(Box::new(report_panic));
    let args: Vec<OsString> = std::env::args_os().collect();
    let chosen = chosen(&args);
    // Commands that fork into a container first run again from the sealed executable: see
    // sealed_exe.rs.
    let protected = match chosen {
        Some("create" | "run" | "exec") if !again => sealed_exe::protect(),
        _ => Ok(()),
    };
    // At this point `rt` has opened no descriptor itself.
    let inherited = inherited_fds();
    let failed = if chosen == Some("exec") {
        EXEC_FAILED
    } else {
        FAILED
    };
    let command = command_line(chosen);
    let words = words::normal(&command, &args);
    let matches = match command.try_get_matches_from(&words) {
        Ok(matches) => matches,
        Err(error) => return usage(&error, &words, failed),
    };
    match protected.and_then(|()| dispatch(&matches, inherited)) {
        Ok(status) => status,
        Err(error) => {
            let phase = error::phase(&error).map(|phase| phase.to_string());
            tell(&error::line(&error), phase.as_deref());
            interrupted().map_or(failed, Interrupted::status)
        }
    }
}

/// Reports an error in the log and on standard error.
fn tell(line: &str, phase: Option<&str>) {
    log::error(line, phase);
    let _ = writeln!(std::io::stderr(), "rt: {line}");
}

/// Reports an internal error (a panic) as one line as well; the process then aborts.
fn report_panic(info: &std::panic::PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let cause = info
        .payload_as_str()
        .unwrap_or("unknown")
        .replace('\n', " ");
    pty::restore_terminal();
    let _ = writeln!(std::io::stderr(), "rt: internal error at {place}: {cause}");
}

/// Prints help to standard output, or reports an error of the command line as one line, also in the
/// log: engines show its last line. Returns the exit status.
fn usage(error: &clap::Error, words: &[OsString], failed: i32) -> i32 {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return print(&error.render().to_string());
    }
    let text = error.render().to_string();
    let message: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    let message = message
        .iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    // The global options are parsed as far as possible, for those about the log.
    let global = GlobalArgs::augment_args(Command::new("rt")).ignore_errors(true);
    let global = global
        .allow_external_subcommands(true)
        .args_override_self(true);
    let global = global
        .try_get_matches_from(words)
        .and_then(|m| GlobalArgs::from_arg_matches(&m));
    if let Ok(global) = global
        && let Ok(log) = log::Log::open(global.log.as_deref(), global.log_format, global.debugs())
    {
        log.install();
    }
    let command = chosen(words)
        .map(|name| format!(" {name}"))
        .unwrap_or_default();
    tell(&format!("{message} (see rt{command} --help)"), None);
    failed
}

/// Writes to standard output; returns the exit status, which is 1 for any error, also for `EPIPE`
/// (the reader has ended).
fn print(text: &str) -> i32 {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(_) => FAILED,
    }
}

fn dispatch(matches: &ArgMatches, inherited_fds: u32) -> Result<i32> {
    let global = GlobalArgs::from_arg_matches(matches)?;
    if global.version {
        return Ok(print(&features::version(called_as())));
    }
    let log = log::Log::open(global.log.as_deref(), global.log_format, global.debugs())?;
    let descriptor = log.descriptor();
    log.install();
    let process = process_file(matches)?;
    // A container must not see any descriptor that the engine left open, not even for a moment.
    let extras = passed(matches, inherited_fds)?;
    let first = extras.passed_on().saturating_add(3);
    let kept = descriptor.into_iter().chain(status_fd(matches)).collect();
    sys::close_all_but(kept, first).context("close_range")?;
    let Some((name, matches)) = matches.subcommand() else {
        return Ok(print(&command_line(None).render_help().to_string()));
    };
    match name {
        "features" => return Ok(print(&features::features()?)),
        "spec" => return write_spec(matches, || root(&global)).map(|()| 0),
        "netns" => return Ok(print(&netns::dispatch(matches)?)),
        _ => {}
    }
    let root = root(&global)?;
    let manager = manager(&global)?;
    match name {
        "exec" => {
            let options = exec::ExecOptions::from_arg_matches(matches)?;
            exec::exec(&exec::ExecRequest {
                root,
                options,
                process,
                extras,
            })
        }
        "create" => {
            let options = CreateOptions::from_arg_matches(matches)?;
            let request = creating(root, options, extras, manager);
            create::create(&request).map(|()| 0)
        }
        "run" => {
            let args = RunArgs::from_arg_matches(matches)?;
            let request = CreateRequest {
                detached: args.detach,
                ..creating(root, args.create, extras, manager)
            };
            create::run(&request, args.keep, args.no_subreaper)
        }
        "restore" => {
            let options = restore::RestoreOptions::from_arg_matches(matches)?;
            restore::restore(&restoring(&root, &options, manager), &options)
        }
        "list" => {
            let args = ListArgs::from_arg_matches(matches)?;
            let is_asked_for = global.root.is_some();
            Ok(print(&list::list(&root, is_asked_for, args.format())?))
        }
        name => with_container(name, matches, &root),
    }
}

/// Runs a command about an existing container.
fn with_container(name: &str, matches: &ArgMatches, root: &Path) -> Result<i32> {
    let id = || IdArgs::from_arg_matches(matches).map(|args| args.id);
    match name {
        "start" => start::start(root, &id()?).map(|()| 0),
        "kill" => {
            let args = KillArgs::from_arg_matches(matches)?;
            let signal = if args.signal.is_empty() {
                "TERM"
            } else {
                &args.signal
            };
            kill::kill(root, &args.id, signal, args.all).map(|()| 0)
        }
        "delete" => {
            let args = DeleteArgs::from_arg_matches(matches)?;
            delete::delete(root, &args.id, args.force).map(|()| 0)
        }
        "state" => Ok(print(&list::state(root, &id()?)?)),
        name => manage(name, matches, root),
    }
}

/// Runs `rt spec`, with a network of `rt` if one is asked for.
fn write_spec(matches: &ArgMatches, root: impl FnOnce() -> Result<PathBuf>) -> Result<()> {
    let args = SpecArgs::from_arg_matches(matches)?;
    let unified = Cgroup::plan(None, "rt")?.is_unified();
    match netns::spec_network(matches, root)? {
        Some(_) if args.rootless => bail!("--rootless: not with a network of rt's"),
        Some((options, parts)) => {
            let has_files = !parts.files.is_empty();
            spec_template::spec(&args.bundle, false, unified, Some(parts))?;
            if has_files {
                crate::netns::make_files(&args.bundle, &options)?;
            }
        }
        None => spec_template::spec(&args.bundle, args.rootless, unified, None)?,
    }
    Ok(())
}

/// Runs a command about an existing container that is not part of the OCI life cycle.
fn manage(name: &str, matches: &ArgMatches, root: &Path) -> Result<i32> {
    let id = || anyhow::Ok(IdArgs::from_arg_matches(matches)?.id);
    match name {
        "checkpoint" => checkpoint::checkpoint(
            root,
            &checkpoint::CheckpointOptions::from_arg_matches(matches)?,
        )
        .map(|()| 0),
        "pause" => pause::pause(root, &id()?).map(|()| 0),
        "resume" => pause::resume(root, &id()?).map(|()| 0),
        "update" => update_limits(root, UpdateArgs::from_arg_matches(matches)?).map(|()| 0),
        "ps" => {
            let args = PsArgs::from_arg_matches(matches)?;
            Ok(print(&ps::ps(root, &args.id, args.format, &args.options)?))
        }
        "events" => {
            let args = EventsArgs::from_arg_matches(matches)?;
            events::events(root, &args.id, args.interval, args.stats).map(|()| 0)
        }
        other => bail!("{other}: not a command"),
    }
}

/// Reads the file that `exec --process` names. It may be a descriptor that the engine passed, so
/// it is read before these are closed.
fn process_file(matches: &ArgMatches) -> Result<Option<Vec<u8>>> {
    let exec = matches.subcommand().filter(|(name, _)| *name == "exec");
    let path = exec.and_then(|(_, matches)| matches.get_one::<PathBuf>("process"));
    path.map(|path| config::read_process(path)).transpose()
}

fn update_limits(root: &Path, args: UpdateArgs) -> Result<()> {
    let resources = match args.resources {
        None => args.values.into(),
        Some(file) => {
            if args.values != update::Values::default() {
                log::warn("--resources: single limits beside it are ignored");
            }
            update::read(&file)?
        }
    };
    args.obsolete.warn();
    update::update(root, &args.id, resources, &args.schemata)
}

/// Returns the descriptor of `checkpoint --status-fd`.
fn status_fd(matches: &ArgMatches) -> Option<RawFd> {
    let (_, matches) = matches.subcommand()?;
    let fd = matches.try_get_one("status_fd").ok().flatten().copied();
    fd.filter(|fd| *fd >= 0)
}

/// Returns which descriptors of the engine the process gets (`--preserve-fds`, `LISTEN_FDS`).
fn passed(matches: &ArgMatches, inherited_fds: u32) -> Result<Extras> {
    let Some((name, matches)) = matches.subcommand() else {
        return Ok(Extras::default());
    };
    let preserve_fds = matches
        .try_get_one("preserve_fds")
        .ok()
        .flatten()
        .copied()
        .unwrap_or(0);
    let listen_fds = match name {
        "create" | "run" => service::listen_fds()?,
        _ => 0,
    };
    Ok(Extras {
        preserve_fds,
        listen_fds,
        inherited_fds,
        ..Extras::default()
    })
}

fn manager(global: &GlobalArgs) -> Result<Manager> {
    match global.cgroup_manager.as_deref() {
        _ if global.systemd_cgroup => Ok(Manager::Systemd),
        None | Some("cgroupfs") => Ok(Manager::Cgroupfs),
        Some("systemd") => Ok(Manager::Systemd),
        Some("disabled") => Ok(Manager::Disabled),
        Some(other) => bail!("--cgroup-manager {other}: not cgroupfs, systemd or disabled"),
    }
}

/// Returns the name under which this program was called: `runc` or `crun`, because engines look at
/// the name and expect the directory of that runtime, and otherwise `rt`.
fn called_as() -> &'static str {
    let path = std::env::args_os()
        .next()
        .map(PathBuf::from)
        .unwrap_or_default();
    let name = path.file_name().and_then(OsStr::to_str);
    ["runc", "crun"]
        .into_iter()
        .find(|known| Some(*known) == name)
        .unwrap_or("rt")
}

/// Returns the directory of all state directories: `--root` or its default.
fn root(global: &GlobalArgs) -> Result<PathBuf> {
    let root = global.root.clone().map_or_else(default_root, Ok)?;
    // With `/`, every directory there would count as the state directory of a container.
    ensure!(
        !config::is_root(&std::path::absolute(&root)?),
        "--root: cannot be /"
    );
    Ok(root)
}

/// Returns the default of `--root`: `$XDG_RUNTIME_DIR/NAME` if the variable is set and this process
/// is not root of the host (also for root of a user namespace), otherwise `/run/NAME` for root.
/// NAME is what [`called_as`] returns.
///
/// # Errors
/// If the variable is not set for an ordinary user.
fn default_root() -> Result<PathBuf> {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match runtime_dir {
        Some(dir) if !is_root_of_host() => Ok(PathBuf::from(dir).join(called_as())),
        None if !nix::unistd::geteuid().is_root() => {
            bail!("XDG_RUNTIME_DIR: not set, and no --root is given")
        }
        _ => Ok(Path::new("/run").join(called_as())),
    }
}

/// Returns the request of `create`.
fn creating(
    root: PathBuf,
    options: CreateOptions,
    passed: Extras,
    manager: Manager,
) -> CreateRequest {
    CreateRequest {
        root,
        extras: Extras {
            no_pivot: options.no_pivot,
            no_new_keyring: options.no_new_keyring,
            ..passed
        },
        options,
        manager,
        detached: true,
    }
}

/// Returns the request of `create` that `restore` makes, with the options that both have.
fn restoring(root: &Path, options: &restore::RestoreOptions, manager: Manager) -> CreateRequest {
    let engine = EngineOptions {
        console_socket: options.console_socket.clone(),
        pid_file: options.pid_file.clone(),
        ..EngineOptions::default()
    };
    CreateRequest {
        root: root.to_owned(),
        options: CreateOptions {
            id: options.id.clone(),
            bundle: options.bundle.clone(),
            engine,
            ..CreateOptions::default()
        },
        extras: Extras::default(),
        manager,
        detached: options.detach,
    }
}

#[cfg(test)]
mod tests {
    mod share;

    use super::*;

    fn parse(args: &[&str]) -> std::result::Result<ArgMatches, clap::Error> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let command = command_line(chosen(&args));
        let words = words::normal(&command, &args);
        command.try_get_matches_from(words)
    }

    #[test]
    fn the_whole_tree_is_consistent() {
        command_line(None).debug_assert();
    }

    #[test]
    fn each_command_has_two_examples_and_each_example_is_accepted() {
        let tree = command_line(None);
        let netns = tree.find_subcommand("netns").unwrap().get_subcommands();
        let below = netns.filter(|command| !command.is_hide_set());
        let below = below.map(|command| format!("netns {}", command.get_name()));
        let names = tree.get_subcommands().map(|c| c.get_name().to_owned());
        for name in names.chain(below) {
            let text = examples::examples(&name);
            let lines = text.lines().filter_map(|line| line.strip_prefix("  rt "));
            assert_eq!(lines.clone().count(), 2, "{name}: {text}");
            for line in lines {
                let words = line.split(" | ").next().unwrap().split(' ');
                assert!(line.contains(&name.replace("netns ", "")), "{name}: {line}");
                let words: Vec<&str> = std::iter::once("rt").chain(words).collect();
                parse(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }

    #[test]
    fn options_may_follow_the_id() {
        for args in [
            ["rt", "delete", "a", "--force"],
            ["rt", "delete", "-f", "a"],
            ["rt", "--debug", "delete", "a"],
            ["rt", "kill", "a", "-a"],
        ] {
            assert!(parse(&args).is_ok(), "{args:?}");
        }
    }

    #[test]
    fn exec_stops_at_the_command() {
        let matches = parse(&["rt", "exec", "a", "sh", "-c", "--help"]).unwrap();
        let exec = exec::ExecOptions::from_arg_matches(matches.subcommand().unwrap().1).unwrap();
        assert_eq!(exec.args, ["sh", "-c", "--help"]);
    }

    #[test]
    fn of_an_option_that_is_repeated_the_last_one_counts() {
        let args = [
            "rt", "--root", "a", "--debug", "--root", "b", "--debug", "run", "-b", "x", "-b=y", "c",
        ];
        let matches = parse(&args).unwrap();
        assert_eq!(
            GlobalArgs::from_arg_matches(&matches).unwrap().root,
            Some("b".into())
        );
        let run = RunArgs::from_arg_matches(matches.subcommand().unwrap().1).unwrap();
        assert_eq!(run.create.bundle, Path::new("y"));
    }

    #[test]
    fn the_command_is_found_behind_global_options() {
        let args: Vec<OsString> = [
            "rt", "-root", "create", "--log=x", "--debug", "state", "run",
        ]
        .map(Into::into)
        .into();
        assert_eq!(chosen(&args), Some("state"));
    }
}
