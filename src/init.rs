//! Runs init, the first process of a container, and the process of `exec`, from the clone to the
//! program. [`run`] walks the plan; [`confine`] is the order of confinement, one line for each
//! step. Everything below `src/init/` runs after the clone. It returns to nobody: it ends by
//! executing the program, or with [`sys::exit_now`].
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod birth;
mod copy;
mod descriptors;
mod devices;
mod diagnosis;
mod landlock;
mod mount;
mod paths;
mod process;
mod rootfs;
mod seccomp;
mod terminal;

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sched::CloneFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{fchdir, getpid, sethostname};

use crate::cgroup::OpenCgroup;
use crate::child::{Confinement, HookOutputs, RunPlace};
use crate::config::hooks::HookKind;
use crate::container::hooks::Hooks;
use crate::container::protocol::{InitEnd, StartCommand};
use crate::error::{Failure, InPhase, Phase, line, phase};
use crate::namespace::Namespaces;
use crate::plan::Plan;
use crate::sys::procfd::ProcFd;
use crate::sys::rootfd::RootFd;
use crate::{interfaces, namespace, sys};

pub use descriptors::InitDescriptors;
use process::ReadyProgram;
use terminal::Terminal;

/// Gives CRIU's worker a fresh session keyring, which the restored processes inherit.
pub fn own_keyring(plan: &Plan) -> Result<()> {
    let proc = plan.labels().map(|_| ProcFd::new()).transpose()?;
    process::own_keyring(plan, proc.as_ref())
}

/// Runs the plan: confines this process, waits for Detach or Start, and executes the program.
pub fn run(plan: &Plan, mut open: InitDescriptors<'_>, parent: InitEnd) -> ! {
    let (program, command) =
        set_up(plan, &mut open, &parent).unwrap_or_else(|error| fail(&parent, &error));
    let starter = match command {
        StartCommand::Start => parent,
        StartCommand::Detach => {
            drop(parent);
            wait_for_start(open.listener.as_ref())
        }
    };
    match execute(plan, open.hook_outputs, program, &starter) {
        Ok(never) => match never {},
        Err(error) => fail(&starter, &error),
    }
}

/// Makes this process ready for its program, and waits for Detach or Start.
fn set_up<'a>(
    plan: &'a Plan,
    open: &mut InitDescriptors<'_>,
    parent: &InitEnd,
) -> Result<(Option<ReadyProgram<'a>>, StartCommand)> {
    let program = confine(plan, open, parent)?;
    let program = arrive(plan, open, program, parent)?;
    Ok((program, parent.wait_release()?))
}

/// Runs the startContainer hooks and executes the program.
fn execute(
    plan: &Plan,
    outputs: &HookOutputs,
    program: Option<ReadyProgram<'_>>,
    starter: &InitEnd,
) -> Result<Infallible> {
    if let Some(hooks) = plan.start_hooks() {
        run_start_hooks(hooks, outputs, program.as_ref(), starter)?;
    }
    let Some(program) = program else {
        starter.executing();
        sys::exit_now(0);
    };
    program.execute(starter)
}

/// Runs the startContainer hooks. They are code of the image, so the confinement of the program
/// holds for them, too.
fn run_start_hooks(
    hooks: &Hooks,
    outputs: &HookOutputs,
    program: Option<&ReadyProgram<'_>>,
    starter: &InitEnd,
) -> Result<()> {
    let pid = getpid().as_raw();
    let Some(program) = program else {
        let place = RunPlace::inside(outputs);
        return hooks.run_inside(HookKind::StartContainer, pid, &[], place);
    };
    let mut keep = vec![starter.as_raw_fd()];
    keep.extend(program.descriptor());
    let confinement = Confinement {
        keep,
        enter: &|| program.confine_hook(starter),
    };
    let place = RunPlace {
        confinement: Some(&confinement),
        ..RunPlace::inside(outputs)
    };
    hooks.run_inside(HookKind::StartContainer, pid, program.env(), place)?;
    // The messenger is a second thread. It is made after the last hook, so that every hook is
    // forked from a process with one thread.
    program.prepare_filter()
}

