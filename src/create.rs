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
//! Each stage that `create` goes through is a type that undoes what has been made so far when it is
//! dropped: [`ClaimedContainer`] after step 3, [`CreatedContainer`] after the clone, and
//! [`RunningContainer`] when the program runs, until it is kept.

mod options;
mod preparation;

use std::os::fd::AsFd;

use anyhow::Result;

use crate::cgroup::{OpenCgroup, UnitConnection};
use crate::child::HookOutputs;
use crate::config::Loaded;
use crate::config::hooks::CALLERS;
use crate::container::foreground::Foreground;
use crate::container::hooks::Hooks;
use crate::container::pid_file;
use crate::container::protocol::{ClonedProcess, ParentEnd};
use crate::container::seccomp_agent::{AgentConnection, notify_fd_sender};
use crate::container::service::{self, NotifyRelay};
use crate::container::state::{
    Container, ContainerRecord, ContainerStatus, CreateProgress, StateLock,
};
use crate::error::{InPhase, Phase, line};
use crate::init::InitDescriptors;
use crate::interfaces::devices::MovedDevice;
use crate::pty::Relay;
use crate::{delete, launch, log, start};

pub use options::CreateOptions;
pub use preparation::{CreateRequest, PreparedContainer, load_config, prepare};

/// The stage after step 3: the id is claimed, and nothing runs yet. When this is dropped, everything
/// that belongs to the container is removed, unless it has been kept.
#[derive(Debug)]
pub struct ClaimedContainer {
    pub container: Container,
    /// Interfaces that were moved from the host into the container. They are undone, and the lock
    /// is released, when the container has been removed.
    pub moved: Option<MovedDevice>,
    /// Held while the container is created, and released when its program runs.
    lock: Option<StateLock>,
    is_kept: bool,
}

impl ClaimedContainer {
    /// Step 8: records that the container is created.
    pub fn record(&mut self) -> Result<()> {
        self.container.record.progress = CreateProgress::Created;
        self.container.save()
    }

    fn keep(&mut self) {
        self.is_kept = true;
        if let Some(moved) = self.moved.take() {
            moved.keep();
        }
    }
}

impl Drop for ClaimedContainer {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = delete::clean_up(&self.container) {
            log::warn(format!("cleaning up: {}", line(&error)));
        }
    }
}

/// The stage from the clone on: init exists. It is killed before the container is removed.
#[derive(Debug)]
struct CreatedContainer {
    parent: ParentEnd,
    claimed: ClaimedContainer,
    /// The connection to systemd, if it makes the cgroups.
    unit: Option<UnitConnection>,
    /// Relays the terminal, if no console socket took the master.
    relay: Option<Relay>,
}

/// The stage in which the program runs. It is killed before the container is removed.
#[derive(Debug)]
pub struct RunningContainer {
    process: ClonedProcess,
    claimed: ClaimedContainer,
    relay: Option<Relay>,
    notify: Option<NotifyRelay>,
}

/// `rt create`.
pub fn create(request: &CreateRequest) -> Result<()> {
    let (prepared, mut created) = build_container(request)?;
    created.record(request, &prepared)?;
    log::debug(format_args!(
        "{}: created, init waits for start",
        request.options.id
    ));
    created.parent.detach().phase(Phase::Process)?;
    created.claimed.keep();
    Ok(())
}

/// Performs the steps 1 to 7: init is confined, and nothing is recorded of that yet.
fn build_container(request: &CreateRequest) -> Result<(PreparedContainer, CreatedContainer)> {
    let done = |what: &str| log::debug(format_args!("{}: {what}", request.options.id));
    let (loaded, checked) = load_config(request).phase(Phase::Config)?; // 1
    done("config.json is read and checked");
    let mut prepared = prepare(request, &loaded.spec, &checked).phase(Phase::Plan)?; // 2
    let claimed = claim_for_init(request, &mut prepared, &loaded).phase(Phase::State)?; // 3
    done("everything is planned, the state directory is made");
    let created = start_init(&prepared, claimed).phase(Phase::Process)?; // 4 to 7
    done("the root file system is complete, init is confined");
    Ok((prepared, created))
}

/// Step 3: claims the id, and stores the intent and the configuration.
pub fn claim(
    request: &CreateRequest,
    prepared: &PreparedContainer,
    loaded: &Loaded,
) -> Result<ClaimedContainer> {
    let (container, lock) = Container::claim(&request.root, prepared.record.clone())?;
    let claimed = ClaimedContainer {
        container,
        moved: None,
        lock: Some(lock),
        is_kept: false,
    };
    let container = &claimed.container;
    container.save_config(&loaded.bytes)?;
    container.save_process(loaded.spec.process().as_ref())?;
    container.save_filter(prepared.plan.filter())?;
    Ok(claimed)
}

