//! Lifts limits that keep killed processes from dying. A process needs CPU time to exit, of which a
//! small quota leaves hardly any to a large number of processes, and processes that go on forking
//! stay numerous.

use std::os::fd::BorrowedFd;

use nix::fcntl::OFlag;

use super::cgroup_dir::CgroupDir;
use super::{file, walk};

/// Lifts the CPU quotas of the cgroups and of those below, and forbids forks in them; for cgroups
/// whose processes are all about to be killed. Control files that are missing or cannot be written
/// are passed over: killing then only takes longer.
pub(super) fn unburden(cgroups: &[CgroupDir]) {
    for cgroup in cgroups {
        let is_v2 = cgroup.is_v2();
        let quota = match is_v2 {
            true => Some(("cpu.max", "max")),
            false if cgroup.has_controller("cpu") => Some(("cpu.cfs_quota_us", "-1")),
            false => None,
        };
        let forks = (is_v2 || cgroup.has_controller("pids")).then_some(("pids.max", "0"));
        let settings: Vec<(&str, &str)> = quota.into_iter().chain(forks).collect();
        if settings.is_empty() {
            continue;
        }
        // A cgroup that existed before the container stays after it and keeps its limits.
        let mut is_others = cgroup.existing == cgroup.directory;
        let _ = walk::visit(&cgroup.directory, |directory| {
            if !std::mem::take(&mut is_others) {
                settings
                    .iter()
                    .for_each(|setting| write(directory, *setting));
            }
            Ok(())
        });
    }
}

fn write(directory: BorrowedFd<'_>, (name, value): (&str, &str)) {
    let _ = file::open_at(directory, name, OFlag::O_WRONLY)
        .and_then(|file| file::write_to(file, value));
}
