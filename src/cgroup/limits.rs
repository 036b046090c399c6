//! All limits of a container, as settings of control files and device rules, and writing them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::cgroup_dir::{CgroupDir, with_controller};
use super::devices::DeviceRule;
use super::file;
use super::setting::{self, Setting};

/// Every limit of a container. The default has no limits and no device rules.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Settings for the version 1 cgroups, in the order of writing; those of one controller are
    /// adjacent.
    pub(super) v1: Vec<Setting>,
    /// Settings for the version 2 cgroup, in the same order.
    pub(super) v2: Vec<Setting>,
    /// `memory.checkBeforeUpdate` on version 2: the usage in bytes that must not be reached.
    pub(super) usage_below: Option<(&'static str, u64)>,
    /// The rules of the configuration in their order, then what it leaves of the default rules.
    pub(super) devices: Option<Vec<DeviceRule>>,
}

impl Limits {
    /// Returns the device rules alone.
    pub fn of_devices(&self) -> Self {
        Self {
            devices: self.devices.clone(),
            ..Self::default()
        }
    }

    /// Returns the limits of memory and of memory with swap alone.
    pub fn of_memory(&self) -> Self {
        const FILES: [&str; 4] = [
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "memory.max",
            "memory.swap.max",
        ];
        let of_memory = |settings: &[Setting]| {
            settings
                .iter()
                .filter(|one| FILES.contains(&&*one.file))
                .cloned()
                .collect()
        };
        Self {
            v1: of_memory(&self.v1),
            v2: of_memory(&self.v2),
            ..Self::default()
        }
    }

    /// Returns all limits but the device rules.
    pub fn without_devices(&self) -> Self {
        Self {
            devices: None,
            ..self.clone()
        }
    }

    /// Returns the first property whose limit would be written to `cgroup`.
    pub(super) fn field_of(&self, cgroup: &CgroupDir) -> Option<&str> {
        let settings = if cgroup.is_v2() { &self.v2 } else { &self.v1 };
        let here =
            |setting: &&Setting| cgroup.is_v2() || cgroup.has_controller(&setting.controller);
        settings.iter().find(here).map(|setting| &*setting.field)
    }

    /// Writes the settings of version 1 to `cgroups`.
    pub(super) fn write_v1(&self, cgroups: &[CgroupDir]) -> Result<()> {
        for settings in self.v1.chunk_by(|a, b| a.controller == b.controller) {
            let Setting {
                field, controller, ..
            } = &settings[0];
            let cgroup = with_controller(cgroups, controller).with_context(|| {
                format!(
                    "{field}: no cgroup hierarchy with the controller `{controller}` is mounted"
                )
            })?;
            setting::write(settings, &cgroup.directory)?;
        }
        Ok(())
    }

    /// Refuses a limit that is not above the memory usage of the cgroup `directory`, if the
    /// configuration asks for this check.
    pub(super) fn check_usage(&self, directory: &Path) -> Result<()> {
        match self.usage_below {
            Some((field, limit)) => check_usage(directory, field, limit),
            None => Ok(()),
        }
    }

    /// Writes the settings of version 2 to the cgroup `directory`.
    pub(super) fn write_v2(&self, directory: &Path) -> Result<()> {
        self.check_usage(directory)?;
        for settings in self.v2.chunk_by(|a, b| a.controller == b.controller) {
            setting::write(settings, directory)?;
        }
        Ok(())
    }
}

/// Refuses an update to a limit that is not above the present memory usage of the cgroup
/// `directory`.
fn check_usage(directory: &Path, field: &str, limit: u64) -> Result<()> {
    let path = directory.join("memory.current");
    let usage = match file::read(&path) {
        Ok(usage) => usage,
        // The memory controller is missing; writing the limit will report that.
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(errno).with_context(|| path.display().to_string()),
    };
    if usage.parse::<u64>().is_ok_and(|usage| usage >= limit) {
        bail!("{field}: {limit} is not above the present usage of {usage} bytes");
    }
    Ok(())
}
