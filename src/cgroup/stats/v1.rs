//! The statistics of version 1.

use std::collections::BTreeMap;

use super::files::{Files, count, page_sizes};
use super::types::{
    CpuStats, CpuThrottling, CpuUsage, CpusetStats, DiskCount, DiskStats, HugePageStats,
    MemoryStats, MemoryUsage,
};

/// `cpuacct` has the CPU time used; `cpu` has the throttling.
pub(super) fn cpu(acct: Files<'_>, cpu: Option<Files<'_>>) -> CpuStats {
    let table = cpu
        .and_then(|cpu| cpu.table("cpu.stat"))
        .unwrap_or_default();
    CpuStats {
        usage: Some(CpuUsage {
            total: acct.number("cpuacct.usage"),
            percpu: acct.numbers("cpuacct.usage_percpu"),
            percpu_kernel: acct.numbers("cpuacct.usage_percpu_sys"),
            percpu_user: acct.numbers("cpuacct.usage_percpu_user"),
            kernel: acct.number("cpuacct.usage_sys"),
            user: acct.number("cpuacct.usage_user"),
        }),
        throttling: Some(CpuThrottling {
            periods: count(&table, "nr_periods"),
            throttled_periods: count(&table, "nr_throttled"),
            throttled_time: count(&table, "throttled_time"),
        }),
        psi: None,
    }
}

const CPUSET_FLAGS: [&str; 8] = [
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
];

pub(super) fn cpuset(files: Files<'_>) -> CpusetStats {
    let flag = |name| Some((name, files.number(&format!("cpuset.{name}"))?));
    let level = files.text("cpuset.sched_relax_domain_level");
    CpusetStats {
        cpus: files.list("cpuset.cpus"),
        mems: files.list("cpuset.mems"),
        flags: CPUSET_FLAGS.into_iter().filter_map(flag).collect(),
        sched_relax_domain_level: level.and_then(|level| level.trim().parse().ok()),
    }
}

pub(super) fn memory(files: Files<'_>) -> MemoryStats {
    let raw = files.table("memory.stat").unwrap_or_default();
    let usage = |prefix: &str| {
        let number = |end| files.number(&format!("{prefix}.{end}"));
        Some(MemoryUsage {
            usage: number("usage_in_bytes")?,
            limit: number("limit_in_bytes").unwrap_or(0),
            max: number("max_usage_in_bytes").unwrap_or(0),
            failcnt: number("failcnt").unwrap_or(0),
        })
    };
    // The counterpart of `memory.events`; version 1 has only this count of it.
    let control = files.table("memory.oom_control").unwrap_or_default();
    let killed = control.get("oom_kill");
    MemoryStats {
        cache: Some(count(&raw, "cache")),
        usage: usage("memory"),
        swap: usage("memory.memsw"),
        kernel: usage("memory.kmem"),
        kernel_tcp: usage("memory.kmem.tcp"),
        events: killed.map(|count| BTreeMap::from([("oom_kill".to_owned(), *count)])),
        raw: Some(raw),
        psi: None,
    }
}

/// The counts of disks, and the control files behind `blkio.LAYER.`.
const DISK_FILES: [(&str, &str); 8] = [
    ("ioServiceBytesRecursive", "io_service_bytes_recursive"),
    ("ioServicedRecursive", "io_serviced_recursive"),
    ("ioQueueRecursive", "io_queued_recursive"),
    ("ioServiceTimeRecursive", "io_service_time_recursive"),
    ("ioWaitTimeRecursive", "io_wait_time_recursive"),
    ("ioMergedRecursive", "io_merged_recursive"),
    ("ioTimeRecursive", "time_recursive"),
    ("sectorsRecursive", "sectors_recursive"),
];

/// Takes the counts of the I/O scheduler BFQ where it runs the disk, because they are more than
/// those of the throttling layer. Where it does not, its files are empty.
pub(super) fn disks(files: Files<'_>) -> DiskStats {
    let counts = |file: &str| {
        let of_layer = |layer| {
            let text = files.text(&format!("blkio.{layer}.{file}"))?;
            let counts: Vec<DiskCount> = text.lines().filter_map(line).collect();
            (!counts.is_empty()).then_some(counts)
        };
        of_layer("bfq").or_else(|| of_layer("throttle"))
    };
    let all = DISK_FILES.into_iter();
    DiskStats {
        counts: all
            .filter_map(|(name, file)| Some((name, counts(file)?)))
            .collect(),
        psi: None,
    }
}

/// Parses `8:0 Read 1282048` or `8:0 6792`. The last line is a sum without a device.
fn line(line: &str) -> Option<DiskCount> {
    let mut words = line.split(' ');
    let (device, second) = (words.next()?, words.next()?);
    match words.next() {
        Some(value) => DiskCount::new(device, second, value),
        None => DiskCount::new(device, "", second),
    }
}

pub(super) fn huge_pages(files: Files<'_>) -> BTreeMap<String, HugePageStats> {
    let of_size = |size: String| {
        // Reservations are used where the kernel counts them.
        let number = |end: &str| {
            let file = |kind| files.number(&format!("hugetlb.{size}.{kind}{end}"));
            file("rsvd.").or_else(|| file(""))
        };
        let stats = HugePageStats {
            usage: number("usage_in_bytes")?,
            max: number("max_usage_in_bytes"),
            failcnt: number("failcnt"),
        };
        Some((size, stats))
    };
    page_sizes().into_iter().filter_map(of_size).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::cgroup;
    use super::*;

    #[test]
    fn a_disk_of_the_throttling_layer() {
        let directory = cgroup(&[
            ("blkio.bfq.io_serviced_recursive", "Total 0\n"),
            (
                "blkio.throttle.io_serviced_recursive",
                "8:16 Read 3\n8:16 Total 3\nTotal 3\n",
            ),
        ]);
        let disks = disks(Files(&directory));
        let disks = serde_json::to_value(disks).unwrap();
        let entries = disks["ioServicedRecursive"].as_array().unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(
            entries[0],
            serde_json::json!({"major":8,"minor":16,"op":"Read","value":3})
        );
        assert!(disks.get("sectorsRecursive").is_none());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn memory_has_its_four_entries() {
        let directory = cgroup(&[
            ("memory.stat", "cache 5\nrss 6\n"),
            ("memory.usage_in_bytes", "11\n"),
            ("memory.limit_in_bytes", "100\n"),
            ("memory.max_usage_in_bytes", "50\n"),
            ("memory.failcnt", "2\n"),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            ),
        ]);
        let memory = serde_json::to_value(memory(Files(&directory))).unwrap();
        let usage = serde_json::json!({"limit":100,"usage":11,"max":50,"failcnt":2});
        assert_eq!(memory["usage"], usage);
        assert_eq!(
            (&memory["cache"], &memory["raw"]["rss"]),
            (&5.into(), &6.into())
        );
        assert_eq!(memory["events"]["oom_kill"], 3);
        assert!(memory.get("swap").is_none());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
