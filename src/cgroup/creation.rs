//! The groups of a container made, by us or by systemd.

use anyhow::{Context, Result, bail};

use super::directory::Made;
use super::group::Group;
use super::groups::Cgroup;
use super::open::OpenCgroup;
use super::{controllers, cpuset, file};

impl Cgroup {
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
