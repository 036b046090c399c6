//! `linux.resources` for the controllers that are on version 1.

use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::super::cgroups::Cgroup;
use super::super::limits::Limits;
use super::super::setting::{Setting, set};
use super::{block_io, others};

/// The kernel clamps `cpu.shares` to this range without an error.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// Adds the writes of `resources` to controllers on version 1.
pub(super) fn settings(
    resources: &LinuxResources,
    cgroup: &Cgroup,
    limits: &mut Limits,
) -> Result<()> {
    let settings = &mut limits.v1;
    if let Some(pids) = resources.pids().filter(|_| !cgroup.is_v2("pids")) {
        settings.push(others::pids_max(pids.limit()));
    }
    if let Some(memory) = resources.memory().filter(|_| !cgroup.is_v2("memory")) {
        memory_settings(&memory, settings)?;
    }
    if let Some(io) = resources
        .block_io()
        .as_ref()
        .filter(|_| !cgroup.is_v2("blkio"))
    {
        block_io::settings(io, false, settings)?;
    }
    if let Some(cpu) = resources.cpu() {
        if !cgroup.is_v2("cpu") {
            cpu_settings(cpu, settings)?;
        }
        if !cgroup.is_v2("cpuset") {
            settings.extend(others::cpuset(cpu));
        }
    }
    if !cgroup.is_v2("hugetlb") {
        settings.extend(others::huge_pages(resources, false));
    }
    if !cgroup.is_v2("rdma") {
        settings.extend(others::rdma(resources));
    }
    others::network(resources, cgroup.is_unified(), settings)
}

fn memory_settings(memory: &LinuxMemory, settings: &mut Vec<Setting>) -> Result<()> {
    const LIMIT: &str = "linux.resources.memory.limit";
    const MEMSW: &str = "memory.memsw.limit_in_bytes";
    let new = |field, file, value: i64| Setting::new(field, "memory", file, value);
    let limit = set(memory.limit());
    let swap = set(memory.swap());
    if let Some(limit) = limit {
        settings.push(new(LIMIT, "memory.limit_in_bytes", limit));
    }
    match (limit, swap) {
        // Without swap accounting swap has no limit anyway.
        (_, Some(swap)) => {
            settings.push(new("linux.resources.memory.swap", MEMSW, swap).met_if_absent(swap == -1))
        }
        (Some(-1), None) => settings.push(new(LIMIT, MEMSW, -1).met_if_absent(true)),
        _ => {}
    }
    if let Some(reservation) = set(memory.reservation()) {
        let field = "linux.resources.memory.reservation";
        settings.push(new(field, "memory.soft_limit_in_bytes", reservation));
    }
    settings.extend(kernel_memory_settings(memory));
    // `useHierarchy` is ignored, because kernels since 5.11 always behave so.
    if memory.disable_oom_killer() == Some(true) {
        settings.push(new(
            "linux.resources.memory.disableOOMKiller",
            "memory.oom_control",
            1,
        ));
    }
    // Docker writes -1 for "not set".
    if let Some(swappiness) = memory
        .swappiness()
        .filter(|swappiness| *swappiness != u64::MAX)
    {
        let field = "linux.resources.memory.swappiness";
        if swappiness > 100 {
            bail!("{field}: {swappiness} is outside of 0..100");
        }
        settings.push(Setting::new(
            field,
            "memory",
            "memory.swappiness",
            swappiness,
        ));
    }
    Ok(())
}

/// Returns the limits of the kernel's own memory. "No limit" is met by a kernel that has no such
/// limit.
fn kernel_memory_settings(memory: &LinuxMemory) -> impl Iterator<Item = Setting> {
    let new = |field, file, value: i64| Setting::new(field, "memory", file, value);
    // Linux 5.16 withdrew this limit; the write first failed, and later succeeds without an effect.
    #[allow(deprecated, reason = "the configuration may ask for it")]
    let kernel = memory.kernel();
    let kernel = set(kernel).map(move |value| {
        let setting = new(
            "linux.resources.memory.kernel",
            "memory.kmem.limit_in_bytes",
            value,
        );
        if value == -1 {
            setting.met_if_absent(true)
        } else {
            setting.obsolete()
        }
    });
    let tcp = set(memory.kernel_tcp()).map(move |value| {
        let setting = new(
            "linux.resources.memory.kernelTCP",
            "memory.kmem.tcp.limit_in_bytes",
            value,
        );
        if value == -1 {
            setting.met_if_absent(true)
        } else {
            setting.checked()
        }
    });
    kernel.into_iter().chain(tcp)
}

