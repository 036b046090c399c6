//! `exec`: runs one more process in a container. It goes through the same
//! [`init::run`](crate::init::run) as the first process, with every namespace joined and no root
//! file system to build.

mod options;
mod process;
pub mod user;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use crate::cgroup::{Cgroup, OpenCgroup};
use crate::config::LoadedProcess;
use crate::container::foreground::Foreground;
use crate::container::pid_file;
use crate::container::seccomp_agent::{AgentConnection, notify_fd_sender};
use crate::container::state::{Container, ContainerRecord, ContainerStatus};
use crate::engine::EngineOptions;
use crate::error::{InPhase, Phase};
use crate::init::InitDescriptors;
use crate::namespace::Namespaces;
use crate::plan::Plan;
use crate::pty::{self, DescriptorSocket, Relay, TerminalClient};
use crate::{launch, log, sys};

pub use options::{ExecOptions, ExecRequest};

/// How often `--ignore-paused` looks whether the container has been resumed.
const LOOK: Duration = Duration::from_millis(20);

/// Everything that is known and open before the process is cloned.
#[derive(Debug)]
struct PreparedProcess<'a> {
    plan: Plan,
    namespaces: Namespaces,
    outlets: ExecOutlets<'a>,
}

/// The sockets to which descriptors of the process are sent.
#[derive(Debug)]
struct ExecOutlets<'a> {
    console: Option<DescriptorSocket>,
    pidfd: Option<DescriptorSocket>,
    agent: Option<AgentConnection<'a>>,
}

/// `rt exec`. Returns the status of the process, or 0 when detached.
pub fn exec(request: &ExecRequest) -> Result<i32> {
    let options = &request.options;
    let container = Container::open_existing(&request.root, &options.id)?;
    let foreground = (!options.detach)
        .then(Foreground::prepare_to_end)
        .transpose()?;
    let init = alive(&container, options.ignore_paused)?;
    let prepared = prepare(request, &container, init).phase(Phase::Plan)?;
    run_program(options, &container, foreground.as_ref(), prepared).phase(Phase::Process)
}

/// Runs the planned process, and waits for its end in the foreground.
fn run_program(
    options: &ExecOptions,
    container: &Container,
    foreground: Option<&Foreground>,
    prepared: PreparedProcess<'_>,
) -> Result<i32> {
    let PreparedProcess {
        plan,
        namespaces,
        outlets,
    } = prepared;
    let has_terminal = plan.process.as_ref().is_some_and(|p| p.terminal);
    let client = (foreground.is_some() && has_terminal)
        .then(TerminalClient::open)
        .transpose()
        .phase(Phase::Terminal)?;
    let mut cgroup = open_cgroup(&container.record, options).phase(Phase::Cgroup)?;
    let late_entry = cgroup.leave_crowded().phase(Phase::Cgroup)?;
    if let Some(init) = &container.record.init {
        launch::give_pipes(&plan, &namespaces, Pid::from_raw(init.pid))?;
    }
    let open = InitDescriptors::new(&namespaces, cgroup);
    let mut parent = launch::clone(&plan, open)?;
    let builder = parent.process().pid();
    if let Some(rdt) = &container.record.rdt {
        rdt.enter(builder.as_raw()).phase(Phase::Cgroup)?;
    }
    launch::prepare(&plan, &namespaces, builder)?;
    parent.go()?;
    let terminal = parent.ready(&plan)?;
    let process = parent.process();
    let pid = process.pid();
    if let Some(entry) = late_entry {
        entry.admit(pid.as_raw()).phase(Phase::Cgroup)?;
    }
    log::debug(format_args!(
        "{}: the process is {pid}, confined",
        options.id
    ));
    launch::schedule(&plan, pid)?;
    let relay = outlets.relay(terminal, client).phase(Phase::Terminal)?;
    if let Some(socket) = &outlets.pidfd {
        socket.send(process.as_fd(), "pidfd")?;
    }
    if let Some(path) = &options.engine.pid_file {
        pid_file::write(path, pid)?;
    }
    if let Some(foreground) = foreground {
        foreground.take_over()?;
    }
    parent.start()?;
    let mut process = parent.wait_program(notify_fd_sender(outlets.agent, pid.as_raw()))?;
    log::debug(format_args!("{}: the program runs", options.id));
    // From here on the process outlives `rt` only if `rt` is detached or killed.
    let status = foreground.map_or(Ok(0), |foreground| foreground.wait(pid, relay, None))?;
    process.release();
    Ok(status)
}

