//! The one clone. `create` and `exec` both go through here: a first process for a plan, and what
//! only the caller may do to it before it goes on.

mod mount_service;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Pid, Uid, fchown};

use crate::cgroup::OpenCgroup;
use crate::container::protocol::{self, ParentEnd};
use crate::error::{InPhase, Phase};
use crate::init;
use crate::namespace::IdMap;
use crate::plan::Plan;
use crate::sys::rootfd::kind;
use crate::sys::{self, Fork};

/// Forks the first process, or its builder, on cgroup v2 into its group. It waits for
/// [`ParentEnd::go`].
pub(crate) fn clone(
    plan: &Plan,
    group: OpenCgroup,
    listener: Option<OwnedFd>,
) -> Result<(Pid, ParentEnd)> {
    if let Some(cpus) = &plan.affinity.initial {
        sys::set_affinity(cpus.mask())
            .context("process.execCPUAffinity.initial")
            .phase(Phase::Process)?;
    }
    // Put back when the process has it: an ordinary user may not touch one in a container.
    let score = plan
        .process
        .as_ref()
        .and_then(|program| program.oom_score_adj);
    let _score = score.map(Score::lend).transpose().phase(Phase::Process)?;
    let (socket, init_end) = protocol::pair()?;
    match plan
        .namespaces
        .clone(group.clone_into(), plan.has_builder())
        .phase(Phase::Namespaces)?
    {
        Fork::Child => init::run(plan, group.born(), init_end, listener),
        Fork::Parent { pid, pidfd } => Ok((
            Pid::from_raw(pid),
            ParentEnd::new(socket, pid, pidfd, plan.has_builder()),
        )),
    }
}

/// What the process itself may not do: id maps, higher limits.
pub(crate) fn prepare(plan: &Plan, pid: Pid) -> Result<()> {
    plan.namespaces
        .write_id_maps(pid.as_raw())
        .phase(Phase::Namespaces)?;
    let Some(program) = &plan.process else {
        return Ok(());
    };
    for limit in &program.rlimits {
        sys::raise_hard_limit(pid.as_raw(), limit.resource, limit.hard)
            .with_context(|| limit.origin.clone())
            .phase(Phase::Process)?;
    }
    Ok(())
}

/// <linux/magic.h>: the pipes that have no name.
const PIPEFS_MAGIC: FsType = FsType(0x5049_5045);

/// Gives the caller's pipes to the program's user where init may not: in a user namespace that does
/// not map their owner. `/dev/stdout` can then be opened again, as it can with runc, whose pipes are
/// its own. Never a file, not even a FIFO, nor a socket or a device. `pid` is in the container's
/// user namespace.
pub(crate) fn give_pipes(plan: &Plan, pid: i32) -> Result<()> {
    let program = plan.process.as_ref().filter(|program| !program.terminal);
    let Some(program) = program.filter(|_| plan.namespaces.has_user()) else {
        return Ok(());
    };
    let pipes = (0..3).filter_map(|fd| {
        let stat = fstat(sys::stdio(fd))
            .ok()
            .filter(|stat| kind(stat) == SFlag::S_IFIFO)?;
        fstatfs(sys::stdio(fd))
            .ok()
            .filter(|fs| fs.filesystem_type() == PIPEFS_MAGIC)?;
        Some((fd, stat.st_uid))
    });
    let pipes: Vec<_> = pipes.collect();
    if pipes.is_empty() {
        return Ok(());
    }
    // Nor has an ordinary user a right to, from whom the map may be hidden.
    let Ok(users) = IdMap::of_users_of(pid) else {
        return Ok(());
    };
    let Some(owner) = users.outside(program.uid).map(Uid::from_raw) else {
        return Ok(());
    };
    for (fd, _) in pipes.into_iter().filter(|(_, uid)| !users.shows(*uid)) {
        match fchown(sys::stdio(fd), Some(owner), None) {
            Ok(()) | Err(Errno::EPERM | Errno::EROFS) => {}
            Err(errno) => return Err(errno).with_context(|| format!("standard stream {fd}")),
        }
    }
    Ok(())
}

/// The `oom_score_adj` of this process, put back when dropped.
#[derive(Debug)]
struct Score {
    file: File,
    before: Vec<u8>,
}

impl Score {
    /// Takes the score on for the process to inherit. A procfs to write it through, or any other
    /// directory of the host's, may not be open when a container sees a process of `exec`.
    fn lend(score: i32) -> Result<Self> {
        let path = "/proc/self/oom_score_adj";
        let mut file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .context(path)?;
        let mut before = Vec::new();
        file.read_to_end(&mut before).context(path)?;
        file.write_all(score.to_string().as_bytes())
            .context("process.oomScoreAdj")?;
        Ok(Self { file, before })
    }
}

impl Drop for Score {
    fn drop(&mut self) {
        // Without CAP_SYS_RESOURCE there is no way down from where it was never higher.
        let _ = self.file.write_all(&self.before);
    }
}

/// The policy and the priorities of the program. By the caller, since init has no rights on the
/// host in a user namespace, and after the limits: the cgroup's `cpu.rt_runtime_us` decides
/// whether there may be a real-time policy.
pub(crate) fn schedule(plan: &Plan, pid: Pid) -> Result<()> {
    let Some(program) = &plan.process else {
        return Ok(());
    };
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
