//! The groups of a container on every hierarchy of the host: version 1, hybrid and version 2.
//!
//! | file | what is in it |
//! |---|---|
//! | `hierarchy` `place` | where the hierarchies are mounted; where a container's groups go |
//! | `limits` `v1` `v2` `devices` | `linux.resources` as writes to control files |
//! | `update` | the same for a container that has limits already |
//! | `freezer` | stopping all processes, and letting them go on |
//! | `stats` `oom` | what a container uses, and when it has too little memory |
//! | `group` | the directory of one hierarchy: made, looked at, removed |
//! | `systemd` | groups that systemd makes |
//! | `open` | groups held open while a process gets into them |
//! | `members` | processes: list, signal, kill |
//! | `unburden` | limits that keep killed processes from dying |
//! | `trust` `remains` | which groups of a record are the container's; those of a lost record |
//! | `sub` | groups below a container's own that a process chooses |
//! | `delegation` | groups that the container's user may do with as he likes |
//! | `walk` | groups below a group, however deep; removal |
//! | `file` | reading and writing control files |

mod delegation;
mod devices;
mod file;
mod freezer;
mod group;
mod hierarchy;
mod limits;
mod members;
mod oom;
mod open;
mod place;
mod remains;
mod stats;
mod sub;
mod systemd;
mod trust;
mod unburden;
mod update;
mod v1;
mod v2;
mod walk;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

pub(crate) use delegation::Delegation;
use group::{Group, Made, with_controller};
pub(crate) use limits::Limits;
pub(crate) use oom::OomWatch;
pub(crate) use open::OpenCgroup;
pub(crate) use sub::SubGroup;
pub(crate) use systemd::UNIT_PROPERTIES;
use systemd::Unit;
pub(crate) use trust::Expected;

/// How long a group may take to freeze or to thaw.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long `remove` waits for a group that may be another container's.
const SHORT_PATIENCE: Duration = Duration::from_millis(200);

/// The groups of one container on every hierarchy, as its state records them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    /// The host has version 2 alone, so that there is one group at most.
    unified: bool,
    groups: Vec<Group>,
    owned: Owned,
    /// The scope whose groups they are, if systemd makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
}

/// Whether `create` has succeeded, so that every process in the groups is the container's. Until
/// then they may be anybody's. Clones share it: the state's copy learns of it with the caller's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
struct Owned(Arc<AtomicBool>);

impl From<bool> for Owned {
    fn from(owned: bool) -> Self {
        Self(Arc::new(owned.into()))
    }
}

impl From<Owned> for bool {
    fn from(owned: Owned) -> Self {
        owned.0.load(Ordering::Relaxed)
    }
}

/// Who makes the groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manager {
    #[default]
    Cgroupfs,
    Systemd,
    /// Nobody: the container stays in its caller's groups.
    Disabled,
}

/// One group as a `cgroup` mount in the container shows it.
pub(crate) struct GroupView<'a> {
    /// The directory below `/sys/fs/cgroup` inside: `cpu,cpuacct`, `systemd`, `unified`; empty on
    /// a host with version 2 alone.
    pub(crate) name: &'a str,
    /// Absolute, on the host.
    pub(crate) directory: &'a Path,
    pub(crate) is_v2: bool,
}

impl Cgroup {
    /// Tells systemd, before it makes the groups, of those limits that it has to know then.
    pub(crate) fn prepare(&mut self, limits: &Limits) -> Result<()> {
        let with_v1 = !self.is_v2("devices");
        self.unit
            .as_mut()
            .filter(|_| with_v1)
            .map_or(Ok(()), |unit| unit.with_devices(limits))
    }