/// Step 3, with the directory for the socket of a service manager, if there is one.
fn claim_for_init(
    request: &CreateRequest,
    prepared: &mut PreparedContainer,
    loaded: &Loaded,
) -> Result<ClaimedContainer> {
    let claimed = claim(request, prepared, loaded)?;
    if let Some(directory) = service::prepare(&claimed.container)? {
        prepared.notify = Some(directory);
        prepared.plan.announce_notify()?;
    }
    Ok(claimed)
}

/// Steps 4 to 7: clones init, and waits until it is confined.
fn start_init(prepared: &PreparedContainer, claimed: ClaimedContainer) -> Result<CreatedContainer> {
    let mut created = clone_init(prepared, claimed)?; // 4
    let id = &created.claimed.container.record.id;
    let pid = created.init().pid();
    log::debug(format_args!("{id}: init is process {pid} in its cgroup"));
    created.confine(prepared)?; // 5 to 7
    Ok(created)
}

/// Step 4: makes the cgroups and clones init, and does what has to happen before Go.
fn clone_init(
    prepared: &PreparedContainer,
    mut claimed: ClaimedContainer,
) -> Result<CreatedContainer> {
    let container = &mut claimed.container;
    let (cgroup, unit) = make_cgroups(&mut container.record).phase(Phase::Cgroup)?;
    // From here on the start socket in the state directory says that the cgroups are the
    // container's.
    let listener = container.listen().phase(Phase::State)?;
    let open = InitDescriptors {
        listener: Some(listener),
        notify: prepared.notify.as_ref(),
        hook_outputs: &prepared.hook_outputs,
        ..InitDescriptors::new(&prepared.namespaces, cgroup)
    };
    let parent = launch::clone(&prepared.plan, open)?;
    let mut created = CreatedContainer {
        parent,
        claimed,
        unit,
        relay: None,
    };
    let pid = created.init().pid();
    let container = &mut created.claimed.container;
    container.set_init(pid)?;
    container.save()?;
    let unit = created.unit.as_mut();
    prepared
        .enter_cgroups(&mut container.record, unit, pid.as_raw())
        .phase(Phase::Cgroup)?;
    let PreparedContainer {
        plan, namespaces, ..
    } = prepared;
    launch::prepare(plan, namespaces, pid)?;
    launch::give_pipes(plan, namespaces, pid)?;
    if plan.copies_up() {
        let cgroup = &container.record.cgroup;
        cgroup.apply_memory(&prepared.limits).phase(Phase::Cgroup)?;
    }
    Ok(created)
}

/// Makes the cgroups and the class of Intel RDT, or connects to the systemd that makes the cgroups
/// when there is a process for them.
pub fn make_cgroups(record: &mut ContainerRecord) -> Result<(OpenCgroup, Option<UnitConnection>)> {
    let cgroup = record.cgroup.create()?;
    let unit = record.cgroup.connect()?;
    if let Some(rdt) = &mut record.rdt {
        rdt.create()?;
    }
    Ok((cgroup, unit))
}

impl CreatedContainer {
    fn init(&self) -> &ClonedProcess {
        self.parent.process()
    }

    /// Steps 5 to 7: init builds the root file system and confines itself. Sets the limits of the
    /// container meanwhile, or when that is done.
    fn confine(&mut self, prepared: &PreparedContainer) -> Result<()> {
        self.parent.go()?;
        let is_limited = prepared.plan.stops_when_mounted();
        if is_limited {
            self.run_hooks(prepared).phase(Phase::Hooks)?;
        }
        let terminal = self.parent.ready(&prepared.plan)?;
        let pid = self.init().pid();
        if prepared.plan.has_builder {
            self.claimed.container.set_init(pid)?;
        }
        self.set_limits(prepared, is_limited).phase(Phase::Cgroup)?;
        launch::schedule(&prepared.plan, pid)?;
        // Before init goes on: a quick program, too, finds the size of its terminal.
        self.relay = prepared.relay(terminal).phase(Phase::Terminal)?;
        Ok(())
    }

    /// Runs the parent's hooks, in the middle of step 6. The limits are set before the hooks run,
    /// since hooks may change them (device rules of GPUs).
    fn run_hooks(&mut self, prepared: &PreparedContainer) -> Result<()> {
        let plan = &prepared.plan;
        let pid = self.init().pid().as_raw();
        self.parent.mounted(plan)?;
        let cgroup = &self.claimed.container.record.cgroup;
        cgroup
            .apply(&prepared.limits, self.unit.as_mut())
            .phase(Phase::Cgroup)?;
        if !plan.net_devices.is_empty() {
            let moved = MovedDevice::all(&plan.net_devices, pid).phase(Phase::Namespaces)?;
            self.claimed.moved = Some(moved);
        }
        if let Some(hooks) = &plan.hooks {
            run_parent_hooks(hooks, pid, &prepared.hook_outputs)?;
        }
        self.parent.proceed()
    }

