//! How the kernel schedules the program: `process.scheduler`, `ioPriority`, `execCPUAffinity`.

use anyhow::{Context, Result};
use oci_spec::runtime::{
    IOPriorityClass as Class, LinuxIOPriority, LinuxSchedulerFlag as Flag,
    LinuxSchedulerPolicy as Policy, Process, Scheduler,
};

use crate::config::cpus::Cpus;
use crate::sys::SchedAttr;

/// Bits below the class in a priority of ioprio_set(2) (`IOPRIO_CLASS_SHIFT`).
const CLASS_SHIFT: u16 = 13;
/// A policy that <linux/sched.h> reserves; Linux has never had it.
const SCHED_ISO: i32 = 4;

/// What the parent sets for init, which may not be allowed to.
#[derive(Debug)]
pub struct Scheduling {
    pub scheduler: Option<SchedAttr>,
    /// As ioprio_set(2) takes it.
    pub io_priority: Option<u16>,
}

impl Scheduling {
    pub(super) fn from_spec(process: &Process) -> Self {
        Self {
            scheduler: process.scheduler().as_ref().map(attributes),
            io_priority: process.io_priority().as_ref().map(io_priority),
        }
    }
}

fn attributes(scheduler: &Scheduler) -> SchedAttr {
    SchedAttr {
        policy: match scheduler.policy() {
            Policy::SchedOther => libc::SCHED_OTHER,
            Policy::SchedFifo => libc::SCHED_FIFO,
            Policy::SchedRr => libc::SCHED_RR,
            Policy::SchedBatch => libc::SCHED_BATCH,
            Policy::SchedIso => SCHED_ISO,
            Policy::SchedIdle => libc::SCHED_IDLE,
            Policy::SchedDeadline => libc::SCHED_DEADLINE,
        }
        .unsigned_abs(),
        flags: scheduler
            .flags()
            .iter()
            .flatten()
            .fold(0, |all, flag| all | bit(*flag))
            .into(),
        nice: scheduler.nice().unwrap_or(0),
        priority: scheduler.priority().unwrap_or(0).unsigned_abs(),
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
        ..SchedAttr::default()
    }
}

fn bit(flag: Flag) -> u32 {
    match flag {
        Flag::SchedResetOnFork => libc::SCHED_FLAG_RESET_ON_FORK,
        Flag::SchedFlagReclaim => libc::SCHED_FLAG_RECLAIM,
        Flag::SchedFlagDLOverrun => libc::SCHED_FLAG_DL_OVERRUN,
        Flag::SchedFlagKeepPolicy => libc::SCHED_FLAG_KEEP_POLICY,
        Flag::SchedFlagKeepParams => libc::SCHED_FLAG_KEEP_PARAMS,
        Flag::SchedFlagUtilClampMin => libc::SCHED_FLAG_UTIL_CLAMP_MIN,
        Flag::SchedFlagUtilClampMax => libc::SCHED_FLAG_UTIL_CLAMP_MAX,
    }
    .unsigned_abs()
}

fn io_priority(wanted: &LinuxIOPriority) -> u16 {
    let class = match wanted.class() {
        Class::IoprioClassRt => 1,
        Class::IoprioClassBe => 2,
        Class::IoprioClassIdle => 3,
    };
    class << CLASS_SHIFT | u16::try_from(wanted.priority()).unwrap_or(0)
}

/// The CPUs that a process runs on.
#[derive(Debug)]
pub struct Affinity {
    /// The CPUs before the process is in the container's cgroup.
    pub initial: Option<Cpus>,
    /// The CPUs from then on. `None`: what the kernel makes of the initial ones.
    pub last: Option<Cpus>,
}

impl Affinity {
    /// Returns every CPU that the cpuset has, even if the engine happens to be bound to fewer.
    pub(super) fn all() -> Self {
        Self {
            initial: None,
            last: Some(Cpus::all()),
        }
    }

    /// Returns `process.execCPUAffinity`, which is for the processes of `exec` alone, or every CPU
    /// if it names none.
    pub(super) fn of_exec(process: &Process) -> Result<Self> {
        let Some(wanted) = process.exec_cpu_affinity() else {
            return Ok(Self::all());
        };
        let cpus = |list: &Option<String>| {
            let list = list.as_deref().filter(|list| !list.is_empty());
            list.map(Cpus::parse)
                .transpose()
                .context("process.execCPUAffinity")
        };
        let (initial, last) = (cpus(wanted.initial())?, cpus(wanted.cpu_affinity_final())?);
        match (&initial, &last) {
            (None, None) => Ok(Self::all()),
            _ => Ok(Self { initial, last }),
        }
    }
}
