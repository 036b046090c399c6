//! All limits of a container, as settings of control files and rules for devices, and the writing of
//! them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::devices::DeviceRule;
use super::file;
use super::group::{Group, with_controller};
use super::setting::{self, Setting};

/// Every limit of a container. The default is none, and no device rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    /// For the version 1 groups, in the order of writing, the settings of one controller next to
    /// each other.
    pub(super) v1: Vec<Setting>,
    /// For the version 2 group, in the same order.
    pub(super) v2: Vec<Setting>,
    /// `memory.checkBeforeUpdate` on version 2: the usage in bytes that must not be reached.
    pub(super) usage_below: Option<(&'static str, u64)>,
    /// In the order of the configuration, with what it leaves of the default rules at the end.
    pub(super) devices: Option<Vec<DeviceRule>>,
}

impl Limits {
    /// The rules for devices alone.
    pub(crate) fn of_devices(&self) -> Self {
        Self {
            devices: self.devices.clone(),
            ..Self::default()
        }
    }

    /// How much memory there may be, with swap, and nothing else.
    pub(crate) fn of_memory(&self) -> Self {
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

    /// All but those of [`Self::of_devices`].
    pub(crate) fn without_devices(&self) -> Self {
        Self {
            devices: None,
            ..self.clone()
        }
    }

    /// The first field that would be written to `group`.
    pub(super) fn field_of(&self, group: &Group) -> Option<&str> {
        let settings = if group.is_v2() { &self.v2 } else { &self.v1 };
        let here = |setting: &&Setting| group.is_v2() || group.has_controller(&setting.controller);
        settings.iter().find(here).map(|setting| &*setting.field)
    }

    /// Writes the settings of version 1 to `groups`.
    pub(super) fn write_v1(&self, groups: &[Group]) -> Result<()> {
        for settings in self.v1.chunk_by(|a, b| a.controller == b.controller) {
            let Setting {
                field, controller, ..
            } = &settings[0];
            let group = with_controller(groups, controller).with_context(|| {
                format!(
                    "{field}: no cgroup hierarchy with the controller `{controller}` is mounted"
                )
            })?;
            setting::write(settings, &group.directory)?;
        }
        Ok(())
    }

    /// Refuses a limit that is below the usage of the group `directory`, if that was asked for.
    pub(super) fn check_usage(&self, directory: &Path) -> Result<()> {
        match self.usage_below {
            Some((field, limit)) => check_usage(directory, field, limit),
            None => Ok(()),
        }
    }

    /// Writes the settings of version 2 to the group `directory`.
    pub(super) fn write_v2(&self, directory: &Path) -> Result<()> {
        self.check_usage(directory)?;
        for settings in self.v2.chunk_by(|a, b| a.controller == b.controller) {
            setting::write(settings, directory)?;
        }
        Ok(())
    }
}

/// Refuses an update to a limit that is below the present usage of the group `directory`.
fn check_usage(directory: &Path, field: &str, limit: u64) -> Result<()> {
    let path = directory.join("memory.current");
    let usage = match file::read(&path) {
        Ok(usage) => usage,
        // Without the controller, writing the limit says what is wrong.
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(errno).with_context(|| path.display().to_string()),
    };
    if usage.parse::<u64>().is_ok_and(|usage| usage >= limit) {
        bail!("{field}: {limit} is not above the present usage of {usage} bytes");
    }
    Ok(())
}