    /// Sets the limits of the container, unless that is done already, and gives it its cgroup.
    fn set_limits(&mut self, prepared: &PreparedContainer, is_limited: bool) -> Result<()> {
        let cgroup = &self.claimed.container.record.cgroup;
        if !is_limited {
            cgroup.apply(&prepared.limits, self.unit.as_mut())?;
        }
        match &prepared.delegation {
            // The container's cgroup namespace, if it has one, begins at the container's cgroup.
            Some(delegation) => cgroup.delegate(delegation, self.init().pid().as_raw()),
            None => Ok(()),
        }
    }

    /// Step 8: records that the container is created, and reports init.
    fn record(&mut self, request: &CreateRequest, prepared: &PreparedContainer) -> Result<()> {
        self.claimed
            .record()
            .and_then(|()| report_init(request, prepared, self.init()))
            .phase(Phase::State)
    }

    /// Lets init go on to the program, and waits until that runs.
    fn start(
        mut self,
        request: &CreateRequest,
        prepared: PreparedContainer,
    ) -> Result<RunningContainer> {
        // Before init goes on: a quick program, too, finds the socket of its service manager.
        let notify = NotifyRelay::listen(&self.claimed.container)?;
        self.record(request, &prepared)?;
        drop(prepared);
        let record = &self.claimed.container.record;
        let agent = AgentConnection::connect(record, ContainerStatus::Created)?;
        log::debug(format_args!(
            "{}: created, init goes on",
            request.options.id
        ));
        self.parent.start()?;
        let sender = notify_fd_sender(agent, self.init().pid().as_raw());
        let process = self.parent.wait_program(sender)?;
        let mut running = RunningContainer {
            process,
            claimed: self.claimed,
            relay: self.relay,
            notify,
        };
        let container = &running.claimed.container;
        start::poststart(container, running.process.as_fd())?;
        running.keep();
        Ok(running)
    }
}

/// Runs the hooks that the parent runs before the container is created.
pub fn run_parent_hooks(hooks: &Hooks, pid: i32, outputs: &HookOutputs) -> Result<()> {
    CALLERS
        .into_iter()
        .try_for_each(|kind| hooks.run(kind, pid, outputs))
}

/// Reports init: its pidfd to the pidfd sockets, its pid to `--pid-file`.
pub fn report_init(
    request: &CreateRequest,
    prepared: &PreparedContainer,
    init: &ClonedProcess,
) -> Result<()> {
    for socket in &prepared.pidfd_sockets {
        socket.send(init.as_fd(), "pidfd")?;
    }
    match &request.options.engine.pid_file {
        Some(path) => pid_file::write(path, init.pid()),
        None => Ok(()),
    }
}

/// `rt run`. Returns the status of the process, or 0 when detached.
pub fn run(request: &CreateRequest, keep: bool, no_subreaper: bool) -> Result<i32> {
    let foreground = match request.detached {
        true => None,
        false => Some(Foreground::prepare(!no_subreaper)?),
    };
    let (prepared, created) = build_container(request)?;
    let running = created.start(request, prepared).phase(Phase::Process)?;
    match foreground {
        Some(foreground) => running.wait(&foreground, keep),
        None => running.wait_ready().map(|()| 0),
    }
}

impl RunningContainer {
    /// Keeps the container, in which `process` runs.
    pub fn new(process: ClonedProcess, claimed: ClaimedContainer, relay: Option<Relay>) -> Self {
        let mut running = Self {
            process,
            claimed,
            relay,
            notify: None,
        };
        running.keep();
        running
    }

    fn keep(&mut self) {
        self.process.release();
        self.claimed.keep();
    }

    /// Waits until the container has said that it is ready, if a service manager wants to hear it.
    fn wait_ready(mut self) -> Result<()> {
        self.claimed.lock = None;
        match &self.notify {
            Some(notify) => notify.wait(self.process.as_fd(), self.process.pid().as_raw()),
            None => Ok(()),
        }
    }

    /// Waits for the end of the process, and returns its status. The container is then deleted,
    /// unless `keep`.
    pub fn wait(mut self, foreground: &Foreground, keep: bool) -> Result<i32> {
        // While the container runs, other commands may do what they like with it.
        self.claimed.lock = None;
        let status = foreground.wait(self.process.pid(), self.relay, self.notify);
        let container = &self.claimed.container;
        if !keep && let Some(_lock) = container.lock()? {
            if status.is_err() {
                delete::end_init(container, self.process.as_fd())?;
            }
            delete::clean_up(container)?;
        }
        status
    }
}
