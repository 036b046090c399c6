//! `create` in eight steps, and `run`, which is create, start and wait.
//!
//! 1. **Read** the bundle and refuse what cannot be honoured.
//! 2. **Plan**: decide and open everything that init will need.
//! 3. **Claim** the id and record the intent, before any other side effect.
//! 4. **Cgroup**, then **clone** once.
//! 5. **Go**, after what only the caller may do.
//! 6. Init builds the root file system,
//! 7. confines itself, finds the program and is **ready**.
//! 8. **Record** the container, and let init go on alone.
//!
//! Whatever fails before the end takes everything back: see [`Guard`].

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use crate::cgroup::{Cgroup, Limits};
use crate::error::{InPhase, Phase};
use crate::foreground::Foreground;
use crate::hooks::{CALLERS, Hooks};
use crate::plan::{self, Extras, Plan, Source};
use crate::process::Process;
use crate::pty::{DescriptorSocket, Relay};
use crate::state::{Container, Lock, Progress, Record};
use crate::sync::Caller;
use crate::{delete, launch, log, spec, start, state, sys};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Request {
    /// `--root`.
    pub(crate) root: PathBuf,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) pidfd_socket: Option<PathBuf>,
    pub(crate) extras: Extras,
    /// Whether `rt` returns before the container ends, so that nobody relays its terminal.
    pub(crate) detached: bool,
}

/// A container that waits for `start`.
#[derive(Debug)]
struct Created {
    container: Container,
    pid: Pid,
    init: OwnedFd,
    /// The master of its terminal, where no console socket took it.
    terminal: Option<OwnedFd>,
}

/// What is known before the first side effect.
#[derive(Debug)]
struct Prepared {
    plan: Plan,
    cgroup: Cgroup,
    limits: Limits,
    record: Record,
    console: Option<DescriptorSocket>,
    pidfd_socket: Option<DescriptorSocket>,
}

/// `rt create`.
pub(crate) fn command(request: &Request) -> Result<()> {
    create(request).map(drop)
}

/// The eight steps. The lock is held until the container has been recorded.
fn create(request: &Request) -> Result<(Created, Lock)> {
    let spec = read(request).phase(Phase::Config)?; // 1
    let prepared = prepare(request, &spec).phase(Phase::Plan)?; // 2
    let (mut guard, lock) = claim(request, &prepared, &spec).phase(Phase::State)?; // 3
    let caller = launch(&prepared, &mut guard)?; // 4
    caller.go().phase(Phase::Process)?; // 5
    let limited = run_hooks(&prepared, &caller, &guard)?;
    let terminal = caller.ready()?; // 6 and 7 are init's
    if !limited {
        prepared.cgroup.apply(&prepared.limits).phase(Phase::Cgroup)?;
    }
    launch::schedule(&prepared.plan, guard.pid()?).phase(Phase::Process)?;
    let terminal = hand_over(terminal, prepared.console.as_ref()).phase(Phase::Terminal)?;
    record(request, &prepared, &mut guard).phase(Phase::State)?; // 8
    caller.detach().phase(Phase::Process)?;
    Ok((guard.release(terminal)?, lock))
}

/// Step 1.
fn read(request: &Request) -> Result<Spec> {
    state::check_id(&request.id)?;
    let loaded = spec::load(&request.bundle)?;
    spec::check(&loaded.spec)?;
    loaded.warnings.iter().for_each(log::warn);
    check_terminal(request, &loaded.spec)?;
    let Extras { preserve_fds, inherited_fds, .. } = request.extras;
    if preserve_fds > inherited_fds {
        bail!("--preserve-fds {preserve_fds}: descriptor {} is closed", 3 + inherited_fds);
    }
    Ok(loaded.spec)
}