    /// Whether the container has no group at all.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.groups.is_empty()
    }

    /// Makes all groups and opens them. Refuses a group that is frozen or has processes. On an
    /// error all that was made is gone again.
    pub(crate) fn create(&self) -> Result<OpenCgroup> {
        if let Some(unit) = &self.unit {
            self.groups.iter().try_for_each(Group::refuse_processes)?;
            // There is nothing to enter yet, but somebody has to be there who makes it.
            unit.connect()?;
            return Ok(OpenCgroup::default());
        }
        let mut made = Made::default();
        for group in &self.groups {
            group.make(&mut made)?;
            if group.has_controller("cpuset") {
                v1::fill_cpuset(&group.directory, made.includes(&group.directory))?;
            }
        }
        if self.unified {
            self.groups
                .iter()
                .try_for_each(|group| v2::enable_controllers(&group.directory))?;
        }
        self.refuse_frozen()?;
        let open = self.open()?;
        made.keep();
        self.owned.0.store(true, Ordering::Relaxed);
        Ok(open)
    }

    /// Also if the group is new: it would be frozen by one above, and init would hang in it.
    fn refuse_frozen(&self) -> Result<()> {
        match self
            .freezer()
            .filter(|group| group.is_frozen().unwrap_or(false))
        {
            Some(group) => {
                bail!(
                    "container's cgroup unexpectedly frozen: {}",
                    group.directory.display()
                )
            }
            None => Ok(()),
        }
    }

    /// Has systemd make the groups with process `pid` in them, and makes those that it does not
    /// know. Nothing if the groups are not systemd's to make: the process enters them by itself.
    pub(crate) fn start_unit(&self, pid: i32) -> Result<()> {
        let Some(unit) = &self.unit else {
            return Ok(());
        };
        unit.start(pid, self.unified)?;
        self.owned.0.store(true, Ordering::Relaxed);
        let mut made = Made::default();
        for group in self.groups.iter().filter(|group| !group.is_systemds()) {
            group.make_missing(&mut made)?;
            if group.has_controller("cpuset") {
                v1::fill_cpuset(&group.directory, made.includes(&group.directory))?;
            }
            let path = group.directory.join("cgroup.procs");
            let entered = file::write(&path, &pid.to_string());
            entered.with_context(|| path.display().to_string())?;
        }
        made.keep();
        if self.unified {
            self.groups
                .iter()
                .try_for_each(|group| v2::enable_controllers(&group.directory))?;
        }
        self.refuse_frozen()
    }

    /// Opens groups that exist.
    pub(crate) fn open(&self) -> Result<OpenCgroup> {
        OpenCgroup::new(&self.groups)
    }

    /// Writes all limits of a new container.
    pub(crate) fn apply(&self, limits: &Limits) -> Result<()> {
        self.write(limits, false)
    }

    /// Limits the memory of a new container before anything is done in it. What systemd keeps of it
    /// is written with all the limits.
    pub(crate) fn apply_memory(&self, limits: &Limits) -> Result<()> {
        self.write_files(&limits.of_memory())
    }

    /// Every process of the groups and their sub-groups, as host pids, sorted, each once. A
    /// missing group has none.
    pub(crate) fn pids(&self) -> Result<Vec<i32>> {
        members::pids(&self.groups)
    }

    /// Whether the processes of the container are frozen. A missing group is not.
    pub(crate) fn is_frozen(&self) -> Result<bool> {
        self.freezer().map_or(Ok(false), Group::is_frozen)
    }

    /// The directory of the group that can be frozen, if there is one.
    pub(crate) fn freezer_directory(&self) -> Option<&Path> {
        self.freezer().map(|group| &*group.directory)
    }

    /// Stops every process of the container and waits until all stand, at most 10 s.
    pub(crate) fn freeze(&self) -> Result<()> {
        freezer::freeze(
            self.freezer()
                .context("no cgroup hierarchy can freeze processes")?,
        )
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.freezer().map_or(Ok(()), freezer::thaw)
    }

    /// Changes the limits that `resources` has; after an error all are as they were.
    pub(crate) fn update(&self, resources: LinuxResources) -> Result<()> {
        update::update(self, resources)
    }

    /// What the container uses, in the shape of runc's `events`.
    pub(crate) fn stats(&self) -> serde_json::Value {
        stats::read(&self.groups)
    }

    /// A watch for processes that are killed for want of memory; None where memory is not counted.
    pub(crate) fn watch_oom(&self) -> Result<Option<OomWatch>> {
        OomWatch::new(&self.groups)
    }

    /// Sends `signal` to every process of the groups and sub-groups, also to those that are
    /// forked meanwhile. Refuses if the caller is one of them. As long as `create` has not
    /// succeeded, nobody in the groups is the container's, and nothing is done.
    pub(crate) fn signal_all(&self, signal: i32) -> Result<()> {
        members::signal_all(self.own_groups(), signal)
    }

    /// Kills every process of the groups and sub-groups and waits until there is none, at most
    /// until `deadline`; leaves nothing frozen. Refuses if the caller is one of them. Missing groups
    /// are success. As long as `create` has not succeeded, nothing is done.
    pub(crate) fn kill(&self, deadline: Instant) -> Result<()> {
        members::kill(self.own_groups(), deadline)
    }

    /// These groups, and those of `other` on hierarchies where there is none.
    pub(crate) fn with(mut self, other: Self) -> Self {
        let has = |group: &Group| {
            self.groups
                .iter()
                .any(|own| own.controllers == group.controllers)
        };
        let missing: Vec<Group> = other
            .groups
            .iter()
            .filter(|group| !has(group))
            .cloned()
            .collect();
        self.groups.extend(missing);
        self
    }

    /// Why processes of the groups cannot be thawed, if that is so.
    pub(crate) fn frozen_from_above(&self) -> Option<String> {
        frozen_from_above(&self.groups)
    }

    /// Takes the groups for the container's: they have been made for it.
    pub(crate) fn own(&self) {
        if self.unit.is_none() {
            self.owned.0.store(true, Ordering::Relaxed);
        }
    }

    /// The first group with processes if nobody in the groups is the container's.
    pub(crate) fn used_by_others(&self) -> Result<Option<&Path>> {
        if self.owned.clone().into() {
            return Ok(None);
        }
        for group in &self.groups {
            if !members::pids(std::slice::from_ref(group))?.is_empty() {
                return Ok(Some(&group.directory));
            }
        }
        Ok(None)
    }

    /// Kills whoever is in the groups now, thaws them with all sub-groups and lifts the limits that
    /// keep processes from dying; does not wait.
    pub(crate) fn strike(&self) -> Result<()> {
        members::strike_hard(self.own_groups())
    }

    /// Removes the groups if nothing is in them; false if something is or may be.
    pub(crate) fn remove_empty(&self) -> bool {
        if self.unit.is_some() {
            return self.groups.iter().all(|group| !group.directory.exists());
        }
        // A group that was there before the container stays, and only a look at it tells.
        let gone = |group: &Group| {
            group.existing != group.directory && group.remove(true, Instant::now()).is_ok()
        };
        // An init that was born in a group just before its caller was killed may still be going.
        self.owned.clone().into() && self.groups.iter().all(gone)
    }

    /// Removes sub-groups, groups, and those above that `create` made and nobody else uses. It
    /// waits until `deadline` for processes that are just going. Missing groups are success. A group
    /// that was there before the container stays as it is.
    /// As long as `create` has not succeeded, only what is empty goes, and the rest is no error.
    pub(crate) fn remove(&self, deadline: Instant) -> Result<()> {
        let owned = bool::from(self.owned.clone());
        if let Some(unit) = self.unit.as_ref().filter(|_| owned && self.unit_exists()) {
            unit.stop()?;
        }
        let deadline = if owned {
            deadline
        } else {
            Instant::now() + SHORT_PATIENCE
        };
        let remove = |group: &Group| group.remove(owned, deadline);
        // All of them, also after an error.
        let results: Vec<Result<()>> = self.groups.iter().map(remove).collect();
        results.into_iter().collect()
    }

    /// The groups for `cgroup` mounts in the container.
    pub(crate) fn groups(&self) -> impl Iterator<Item = GroupView<'_>> {
        self.groups.iter().map(|group| {
            let controllers = group.controllers.as_str();
            let named = controllers.strip_prefix("name=");
            let name = if self.unified {
                ""
            } else {
                named.unwrap_or(controllers)
            };
            GroupView {
                name: if group.is_v2() && !self.unified {
                    "unified"
                } else {
                    name
                },
                directory: &group.directory,
                is_v2: group.is_v2(),
            }
        })
    }

    /// Whether limits of `controller`, by its name on version 1, are those of version 2.
    fn is_v2(&self, controller: &str) -> bool {
        self.v2().is_some() && with_controller(&self.groups, controller).is_none()
    }

    fn v2(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.is_v2())
    }

    /// Whether the host has version 2 alone.
    pub(crate) fn is_unified(&self) -> bool {
        self.unified
    }

    /// systemd takes a scope away when its last process has gone, and its groups with it.
    fn unit_exists(&self) -> bool {
        let mut of_systemd = self
            .groups
            .iter()
            .filter(|g| g.is_systemds() || self.unified);
        of_systemd.any(|group| group.directory.exists())
    }

    /// Writes all limits; systemd is told first, since it writes as well.
    fn write(&self, limits: &Limits, is_update: bool) -> Result<()> {
        let mut limits = Cow::Borrowed(limits);
        if let Some(unit) = &self.unit {
            if let Some(group) = self.v2() {
                v2::check_usage(&group.directory, &limits)?;
            }
            unit.set(self, limits.to_mut())?;
        }
        self.write_files(&limits)?;
        // Last, since what there was of these cannot be known.
        let Some(rules) = &limits.devices else {
            return Ok(());
        };
        if let Some(unit) = self
            .unit
            .as_ref()
            .filter(|_| is_update && !self.is_v2("devices"))
        {
            unit.set_devices(rules)?;
        }
        devices::apply(&self.groups, rules, is_update)
    }

    fn write_files(&self, limits: &Limits) -> Result<()> {
        v1::apply(&self.groups, &limits.v1)?;
        let Some(group) = self.v2() else {
            return Ok(());
        };
        if !self.unified {
            v2::enable_for(&group.directory, &limits.v2)?;
        }
        v2::apply(&group.directory, limits)
    }

    fn own_groups(&self) -> &[Group] {
        if self.owned.clone().into() {
            &self.groups
        } else {
            &[]
        }
    }

    /// The group that can be frozen: that of the version 1 controller, else that of version 2.
    fn freezer(&self) -> Option<&Group> {
        with_controller(&self.groups, "freezer").or_else(|| self.v2())
    }
}

