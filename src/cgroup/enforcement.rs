//! Putting the limits of a container into force.

use std::borrow::Cow;
use std::collections::HashMap;

use anyhow::Result;

use super::cgroup_dir::with_controller;
use super::cgroups::Cgroup;
use super::limits::Limits;
use super::systemd::{self, Property, UnitConnection};
use super::{controllers, devices};

impl Cgroup {
    /// Returns the properties with which systemd starts the scope: those of annotations, and the
    /// limits that it has to know before it makes the cgroups, which are the device rules, on version
    /// 1. None if `rt` makes the cgroups.
    pub fn unit_properties(
        &self,
        annotations: &HashMap<String, String>,
        limits: &Limits,
    ) -> Result<Vec<Property>> {
        if self.unit.is_none() {
            return Ok(vec![]);
        }
        let rules = limits.devices.as_deref();
        systemd::start_properties(annotations, rules.filter(|_| !self.is_v2("devices")))
    }

    /// Writes all limits of a new container.
    pub fn apply(&self, limits: &Limits, unit: Option<&mut UnitConnection>) -> Result<()> {
        self.write(limits, unit, false)
    }

    /// Limits the memory of a new container before anything is done in it. systemd gets its copy of
    /// these limits later, with all the others.
    pub fn apply_memory(&self, limits: &Limits) -> Result<()> {
        self.write_files(&limits.of_memory())
    }

    /// Writes all limits. systemd is told first, because it writes control files too.
    pub(super) fn write(
        &self,
        limits: &Limits,
        mut unit: Option<&mut UnitConnection>,
        is_update: bool,
    ) -> Result<()> {
        debug_assert_eq!(
            unit.is_some(),
            self.unit.is_some(),
            "systemd has to be told"
        );
        let mut limits = Cow::Borrowed(limits);
        if let Some(unit) = &mut unit {
            if let Some(cgroup) = self.v2() {
                limits.check_usage(&cgroup.directory)?;
            }
            let cpu = with_controller(&self.cgroups, "cpu").or(self.v2());
            unit.set(cpu, limits.to_mut())?;
        }
        self.write_files(&limits)?;
        // Device rules are last, because the previous ones cannot be read and so cannot be
        // restored.
        let Some(rules) = &limits.devices else {
            return Ok(());
        };
        if let Some(unit) = unit.filter(|_| is_update && !self.is_v2("devices")) {
            unit.set_devices(rules)?;
        }
        devices::apply(&self.cgroups, rules, is_update)
    }

    fn write_files(&self, limits: &Limits) -> Result<()> {
        limits.write_v1(&self.cgroups)?;
        let Some(cgroup) = self.v2() else {
            return Ok(());
        };
        if !self.unified {
            controllers::enable_for(&cgroup.directory, &limits.v2)?;
        }
        limits.write_v2(&cgroup.directory)
    }
}
