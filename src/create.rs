//! `create` in eight steps, and `run`, which is create, start and wait.
//!
//! 1. **Read** the bundle and refuse what cannot be honoured.
//! 2. **Plan**: decide and open everything that init will need.
//! 3. **Claim** the id and record the intent, before any other side effect.
//! 4. **Cgroup**, then **clone** once.
//! 5. **Go**, after the parent has done what only it may do.
//! 6. Init builds the root file system,
//! 7. confines itself, finds the program and is **ready**.
//! 8. **Record** the container, and let init go on alone.
//!
//! If a step fails, everything that has been made is removed: see [`CreateGuard`].

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use oci_spec::runtime::{Linux, Spec};

use crate::annotations::{self, Annotations as _};
use crate::cgroup::{Cgroup, Delegation, Limits, Manager};
use crate::config::hooks::CALLERS;
use crate::config::{self, Loaded};
use crate::container::foreground::Foreground;
use crate::container::hooks::Hooks;
use crate::container::protocol::ParentEnd;
use crate::container::service::{self, NotifyRelay};
use crate::container::state::{
    Container, ContainerRecord, ContainerStatus, CreateProgress, StateLock,
};
use crate::container::{pid_file, seccomp_agent};
use crate::error::{InPhase, Phase};
use crate::id::check_id;
use crate::interfaces::devices::MovedDevice;
use crate::namespace::is_root_of_host;
use crate::plan::{self, Extras, Plan, PlanSource};
use crate::process::Process;
use crate::pty::{self, DescriptorSocket, Relay, TerminalClient};
use crate::rdt::Rdt;
use crate::{delete, launch, log, start, sys};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct CreateRequest {
    /// `--root`.
    pub(crate) root: PathBuf,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) config: Option<PathBuf>,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) pidfd_socket: Option<PathBuf>,
    pub(crate) extras: Extras,
    /// `--systemd-cgroup` or `--cgroup-manager`.
    pub(crate) manager: Manager,
    /// Whether `rt` returns before the container ends, so that nobody relays its terminal.
    pub(crate) detached: bool,
}

/// A container whose init waits for `start`, or is on its way to the program.
#[derive(Debug)]
pub(crate) struct CreatedContainer {
    container: Container,
    pid: Pid,
    init: Rc<OwnedFd>,
    /// Relays its terminal, if no console socket took the master.
    relay: Option<Relay>,
    notify: Option<NotifyRelay>,
}

/// Everything that is known before the first side effect.
#[derive(Debug)]
pub(crate) struct PreparedContainer {
    pub(crate) plan: Plan,
    pub(crate) cgroup: Cgroup,
    pub(crate) limits: Limits,
    record: ContainerRecord,
    pub(crate) delegation: Option<Delegation>,
    console: Option<DescriptorSocket>,
    /// The sockets of `--pidfd-socket` and of the annotation.
    pidfd_sockets: Vec<DescriptorSocket>,
}

/// `rt create`.
pub(crate) fn command(request: &CreateRequest) -> Result<()> {
    create(request, true).map(drop)
}

/// Performs the eight steps. Then init `waits` for `start`, or goes on to the program. Returns the
/// lock, so that it is held at least until the container has been recorded.
fn create(
    request: &CreateRequest,
    waits: bool,
) -> Result<(CreatedContainer, ParentEnd, StateLock)> {
    let done = |what: &str| log::debug(format_args!("{}: {what}", request.id));
    let loaded = read(request).phase(Phase::Config)?; // 1
    done("config.json is read and checked");
    let mut prepared = prepare(request, &loaded.spec).phase(Phase::Plan)?; // 2
    let (mut guard, lock) = claim(request, &prepared, &loaded).phase(Phase::State)?; // 3
    let notify = guard.container.as_ref().map(service::prepare);
    if let Some(directory) = notify.transpose().phase(Phase::State)?.flatten() {
        prepared.plan.mount_notify(directory).phase(Phase::State)?;
    }
    done("everything is planned, the state directory is made");
    let mut caller = clone_init(&prepared, &mut guard)?; // 4
    log::debug(format_args!(
        "{}: init is process {} in its cgroup",
        request.id,
        guard.pid()?
    ));
    caller.go().phase(Phase::Process)?; // 5
    let limited = run_hooks(&prepared, &caller, &mut guard)?;
    let terminal = caller.ready(&prepared.plan)?; // 6 and 7 are init's
    guard.take_born(&caller).phase(Phase::State)?;
    done("the root file system is complete, init is confined");
    if !limited {
        prepared
            .cgroup
            .apply(&prepared.limits)
            .phase(Phase::Cgroup)?;
    }
    if let Some(delegation) = &prepared.delegation {
        // The container's cgroup namespace, if it has one, begins at the container's cgroup.
        let pid = guard.pid()?.as_raw();
        prepared
            .cgroup
            .delegate(delegation, pid)
            .phase(Phase::Cgroup)?;
    }
    launch::schedule(&prepared.plan, guard.pid()?).phase(Phase::Process)?;
    // Before init goes on: a quick program, too, finds the size of its terminal and the socket of
    // its service manager.
    let relay = prepared.relay(terminal).phase(Phase::Terminal)?;
    let notify = guard.listen(!waits).phase(Phase::Process)?;
    record(&mut guard)
        .and_then(|()| tell(request, &prepared, &guard))
        .phase(Phase::State)?; // 8
    done(if waits {
        "created, init waits for start"
    } else {
        "created, init goes on"
    });
    let released = if waits {
        caller.detach()
    } else {
        caller.start()
    };
    released.phase(Phase::Process)?;
    Ok((guard.release(relay, notify)?, caller, lock))
}