/// Confines this process, in a fixed order. `exec` joins existing namespaces and has no root file
/// system to build; everything else is the same for `create` and `exec`.
fn confine<'a>(
    plan: &'a Plan,
    open: &mut InitDescriptors<'_>,
    parent: &InitEnd,
) -> Result<Option<ReadyProgram<'a>>> {
    let namespaces = open.namespaces;
    sys::clear_command_line();
    let mut keep = open.of_set_up(plan);
    keep.push(parent.as_raw_fd());
    process::leave_parent(plan, keep)?;
    parent.wait_go()?;
    process::take_cpus(plan)?;
    namespace::hide()?;
    enter_cgroups(plan, &mut open.cgroup).phase(Phase::Cgroup)?;
    namespaces.enter().phase(Phase::Namespaces)?;
    set_end_with_parent(plan, namespaces, Some(Signal::SIGKILL))?;
    process::lead_session()?;
    process::own_keyring(plan, open.procfs.as_ref())?;
    let root = build_root(plan, open, parent).phase(Phase::Mounts)?;
    if plan.root.is_some() {
        run_hooks(&root, plan, open, parent).phase(Phase::Hooks)?;
    }
    let terminal = Terminal::open_wanted(&root, plan).phase(Phase::Terminal)?;
    if let Some(root_plan) = &plan.root {
        set_up_namespaces(plan, open).phase(Phase::Namespaces)?;
        rootfs::seal(&root, root_plan, plan.process.as_ref()).phase(Phase::Mounts)?;
    }
    if let Some(terminal) = terminal {
        terminal.hand_over(plan, parent).phase(Phase::Terminal)?;
    }
    if let Some(policy) = &plan.memory_policy {
        sys::set_mempolicy(policy.mode, &policy.nodes).context("linux.memoryPolicy")?;
    }
    if plan.has_builder {
        namespaces.join_pid().phase(Phase::Namespaces)?;
    }
    process::label(plan, open.procfs.take())?;
    let program = match &plan.process {
        Some(program) => Some(process::confine(program, &root)?),
        None => None,
    };
    set_end_with_parent(plan, namespaces, Some(Signal::SIGKILL))?;
    if plan.root.is_some() {
        // Until the program is executed, the signals that ask a process to end do end init, so that
        // `kill ID TERM` ends a created container.
        sys::end_when_asked().context("sigaction")?;
    }
    Ok(program)
}

/// Enters the cgroups that the process was not cloned into. A builder stays outside of the one that
/// counts processes.
fn enter_cgroups(plan: &Plan, cgroup: &mut OpenCgroup) -> Result<()> {
    cgroup.enter()?;
    match plan.has_builder {
        true => Ok(()),
        false => cgroup.enter_pids(),
    }
}

/// Builds the root file system, if the plan has one, up to the hooks. Returns the root.
fn build_root(plan: &Plan, open: &InitDescriptors<'_>, parent: &InitEnd) -> Result<RootFd> {
    let Some(root_plan) = &plan.root else {
        return rootfs::current();
    };
    let root = rootfs::open(root_plan, parent)?;
    // A builder is in no pid namespace of the container.
    let pid_namespace = open.namespaces.joined(CloneFlags::CLONE_NEWPID);
    let pid_namespace = pid_namespace.filter(|_| plan.has_builder);
    rootfs::furnish(&root, root_plan, pid_namespace, parent)?;
    if let Some(notify) = open.notify {
        rootfs::attach_notify(&root, notify.as_fd())?;
    }
    Ok(root)
}

