//! Clones init for `create` and the process of `exec`, and does for it what only the parent may do
//! before it goes on. This is the one place from which a process gets into a container.

mod mount_service;

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Pid, Uid, fchown};

use crate::container::protocol::{self, ClonedProcess, ParentEnd};
use crate::error::{InPhase, Phase};
use crate::init::{self, InitDescriptors};
use crate::namespace::{IdMap, Namespaces};
use crate::plan::Plan;
use crate::sys::procfd::ProcFd;
use crate::sys::rootfd::kind;
use crate::sys::{self, Fork};

/// Clones init or its builder, on version 2 straight into its cgroup. It waits for
/// [`ParentEnd::go`].
pub fn clone(plan: &Plan, mut open: InitDescriptors<'_>) -> Result<ParentEnd> {
    if let Some(cpus) = &plan.affinity.initial {
        sys::set_affinity(cpus.mask()).context("process.execCPUAffinity.initial")?;
    }
    // The score is put back when the new process has inherited it: an ordinary user may not change
    // that of a process in a container.
    let program = plan.process.as_ref();
    let score = program.and_then(|program| program.oom_score_adj);
    let _score = score.map(Score::lend).transpose()?;
    let procfs = plan.needs_procfs().then(ProcFd::new).transpose();
    open.procfs = procfs.phase(Phase::Plan)?;
    let (socket, init_end) = protocol::make_pair()?;
    let cgroup = open.cgroup.clone_into();
    let cloned = open.namespaces.clone(cgroup, plan.has_builder);
    match cloned.phase(Phase::Namespaces)? {
        Fork::Child => {
            open.cgroup.forget_directory();
            init::run(plan, open, init_end)
        }
        Fork::Parent { pid, pidfd } => {
            let process = ClonedProcess::new(pid, pidfd);
            Ok(ParentEnd::new(socket, process, plan.has_builder))
        }
    }
}

/// Does what the process itself may not do: writes id maps and raises hard limits.
pub fn prepare(plan: &Plan, namespaces: &Namespaces, pid: Pid) -> Result<()> {
    let pid = pid.as_raw();
    namespaces.write_id_maps(pid).phase(Phase::Namespaces)?;
    for limit in plan.process.iter().flat_map(|program| &program.rlimits) {
        sys::raise_hard_limit(pid, limit.resource, limit.hard)
            .with_context(|| limit.origin.clone())?;
    }
    Ok(())
}

/// <linux/magic.h>: the file system of pipes that have no name.
const PIPEFS_MAGIC: FsType = FsType(0x5049_5045);

/// Gives the pipes on the standard streams to the program's user where init may not: in a user
/// namespace that does not map their owner. `/dev/stdout` can then be opened again, as it can with
/// runc, which makes the pipes itself. A file is never given away, not even a FIFO, nor a socket or
/// a device. `pid` is a process in the container's user namespace.
pub fn give_pipes(plan: &Plan, namespaces: &Namespaces, pid: Pid) -> Result<()> {
    let program = plan.process.as_ref().filter(|program| !program.terminal);
    let Some(program) = program.filter(|_| namespaces.has_user()) else {
        return Ok(());
    };
    let mut pipes = Vec::new();
    for (number, stream) in sys::standard_streams().into_iter().enumerate() {
        let Ok(stat) = fstat(stream) else { continue };
        let is_fifo = kind(&stat) == SFlag::S_IFIFO;
        if is_fifo && fstatfs(stream).is_ok_and(|fs| fs.filesystem_type() == PIPEFS_MAGIC) {
            pipes.push((number, stream, stat.st_uid));
        }
    }
    if pipes.is_empty() {
        return Ok(());
    }
    // The map may be hidden from an ordinary user, who has no right to give a pipe away either.
    let Ok(users) = IdMap::of_users_of(pid.as_raw()) else {
        return Ok(());
    };
    let Some(owner) = users.outside(program.uid).map(Uid::from_raw) else {
        return Ok(());
    };
    for (number, stream, uid) in pipes {
        if users.shows(uid) {
            continue;
        }
        match fchown(stream, Some(owner), None) {
            Ok(()) | Err(Errno::EPERM | Errno::EROFS) => {}
            Err(errno) => return Err(errno).with_context(|| format!("standard stream {number}")),
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
    /// Sets the score of this process, for the new process to inherit. The new process cannot set
    /// its own: neither a procfs to write it through nor any other directory of the host may be
    /// open when a container sees a process of `exec`.
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
        // A failure is ignored: without CAP_SYS_RESOURCE the kernel may refuse to lower the score
        // again.
        let _ = self.file.write_all(&self.before);
    }
}

/// Sets the scheduling policy and the priorities of the program. The parent does this, since init
/// has no rights on the host if it is in a user namespace. It comes after the limits: the cgroup's
/// `cpu.rt_runtime_us` decides whether there may be a real-time policy.
pub fn schedule(plan: &Plan, pid: Pid) -> Result<()> {
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

/// Returns what the kernel may have missed: it says no more than EPERM (sched(7)).
fn hint(policy: i32) -> &'static str {
    match policy {
        libc::SCHED_FIFO | libc::SCHED_RR => {
            " (has linux.resources.cpu.realtimeRuntime left time for it?)"
        }
        libc::SCHED_DEADLINE => " (is there time for it, and does its cpuset have every CPU?)",
        _ => "",
    }
}
