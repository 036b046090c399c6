//! `linux.resources` as the limits of a container.

use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxMemory, LinuxResources};

use super::super::devices;
use super::super::groups::Cgroup;
use super::super::limits::Limits;
use super::super::setting::set;
use super::{v1, v2};

impl Limits {
    /// Checks and converts `linux.resources` of a new container in `cgroup`. What cannot be
    /// honoured is an error with its JSON path, never ignored; a zero means "not set" where runc
    /// takes it so, since clients write zeros.
    pub(crate) fn from_spec(resources: Option<&LinuxResources>, cgroup: &Cgroup) -> Result<Self> {
        let default = LinuxResources::default();
        let mut limits = Self::of(resources.unwrap_or(&default), cgroup)?;
        // Without rules everything but the default is denied.
        if limits.devices.is_none() {
            limits.set_devices(&[], cgroup)?;
        }
        Ok(limits)
    }

    /// The same for a change of an existing container: what is absent stays as it is.
    pub(crate) fn of(resources: &LinuxResources, cgroup: &Cgroup) -> Result<Self> {
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

/// What both versions ask of memory limits: -1 is "no limit", and no other number is negative.
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
        // The kernel refuses it too, but after the first of the two has been written. On version 2
        // the swap of unlimited memory is a limit of its own.
        if swap != -1 && (swap < limit || limit == -1 && !is_v2) {
            bail!("linux.resources.memory.swap: {swap} is less than the memory limit {limit}");
        }
    }
    Ok(())
}
