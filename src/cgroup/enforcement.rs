//! Putting the limits of a container into force.

use std::borrow::Cow;

use anyhow::Result;

use super::group::with_controller;
use super::groups::Cgroup;
use super::limits::Limits;
use super::{controllers, devices};

impl Cgroup {
    /// Adds to the unit the limits that systemd has to know before it makes the cgroups: the device
    /// rules, on version 1.
    pub(crate) fn prepare(&mut self, limits: &Limits) -> Result<()> {
        let with_v1 = !self.is_v2("devices");
        self.unit
            .as_mut()
            .filter(|_| with_v1)
            .map_or(Ok(()), |unit| unit.with_devices(limits))
    }

    /// Writes all limits of a new container.
    pub(crate) fn apply(&self, limits: &Limits) -> Result<()> {
        self.write(limits, false)
    }

    /// Limits the memory of a new container before anything is done in it. systemd gets its copy of
    /// these limits later, with all the others.
    pub(crate) fn apply_memory(&self, limits: &Limits) -> Result<()> {
        self.write_files(&limits.of_memory())
    }

    /// Writes all limits. systemd is told first, because it writes control files too.
    pub(super) fn write(&self, limits: &Limits, is_update: bool) -> Result<()> {
        let mut limits = Cow::Borrowed(limits);
        if let Some(unit) = &self.unit {
            if let Some(group) = self.v2() {
                limits.check_usage(&group.directory)?;
            }
            let cpu = with_controller(&self.groups, "cpu").or(self.v2());
            unit.set(cpu, limits.to_mut())?;
        }
        self.write_files(&limits)?;
        // Device rules are last, because the previous ones cannot be read and so cannot be
        // restored.
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
        limits.write_v1(&self.groups)?;
        let Some(group) = self.v2() else {
            return Ok(());
        };
        if !self.unified {
            controllers::enable_for(&group.directory, &limits.v2)?;
        }
        limits.write_v2(&group.directory)
    }
}
