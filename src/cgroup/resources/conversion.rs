//! `linux.resources` as the limits of a container.

use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxMemory, LinuxResources};

use super::super::cgroups::Cgroup;
use super::super::devices;
use super::super::limits::Limits;
use super::super::setting::set;
use super::{v1, v2};

impl Limits {
    /// Checks and converts `linux.resources` of a new container in `cgroup`. A value that `rt`
    /// cannot honour is an error with its JSON path, never ignored. Zero means "not set" for those
    /// limits for which runc reads it so, since clients write zeros.
    pub fn from_spec(resources: Option<&LinuxResources>, cgroup: &Cgroup) -> Result<Self> {
        let default = LinuxResources::default();
        let mut limits = Self::from_resources(resources.unwrap_or(&default), cgroup)?;
        // Without rules every device is denied but the default ones.
        if limits.devices.is_none() {
            limits.set_devices(&[], cgroup)?;
        }
        Ok(limits)
    }

    /// Checks and converts the resources of an update: an absent property stays unchanged.
    pub fn from_resources(resources: &LinuxResources, cgroup: &Cgroup) -> Result<Self> {
        let mut limits = Self::default();
        if let Some(memory) = resources.memory() {
            check_memory(memory, cgroup.is_v2("memory"))?;
        }
        v1::settings(resources, cgroup, &mut limits)?;
        v2::settings(resources, cgroup, &mut limits)?;
        if let Some(rules) = resources.devices() {
            limits.set_devices(rules, cgroup)?;
        }
        Ok(limits)
    }

    fn set_devices(&mut self, rules: &[LinuxDeviceCgroup], cgroup: &Cgroup) -> Result<()> {
        let rules = devices::rules(rules)?;
        if !cgroup.is_v2("devices") {
            devices::v1_writes(&rules)?;
        }
        self.devices = Some(rules);
        Ok(())
    }
}

/// Checks memory limits for both versions: -1 is "no limit", and no other number is negative.
fn check_memory(memory: &LinuxMemory, is_v2: bool) -> Result<()> {
    let values = [
        ("limit", memory.limit()),
        ("reservation", memory.reservation()),
        ("swap", memory.swap()),
    ];
    for (name, value) in values {
        if value.is_some_and(|value| value < -1) {
            bail!(
                "linux.resources.memory.{name}: {} is negative",
                value.unwrap_or_default()
            );
        }
    }
    if let (Some(limit), Some(swap)) = (set(memory.limit()), set(memory.swap())) {
        // The kernel refuses this too, but only after the first of the two values has been written.
        // On version 2 the swap can be limited while the memory is not.
        if swap != -1 && (swap < limit || limit == -1 && !is_v2) {
            bail!("linux.resources.memory.swap: {swap} is less than the memory limit {limit}");
        }
    }
    Ok(())
}
