//! `linux.resources` for the controllers that are on version 2.

use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::super::cgroups::Cgroup;
use super::super::limits::Limits;
use super::super::setting::{Setting, set};
use super::{block_io, others};
use crate::log;

/// Adds the writes of `resources` to controllers on version 2.
pub(super) fn settings(
    resources: &LinuxResources,
    cgroup: &Cgroup,
    limits: &mut Limits,
) -> Result<()> {
    if let Some(pids) = resources.pids().filter(|_| cgroup.is_v2("pids")) {
        limits.v2.push(others::pids_max(pids.limit()));
    }
    if let Some(memory) = resources.memory().filter(|_| cgroup.is_v2("memory")) {
        memory_settings(&memory, limits)?;
    }
    let settings = &mut limits.v2;
    if let Some(io) = resources
        .block_io()
        .as_ref()
        .filter(|_| cgroup.is_v2("blkio"))
    {
        block_io::settings(io, true, settings)?;
    }
    if let Some(cpu) = resources.cpu() {
        if cgroup.is_v2("cpu") {
            cpu_settings(cpu, settings)?;
        }
        if cgroup.is_v2("cpuset") {
            settings.extend(others::cpuset(cpu));
        }
    }
    if cgroup.is_v2("hugetlb") {
        settings.extend(others::huge_pages(resources, true));
    }
    if cgroup.is_v2("rdma") {
        settings.extend(others::rdma(resources));
    }
    others::unified(resources, cgroup.v2().is_some(), settings)
}