/// Makes the confined process visible to the container, and reports Ready to the parent. A builder
/// clones the process for that, and only the clone returns.
fn arrive<'a>(
    plan: &Plan,
    open: &mut InitDescriptors<'_>,
    mut program: Option<ReadyProgram<'a>>,
    parent: &InitEnd,
) -> Result<Option<ReadyProgram<'a>>> {
    if plan.has_builder {
        let mut keep = open.of_program(plan);
        keep.push(parent.as_raw_fd());
        if let Some(program) = &mut program {
            if plan.start_hooks().is_none() {
                program.restrict_early()?;
            }
            keep.extend(program.descriptor());
        }
        birth::appear(plan, &mut open.cgroup, parent, keep)?;
    }
    if let Some(program) = &mut program {
        program.learn_pid();
        if plan.start_hooks().is_none() {
            program.prepare_filter()?;
        }
    }
    if plan.root.is_some() {
        // Before Ready, so that the parent still learns of a failure.
        open.namespaces.show()?;
    }
    // Before Ready: the parent may end as soon as it has released a process that is ready.
    set_end_with_parent(plan, open.namespaces, None)?;
    parent.ready()?;
    Ok(program)
}

/// Makes the kernel send `signal` to this process when its parent ends, while it builds in a joined
/// pid namespace without a builder: a process there may stop it, so that it would not notice the end
/// of its parent. A change of user clears this setting.
fn set_end_with_parent(plan: &Plan, namespaces: &Namespaces, signal: Option<Signal>) -> Result<()> {
    let is_seen = namespaces.joined(CloneFlags::CLONE_NEWPID).is_some();
    if !is_seen || plan.has_builder {
        return Ok(());
    }
    set_pdeathsig(signal).context("PR_SET_PDEATHSIG")
}

/// Waits for the hooks of the parent, and runs the createContainer hooks. Everything is mounted by
/// now and nothing is sealed yet, so that what hooks mount below `root.path` is part of the
/// container.
fn run_hooks(
    root: &RootFd,
    plan: &Plan,
    open: &InitDescriptors<'_>,
    parent: &InitEnd,
) -> Result<()> {
    if plan.stops_when_mounted() {
        parent.wait_hooks()?;
    }
    let Some(hooks) = &plan.hooks else {
        return Ok(());
    };
    if hooks.has(&[HookKind::CreateContainer]) {
        fchdir(root).context("root.path")?;
        if plan.has_builder {
            // The specification demands that these hooks run in the container's namespaces.
            open.namespaces.join_pid().phase(Phase::Namespaces)?;
        }
        let place = RunPlace {
            peer: Some(parent.as_fd()),
            ..RunPlace::inside(open.hook_outputs)
        };
        // A builder is not init, and clones it only when it has built the root.
        let pid = if plan.has_builder {
            0
        } else {
            getpid().as_raw()
        };
        hooks.run_inside(HookKind::CreateContainer, pid, &[], place)?;
    }
    Ok(())
}

/// Sets the names of the host, the loopback interface and the sysctls of the namespaces.
fn set_up_namespaces(plan: &Plan, open: &InitDescriptors<'_>) -> Result<()> {
    if let Some(name) = &plan.hostname {
        sethostname(name).context("hostname")?;
    }
    if let Some(name) = &plan.domainname {
        sys::set_domain_name(name).context("domainname")?;
    }
    interfaces::bring_loopback_up(open.namespaces)?;
    paths::set_sysctls(plan, open.procfs.as_ref())
}

/// Waits for Start on the start socket, however long that takes. A peer that connects and leaves
/// without a message has only probed the socket.
fn wait_for_start(listener: Option<&OwnedFd>) -> InitEnd {
    loop {
        let Some(Ok(connection)) = listener.map(|listener| sys::accept(listener.as_fd())) else {
            // Without the start socket nobody can start this container any more.
            sys::exit_now(1);
        };
        let starter = InitEnd::from_connection(connection);
        if starter.wait_start() {
            return starter;
        }
    }
}

/// Reports the error to the peer, in the phase `process` unless it has another one, and exits.
fn fail(peer: &InitEnd, error: &anyhow::Error) -> ! {
    let phase = phase(error).unwrap_or(Phase::Process);
    peer.failed(&Failure {
        phase,
        line: line(error),
    });
    sys::exit_now(1)
}
