//! Making the cgroups of a container, by `rt` or by systemd.

use anyhow::{Context, Result, bail};

use super::directory::Made;
use super::group::Group;
use super::groups::Cgroup;
use super::open::OpenCgroup;
use super::{controllers, cpuset, file};

impl Cgroup {
    /// Makes all cgroups and opens them. Refuses a cgroup that is frozen or has processes. On an
    /// error everything that was made is removed again.
    pub(crate) fn create(&self) -> Result<OpenCgroup> {
        if let Some(unit) = &self.unit {
            self.groups.iter().try_for_each(Group::refuse_processes)?;
            // systemd makes the cgroups later, in `start_unit`; if it cannot be reached, that is an
            // error now.
            unit.connect()?;
            return Ok(OpenCgroup::default());
        }
        let mut made = Made::default();
        for group in &self.groups {
            group.make(&mut made)?;
            if group.has_controller("cpuset") {
                cpuset::fill(&group.directory, made.includes(&group.directory))?;
            }
        }
        if self.unified {
            self.groups
                .iter()
                .try_for_each(|group| controllers::enable_all(&group.directory))?;
        }
        self.refuse_frozen()?;
        let open = self.open()?;
        made.keep();
        self.owned.set();
        Ok(open)
    }

    /// Refuses a frozen cgroup, in which init would hang. A new cgroup can be frozen, too, by one
    /// above it.
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

    /// Has systemd make the cgroups with process `pid` in them, and makes those that systemd does
    /// not know. Does nothing if systemd does not make the cgroups: then the process enters them by
    /// itself.
    pub(crate) fn start_unit(&self, pid: i32) -> Result<()> {
        let Some(unit) = &self.unit else {
            return Ok(());
        };
        unit.start(pid, self.unified)?;
        self.owned.set();
        let mut made = Made::default();
        for group in self.groups.iter().filter(|group| !group.is_systemds()) {
            group.make_missing(&mut made)?;
            if group.has_controller("cpuset") {
                cpuset::fill(&group.directory, made.includes(&group.directory))?;
            }
            let path = group.directory.join("cgroup.procs");
            let entered = file::write(&path, &pid.to_string());
            entered.with_context(|| path.display().to_string())?;
        }
        made.keep();
        if self.unified {
            self.groups
                .iter()
                .try_for_each(|group| controllers::enable_all(&group.directory))?;
        }
        self.refuse_frozen()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
