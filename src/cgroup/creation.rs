//! Making the cgroups of a container, by `rt` or by systemd.

use anyhow::{Context, Result, bail};

use super::cgroup_dir::CgroupDir;
use super::cgroups::Cgroup;
use super::directory::Made;
use super::open::OpenCgroup;
use super::systemd::{Property, Unit, UnitConnection};
use super::{controllers, cpuset, file};

impl Cgroup {
    /// Makes all cgroups and opens them. Refuses a cgroup that is frozen or has processes. On an
    /// error everything that was made is removed again. Those that systemd makes are made later, in
    /// [`Self::start_unit`].
    pub fn create(&mut self) -> Result<OpenCgroup> {
        if self.unit.is_some() {
            self.cgroups
                .iter()
                .try_for_each(CgroupDir::refuse_processes)?;
            return Ok(OpenCgroup::default());
        }
        let mut made = Made::default();
        for cgroup in &self.cgroups {
            cgroup.make(&mut made)?;
            if cgroup.has_controller("cpuset") {
                cpuset::fill(&cgroup.directory, made.includes(&cgroup.directory))?;
            }
        }
        if self.unified {
            self.cgroups
                .iter()
                .try_for_each(|cgroup| controllers::enable_all(&cgroup.directory))?;
        }
        self.refuse_frozen()?;
        let open = self.open()?;
        made.keep();
        self.owned = true;
        Ok(open)
    }

    /// Refuses a frozen cgroup, in which init would hang. A new cgroup can be frozen, too, by one
    /// above it.
    fn refuse_frozen(&self) -> Result<()> {
        match self
            .freezer()
            .filter(|cgroup| cgroup.is_frozen().unwrap_or(false))
        {
            Some(cgroup) => {
                bail!(
                    "container's cgroup unexpectedly frozen: {}",
                    cgroup.directory.display()
                )
            }
            None => Ok(()),
        }
    }

    /// Connects to the systemd manager that makes the cgroups, if one does.
    pub fn connect(&self) -> Result<Option<UnitConnection>> {
        self.unit.as_ref().map(Unit::connect).transpose()
    }

    /// Has systemd make the cgroups with process `pid` in them, and makes those that systemd does
    /// not know.
    pub fn start_unit(
        &mut self,
        unit: &mut UnitConnection,
        properties: &[Property],
        pid: i32,
    ) -> Result<()> {
        unit.start(pid, self.unified, properties)?;
        self.owned = true;
        let mut made = Made::default();
        for cgroup in self.cgroups.iter().filter(|cgroup| !cgroup.is_systemds()) {
            cgroup.make_missing(&mut made)?;
            if cgroup.has_controller("cpuset") {
                cpuset::fill(&cgroup.directory, made.includes(&cgroup.directory))?;
            }
            let path = cgroup.directory.join("cgroup.procs");
            let entered = file::write(&path, &pid.to_string());
            entered.with_context(|| path.display().to_string())?;
        }
        made.keep();
        if self.unified {
            self.cgroups
                .iter()
                .try_for_each(|cgroup| controllers::enable_all(&cgroup.directory))?;
        }
        self.refuse_frozen()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_are_the_containers_once_they_are_made() {
        let mut cgroup = Cgroup::default();
        let text = serde_json::to_string(&cgroup).unwrap();
        assert_eq!(text, r#"{"unified":false,"groups":[],"owned":false}"#);
        cgroup.create().unwrap();
        let text = serde_json::to_string(&cgroup).unwrap();
        assert_eq!(text, r#"{"unified":false,"groups":[],"owned":true}"#);
        assert!(serde_json::from_str::<Cgroup>(&text).unwrap().owned);
    }
}
