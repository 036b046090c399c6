//! The command line: runc's commands and options, and the one `match` that leads to the verbs.
//!
//! Only the parser of the chosen command is built: the whole tree costs more than most of what
//! the commands do. The help and the errors about unknown commands get the whole tree.

pub(crate) mod args;
mod commands;
mod netns;
#[cfg(test)]
mod share;
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
use crate::namespace::is_root_of_host;
use crate::plan::Extras;
use crate::{
    checkpoint, config, create, delete, error, events, exec, features, kill, list, log, pause, ps,
    pty, restore, sealed_exe, spec_template, start, sys, update,
};

use args::{
    CreateArgs, DeleteArgs, EventsArgs, GlobalArgs, IdArgs, KillArgs, ListArgs, PsArgs, RunArgs,
    SpecArgs, UpdateArgs,
};
use commands::{chosen, command_line};

/// The status of every error but those of `exec`, as with runc.
const FAILED: i32 = 1;
/// `exec`'s own errors, so that they differ from what the process may answer.
const EXEC_FAILED: i32 = 255;

/// How many descriptors from 3 on, without a gap, the caller passed.
fn inherited_fds() -> u32 {
    (3..).take_while(|fd| sys::is_open(*fd)).count() as u32
}

/// Runs the command line, `again` from the protected image; the exit status.
pub(crate) fn main(again: bool) -> i32 {
    std::panic::set_hook(Box::new(report_panic));
    let args: Vec<OsString> = std::env::args_os().collect();
    let chosen = chosen(&args);
    // The first act of what forks into a container: see sealed_exe.rs.
    let protected = match chosen {
        Some("create" | "run" | "exec") if !again => sealed_exe::protect(),
        _ => Ok(()),
    };
    // Nothing of ours is open.
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

/// A fault of our own is one line as well; the process then aborts.
fn report_panic(info: &std::panic::PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let cause = info
        .payload_as_str()
        .unwrap_or("unknown")
        .replace('\n', " ");
    pty::restore_terminal();
    let _ = writeln!(std::io::stderr(), "rt: internal error at {place}: {cause}");
}

/// Help goes to standard output; of an error the user gets one line, and so does the log: clients
/// show its last one.
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
    // As far as they can be understood.
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

/// Writes to standard output; a reader that has gone away is an error like any other.
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
    // Whatever the caller left open must not be seen by a container, not for a moment.
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
    let request = |args, detached| request(&root, args, extras, manager, detached);
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
            let args = CreateArgs::from_arg_matches(matches)?;
            create::command(&request(args, true)).map(|()| 0)
        }
        "run" => {
            let RunArgs {
                create,
                detach,
                keep,
                no_subreaper,
            } = RunArgs::from_arg_matches(matches)?;
            create::run(&request(create, detach), keep, no_subreaper)
        }
        "restore" => {
            let options = restore::RestoreOptions::from_arg_matches(matches)?;
            restore::command(&restoring(&root, &options, manager), &options)
        }
        "list" => {
            let args = ListArgs::from_arg_matches(matches)?;
            let is_asked_for = global.root.is_some();
            Ok(print(&list::list(&root, is_asked_for, args.format())?))
        }
        name => with_container(name, matches, &root),
    }
}

/// The commands that take a container that is there.
fn with_container(name: &str, matches: &ArgMatches, root: &Path) -> Result<i32> {
    let id = || IdArgs::from_arg_matches(matches).map(|args| args.id);
    match name {
        "start" => start::command(root, &id()?).map(|()| 0),
        "kill" => {
            let args = KillArgs::from_arg_matches(matches)?;
            let signal = if args.signal.is_empty() {
                "TERM"
            } else {
                &args.signal
            };
            kill::command(root, &args.id, signal, args.all).map(|()| 0)
        }
        "delete" => {
            let args = DeleteArgs::from_arg_matches(matches)?;
            delete::command(root, &args.id, args.force).map(|()| 0)
        }
        "state" => Ok(print(&list::state(root, &id()?)?)),
        name => manage(name, matches, root),
    }
}