fn cpu_settings(cpu: &LinuxCpu, settings: &mut Vec<Setting>) -> Result<()> {
    if let Some(shares) = set(cpu.shares()).filter(|shares| !SHARES.contains(shares)) {
        bail!("linux.resources.cpu.shares: {shares} is outside of 2..262144");
    }
    let text = |value: Option<u64>| value.map(|value| value.to_string());
    let values = [
        (
            "linux.resources.cpu.shares",
            "cpu.shares",
            text(set(cpu.shares())),
        ),
        (
            "linux.resources.cpu.period",
            "cpu.cfs_period_us",
            text(set(cpu.period())),
        ),
        // Any negative quota means "no limit".
        (
            "linux.resources.cpu.quota",
            "cpu.cfs_quota_us",
            set(cpu.quota()).map(|quota| quota.max(-1).to_string()),
        ),
        (
            "linux.resources.cpu.burst",
            "cpu.cfs_burst_us",
            text(cpu.burst()),
        ),
        (
            "linux.resources.cpu.idle",
            "cpu.idle",
            cpu.idle().map(|idle| idle.to_string()),
        ),
        (
            "linux.resources.cpu.realtimePeriod",
            "cpu.rt_period_us",
            text(set(cpu.realtime_period())),
        ),
        (
            "linux.resources.cpu.realtimeRuntime",
            "cpu.rt_runtime_us",
            set(cpu.realtime_runtime()).map(|runtime| runtime.to_string()),
        ),
    ];
    settings.extend(
        values
            .into_iter()
            .filter_map(|(field, file, value)| Some(Setting::new(field, "cpu", file, value?))),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{error, lines};

    fn v1(json: &str) -> Vec<String> {
        lines(json, false)
    }

    #[test]
    fn pids() {
        assert_eq!(v1(r#"{"pids":{"limit":7}}"#), ["pids.max=7"]);
        assert_eq!(v1(r#"{"pids":{"limit":0}}"#), ["pids.max=1"]);
        assert_eq!(v1(r#"{"pids":{"limit":-1}}"#), ["pids.max=max"]);
    }

    #[test]
    fn memory() {
        assert_eq!(
            v1(
                r#"{"memory":{"limit":1000000,"swap":2000000,"reservation":500000,"swappiness":0,
                "kernel":3,"kernelTCP":4,"disableOOMKiller":true,"useHierarchy":true,
                "checkBeforeUpdate":true}}"#
            ),
            [
                "memory.limit_in_bytes=1000000",
                "memory.memsw.limit_in_bytes=2000000",
                "memory.soft_limit_in_bytes=500000",
                "memory.kmem.limit_in_bytes=3",
                "memory.kmem.tcp.limit_in_bytes=4",
                "memory.oom_control=1",
                "memory.swappiness=0",
            ]
        );
        assert_eq!(
            v1(r#"{"memory":{"limit":-1}}"#),
            ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"]
        );
        let swappiness = error(r#"{"memory":{"swappiness":101}}"#, false);
        assert_eq!(
            swappiness,
            "linux.resources.memory.swappiness: 101 is outside of 0..100"
        );
    }

    #[test]
    fn cpu() {
        assert_eq!(
            v1(
                r#"{"cpu":{"shares":512,"quota":5000,"period":10000,"burst":0,"idle":0,
                "realtimeRuntime":95,"realtimePeriod":100,"cpus":"0-1","mems":"0"}}"#
            ),
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=10000",
                "cpu.cfs_quota_us=5000",
                "cpu.cfs_burst_us=0",
                "cpu.idle=0",
                "cpu.rt_period_us=100",
                "cpu.rt_runtime_us=95",
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
            ]
        );
        assert_eq!(v1(r#"{"cpu":{"quota":-5}}"#), ["cpu.cfs_quota_us=-1"]);
        let shares = error(r#"{"cpu":{"shares":1}}"#, false);
        assert_eq!(
            shares,
            "linux.resources.cpu.shares: 1 is outside of 2..262144"
        );
    }
}
