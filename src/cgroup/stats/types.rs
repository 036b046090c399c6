//! The statistics as types, in the shape of runc's `types/events.go` with `memory.events` added. If
//! the kernel does not have a file, its field is left out or 0.
//!
//! Each field names its unit and its control file. Where the versions differ, the file of version 1
//! is first; a field with one file of version 1 is left out on version 2. `max` in a file becomes
//! the largest number.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// What a container uses, each part from the version that has its controller.
#[derive(Debug, Default, Serialize)]
pub struct CgroupStats {
    /// CPU time, throttling and pressure.
    pub(super) cpu: CpuStats,
    /// The processors and memory nodes.
    pub(super) cpuset: CpusetStats,
    /// Memory and swap.
    pub(super) memory: MemoryStats,
    /// The number of processes and threads.
    pub(super) pids: PidsStats,
    /// Input and output of disks.
    pub(super) blkio: DiskStats,
    /// By the size of the pages: `2MB`, `1GB`.
    pub(super) hugetlb: BTreeMap<String, HugePageStats>,
    /// The class of Intel RDT as `rdt/stats.rs` reads it from resctrl, or an empty object.
    pub intel_rdt: Map<String, Value>,
    /// Always null: `rt` leaves interfaces to the engine.
    pub(super) network_interfaces: Option<()>,
}

/// Read from `cpuacct` and `cpu` of version 1, or from `cpu.stat` of version 2.
#[derive(Debug, Default, Serialize)]
pub(super) struct CpuStats {
    /// CPU time that was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<CpuUsage>,
    /// What the quota cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) throttling: Option<CpuThrottling>,
    /// `cpu.pressure` of version 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) psi: Option<Pressure>,
}

/// CPU time in nanoseconds.
#[derive(Debug, Default, Serialize)]
pub(super) struct CpuUsage {
    /// `cpuacct.usage`; `usage_usec` of `cpu.stat`, converted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) total: Option<u64>,
    /// `cpuacct.usage_percpu`: one number for each processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) percpu: Option<Vec<u64>>,
    /// `cpuacct.usage_percpu_sys`: one number for each processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) percpu_kernel: Option<Vec<u64>>,
    /// `cpuacct.usage_percpu_user`: one number for each processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) percpu_user: Option<Vec<u64>>,
    /// `cpuacct.usage_sys`; `system_usec` of `cpu.stat`, converted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kernel: Option<u64>,
    /// `cpuacct.usage_user`; `user_usec` of `cpu.stat`, converted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<u64>,
}

/// Lines of `cpu.stat`, or 0.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CpuThrottling {
    /// `nr_periods`: periods of the quota that have passed.
    pub(super) periods: u64,
    /// `nr_throttled`: periods in which processes were throttled.
    pub(super) throttled_periods: u64,
    /// Nanoseconds for which processes were throttled: `throttled_time`; `throttled_usec`,
    /// converted.
    pub(super) throttled_time: u64,
}

/// Read from `cpuset` of version 1, or the effective sets of version 2.
#[derive(Debug, Default, Serialize)]
pub(super) struct CpusetStats {
    /// Numbers of processors: `cpuset.cpus`; `cpuset.cpus.effective`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpus: Option<Vec<u64>>,
    /// Numbers of memory nodes: `cpuset.mems`; `cpuset.mems.effective`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mems: Option<Vec<u64>>,
    /// `cpuset.FLAG` of version 1, each by its name: `cpu_exclusive`, `memory_migrate`, ….
    #[serde(flatten)]
    pub(super) flags: BTreeMap<&'static str, u64>,
    /// `cpuset.sched_relax_domain_level` of version 1; -1 is the default of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sched_relax_domain_level: Option<i64>,
}

