//! The statistics of version 2, in the fields of version 1.

use serde_json::Value;

use super::files::{Files, page_sizes};
use super::object::{Object, count, disk, entry, processor, put};

/// `cpu.stat` exists even without the controller.
pub(super) fn cpu(files: Files<'_>) -> Object {
    let table = files.table("cpu.stat").unwrap_or_default();
    let nanoseconds = |key| Some(count(&table, key) * 1000);
    let mut usage = Object::new();
    put(&mut usage, "total", nanoseconds("usage_usec"));
    put(&mut usage, "kernel", nanoseconds("system_usec"));
    put(&mut usage, "user", nanoseconds("user_usec"));
    processor(usage, &table, count(&table, "throttled_usec") * 1000)
}

pub(super) fn cpuset(files: Files<'_>) -> Object {
    let mut object = Object::new();
    put(&mut object, "cpus", files.list("cpuset.cpus.effective"));
    put(&mut object, "mems", files.list("cpuset.mems.effective"));
    object
}

pub(super) fn memory(files: Files<'_>) -> Object {
    let raw = files.table("memory.stat").unwrap_or_default();
    let number = |name: &str| files.number(name);
    let mut object = Object::new();
    put(&mut object, "cache", Some(count(&raw, "file")));
    if let Some(usage) = number("memory.current") {
        let limit = number("memory.max").unwrap_or(0);
        let events = files.table("memory.events").unwrap_or_default();
        let peak = number("memory.peak").unwrap_or(0);
        put(
            &mut object,
            "usage",
            Some(entry(limit, usage, peak, count(&events, "max"))),
        );
        put(&mut object, "events", Some(events));
        // Version 1 counts memory and swap together.
        if let Some(swap) = number("memory.swap.current") {
            let swap_limit = number("memory.swap.max").unwrap_or(0);
            let limit = limit.saturating_add(swap_limit);
            put(
                &mut object,
                "swap",
                Some(entry(limit, usage.saturating_add(swap), 0, 0)),
            );
        }
    }
    put(&mut object, "raw", Some(raw));
    object
}

/// Converts `8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 …` to one list for each kind.
pub(super) fn disks(files: Files<'_>) -> Object {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in files.text("io.stat").unwrap_or_default().lines() {
        let mut words = line.split(' ');
        let device = words.next().unwrap_or_default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, op): (&mut Vec<Value>, _) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                _ => continue,
            };
            list.extend(value.parse().ok().and_then(|value| disk(device, op, value)));
        }
    }
    let mut object = Object::new();
    put(
        &mut object,
        "ioServiceBytesRecursive",
        Some(bytes).filter(|list| !list.is_empty()),
    );
    put(
        &mut object,
        "ioServicedRecursive",
        Some(operations).filter(|list| !list.is_empty()),
    );
    object
}

pub(super) fn huge_pages(files: Files<'_>) -> Object {
    let mut object = Object::new();
    for size in page_sizes() {
        let current = |kind| files.number(&format!("hugetlb.{size}.{kind}current"));
        if let Some(usage) = current("rsvd.").or_else(|| current("")) {
            let events = files
                .table(&format!("hugetlb.{size}.events"))
                .unwrap_or_default();
            let mut entry = Object::new();
            put(&mut entry, "usage", Some(usage));
            put(&mut entry, "failcnt", Some(count(&events, "max")));
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
        let memory = memory(Files(&directory));
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
        let disks = disks(files);
        assert_eq!(disks["ioServiceBytesRecursive"][1]["value"], 6);
        assert_eq!(disks["ioServicedRecursive"][0]["op"], "Read");
        let cpu = cpu(files);
        assert_eq!(
            (&cpu["usage"]["total"], &cpu["usage"]["kernel"]),
            (&3000.into(), &1000.into())
        );
        assert_eq!(cpu["throttling"]["throttledTime"], 9000);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