fn check_terminal(request: &Request, spec: &Spec) -> Result<()> {
    let terminal = spec.process().as_ref().and_then(|p| p.terminal()).unwrap_or(false);
    match (terminal, request.detached, &request.console_socket) {
        (true, true, None) => bail!("process.terminal: needs --console-socket when detached"),
        (false, _, Some(_)) => bail!("--console-socket: process.terminal is not set"),
        (true, false, Some(_)) => bail!("--console-socket: only when detached"),
        _ => Ok(()),
    }
}

/// Step 2.
fn prepare(request: &Request, spec: &Spec) -> Result<Prepared> {
    let bundle = resolve(&request.bundle)
        .with_context(|| format!("--bundle {}", request.bundle.display()))?;
    let rootfs = spec.root().as_ref().map(|root| bundle.join(root.path())).unwrap_or_default();
    let rootfs = resolve(&rootfs).with_context(|| format!("root.path {}", rootfs.display()))?;
    let linux = spec.linux().as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let cgroup = Cgroup::plan(path, &request.id)?;
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let limits = Limits::from_spec(resources, &cgroup)?;
    let mut warnings = Vec::new();
    let container = Source { spec, bundle: &bundle, rootfs: &rootfs, id: &request.id };
    let mut plan = Plan::for_container(&container, &cgroup, request.extras, &mut warnings)?;
    warnings.iter().for_each(log::warn);
    let connect = |path: &Option<PathBuf>, option| {
        path.as_ref().map(|path| DescriptorSocket::connect(path, option)).transpose()
    };
    let console = connect(&request.console_socket, "--console-socket")?;
    let pidfd_socket = connect(&request.pidfd_socket, "--pidfd-socket")?;
    let record = Record {
        cgroup: cgroup.clone(),
        namespaces: plan.namespaces.kinds().bits(),
        keyring: plan.keyring.is_some(),
        personality: linux.and_then(plan::personality),
        bundle,
        rootfs,
        ..Record::new(&request.id, spec)
    };
    plan.hooks = Hooks::of(&record);
    Ok(Prepared { plan, cgroup, limits, record, console, pidfd_socket })
}

/// The absolute path of a directory without links: three system calls, however deep it lies.
fn resolve(directory: &Path) -> Result<PathBuf> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = openat(AT_FDCWD, directory, flags, Mode::empty())?;
    Ok(fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?)
}

/// Step 3.
fn claim(request: &Request, prepared: &Prepared, spec: &Spec) -> Result<(Guard, Lock)> {
    let (container, lock) = Container::claim(&request.root, prepared.record.clone())?;
    let guard = Guard { container: Some(container), init: None };
    if let Some(container) = &guard.container {
        container.save_process(spec.process().as_ref())?;
    }
    Ok((guard, lock))
}

/// Step 4, and what has to happen before Go.
fn launch(prepared: &Prepared, guard: &mut Guard) -> Result<Caller> {
    let Some(container) = &mut guard.container else { bail!("no container") };
    let listener = container.listen().phase(Phase::State)?;
    let group = prepared.cgroup.create().phase(Phase::Cgroup)?;
    let (pid, caller) = launch::clone(&prepared.plan, group, Some(listener))?;
    let pidfd = caller.process().try_clone_to_owned();
    guard.init = Some((pid, pidfd.phase(Phase::Process)?));
    container.record.init = Some(Process::now(pid.as_raw()).phase(Phase::State)?);
    container.save().phase(Phase::State)?;
    launch::prepare(&prepared.plan, pid)?;
    Ok(caller)
}

/// The hooks that are the caller's, in the middle of step 6. They find the limits set, since they
/// may change them (device rules of GPUs): says whether that has been done.
fn run_hooks(prepared: &Prepared, caller: &Caller, guard: &Guard) -> Result<bool> {
    let hooks = prepared.plan.hooks.as_ref().filter(|hooks| hooks.has(&CALLERS));
    let Some(hooks) = hooks else { return Ok(false) };
    caller.mounted().phase(Phase::Hooks)?;
    prepared.cgroup.apply(&prepared.limits).phase(Phase::Cgroup)?;
    for kind in CALLERS {
        hooks.run(kind, guard.pid()?.as_raw())?;
    }
    caller.proceed().phase(Phase::Hooks)?;
    Ok(true)
}