impl PreparedContainer {
    pub(crate) fn annotations(&self) -> &BTreeMap<String, String> {
        &self.record.annotations
    }

    /// Passes the terminal's master to the console socket. Returns a relay for it if there is no
    /// console socket.
    pub(crate) fn relay(&self, terminal: Option<OwnedFd>) -> Result<Option<Relay>> {
        let terminal = pty::hand_over(terminal, self.console.as_ref())?;
        terminal
            .map(|master| Relay::new(master, TerminalClient::open()?))
            .transpose()
    }
}

/// Step 1: reads and checks the configuration.
pub(crate) fn read(request: &CreateRequest) -> Result<Loaded> {
    check_id(&request.id)?;
    let loaded = config::load(&request.bundle, request.config.as_deref())?;
    config::check(&loaded.spec)?;
    loaded.warnings.iter().for_each(log::warn);
    let terminal = loaded
        .spec
        .process()
        .as_ref()
        .and_then(|p| p.terminal())
        .unwrap_or(false);
    pty::check_console(
        terminal,
        request.detached,
        request.console_socket.as_deref(),
    )?;
    request.extras.check()?;
    Ok(loaded)
}

/// Step 2: plans the container and opens what it needs.
pub(crate) fn prepare(request: &CreateRequest, spec: &Spec) -> Result<PreparedContainer> {
    let bundle = resolve(&request.bundle)
        .with_context(|| format!("--bundle {}", request.bundle.display()))?;
    let rootfs = spec
        .root()
        .as_ref()
        .map(|root| bundle.join(root.path()))
        .unwrap_or_default();
    let rootfs = resolve(&rootfs).with_context(|| format!("root.path {}", rootfs.display()))?;
    let linux = spec.linux().as_ref();
    let none = HashMap::new();
    let annotations = spec.annotations().as_ref().unwrap_or(&none);
    let (cgroup, limits) = plan_cgroup(request, linux, annotations)?;
    let delegation = Delegation::plan(spec, annotations, &cgroup)?;
    let rdt = linux.and_then(|linux| linux.intel_rdt().as_ref());
    let rdt = rdt
        .map(|wanted| Rdt::plan(wanted, &request.id))
        .transpose()?;
    let mut warnings = Vec::new();
    let container = PlanSource {
        spec,
        bundle: &bundle,
        rootfs: &rootfs,
        id: &request.id,
    };
    let mut plan = Plan::for_container(&container, &cgroup, request.extras, &mut warnings)?;
    warnings.iter().for_each(log::warn);
    let console = request.console_socket.as_deref();
    let console = DescriptorSocket::connect_if(console, "--console-socket")?;
    let pidfd_sockets = pidfd_sockets(request, annotations)?;
    let record = ContainerRecord {
        cgroup: cgroup.clone(),
        namespaces: plan.namespaces.kinds().bits(),
        keyring: plan.keyring.is_some(),
        personality: linux.and_then(plan::personality),
        memory_policy: plan.memory_policy.clone(),
        rdt,
        seccomp: plan.filter().map(|filter| filter.terms.clone()),
        bundle,
        rootfs,
        ..ContainerRecord::new(&request.id, spec)
    };
    plan.hooks = Hooks::of(&record);
    plan.announce_sockets(request.extras.listen_fds)?;
    if let Some(hooks) = &mut plan.hooks {
        hooks.open_outputs()?;
    }
    plan.decide_builder()?;
    Ok(PreparedContainer {
        plan,
        cgroup,
        limits,
        record,
        delegation,
        console,
        pidfd_sockets,
    })
}

