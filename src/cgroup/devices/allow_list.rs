//! Device rules as systemd has them: a list of allowed devices.

use anyhow::Result;

use super::exceptions::v1_state;
use super::policy::default_devices;
use super::rule::{DeviceKind, DeviceRule, Devices};

/// Returns the rules as systemd's `DeviceAllow`, as far as it can express them, or None if
/// everything is allowed. It cannot express "everything except": systemd then gets the default
/// rules, less the devices that `rules` deny.
pub fn allow_list(rules: &[DeviceRule]) -> Result<Option<Vec<(String, String)>>> {
    let (default, exceptions) = v1_state(rules)?;
    let mut list: Vec<Devices> = exceptions.into_iter().map(|(devices, _)| devices).collect();
    if default.allow {
        if list.is_empty() {
            return Ok(None);
        }
        let denied = std::mem::replace(&mut list, default_devices().collect());
        list.retain(|devices| !denied.iter().any(|denied| denied.overlaps(devices)));
    }
    let entry = |devices: &Devices| {
        let kind = if devices.kind == DeviceKind::Char {
            "char"
        } else {
            "block"
        };
        let device = match (devices.major, devices.minor) {
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            // Since systemd 240. A driver's name instead of the number would stand for more than
            // one number.
            (Some(major), None) => format!("{kind}-{major}"),
            (None, None) => format!("{kind}-*"),
            (None, Some(_)) => return None,
        };
        let access = devices.to_string();
        Some((
            device,
            access.rsplit(' ').next().unwrap_or_default().to_owned(),
        ))
    };
    Ok(Some(list.iter().filter_map(entry).collect()))
}
