//! The statistics as types, in the shape of runc's `types/events.go` with `memory.events` added. A
//! field without a value is left out: the kernel does not have its file.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// What a container uses, each part from the version that has its controller.
#[derive(Debug, Default, Serialize)]
pub struct CgroupStats {
    pub(super) cpu: CpuStats,
    pub(super) cpuset: CpusetStats,
    pub(super) memory: MemoryStats,
    pub(super) pids: PidsStats,
    pub(super) blkio: DiskStats,
    /// By the size of the pages: `2MB`, `1GB`.
    pub(super) hugetlb: BTreeMap<String, HugePageStats>,
    /// The class of Intel RDT, or an empty object.
    pub intel_rdt: Map<String, Value>,
    /// Always null: `rt` leaves interfaces to the engine.
    pub(super) network_interfaces: Option<()>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct CpuStats {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<CpuUsage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) throttling: Option<CpuThrottling>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) psi: Option<Pressure>,
}

/// CPU time in nanoseconds.
#[derive(Debug, Default, Serialize)]
pub(super) struct CpuUsage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) percpu: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) percpu_kernel: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) percpu_user: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kernel: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<u64>,
}

/// `cpu.stat`: periods of the quota, and the time in nanoseconds for which processes were throttled.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CpuThrottling {
    pub(super) periods: u64,
    pub(super) throttled_periods: u64,
    pub(super) throttled_time: u64,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct CpusetStats {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpus: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mems: Option<Vec<u64>>,
    /// The flags of version 1, by their names: `cpu_exclusive`, `memory_migrate`, ….
    #[serde(flatten)]
    pub(super) flags: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sched_relax_domain_level: Option<i64>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct MemoryStats {
    /// Page cache in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cache: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<MemoryUsage>,
    /// Memory and swap together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) swap: Option<MemoryUsage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kernel: Option<MemoryUsage>,
    #[serde(rename = "kernelTCP", skip_serializing_if = "Option::is_none")]
    pub(super) kernel_tcp: Option<MemoryUsage>,
    /// `memory.events`; of version 1 only `oom_kill`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) events: Option<BTreeMap<String, u64>>,
    /// `memory.stat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) raw: Option<BTreeMap<String, u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) psi: Option<Pressure>,
}

/// Bytes, and how often the limit was hit.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct MemoryUsage {
    pub(super) limit: u64,
    pub(super) usage: u64,
    pub(super) max: u64,
    pub(super) failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct PidsStats {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) current: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<u64>,
}

/// Counts of disks by their names in `types/events.go`: `ioServiceBytesRecursive`, ….
#[derive(Debug, Default, Serialize)]
pub(super) struct DiskStats {
    #[serde(flatten)]
    pub(super) counts: BTreeMap<&'static str, Vec<DiskCount>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) psi: Option<Pressure>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct DiskCount {
    pub(super) major: u64,
    pub(super) minor: u64,
    /// `Read`, `Write`, …; empty for a count that is of no operation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) op: String,
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

/// Bytes, and how often the limit was hit.
#[derive(Debug, Serialize)]
pub(super) struct HugePageStats {
    pub(super) usage: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failcnt: Option<u64>,
}

/// Pressure stall information: for `some` and `full` the percentages `avg10`, `avg60` and `avg300`,
/// and `total` in microseconds.
pub(super) type Pressure = BTreeMap<String, BTreeMap<String, Value>>;