/// Connects to the sockets that get init's pidfd: those that the command line and the annotation
/// name.
fn pidfd_sockets(
    request: &CreateRequest,
    annotations: &HashMap<String, String>,
) -> Result<Vec<DescriptorSocket>> {
    let asked = request.pidfd_socket.as_deref();
    let asked = DescriptorSocket::connect_if(asked, "--pidfd-socket")?;
    let mut sockets = Vec::from_iter(asked);
    if let Some(path) = annotations.path(annotations::PIDFD)? {
        let origin = annotations::origin(annotations::PIDFD);
        sockets.push(DescriptorSocket::connect(path, &origin)?);
    }
    Ok(sockets)
}

fn plan_cgroup(
    request: &CreateRequest,
    linux: Option<&Linux>,
    annotations: &HashMap<String, String>,
) -> Result<(Cgroup, Limits)> {
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let mut cgroup = match request.manager {
        Manager::Cgroupfs | Manager::Disabled => Cgroup::plan(path, &request.id)?,
        Manager::Systemd => Cgroup::plan_unit(path, &request.id, annotations)?,
    };
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let mut limits = Limits::from_spec(resources, &cgroup)?;
    if request.manager == Manager::Disabled {
        cgroup.leave_out_all(&mut limits)?;
    } else if !is_root_of_host() {
        cgroup.leave_out_unwritable(path.is_some(), &mut limits)?;
    }
    cgroup.prepare(&limits)?;
    Ok((cgroup, limits))
}

/// Returns the absolute path of a directory, without links, in three system calls however deep it
/// is.
fn resolve(directory: &Path) -> Result<PathBuf> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = openat(AT_FDCWD, directory, flags, Mode::empty())?;
    Ok(fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?)
}

/// Step 3: claims the id, and stores the intent and the configuration.
pub(crate) fn claim(
    request: &CreateRequest,
    prepared: &PreparedContainer,
    loaded: &Loaded,
) -> Result<(CreateGuard, StateLock)> {
    let (container, lock) = Container::claim(&request.root, prepared.record.clone())?;
    let guard = CreateGuard {
        container: Some(container),
        init: None,
        moved: None,
    };
    if let Some(container) = &guard.container {
        container.save_config(&loaded.bytes)?;
        container.save_process(loaded.spec.process().as_ref())?;
        container.save_filter(prepared.plan.filter())?;
    }
    Ok((guard, lock))
}

/// Step 4: makes the cgroups and clones init, and does what has to happen before Go.
fn clone_init(prepared: &PreparedContainer, guard: &mut CreateGuard) -> Result<ParentEnd> {
    let Some(container) = &mut guard.container else {
        bail!("no container")
    };
    let group = prepared.cgroup.create().phase(Phase::Cgroup)?;
    // From here on the start socket in the state directory says that the cgroups are the
    // container's.
    let listener = container.listen().phase(Phase::State)?;
    if let Some(rdt) = &mut container.record.rdt {
        rdt.create().phase(Phase::Cgroup)?;
    }
    let (pid, caller) = launch::clone(&prepared.plan, group, Some(listener))?;
    guard.init = Some((pid, caller.process().clone()));
    container.record.init = Some(Process::now(pid.as_raw()).phase(Phase::State)?);
    container.save().phase(Phase::State)?;
    prepared
        .cgroup
        .start_unit(pid.as_raw())
        .phase(Phase::Cgroup)?;
    if let Some(rdt) = &container.record.rdt {
        rdt.enter(pid.as_raw()).phase(Phase::Cgroup)?;
    }
    launch::prepare(&prepared.plan, pid)?;
    launch::give_pipes(&prepared.plan, pid.as_raw()).phase(Phase::Process)?;
    if prepared.plan.copies_up() {
        prepared
            .cgroup
            .apply_memory(&prepared.limits)
            .phase(Phase::Cgroup)?;
    }
    Ok(caller)
}

/// Runs the parent's hooks, in the middle of step 6. The limits are set before the hooks run, since
/// hooks may change them (device rules of GPUs). Returns whether the limits have been set.
fn run_hooks(
    prepared: &PreparedContainer,
    caller: &ParentEnd,
    guard: &mut CreateGuard,
) -> Result<bool> {
    if !prepared.plan.stops_when_mounted() {
        return Ok(false);
    }
    let pid = guard.pid()?.as_raw();
    caller.mounted(&prepared.plan).phase(Phase::Hooks)?;
    prepared
        .cgroup
        .apply(&prepared.limits)
        .phase(Phase::Cgroup)?;
    let devices = &prepared.plan.net_devices;
    if !devices.is_empty() {
        guard.moved = Some(MovedDevice::all(devices, pid).phase(Phase::Namespaces)?);
    }
    if let Some(hooks) = &prepared.plan.hooks {
        CALLERS
            .into_iter()
            .try_for_each(|kind| hooks.run(kind, pid))?;
    }
    caller.proceed().phase(Phase::Hooks)?;
    Ok(true)
}

