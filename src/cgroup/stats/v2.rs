//! The statistics of version 2, in the fields of version 1.

use std::collections::BTreeMap;

use super::files::{Files, count, page_sizes};
use super::types::{
    CpuStats, CpuThrottling, CpuUsage, CpusetStats, DiskCount, DiskStats, HugePageStats,
    MemoryStats, MemoryUsage,
};

/// `cpu.stat` exists even without the controller.
pub(super) fn cpu(files: Files<'_>) -> CpuStats {
    let table = files.table("cpu.stat").unwrap_or_default();
    let nanoseconds = |key| count(&table, key) * 1000;
    CpuStats {
        usage: Some(CpuUsage {
            total: Some(nanoseconds("usage_usec")),
            kernel: Some(nanoseconds("system_usec")),
            user: Some(nanoseconds("user_usec")),
            ..CpuUsage::default()
        }),
        throttling: Some(CpuThrottling {
            periods: count(&table, "nr_periods"),
            throttled_periods: count(&table, "nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
        }),
        psi: None,
    }
}

pub(super) fn cpuset(files: Files<'_>) -> CpusetStats {
    CpusetStats {
        cpus: files.list("cpuset.cpus.effective"),
        mems: files.list("cpuset.mems.effective"),
        ..CpusetStats::default()
    }
}

pub(super) fn memory(files: Files<'_>) -> MemoryStats {
    let raw = files.table("memory.stat").unwrap_or_default();
    let mut stats = MemoryStats {
        cache: Some(count(&raw, "file")),
        raw: Some(raw),
        ..MemoryStats::default()
    };
    let Some(usage) = files.number("memory.current") else {
        return stats;
    };
    let limit = files.number("memory.max").unwrap_or(0);
    let events = files.table("memory.events").unwrap_or_default();
    stats.usage = Some(MemoryUsage {
        limit,
        usage,
        max: files.number("memory.peak").unwrap_or(0),
        failcnt: count(&events, "max"),
    });
    stats.events = Some(events);
    // Version 1 counts memory and swap together.
    stats.swap = files.number("memory.swap.current").map(|swap| {
        let swap_limit = files.number("memory.swap.max").unwrap_or(0);
        MemoryUsage {
            limit: limit.saturating_add(swap_limit),
            usage: usage.saturating_add(swap),
            ..MemoryUsage::default()
        }
    });
    stats
}

/// Converts `8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 …` to one list for each kind.
pub(super) fn disks(files: Files<'_>) -> DiskStats {
    let mut stats = DiskStats::default();
    for line in files.text("io.stat").unwrap_or_default().lines() {
        let mut words = line.split(' ');
        let device = words.next().unwrap_or_default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (name, op) = match key {
                "rbytes" => ("ioServiceBytesRecursive", "Read"),
                "wbytes" => ("ioServiceBytesRecursive", "Write"),
                "rios" => ("ioServicedRecursive", "Read"),
                "wios" => ("ioServicedRecursive", "Write"),
                _ => continue,
            };
            if let Some(count) = DiskCount::new(device, op, value) {
                stats.counts.entry(name).or_default().push(count);
            }
        }
    }
    stats
}

pub(super) fn huge_pages(files: Files<'_>) -> BTreeMap<String, HugePageStats> {
    let of_size = |size: String| {
        let current = |kind| files.number(&format!("hugetlb.{size}.{kind}current"));
        let events = files.table(&format!("hugetlb.{size}.events"));
        let stats = HugePageStats {
            usage: current("rsvd.").or_else(|| current(""))?,
            max: None,
            failcnt: Some(count(&events.unwrap_or_default(), "max")),
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
    fn memory_and_swap_are_counted_together() {
        let directory = cgroup(&[
            ("memory.stat", "anon 1\nfile 5\n"),
            ("memory.current", "10\n"),
            ("memory.max", "100\n"),
            ("memory.peak", "60\n"),
            ("memory.swap.current", "7\n"),
            ("memory.swap.max", "max\n"),
            ("memory.events", "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\n"),
        ]);
        let memory = serde_json::to_value(memory(Files(&directory))).unwrap();
        let entry = |limit, usage, max, failcnt| {
            let entry = MemoryUsage {
                limit,
                usage,
                max,
                failcnt,
            };
            serde_json::to_value(entry).unwrap()
        };
        assert_eq!(memory["usage"], entry(100, 10, 60, 4));
        assert_eq!(memory["swap"], entry(u64::MAX, 17, 0, 0));
        assert_eq!(memory["events"]["oom_kill"], 1);
        assert_eq!(memory["cache"], 5);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn disks_and_time() {
        let directory = cgroup(&[
            (
                "io.stat",
                "8:0 rbytes=5 wbytes=6 rios=1 wios=2 dbytes=0 dios=0\n",
            ),
            (
                "cpu.stat",
                "usage_usec 3\nuser_usec 2\nsystem_usec 1\nthrottled_usec 9\n",
            ),
        ]);
        let files = Files(&directory);
        let disks = serde_json::to_value(disks(files)).unwrap();
        assert_eq!(disks["ioServiceBytesRecursive"][1]["value"], 6);
        assert_eq!(disks["ioServicedRecursive"][0]["op"], "Read");
        let cpu = serde_json::to_value(cpu(files)).unwrap();
        assert_eq!(
            (&cpu["usage"]["total"], &cpu["usage"]["kernel"]),
            (&3000.into(), &1000.into())
        );
        assert_eq!(cpu["throttling"]["throttledTime"], 9000);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
