//! All statistics of a container, those of each controller from the version that has it.

use super::super::cgroup_dir::{CgroupDir, with_controller};
use super::super::cgroups::Cgroup;
use super::files::Files;
use super::types::{CgroupStats, PidsStats};
use super::{v1, v2};

impl Cgroup {
    /// Returns what the container uses.
    pub fn stats(&self) -> CgroupStats {
        read(&self.cgroups)
    }
}

/// Returns the statistics of a container, those of each controller from the version that has it.
fn read(cgroups: &[CgroupDir]) -> CgroupStats {
    let v1 = |controller| with_controller(cgroups, controller).map(|c| Files(&c.directory));
    let v2 = cgroups.iter().find(|cgroup| cgroup.is_v2());
    let v2 = v2.map(|cgroup| Files(&cgroup.directory));
    let cpu = v1("cpuacct").map(|acct| v1::cpu(acct, v1("cpu")));
    let mut stats = CgroupStats {
        cpu: either(cpu, v2, v2::cpu),
        cpuset: either(v1("cpuset").map(v1::cpuset), v2, v2::cpuset),
        memory: either(v1("memory").map(v1::memory), v2, v2::memory),
        pids: either(v1("pids").map(pids), v2, pids),
        blkio: either(v1("blkio").map(v1::disks), v2, v2::disks),
        hugetlb: either(v1("hugetlb").map(v1::huge_pages), v2, v2::huge_pages),
        ..CgroupStats::default()
    };
    // On a hybrid host version 2 has pressure stall information for controllers of version 1, too.
    if let Some(files) = v2 {
        stats.cpu.psi = files.pressure("cpu.pressure");
        stats.memory.psi = files.pressure("memory.pressure");
        stats.blkio.psi = files.pressure("io.pressure");
    }
    stats
}

/// Returns what version 1 has, else what `read` finds on version 2.
fn either<'a, T: Default>(v1: Option<T>, v2: Option<Files<'a>>, read: fn(Files<'a>) -> T) -> T {
    v1.or_else(|| v2.map(read)).unwrap_or_default()
}

/// Both versions have the same files. Without the controller, the processes are counted.
fn pids(files: Files<'_>) -> PidsStats {
    let processes = || Some(files.text("cgroup.procs")?.lines().count() as u64);
    PidsStats {
        current: files.number("pids.current").or_else(processes),
        // No limit is left out, as in the JSON of runc.
        limit: files.number("pids.max").filter(|limit| *limit != u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cgroup_has_no_numbers() {
        let stats = serde_json::to_value(read(&[])).unwrap();
        assert_eq!(stats["cpu"], serde_json::json!({}));
        assert!(stats["network_interfaces"].is_null());
    }
}