impl<'a> ExecOutlets<'a> {
    fn connect(options: &ExecOptions, record: &'a ContainerRecord) -> Result<Self> {
        let EngineOptions {
            console_socket,
            pidfd_socket,
            ..
        } = &options.engine;
        Ok(Self {
            console: DescriptorSocket::connect_if(console_socket, "--console-socket")?,
            pidfd: DescriptorSocket::connect_if(pidfd_socket, "--pidfd-socket")?,
            agent: AgentConnection::connect(record, ContainerStatus::Running)?,
        })
    }

    /// Passes the terminal's master to the console socket. Returns a relay for it if there is no
    /// console socket.
    fn relay(
        &self,
        terminal: Option<OwnedFd>,
        client: Option<TerminalClient>,
    ) -> Result<Option<Relay>> {
        let terminal = pty::hand_over(terminal, self.console.as_ref())?;
        terminal
            .zip(client)
            .map(|(master, client)| Relay::new(master, client))
            .transpose()
    }
}

/// Opens the cgroups of init, or those that the options choose.
fn open_cgroup(record: &ContainerRecord, options: &ExecOptions) -> Result<OpenCgroup> {
    // Init need not be in the cgroup in which it was cloned: a systemd in the container moves
    // itself.
    let init = record.init.context("no init")?;
    let current = Cgroup::of_process(init.pid)?.where_also(&record.cgroup);
    record.cgroup.choose(current, &options.cgroup)?.open()
}

/// Returns the pidfd of init, if the container can take one more process.
fn alive(container: &Container, ignore_paused: bool) -> Result<OwnedFd> {
    let id = &container.record.id;
    loop {
        match container.status()? {
            (ContainerStatus::Created | ContainerStatus::Running, Some(init)) => return Ok(init),
            // The wait is outside the container: inside, neither `rt` nor a signal to it could end
            // the wait.
            (ContainerStatus::Paused, _) if ignore_paused => sys::sleep(LOOK),
            (ContainerStatus::Paused, _) => {
                bail!("{id}: cannot exec in a paused container (use --ignore-paused to override)")
            }
            (ContainerStatus::Creating, _) => {
                bail!("{id}: cannot exec in a container that is being created")
            }
            _ => bail!("{id}: cannot exec in a stopped container"),
        }
    }
}

/// Plans the process and connects to the sockets that it needs.
fn prepare<'a>(
    request: &ExecRequest,
    container: &'a Container,
    init: OwnedFd,
) -> Result<PreparedProcess<'a>> {
    let kinds = CloneFlags::from_bits_retain(container.record.namespaces);
    Ok(PreparedProcess {
        plan: plan(request, container)?,
        namespaces: Namespaces::of_container(init, kinds),
        outlets: ExecOutlets::connect(&request.options, &container.record)?,
    })
}

fn plan(request: &ExecRequest, container: &Container) -> Result<Plan> {
    let ExecRequest {
        options, extras, ..
    } = request;
    extras.check()?;
    let mut loaded = process::decide(request, container)?;
    let terminal = loaded.process.terminal().unwrap_or(false);
    pty::check_console(terminal, options.detach, &options.engine.console_socket)?;
    let LoadedProcess { process, warnings } = &mut loaded;
    let mut plan = Plan::for_exec(process, &container.record, *extras, warnings)?;
    plan.set_filter(container.filter()?);
    // `create` has already given the warnings about the container's own process.
    match options.process {
        Some(_) => loaded.warnings.iter().for_each(log::warn),
        None => loaded.warnings.iter().for_each(log::debug),
    }
    Ok(plan)
}
