//! Checks `process.scheduler`, `ioPriority` and `execCPUAffinity`: refuses what the kernel would
//! refuse without saying why, or accept and ignore (sched(7), sched_setattr(2), ioprio_set(2)).

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{
    LinuxIOPriority, LinuxSchedulerFlag as Flag, LinuxSchedulerPolicy as Policy, Process, Scheduler,
};

use crate::config::cpus::Cpus;

/// The valid times of a deadline policy, in nanoseconds. The kernel refuses shorter ones, and its
/// numbers are signed.
const TIMES: std::ops::Range<u64> = 1 << 10..1 << 63;

pub(super) fn check_scheduling(process: &Process) -> Result<()> {
    if let Some(wanted) = process.scheduler() {
        scheduler(wanted)?;
    }
    if let Some(wanted) = process.io_priority() {
        io_priority(wanted)?;
    }
    let Some(affinity) = process.exec_cpu_affinity() else {
        return Ok(());
    };
    for (name, list) in [
        ("initial", affinity.initial()),
        ("final", affinity.cpu_affinity_final()),
    ] {
        let cpus = list
            .as_deref()
            .filter(|list| !list.is_empty())
            .map(Cpus::parse)
            .transpose();
        cpus.with_context(|| format!("process.execCPUAffinity.{name}"))?;
    }
    Ok(())
}

fn scheduler(scheduler: &Scheduler) -> Result<()> {
    let policy = *scheduler.policy();
    if policy == Policy::SchedIso {
        bail!("process.scheduler.policy: SCHED_ISO: Linux has no such policy");
    }
    let (nice, priority) = (
        scheduler.nice().unwrap_or(0),
        scheduler.priority().unwrap_or(0),
    );
    ensure!(
        (-20..=19).contains(&nice),
        "process.scheduler.nice: {nice} is not in -20..19"
    );
    if matches!(policy, Policy::SchedFifo | Policy::SchedRr) {
        let known = (1..=99).contains(&priority);
        ensure!(
            known,
            "process.scheduler.priority: {priority} is not in 1..99"
        );
    } else {
        let none = priority == 0;
        ensure!(
            none,
            "process.scheduler.priority: only for SCHED_FIFO and SCHED_RR"
        );
    }
    match policy {
        Policy::SchedDeadline => deadline(scheduler),
        _ => not_deadline(scheduler),
    }
}

/// Checks runtime <= deadline <= period, sched(7); the default of the period is the deadline.
fn deadline(scheduler: &Scheduler) -> Result<()> {
    let mut least = TIMES.start;
    for (name, time) in [
        ("runtime", Some(scheduler.runtime().unwrap_or(0))),
        ("deadline", Some(scheduler.deadline().unwrap_or(0))),
        ("period", scheduler.period().filter(|period| *period != 0)),
    ] {
        let Some(time) = time else { continue };
        let path = format_args!("process.scheduler.{name}");
        ensure!(time >= least, "{path}: {time} is below {least} nanoseconds");
        ensure!(
            time < TIMES.end,
            "{path}: {time} is beyond {} nanoseconds",
            TIMES.end - 1
        );
        least = time;
    }
    Ok(())
}

fn not_deadline(scheduler: &Scheduler) -> Result<()> {
    for (name, time) in [
        ("runtime", scheduler.runtime()),
        ("deadline", scheduler.deadline()),
        ("period", scheduler.period()),
    ] {
        let none = time.unwrap_or(0) == 0;
        ensure!(none, "process.scheduler.{name}: only for SCHED_DEADLINE");
    }
    for (i, flag) in scheduler.flags().iter().flatten().enumerate() {
        let unheeded = matches!(flag, Flag::SchedFlagReclaim | Flag::SchedFlagDLOverrun);
        ensure!(
            !unheeded,
            "process.scheduler.flags[{i}]: only for SCHED_DEADLINE"
        );
    }
    Ok(())
}

fn io_priority(wanted: &LinuxIOPriority) -> Result<()> {
    let level = wanted.priority();
    ensure!(
        (0..8).contains(&level),
        "process.ioPriority.priority: {level} is not in 0..7"
    );
    Ok(())
}