/// Step 8: records that the container is created.
pub(crate) fn record(guard: &mut CreateGuard) -> Result<()> {
    let container = guard.container.as_mut().context("no container")?;
    container.record.progress = CreateProgress::Created;
    container.save()
}

/// Reports init: its pidfd to the pidfd sockets, its pid to `--pid-file`.
pub(crate) fn tell(
    request: &CreateRequest,
    prepared: &PreparedContainer,
    guard: &CreateGuard,
) -> Result<()> {
    let (pid, pidfd) = guard.init.as_ref().context("no container")?;
    for socket in &prepared.pidfd_sockets {
        socket.send(pidfd.as_fd(), "pidfd")?;
    }
    request
        .pid_file
        .as_ref()
        .map_or(Ok(()), |path| pid_file::write(path, *pid))
}

/// Removes everything that has been made, unless it is released: first it kills init, then it
/// cleans up the container.
#[derive(Debug)]
pub(crate) struct CreateGuard {
    pub(crate) container: Option<Container>,
    pub(crate) init: Option<(Pid, Rc<OwnedFd>)>,
    /// Interfaces that were moved from the host into the container.
    pub(crate) moved: Option<MovedDevice>,
}

impl CreateGuard {
    fn pid(&self) -> Result<Pid> {
        self.init
            .as_ref()
            .map(|(pid, _)| *pid)
            .context("no container")
    }

    /// Makes the process that a builder has cloned init from now on, if there was a builder.
    fn take_born(&mut self, caller: &ParentEnd) -> Result<()> {
        let pid = Pid::from_raw(caller.pid());
        if self.pid()? != pid {
            self.init = Some((pid, caller.process().clone()));
            let container = self.container.as_mut().context("no container")?;
            container.record.init = Some(Process::now(caller.pid())?);
        }
        Ok(())
    }

    /// Listens, if `now`, for the container to say that it is ready; otherwise `start` does.
    fn listen(&self, now: bool) -> Result<Option<NotifyRelay>> {
        self.container
            .as_ref()
            .filter(|_| now)
            .map_or(Ok(None), NotifyRelay::listen)
    }

    /// Keeps the container.
    pub(crate) fn release(
        mut self,
        relay: Option<Relay>,
        notify: Option<NotifyRelay>,
    ) -> Result<CreatedContainer> {
        if let Some(moved) = self.moved.take() {
            moved.keep();
        }
        match (self.container.take(), self.init.take()) {
            (Some(container), Some((pid, init))) => Ok(CreatedContainer {
                container,
                pid,
                init,
                relay,
                notify,
            }),
            _ => bail!("no container"),
        }
    }
}

impl Drop for CreateGuard {
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

/// `rt run`. Returns the status of the process, or 0 when detached.
pub(crate) fn run(request: &CreateRequest, keep: bool, no_subreaper: bool) -> Result<i32> {
    if request.detached {
        let (created, mut caller, lock) = create(request, false)?;
        start_or_delete(&created, &mut caller)?;
        drop(lock);
        if let Some(notify) = &created.notify {
            notify.wait(created.init.as_fd(), created.pid.as_raw())?;
        }
        return Ok(0);
    }
    let foreground = Foreground::prepare(!no_subreaper)?;
    let (created, mut caller, lock) = create(request, false)?;
    start_or_delete(&created, &mut caller)?;
    created.wait(&foreground, lock, keep)
}

impl CreatedContainer {
    /// Waits for the end of the process, and returns its status. The container is then deleted,
    /// unless `keep`.
    pub(crate) fn wait(self, foreground: &Foreground, lock: StateLock, keep: bool) -> Result<i32> {
        let Self {
            container,
            pid,
            init,
            relay,
            notify,
        } = self;
        // While the container runs, other commands may do what they like with it.
        drop(lock);
        let status = foreground.wait(pid, relay, notify);
        if !keep && let Some(_lock) = container.lock()? {
            if status.is_err() {
                delete::end(&container, &init)?;
            }
            delete::clean_up(&container)?;
        }
        status
    }
}

/// Waits until the program runs, and runs the poststart hooks. If that fails, deletes the
/// container, which is then of no use to anybody.
fn start_or_delete(created: &CreatedContainer, caller: &mut ParentEnd) -> Result<()> {
    let CreatedContainer {
        container, init, ..
    } = created;
    let agent = seccomp_agent::connect_of(&container.record, ContainerStatus::Created);
    let run = agent.phase(Phase::Process).and_then(|agent| {
        caller.executed(seccomp_agent::taker(agent, created.pid.as_raw()))?;
        start::poststart(container, init)
    });
    run.inspect_err(|_| {
        let ended = delete::end(container, init);
        if let Err(error) = ended.and_then(|()| delete::clean_up(container)) {
            log::warn(format!("cleaning up: {}", crate::error::line(&error)));
        }
    })
}
