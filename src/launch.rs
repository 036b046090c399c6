//! The one clone. `create` and `exec` both go through here: a first process for a plan, and what
//! only the caller may do to it before it goes on.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use nix::unistd::{Pid, geteuid};

use crate::cgroup::OpenCgroup;
use crate::error::{InPhase, Phase};
use crate::init;
use crate::plan::Plan;
use crate::sync::{self, Caller};
use crate::sys::{self, Fork};

/// Forks the first process, on cgroup v2 into its group. It waits for [`Caller::go`].
pub(crate) fn clone(
    plan: &Plan,
    group: OpenCgroup,
    listener: Option<OwnedFd>,
) -> Result<(Pid, Caller)> {
    if let Some(cpus) = &plan.affinity.initial {
        sys::set_affinity(cpus).context("process.execCPUAffinity.initial").phase(Phase::Process)?;
    }
    if !geteuid().is_root() {
        // He may not touch a process that has gone into the container.
        adjust_oom_score(plan, "self")?;
    }
    let (socket, init_end) = sync::pair()?;
    match plan.namespaces.clone(group.clone_into()).phase(Phase::Namespaces)? {
        Fork::Child => init::run(plan, group.born(), init_end, listener),
        Fork::Parent { pid, pidfd } => Ok((Pid::from_raw(pid), Caller::new(socket, pid, pidfd))),
    }
}

/// What the process itself may not do: id maps, a lower OOM score, higher limits.
pub(crate) fn prepare(plan: &Plan, pid: Pid) -> Result<()> {
    plan.namespaces.write_id_maps(pid.as_raw()).phase(Phase::Namespaces)?;
    let Some(program) = &plan.process else { return Ok(()) };
    for limit in &program.rlimits {
        sys::raise_hard_limit(pid.as_raw(), limit.resource, limit.hard)
            .with_context(|| limit.origin.clone())
            .phase(Phase::Process)?;
    }
    if geteuid().is_root() {
        adjust_oom_score(plan, &pid.to_string())?;
    }
    Ok(())
}

/// The policy and the priorities of the program. By the caller, since init has no rights on the
/// host in a user namespace, and after the limits: the cgroup's `cpu.rt_runtime_us` decides
/// whether there may be a real-time policy.
pub(crate) fn schedule(plan: &Plan, pid: Pid) -> Result<()> {
    let Some(program) = &plan.process else { return Ok(()) };
    if let Some(attributes) = &program.scheduling.scheduler {
        sys::sched_setattr(pid.as_raw(), attributes)
            .with_context(|| format!("process.scheduler{}", hint(attributes.policy as i32)))?;
    }
    if let Some(priority) = program.scheduling.io_priority {
        sys::ioprio_set(pid.as_raw(), priority).context("process.ioPriority")?;
    }
    Ok(())
}

/// What the kernel may have missed, of which it says no more than EPERM (sched(7)).
fn hint(policy: i32) -> &'static str {
    match policy {
        libc::SCHED_FIFO | libc::SCHED_RR => {
            " (has linux.resources.cpu.realtimeRuntime left time for it?)"
        }
        libc::SCHED_DEADLINE => " (is there time for it, and does its cpuset have every CPU?)",
        _ => "",
    }
}

fn adjust_oom_score(plan: &Plan, process: &str) -> Result<()> {
    let score = plan.process.as_ref().and_then(|program| program.oom_score_adj);
    let (Some(score), Some(proc)) = (score, &plan.proc) else { return Ok(()) };
    // Not by path: with exec the caller is in the container's mount namespace by now.
    proc.write(format!("{process}/oom_score_adj"), score.to_string().as_bytes())
        .context("process.oomScoreAdj")
        .phase(Phase::Process)
}
