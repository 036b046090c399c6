//! The cgroups of a container whose record is lost, found by its configuration.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::cgroup_dir::CgroupDir;
use super::cgroups::Cgroup;
use super::place::normalise;
use super::{hierarchy, members};
use crate::process::Process;
use crate::sys;

/// How many levels below the root of a hierarchy are searched for cgroups.
const DEPTH: usize = 12;
/// The error of a start time that is known only to the second.
const ROUNDING: Duration = Duration::from_secs(2);

impl Cgroup {
    /// Returns the existing cgroups of container `id`; `path` is `linux.cgroupsPath`. `claimed` is
    /// when its creation began. A process that started earlier is not the container's, and cgroups
    /// with such a process are left alone, unless `is_made`, which says that the cgroups had been
    /// made.
    pub fn of_remains(path: Option<&Path>, id: &str, claimed: SystemTime, is_made: bool) -> Self {
        let at_place = Self::plan(path, id).ok();
        let of_unit = Self::plan_unit(path, id, &HashMap::new()).ok();
        let planned = at_place.into_iter().chain(of_unit).map(Self::only_existing);
        if let Some(found) = planned.into_iter().find(|found| !found.is_nowhere()) {
            return found
                .owned_if(|pids| is_made || pids.iter().all(|pid| is_since(*pid, claimed)));
        }
        // The container may have been made from another cgroup than the one this command is in,
        // which changes where a relative path leads.
        let end = normalise(path.unwrap_or(Path::new(id))).unwrap_or_default();
        let found = Self::named(end.strip_prefix("/").unwrap_or(&end));
        let alien = |pid: i32| is_since(pid, claimed) && is_elsewhere(pid);
        let found = found.owned_if(|pids| !pids.is_empty() && pids.iter().all(|pid| alien(*pid)));
        if found.owned { found } else { Self::default() }
    }

    /// Keeps those planned cgroups that exist. It is not known what existed before the container,
    /// so each is taken for the container's, and no cgroup above it.
    fn only_existing(mut self) -> Self {
        self.cgroups
            .retain(|cgroup| cgroup.existing == cgroup.directory);
        for cgroup in &mut self.cgroups {
            cgroup.existing = cgroup
                .directory
                .parent()
                .unwrap_or(Path::new("/"))
                .to_owned();
        }
        self
    }

    fn owned_if(mut self, is_own: impl Fn(&[i32]) -> bool) -> Self {
        let pids = members::pids(&self.cgroups).unwrap_or_default();
        self.owned = is_own(&pids);
        self
    }

    /// Returns the cgroup whose path ends with `end` on each hierarchy where there is exactly one.
    fn named(end: &Path) -> Self {
        let unified = hierarchy::host_is_unified().unwrap_or(false);
        let root = Path::new(hierarchy::ROOT);
        let mut cgroups = Vec::new();
        for own in hierarchy::memberships("self").unwrap_or_default() {
            let name = hierarchy::mount_names(&own.controllers)
                .into_iter()
                .find(|name| root.join(name).join("cgroup.procs").exists());
            let top = match (unified, own.controllers.is_empty(), name) {
                (true, true, _) => root.to_owned(),
                (false, true, _) => root.join(hierarchy::UNIFIED),
                (false, false, Some(name)) => root.join(name),
                _ => continue,
            };
            let mut found = Vec::new();
            look(&top, end, DEPTH, &mut found);
            if let [directory] = &found[..] {
                let existing = directory.parent().unwrap_or(&top).to_owned();
                let controllers = own.controllers;
                cgroups.push(CgroupDir {
                    controllers,
                    directory: directory.clone(),
                    existing,
                });
            }
        }
        Self {
            unified,
            cgroups,
            ..Self::default()
        }
    }
}

fn look(top: &Path, end: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let entries = sys::list_directory(top).unwrap_or_default();
    for entry in entries.into_iter().filter(|entry| entry.is_directory) {
        let path = top.join(entry.name);
        if path.ends_with(end) {
            found.push(path);
        } else if depth > 0 {
            look(&path, end, depth - 1, found);
        }
    }
}

/// Whether the process started at or after `time`, or has ended meanwhile.
fn is_since(pid: i32, time: SystemTime) -> bool {
    let has = |start: SystemTime| start + ROUNDING >= time;
    Process::now(pid).map_or(true, |process| process.started().is_none_or(has))
}

/// Whether the process is in another pid namespace than this process.
fn is_elsewhere(pid: i32) -> bool {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/pid"));
    match (namespace(&pid.to_string()), namespace("self")) {
        (Ok(its), Ok(own)) => its != own,
        _ => false,
    }
}