/// `rt spec`, with a network of rt's where one is asked for.
fn write_spec(matches: &ArgMatches, root: impl FnOnce() -> Result<PathBuf>) -> Result<()> {
    let args = SpecArgs::from_arg_matches(matches)?;
    let unified = Cgroup::plan(None, "rt")?.is_unified();
    match netns::spec_network(matches, root)? {
        Some(_) if args.rootless => bail!("--rootless: not with a network of rt's"),
        Some((options, parts)) => {
            spec_template::spec(&args.bundle, false, unified, Some(&parts))?;
            if !parts.mounts.is_empty() {
                crate::netns::make_files(&args.bundle, &options)?;
            }
        }
        None => spec_template::spec(&args.bundle, args.rootless, unified, None)?,
    }
    Ok(())
}

/// The commands about a container that neither make nor end anything.
fn manage(name: &str, matches: &ArgMatches, root: &Path) -> Result<i32> {
    let id = || anyhow::Ok(IdArgs::from_arg_matches(matches)?.id);
    match name {
        "checkpoint" => checkpoint::command(
            root,
            &checkpoint::CheckpointOptions::from_arg_matches(matches)?,
        )
        .map(|()| 0),
        "pause" => pause::pause(root, &id()?).map(|()| 0),
        "resume" => pause::resume(root, &id()?).map(|()| 0),
        "update" => update(root, UpdateArgs::from_arg_matches(matches)?).map(|()| 0),
        "ps" => {
            let args = PsArgs::from_arg_matches(matches)?;
            Ok(print(&ps::ps(root, &args.id, args.format, &args.options)?))
        }
        "events" => {
            let args = EventsArgs::from_arg_matches(matches)?;
            events::command(root, &args.id, args.interval, args.stats).map(|()| 0)
        }
        other => bail!("{other}: not a command"),
    }
}

/// What `exec --process` names, which may be a descriptor that the caller passed.
fn process_file(matches: &ArgMatches) -> Result<Option<Vec<u8>>> {
    let exec = matches.subcommand().filter(|(name, _)| *name == "exec");
    let path = exec.and_then(|(_, matches)| matches.get_one::<PathBuf>("process"));
    path.map(|path| config::read_process(path)).transpose()
}

fn update(root: &Path, args: UpdateArgs) -> Result<()> {
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
    update::command(root, &args.id, resources, &args.schemata)
}

/// The descriptor that `checkpoint` tells something to.
fn status_fd(matches: &ArgMatches) -> Option<RawFd> {
    let (_, matches) = matches.subcommand()?;
    let fd = matches.try_get_one("status_fd").ok().flatten().copied();
    fd.filter(|fd| *fd >= 0)
}

/// The descriptors that the caller passes to the process.
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

/// What this program was called as: the name of another runtime, which callers look at and whose
/// directory they expect, or `rt`.
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

/// Where the containers' states are.
fn root(global: &GlobalArgs) -> Result<PathBuf> {
    let root = global.root.clone().map_or_else(default_root, Ok)?;
    // `delete` would look for containers among all directories of the host.
    ensure!(
        !config::is_root(&std::path::absolute(&root)?),
        "--root: cannot be /"
    );
    Ok(root)
}

/// `$XDG_RUNTIME_DIR/rt` for an ordinary user, also where he is root of a user namespace.
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

fn request(
    root: &Path,
    args: CreateArgs,
    passed: Extras,
    manager: Manager,
    detached: bool,
) -> create::CreateRequest {
    let extras = Extras {
        no_pivot: args.no_pivot,
        no_new_keyring: args.no_new_keyring,
        ..passed
    };
    create::CreateRequest {
        root: root.to_owned(),
        id: args.id,
        bundle: args.bundle,
        config: args.config,
        console_socket: args.console_socket,
        pid_file: args.pid_file,
        pidfd_socket: args.pidfd_socket,
        extras,
        manager,
        detached,
    }
}

fn restoring(
    root: &Path,
    options: &restore::RestoreOptions,
    manager: Manager,
) -> create::CreateRequest {
    create::CreateRequest {
        root: root.to_owned(),
        id: options.id.clone(),
        bundle: options.bundle.clone(),
        config: None,
        console_socket: options.console_socket.clone(),
        pid_file: options.pid_file.clone(),
        pidfd_socket: None,
        extras: Extras::default(),
        manager,
        detached: options.detach,
    }
}

#[cfg(test)]
mod tests {
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
