//! The device rules of a configuration, followed by the default ones.

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::rule::{ALL, DeviceKind, DeviceRule, Devices, MKNOD, access};

/// What a container may do unless the configuration denies the device by its number: make any node,
/// and use the devices that every container has. The tun device is among them because clients have
/// come to rely on it. The console is not, since its number is that of the host's console; a
/// container's own console is a pseudo terminal.
#[rustfmt::skip]
const DEFAULT: [(DeviceKind, Option<u32>, Option<u32>, u8); 11] = [
    (DeviceKind::Char, None, None, MKNOD),
    (DeviceKind::Block, None, None, MKNOD),
    (DeviceKind::Char, Some(1), Some(3), ALL),     // null
    (DeviceKind::Char, Some(1), Some(5), ALL),     // zero
    (DeviceKind::Char, Some(1), Some(7), ALL),     // full
    (DeviceKind::Char, Some(1), Some(8), ALL),     // random
    (DeviceKind::Char, Some(1), Some(9), ALL),     // urandom
    (DeviceKind::Char, Some(5), Some(0), ALL),     // tty
    (DeviceKind::Char, Some(5), Some(2), ALL),     // ptmx
    (DeviceKind::Char, Some(136), None, ALL),      // pts
    (DeviceKind::Char, Some(10), Some(200), ALL),  // net/tun
];

/// Returns the rules of the configuration in their order, then the default ones. Everything is
/// denied before the first rule, also if the configuration has no rules.
pub fn rules(config: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>> {
    let mut rules = Vec::with_capacity(config.len() + DEFAULT.len());
    for (index, device) in config.iter().enumerate() {
        parse(device, index, &mut rules)
            .with_context(|| format!("linux.resources.devices[{index}]"))?;
    }
    let default = |devices| DeviceRule {
        allow: true,
        devices: Some(devices),
        index: None,
    };
    let left: Vec<DeviceRule> = default_devices()
        .filter_map(|devices| not_denied(devices, &rules))
        .map(default)
        .collect();
    rules.extend(left);
    Ok(rules)
}

/// Returns what `rules` leave of the default rule `devices` after denials by number. The right to
/// make any node stays whole: it gives no access, and docker denies the number of one device to
/// every container.
fn not_denied(devices: Devices, rules: &[DeviceRule]) -> Option<Devices> {
    if devices.major.is_none() {
        return Some(devices);
    }
    let by_number = rules
        .iter()
        .filter_map(|rule| Some((rule.allow, rule.devices?)));
    let by_number = by_number.filter(|(_, named)| named.major.is_some() || named.minor.is_some());
    let access = by_number.fold(devices.access, |access, (allow, named)| match allow {
        true if named.covers(&devices) => access | named.access & devices.access,
        false if named.overlaps(&devices) => access & !named.access,
        _ => access,
    });
    (access != 0).then_some(Devices { access, ..devices })
}

pub(super) fn default_devices() -> impl Iterator<Item = Devices> {
    let devices = |(kind, major, minor, access)| Devices {
        kind,
        major,
        minor,
        access,
    };
    DEFAULT.into_iter().map(devices)
}

fn parse(device: &LinuxDeviceCgroup, index: usize, rules: &mut Vec<DeviceRule>) -> Result<()> {
    let kinds: &[DeviceKind] = match device.typ() {
        None | Some(LinuxDeviceType::A) => &[DeviceKind::Char, DeviceKind::Block],
        Some(LinuxDeviceType::B) => &[DeviceKind::Block],
        Some(LinuxDeviceType::C) => &[DeviceKind::Char],
        Some(kind) => bail!("type: `{}` is none of a, b, c", kind.as_str()),
    };
    let major = number(device.major()).context("major")?;
    let minor = number(device.minor()).context("minor")?;
    let access = access(device.access().as_deref().unwrap_or_default())?;
    let mut push = |devices| {
        rules.push(DeviceRule {
            allow: device.allow(),
            devices,
            index: Some(index),
        })
    };
    if kinds.len() == 2 && (major, minor, access) == (None, None, ALL) {
        push(None);
        return Ok(());
    }
    // The kernel's `a` ignores numbers and accesses, so a narrower rule becomes one rule for each
    // type.
    for kind in kinds {
        push(Some(Devices {
            kind: *kind,
            major,
            minor,
            access,
        }));
    }
    Ok(())
}

/// Parses a device number; clients write -1 for "every number".
fn number(value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => match u32::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => bail!("{value} is not a device number"),
        },
    }
}