/// The terminal's master goes to the console socket, or stays for the relay.
fn hand_over(
    terminal: Option<OwnedFd>,
    console: Option<&DescriptorSocket>,
) -> Result<Option<OwnedFd>> {
    match (terminal, console) {
        (Some(master), Some(console)) => console.send(master.as_fd(), "/dev/ptmx").map(|()| None),
        (terminal, _) => Ok(terminal),
    }
}

/// Step 8.
fn record(request: &Request, prepared: &Prepared, guard: &mut Guard) -> Result<()> {
    let (Some(container), Some((pid, pidfd))) = (&mut guard.container, &guard.init) else {
        bail!("no container");
    };
    container.record.progress = Progress::Created;
    container.save()?;
    if let Some(socket) = &prepared.pidfd_socket {
        socket.send(pidfd.as_fd(), "pidfd")?;
    }
    if let Some(path) = &request.pid_file {
        write_pid_file(path, *pid)?;
    }
    Ok(())
}

/// The bare decimal, whole or not at all.
pub(crate) fn write_pid_file(path: &Path, pid: Pid) -> Result<()> {
    let context = || format!("--pid-file {}", path.display());
    let Some(name) = path.file_name() else { bail!("{}: not a file name", context()) };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    // A link that stands there is not followed.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(context)?,
        _ => {}
    }
    let mut file = File::create_new(&temporary).with_context(context)?;
    file.write_all(pid.to_string().as_bytes()).with_context(context)?;
    fs::rename(&temporary, path).with_context(context)
}

/// Takes everything back, unless released: init first, then what held it.
#[derive(Debug)]
struct Guard {
    container: Option<Container>,
    init: Option<(Pid, OwnedFd)>,
}

impl Guard {
    fn pid(&self) -> Result<Pid> {
        self.init.as_ref().map(|(pid, _)| *pid).context("no container")
    }

    /// The container stays.
    fn release(mut self, terminal: Option<OwnedFd>) -> Result<Created> {
        match (self.container.take(), self.init.take()) {
            (Some(container), Some((pid, init))) => Ok(Created { container, pid, init, terminal }),
            _ => bail!("no container"),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some((_, pidfd)) = &self.init {
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED);
        }
        if let Some(container) = &self.container
            && let Err(error) = delete::clean_up(container)
        {
            log::warn(format!("cleaning up: {}", crate::error::line(&error)));
        }
    }
}

/// `rt run`: the status of the process, or 0 when detached.
pub(crate) fn run(request: &Request, keep: bool, no_subreaper: bool) -> Result<i32> {
    if request.detached {
        let (created, _lock) = create(request)?;
        return start_or_delete(&created).map(|()| 0);
    }
    let foreground = Foreground::prepare(!no_subreaper)?;
    let (mut created, lock) = create(request)?;
    start_or_delete(&created)?;
    // While it runs, other commands may do what they like with it.
    drop(lock);
    let relay = created.terminal.take().map(Relay::new).transpose();
    let status = relay.and_then(|relay| foreground.wait(created.pid, relay));
    if !keep && let Some(_lock) = created.container.lock()? {
        delete::end(&created.container, &created.init)?;
        delete::clean_up(&created.container)?;
    }
    status
}

/// A container that could not be started is of no use to anybody.
fn start_or_delete(created: &Created) -> Result<()> {
    let Created { container, init, .. } = created;
    start::start(container, init).inspect_err(|_| {
        let ended = delete::end(container, init);
        if let Err(error) = ended.and_then(|()| delete::clean_up(container)) {
            log::warn(format!("cleaning up: {}", crate::error::line(&error)));
        }
    })
}