/// Formats a limit in bytes; -1, which is no limit, becomes `max`.
fn bytes(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

fn memory_settings(memory: &LinuxMemory, limits: &mut Limits) -> Result<()> {
    const LIMIT: &str = "linux.resources.memory.limit";
    const SWAP: &str = "linux.resources.memory.swap";
    #[allow(deprecated, reason = "old clients still ask for it")]
    let kernel = memory.kernel();
    let is_limit = |value: Option<i64>| set(value).is_some_and(|value| value != -1);
    let refused = [
        // Docker writes -1 for "not set".
        (
            "swappiness",
            memory
                .swappiness()
                .is_some_and(|swappiness| swappiness != u64::MAX),
        ),
        (
            "disableOOMKiller",
            memory.disable_oom_killer() == Some(true),
        ),
        ("kernelTCP", is_limit(memory.kernel_tcp())),
    ];
    if let Some((name, _)) = refused.iter().find(|(_, set)| *set) {
        bail!("linux.resources.memory.{name}: cgroup v2 has no such limit");
    }
    if is_limit(kernel) {
        log::warn("linux.resources.memory.kernel: left out, cgroup v2 has no such limit");
    }
    let limit = set(memory.limit());
    // The configuration counts memory and swap together, the kernel swap alone.
    let swap = match (set(memory.swap()), limit) {
        (None, Some(-1)) => Some((LIMIT, -1)),
        (None, _) => None,
        (Some(-1), _) => Some((SWAP, -1)),
        (Some(_), None) => bail!("{SWAP}: cannot be computed without memory.limit"),
        (Some(swap), Some(limit)) => Some((SWAP, swap - limit.max(0))),
    };
    let settings = &mut limits.v2;
    if let Some((field, swap)) = swap {
        // On a kernel without swap accounting there is no swap to limit, and none to allow.
        settings.push(
            Setting::new(field, "memory", "memory.swap.max", bytes(swap)).met_if_absent(swap <= 0),
        );
    }
    if let Some(limit) = limit {
        settings.push(Setting::new(LIMIT, "memory", "memory.max", bytes(limit)));
    }
    if let Some(reservation) = set(memory.reservation()) {
        let field = "linux.resources.memory.reservation";
        settings.push(Setting::new(
            field,
            "memory",
            "memory.low",
            bytes(reservation),
        ));
    }
    if memory.check_before_update() == Some(true) {
        limits.usage_below = limit
            .and_then(|limit| u64::try_from(limit).ok())
            .map(|limit| (LIMIT, limit));
    }
    Ok(())
}

fn cpu_settings(cpu: &LinuxCpu, settings: &mut Vec<Setting>) -> Result<()> {
    let realtime = [
        (
            "realtimeRuntime",
            cpu.realtime_runtime().is_some_and(|runtime| runtime != 0),
        ),
        (
            "realtimePeriod",
            cpu.realtime_period().is_some_and(|period| period != 0),
        ),
    ];
    if let Some((name, _)) = realtime.iter().find(|(_, set)| *set) {
        bail!("linux.resources.cpu.{name}: cgroup v2 has no such limit");
    }
    let new = |field, file, value: String| Setting::new(field, "cpu", file, value);
    // The weight is written before `cpu.idle`, because an idle cgroup has no weight of its own and
    // refuses one.
    let weight = set(cpu.shares()).map(|shares| weight(shares).to_string());
    settings.extend(weight.map(|weight| new("linux.resources.cpu.shares", "cpu.weight", weight)));
    const QUOTA: &str = "linux.resources.cpu.quota";
    const PERIOD: &str = "linux.resources.cpu.period";
    let quota = set(cpu.quota()).map(|q| {
        if q < 0 {
            "max".to_owned()
        } else {
            q.to_string()
        }
    });
    settings.extend(match (quota, set(cpu.period())) {
        (Some(quota), Some(period)) => Some(new(QUOTA, "cpu.max", format!("{quota} {period}"))),
        // A single number leaves the period as it is.
        (Some(quota), None) => Some(new(QUOTA, "cpu.max", quota)),
        // The file has no notation for a period alone, so the present quota is read when this is
        // written.
        (None, Some(period)) => Some(new(PERIOD, "cpu.max", period.to_string()).behind_first()),
        (None, None) => None,
    });
    let burst = cpu.burst().map(|burst| burst.to_string());
    settings.extend(burst.map(|burst| new("linux.resources.cpu.burst", "cpu.max.burst", burst)));
    let idle = cpu.idle().map(|idle| idle.to_string());
    settings.extend(idle.map(|idle| new("linux.resources.cpu.idle", "cpu.idle", idle)));
    Ok(())
}

/// Converts `cpu.shares` (2 to 262144, default 1024) to `cpu.weight` (1 to 10000, default 100),
/// with the curve through these three points that runc and crun agreed on.
fn weight(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{error, lines};
    use super::weight;

    fn v2(json: &str) -> Vec<String> {
        lines(json, true)
    }

    #[test]
    fn shares_become_weight() {
        let known = [
            (1, 1),
            (2, 1),
            (3, 2),
            (1024, 100),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ];
        for (shares, expected) in known {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        let all: Vec<u64> = (2..=262_144).map(weight).collect();
        assert!(all.is_sorted() && all.iter().all(|weight| (1..=10_000).contains(weight)));
    }

    #[test]
    fn memory() {
        assert_eq!(
            v2(r#"{"memory":{"limit":1000,"swap":3000,"reservation":500}}"#),
            ["memory.swap.max=2000", "memory.max=1000", "memory.low=500"]
        );
        assert_eq!(
            v2(r#"{"memory":{"limit":1000,"swap":1000}}"#),
            ["memory.swap.max=0", "memory.max=1000"]
        );
        for json in [
            r#"{"memory":{"limit":-1}}"#,
            r#"{"memory":{"limit":-1,"swap":-1}}"#,
        ] {
            assert_eq!(v2(json), ["memory.swap.max=max", "memory.max=max"]);
        }
        assert_eq!(v2(r#"{"memory":{"swap":-1}}"#), ["memory.swap.max=max"]);
        assert_eq!(
            v2(r#"{"memory":{"limit":-1,"swap":7}}"#),
            ["memory.swap.max=7", "memory.max=max"]
        );
        let swap = error(r#"{"memory":{"swap":5}}"#, true);
        assert!(swap.starts_with("linux.resources.memory.swap: "), "{swap}");
    }

    #[test]
    fn cpu() {
        assert_eq!(
            v2(
                r#"{"cpu":{"shares":1024,"quota":5000,"period":10000,"burst":1,"idle":1,"cpus":"0"}}"#
            ),
            [
                "cpu.weight=100",
                "cpu.max=5000 10000",
                "cpu.max.burst=1",
                "cpu.idle=1",
                "cpuset.cpus=0"
            ]
        );
        assert_eq!(v2(r#"{"cpu":{"quota":5000}}"#), ["cpu.max=5000"]);
        assert_eq!(v2(r#"{"cpu":{"quota":-1}}"#), ["cpu.max=max"]);
        assert_eq!(v2(r#"{"cpu":{"period":5000}}"#), ["cpu.max=_ 5000"]);
    }

    #[test]
    fn what_version_2_lacks_is_refused() {
        for (json, field) in [
            (r#"{"memory":{"swappiness":0}}"#, "memory.swappiness"),
            (
                r#"{"memory":{"disableOOMKiller":true}}"#,
                "memory.disableOOMKiller",
            ),
            (r#"{"memory":{"kernelTCP":1}}"#, "memory.kernelTCP"),
            (r#"{"cpu":{"realtimeRuntime":1}}"#, "cpu.realtimeRuntime"),
            (r#"{"cpu":{"realtimePeriod":1}}"#, "cpu.realtimePeriod"),
        ] {
            let expected = format!("linux.resources.{field}: cgroup v2 has no such limit");
            assert_eq!(error(json, true), expected);
        }
    }
}
