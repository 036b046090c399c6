//! Writes device rules to the control files of version 1.

use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::super::cgroup_dir::trial;
use super::super::{file, walk};
use super::exceptions;
use super::rule::DeviceRule;

/// Writes device rules. Everything is denied for a moment, unless `is_update`: then only the
/// differences are written.
pub(super) fn write(directory: &Path, rules: &[DeviceRule], is_update: bool) -> Result<()> {
    let open = |name| {
        let path = directory.join(name);
        let fd = file::open(&path, OFlag::O_WRONLY);
        fd.with_context(|| format!("linux.resources.devices: {}", path.display()))
    };
    let (allow, deny) = (open("devices.allow")?, open("devices.deny")?);
    let mut writes = exceptions::v1_writes(rules)?;
    if is_update {
        let path = directory.join("devices.list");
        let list = file::open(&path, OFlag::O_RDONLY).and_then(file::read_all);
        writes = exceptions::v1_changes(&list.with_context(|| path.display().to_string())?, writes);
    }
    for write in writes {
        match file::write_to(if write.allow { &allow } else { &deny }, &write.text) {
            // The cgroup above forbids a device of the default rules, which nobody asked for.
            Err(Errno::EPERM) if write.rule.is_none() => {}
            result => result.with_context(|| {
                let name = if write.allow {
                    "devices.allow"
                } else {
                    "devices.deny"
                };
                let path = directory.join(name);
                let field = write.rule.map_or_else(String::new, |i| format!("[{i}]"));
                format!(
                    "linux.resources.devices{field}: {}: {}",
                    path.display(),
                    write.text
                )
            })?,
        }
    }
    Ok(())
}

/// Checks whether the kernel accepts `rules` for the cgroup `directory`, on an empty cgroup beside
/// it. The writes to the cgroup itself could not be undone after a refusal, since the kernel does
/// not show the exceptions to "everything is allowed".
pub fn try_on_version_1(directory: &Path, rules: &[DeviceRule]) -> Result<()> {
    let trial = trial(directory);
    let context = || trial.display().to_string();
    // A killed command may have left the directory.
    walk::rmdir(&trial).with_context(context)?;
    nix::unistd::mkdir(&trial, Mode::S_IRWXU).with_context(context)?;
    let tried = write(&trial, rules, false);
    walk::rmdir(&trial).with_context(context)?;
    tried
}
