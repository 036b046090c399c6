//! All statistics of a container, those of each controller from the version that has it.

use serde_json::Value;

use super::super::cgroup_dir::{CgroupDir, with_controller};
use super::super::cgroups::Cgroup;
use super::files::Files;
use super::object::{Object, put};
use super::{v1, v2};

impl Cgroup {
    /// Returns what the container uses, in the shape of runc's `events`.
    pub fn stats(&self) -> Value {
        read(&self.cgroups)
    }
}

/// Returns the statistics of a container, those of each controller from the version that has it.
fn read(cgroups: &[CgroupDir]) -> Value {
    let v1 =
        |controller| with_controller(cgroups, controller).map(|cgroup| Files(&cgroup.directory));
    let v2 = cgroups
        .iter()
        .find(|cgroup| cgroup.is_v2())
        .map(|cgroup| Files(&cgroup.directory));
    let one = |v1: Option<Object>, of_v2: fn(Files<'_>) -> Object| {
        v1.or_else(|| v2.map(of_v2)).unwrap_or_default()
    };
    let mut cpu = one(v1("cpuacct").map(|acct| v1::cpu(acct, v1("cpu"))), v2::cpu);
    let mut memory = one(v1("memory").map(v1::memory), v2::memory);
    let mut disks = one(v1("blkio").map(v1::disks), v2::disks);
    // On a hybrid host version 2 has pressure stall information for controllers of version 1, too.
    if let Some(files) = v2 {
        put(&mut cpu, "psi", files.pressure("cpu.pressure"));
        put(&mut memory, "psi", files.pressure("memory.pressure"));
        put(&mut disks, "psi", files.pressure("io.pressure"));
    }
    let mut stats = Object::new();
    for (name, object) in [
        ("cpu", cpu),
        ("cpuset", one(v1("cpuset").map(v1::cpuset), v2::cpuset)),
        ("memory", memory),
        ("pids", one(v1("pids").map(pids), pids)),
        ("blkio", disks),
        (
            "hugetlb",
            one(v1("hugetlb").map(v1::huge_pages), v2::huge_pages),
        ),
        ("intel_rdt", Object::new()),
    ] {
        stats.insert(name.to_owned(), object.into());
    }
    stats.insert("network_interfaces".to_owned(), Value::Null);
    stats.into()
}

/// Both versions have the same files. Without the controller, the processes are counted.
fn pids(files: Files<'_>) -> Object {
    let processes = || Some(files.text("cgroup.procs")?.lines().count() as u64);
    let mut pids = Object::new();
    put(
        &mut pids,
        "current",
        files.number("pids.current").or_else(processes),
    );
    // No limit becomes 0, as in runc.
    put(
        &mut pids,
        "limit",
        files.number("pids.max").filter(|limit| *limit != u64::MAX),
    );
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_group_has_no_numbers() {
        let stats = read(&[]);
        assert_eq!(stats["cpu"], Value::Object(Object::new()));
        assert!(stats["network_interfaces"].is_null());
    }
}
