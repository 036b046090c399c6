//! `exec`: runs one more process in a container. It goes through the same
//! [`init::run`](crate::init::run) as the first process, with every namespace joined and no root
//! file system to build.

mod options;
mod process;
pub(crate) mod user;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use crate::cgroup::{Cgroup, OpenCgroup};
use crate::config::LoadedProcess;
use crate::container::foreground::Foreground;
use crate::container::pid_file;
use crate::container::protocol::ParentEnd;
use crate::container::seccomp_agent::{self, AgentConnection};
use crate::container::state::{Container, ContainerStatus};
use crate::error::{InPhase, Phase};
use crate::namespace::Namespaces;
use crate::plan::Plan;
use crate::pty::{self, DescriptorSocket, Relay, TerminalClient};
use crate::{launch, log, sys};

pub(crate) use options::{ExecOptions, ExecRequest};

/// How often `--ignore-paused` looks whether the container has been resumed.
const LOOK: Duration = Duration::from_millis(20);

/// The sockets to which descriptors of the process are sent.
#[derive(Debug)]
struct ExecOutlets {
    console: Option<DescriptorSocket>,
    pidfd: Option<DescriptorSocket>,
    agent: Option<AgentConnection>,
}

/// `rt exec`. Returns the status of the process, or 0 when detached.
pub(crate) fn exec(request: &ExecRequest) -> Result<i32> {
    let options = &request.options;
    let container = Container::open(&request.root, &options.id)?;
    let foreground = (!options.detach)
        .then(Foreground::prepare_to_end)
        .transpose()?;
    let init = alive(&container, options.ignore_paused)?;
    let plan = plan(request, &container, init).phase(Phase::Plan)?;
    let outlets = ExecOutlets::open(options, &container).phase(Phase::Plan)?;
    let relayed = foreground.is_some() && plan.process.as_ref().is_some_and(|p| p.terminal);
    let client = relayed
        .then(TerminalClient::open)
        .transpose()
        .phase(Phase::Terminal)?;
    let mut group = open_group(&container, options).phase(Phase::Cgroup)?;
    let late_entry = group.leave_crowded().phase(Phase::Cgroup)?;
    if let Some(init) = &container.record.init {
        launch::give_pipes(&plan, init.pid).phase(Phase::Process)?;
    }
    let (builder, caller) = launch::clone(&plan, group, None)?;
    let mut guard = ExecGuard(Some(caller));
    let caller = guard.caller()?;
    if let Some(rdt) = &container.record.rdt {
        rdt.enter(builder.as_raw()).phase(Phase::Cgroup)?;
    }
    launch::prepare(&plan, builder)?;
    caller.go().phase(Phase::Process)?;
    let terminal = caller.ready(&plan)?;
    let pid = Pid::from_raw(caller.pid());
    if let Some(entry) = late_entry {
        entry.admit(pid.as_raw()).phase(Phase::Cgroup)?;
    }
    log::debug(format_args!(
        "{}: the process is {pid}, confined",
        options.id
    ));
    launch::schedule(&plan, pid).phase(Phase::Process)?;
    let terminal = pty::hand_over(terminal, outlets.console.as_ref()).phase(Phase::Terminal)?;
    if let Some(socket) = &outlets.pidfd {
        socket
            .send(caller.process().as_fd(), "pidfd")
            .phase(Phase::Process)?;
    }
    if let Some(path) = &options.pid_file {
        pid_file::write(path, pid).phase(Phase::Process)?;
    }
    let relay = terminal
        .zip(client)
        .map(|(master, client)| Relay::new(master, client));
    let relay = relay.transpose().phase(Phase::Terminal)?;
    foreground
        .as_ref()
        .map_or(Ok(()), Foreground::take_over)
        .phase(Phase::Process)?;
    caller.start().phase(Phase::Process)?;
    caller.executed(seccomp_agent::taker(outlets.agent, pid.as_raw()))?;
    log::debug(format_args!("{}: the program runs", options.id));
    // From here on the process outlives `rt` only if `rt` is detached or killed.
    let status = foreground.map_or(Ok(0), |foreground| foreground.wait(pid, relay, None))?;
    guard.release();
    Ok(status)
}

impl ExecOutlets {
    fn open(options: &ExecOptions, container: &Container) -> Result<Self> {
        let connect = DescriptorSocket::connect_if;
        Ok(Self {
            console: connect(options.console_socket.as_deref(), "--console-socket")?,
            pidfd: connect(options.pidfd_socket.as_deref(), "--pidfd-socket")?,
            agent: seccomp_agent::connect_of(&container.record, ContainerStatus::Running)?,
        })
    }
}

/// Opens the cgroups of init, or those that the options choose.
fn open_group(container: &Container, options: &ExecOptions) -> Result<OpenCgroup> {
    let record = &container.record;
    // Init need not be in the cgroup in which it was cloned: a systemd in the container moves
    // itself.
    let current = Cgroup::of_process(record.init.context("no init")?.pid)?;
    let current = current.where_also(&record.cgroup);
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

fn plan(request: &ExecRequest, container: &Container, init: OwnedFd) -> Result<Plan> {
    let ExecRequest {
        options, extras, ..
    } = request;
    extras.check()?;
    let mut loaded = process::decide(request, container)?;
    let terminal = loaded.process.terminal().unwrap_or(false);
    pty::check_console(terminal, options.detach, options.console_socket.as_deref())?;
    let kinds = CloneFlags::from_bits_retain(container.record.namespaces);
    let namespaces = Namespaces::of_container(init, kinds);
    let LoadedProcess { process, warnings } = &mut loaded;
    let mut plan = Plan::for_exec(namespaces, process, &container.record, *extras, warnings)?;
    plan.set_filter(container.filter()?);
    // `create` has already given the warnings about the container's own process.
    match options.process {
        Some(_) => loaded.warnings.iter().for_each(log::warn),
        None => loaded.warnings.iter().for_each(log::debug),
    }
    Ok(plan)
}

/// How long to wait for a process that was killed, in milliseconds. In a frozen cgroup it ends only
/// when that is thawed.
const KILL_LIMIT_MS: u16 = 2_000;

/// Kills the process, unless it has come as far as its program.
struct ExecGuard(Option<ParentEnd>);

impl ExecGuard {
    fn caller(&mut self) -> Result<&mut ParentEnd> {
        self.0.as_mut().context("no process")
    }

    fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for ExecGuard {
    fn drop(&mut self) {
        if let Some(caller) = &self.0 {
            let _ = sys::pidfd_send_signal(caller.process().as_fd(), libc::SIGKILL);
            let _ = sys::reap(caller.process().as_fd(), KILL_LIMIT_MS.into());
        }
    }
}
