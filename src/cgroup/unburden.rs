//! Limits that keep killed processes from dying. Whoever dies needs CPU time for it, of which a small
//! quota leaves hardly any to a crowd, and a crowd that goes on forking stays one.

use std::os::fd::BorrowedFd;

use nix::fcntl::OFlag;

use super::group::Group;
use super::{file, walk};

/// Lifts the CPU quotas of the groups and of those below, and lets nobody in them fork any more: for
/// groups whose processes are all about to be killed. What is not there or cannot be written stays:
/// it only takes longer then.
pub(super) fn unburden(groups: &[Group]) {
    for group in groups {
        let is_v2 = group.is_v2();
        let quota = match is_v2 {
            true => Some(("cpu.max", "max")),
            false if group.has_controller("cpu") => Some(("cpu.cfs_quota_us", "-1")),
            false => None,
        };
        let forks = (is_v2 || group.has_controller("pids")).then_some(("pids.max", "0"));
        let settings: Vec<(&str, &str)> = quota.into_iter().chain(forks).collect();
        if settings.is_empty() {
            continue;
        }
        // A group that was there before the container stays after it, with the limits that it had.
        let mut is_others = group.existing == group.directory;
        let _ = walk::visit(&group.directory, |directory| {
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
