//! The statistics of version 1.

use serde_json::Value;

use super::files::{Files, page_sizes};
use super::object::{Object, count, disk, entry, processor, put};

/// `cpuacct` has the CPU time used; `cpu` has the throttling.
pub(super) fn cpu(acct: Files<'_>, cpu: Option<Files<'_>>) -> Object {
    let mut usage = Object::new();
    put(&mut usage, "total", acct.number("cpuacct.usage"));
    put(&mut usage, "percpu", acct.numbers("cpuacct.usage_percpu"));
    put(
        &mut usage,
        "percpu_kernel",
        acct.numbers("cpuacct.usage_percpu_sys"),
    );
    put(
        &mut usage,
        "percpu_user",
        acct.numbers("cpuacct.usage_percpu_user"),
    );
    put(&mut usage, "kernel", acct.number("cpuacct.usage_sys"));
    put(&mut usage, "user", acct.number("cpuacct.usage_user"));
    let table = cpu
        .and_then(|cpu| cpu.table("cpu.stat"))
        .unwrap_or_default();
    processor(usage, &table, count(&table, "throttled_time"))
}

pub(super) fn cpuset(files: Files<'_>) -> Object {
    let mut object = Object::new();
    put(&mut object, "cpus", files.list("cpuset.cpus"));
    put(&mut object, "mems", files.list("cpuset.mems"));
    for name in [
        "cpu_exclusive",
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
    ] {
        put(&mut object, name, files.number(&format!("cpuset.{name}")));
    }
    let level = files.text("cpuset.sched_relax_domain_level");
    let level = level.and_then(|level| level.trim().parse::<i64>().ok());
    put(&mut object, "sched_relax_domain_level", level);
    object
}

pub(super) fn memory(files: Files<'_>) -> Object {
    let raw = files.table("memory.stat").unwrap_or_default();
    let mut object = Object::new();
    put(&mut object, "cache", Some(count(&raw, "cache")));
    for (name, prefix) in [
        ("usage", "memory"),
        ("swap", "memory.memsw"),
        ("kernel", "memory.kmem"),
        ("kernelTCP", "memory.kmem.tcp"),
    ] {
        let number = |end| files.number(&format!("{prefix}.{end}"));
        if let Some(usage) = number("usage_in_bytes") {
            let other = |end| number(end).unwrap_or(0);
            let limit = other("limit_in_bytes");
            let entry = entry(limit, usage, other("max_usage_in_bytes"), other("failcnt"));
            put(&mut object, name, Some(entry));
        }
    }
    // The counterpart of `memory.events`; version 1 has only this count of it.
    let control = files.table("memory.oom_control").unwrap_or_default();
    let killed = control
        .get("oom_kill")
        .map(|n| Object::from_iter([("oom_kill".into(), n.clone())]));
    put(&mut object, "events", killed);
    put(&mut object, "raw", Some(raw));
    object
}

/// Takes the counts of the I/O scheduler BFQ where it runs the disk, because they are more than
/// those of the throttling layer. Where it does not, its files are empty.
pub(super) fn disks(files: Files<'_>) -> Object {
    let mut object = Object::new();
    for (name, file) in [
        ("ioServiceBytesRecursive", "io_service_bytes_recursive"),
        ("ioServicedRecursive", "io_serviced_recursive"),
        ("ioQueueRecursive", "io_queued_recursive"),
        ("ioServiceTimeRecursive", "io_service_time_recursive"),
        ("ioWaitTimeRecursive", "io_wait_time_recursive"),
        ("ioMergedRecursive", "io_merged_recursive"),
        ("ioTimeRecursive", "time_recursive"),
        ("sectorsRecursive", "sectors_recursive"),
    ] {
        let entries = |layer| {
            let text = files.text(&format!("blkio.{layer}.{file}"))?;
            let entries: Vec<Value> = text.lines().filter_map(line).collect();
            (!entries.is_empty()).then_some(entries)
        };
        put(
            &mut object,
            name,
            entries("bfq").or_else(|| entries("throttle")),
        );
    }
    object
}

/// Parses `8:0 Read 1282048` or `8:0 6792`. The last line is a sum without a device.
fn line(line: &str) -> Option<Value> {
    let mut words = line.split(' ');
    let (device, second) = (words.next()?, words.next()?);
    match words.next() {
        Some(value) => disk(device, second, value.parse().ok()?),
        None => disk(device, "", second.parse().ok()?),
    }
}

pub(super) fn huge_pages(files: Files<'_>) -> Object {
    let mut object = Object::new();
    for size in page_sizes() {
        // Reservations are used where the kernel counts them.
        let number = |end: &str| {
            let file = |kind| files.number(&format!("hugetlb.{size}.{kind}{end}"));
            file("rsvd.").or_else(|| file(""))
        };
        if let Some(usage) = number("usage_in_bytes") {
            let mut entry = Object::new();
            put(&mut entry, "usage", Some(usage));
            put(&mut entry, "max", number("max_usage_in_bytes"));
            put(&mut entry, "failcnt", number("failcnt"));
            put(&mut object, &size, Some(entry));
        }
    }
    object
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
        let entries = disks["ioServicedRecursive"].as_array().unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(
            entries[0],
            serde_json::json!({"major":8,"minor":16,"op":"Read","value":3})
        );
        assert!(!disks.contains_key("sectorsRecursive"));
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
        let memory = memory(Files(&directory));
        assert_eq!(memory["usage"], entry(100, 11, 50, 2));
        assert_eq!(
            (&memory["cache"], &memory["raw"]["rss"]),
            (&5.into(), &6.into())
        );
        assert_eq!(memory["events"]["oom_kill"], 3);
        assert!(!memory.contains_key("swap"));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