/// Read from `memory` of either version.
#[derive(Debug, Default, Serialize)]
pub(super) struct MemoryStats {
    /// Page cache in bytes: in `memory.stat` the line `cache`; `file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cache: Option<u64>,
    /// `memory.*_in_bytes` and `memory.failcnt`; `memory.current`, `memory.max`, `memory.peak`, and
    /// `max` of `memory.events`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<MemoryUsage>,
    /// Memory and swap together: `memory.memsw.*`; `memory.swap.current` and `memory.swap.max`,
    /// each added to that of memory, with 0 for the other two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) swap: Option<MemoryUsage>,
    /// Memory of the kernel: `memory.kmem.*` of version 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kernel: Option<MemoryUsage>,
    /// Buffers of TCP: `memory.kmem.tcp.*` of version 1.
    #[serde(rename = "kernelTCP", skip_serializing_if = "Option::is_none")]
    pub(super) kernel_tcp: Option<MemoryUsage>,
    /// How often each event happened: `oom_kill` of `memory.oom_control`; all of `memory.events`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) events: Option<BTreeMap<String, u64>>,
    /// `memory.stat` as it is: bytes, except the counts of events such as `pgfault`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) raw: Option<BTreeMap<String, u64>>,
    /// `memory.pressure` of version 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) psi: Option<Pressure>,
}

/// The usage of one kind of memory. The files are those of version 1.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct MemoryUsage {
    /// Bytes: `limit_in_bytes`.
    pub(super) limit: u64,
    /// Bytes: `usage_in_bytes`.
    pub(super) usage: u64,
    /// The highest usage until now in bytes: `max_usage_in_bytes`.
    pub(super) max: u64,
    /// How often the limit was hit: `failcnt`.
    pub(super) failcnt: u64,
}

/// Both versions have the same files.
#[derive(Debug, Default, Serialize)]
pub(super) struct PidsStats {
    /// Processes and threads: `pids.current`. Without the controller, processes: the lines of
    /// `cgroup.procs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) current: Option<u64>,
    /// `pids.max`. No limit is left out, as in runc.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<u64>,
}

/// Read from `blkio` of version 1, or `io` of version 2.
#[derive(Debug, Default, Serialize)]
pub(super) struct DiskStats {
    /// By their names in `types/events.go`, such as `ioServiceBytesRecursive`: the files
    /// `blkio.bfq.*_recursive` or `blkio.throttle.*_recursive`; bytes and operations of `io.stat`.
    #[serde(flatten)]
    pub(super) counts: BTreeMap<&'static str, Vec<DiskCount>>,
    /// `io.pressure` of version 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) psi: Option<Pressure>,
}

/// One count of one disk.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct DiskCount {
    /// The number of the driver of the disk.
    pub(super) major: u64,
    /// The number of the disk at its driver.
    pub(super) minor: u64,
    /// `Read`, `Write`, …; empty for a count that is of no operation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) op: String,
    /// In the unit of the file: bytes, operations, sectors of 512 bytes, or nanoseconds; in
    /// `ioTimeRecursive` milliseconds.
    pub(super) value: u64,
}

impl DiskCount {
    /// The count of a disk, whose numbers are `MAJOR:MINOR`, as control files have it.
    pub(super) fn new(device: &str, op: &str, value: &str) -> Option<Self> {
        let (major, minor) = device.split_once(':')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    }
}

/// Files `hugetlb.SIZE.*`, those of reservations (`hugetlb.SIZE.rsvd.*`) where the kernel has them.
#[derive(Debug, Serialize)]
pub(super) struct HugePageStats {
    /// Bytes: `usage_in_bytes`; `current`.
    pub(super) usage: u64,
    /// The highest usage until now in bytes: `max_usage_in_bytes` of version 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max: Option<u64>,
    /// How often the limit was hit: `failcnt`; `max` of `hugetlb.SIZE.events`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failcnt: Option<u64>,
}

/// Pressure stall information, read from a file such as `cpu.pressure`: for `some` and `full` the
/// percentages `avg10`, `avg60` and `avg300`, and `total` in microseconds.
pub(super) type Pressure = BTreeMap<String, BTreeMap<String, Value>>;