fn frozen_from_above(groups: &[Group]) -> Option<String> {
    let group = with_controller(groups, "freezer")?;
    let directory = group.directory.display();
    group
        .is_frozen_from_above()
        .then(|| format!("a cgroup above {directory} is frozen"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(controllers: &str, directory: &str, existing: &str) -> Group {
        Group {
            controllers: controllers.into(),
            directory: directory.into(),
            existing: existing.into(),
        }
    }

    #[test]
    fn views_for_mounts() {
        let groups = vec![
            group(
                "cpu,cpuacct",
                "/sys/fs/cgroup/cpu,cpuacct/x",
                "/sys/fs/cgroup/cpu,cpuacct",
            ),
            group(
                "name=systemd",
                "/sys/fs/cgroup/systemd/x",
                "/sys/fs/cgroup/systemd",
            ),
            group("", "/sys/fs/cgroup/unified/x", "/sys/fs/cgroup/unified"),
        ];
        let cgroup = Cgroup {
            groups,
            ..Cgroup::default()
        };
        let views: Vec<_> = cgroup.groups().map(|v| (v.name, v.is_v2)).collect();
        assert_eq!(views[0], ("cpu,cpuacct", false));
        assert_eq!(views[1], ("systemd", false));
        assert_eq!(views[2], ("unified", true));
        let unified = Cgroup {
            unified: true,
            groups: vec![group("", "/sys/fs/cgroup/x", "/")],
            ..Cgroup::default()
        };
        assert_eq!(
            unified.groups().map(|view| view.name).collect::<Vec<_>>(),
            [""]
        );
    }

    #[test]
    fn clones_share_whether_the_groups_are_the_containers() {
        let cgroup = Cgroup::default();
        let record = cgroup.clone();
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(text, r#"{"unified":false,"groups":[],"owned":false}"#);
        cgroup.create().unwrap();
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(text, r#"{"unified":false,"groups":[],"owned":true}"#);
        let read: Cgroup = serde_json::from_str(&text).unwrap();
        assert!(bool::from(read.owned));
    }

    #[test]
    fn no_groups_is_a_state_of_its_own() {
        let none = Cgroup::default();
        assert!(none.pids().unwrap().is_empty());
        assert!(!none.is_frozen().unwrap());
        none.kill(Instant::now()).unwrap();
        none.remove(Instant::now()).unwrap();
    }
}
