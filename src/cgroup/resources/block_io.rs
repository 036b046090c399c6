//! `linux.resources.blockIO`. What a weight means depends on the kernel's I/O scheduler: the one
//! that divides the time of a disk determines which control file takes the weight.

use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::super::setting::{Setting, set};

/// The weights that the specification allows. `io.weight` goes from 1 to 10000.
const WEIGHT: std::ops::RangeInclusive<u16> = 1..=1000;

/// Converts a weight from 10..1000 to 1..10000, with the formula of runc and crun.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

/// A list of limits per device: its name in the configuration, its control file on version 1, its
/// key in `io.max` on version 2, the limits.
type Throttle<'a> = (
    &'static str,
    &'static str,
    &'static str,
    &'a [LinuxThrottleDevice],
);

fn throttles(io: &LinuxBlockIo) -> [Throttle<'_>; 4] {
    fn list(list: &Option<Vec<LinuxThrottleDevice>>) -> &[LinuxThrottleDevice] {
        list.as_deref().unwrap_or_default()
    }
    [
        (
            "throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            "rbps",
            list(io.throttle_read_bps_device()),
        ),
        (
            "throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            "wbps",
            list(io.throttle_write_bps_device()),
        ),
        (
            "throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            "riops",
            list(io.throttle_read_iops_device()),
        ),
        (
            "throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            "wiops",
            list(io.throttle_write_iops_device()),
        ),
    ]
}

/// Adds the writes to `blkio.*` or to `io.*`.
pub(super) fn settings(io: &LinuxBlockIo, is_v2: bool, settings: &mut Vec<Setting>) -> Result<()> {
    weights(io, is_v2, settings)?;
    for (name, file, key, devices) in throttles(io) {
        for (i, device) in devices.iter().enumerate() {
            let field = format!("linux.resources.blockIO.{name}[{i}]");
            let (major, minor, rate) = (device.major(), device.minor(), device.rate());
            settings.push(match (is_v2, rate) {
                // On version 1 a rate of 0 is no limit, on version 2 it is an error.
                (true, 0) => {
                    Setting::new(field, "io", "io.max", format!("{major}:{minor} {key}=max"))
                }
                (true, _) => Setting::new(
                    field,
                    "io",
                    "io.max",
                    format!("{major}:{minor} {key}={rate}"),
                ),
                (false, _) => Setting::new(field, "blkio", file, format!("{major}:{minor} {rate}")),
            });
        }
    }
    Ok(())
}

fn weights(io: &LinuxBlockIo, is_v2: bool, settings: &mut Vec<Setting>) -> Result<()> {
    if let Some(weight) = set(io.weight()) {
        settings.push(weight_setting(
            "linux.resources.blockIO.weight".into(),
            "",
            weight,
            is_v2,
        )?);
    }
    refuse_leaf("leafWeight", io.leaf_weight())?;
    for (i, device) in io.weight_device().iter().flatten().enumerate() {
        refuse_leaf(
            &format!("weightDevice[{i}].leafWeight"),
            device.leaf_weight(),
        )?;
        if let Some(weight) = set(device.weight()) {
            let field = format!("linux.resources.blockIO.weightDevice[{i}].weight");
            let number = format!("{}:{} ", device.major(), device.minor());
            settings.push(weight_setting(field, &number, weight, is_v2)?);
        }
    }
    Ok(())
}

fn refuse_leaf(name: &str, weight: Option<u16>) -> Result<()> {
    match set(weight) {
        Some(_) => {
            bail!("linux.resources.blockIO.{name}: went with the scheduler CFQ in Linux 5.0")
        }
        None => Ok(()),
    }
}

/// Returns the write for a weight. `device` is empty, or the number of a device and a space.
fn weight_setting(field: String, device: &str, weight: u16, is_v2: bool) -> Result<Setting> {
    if !WEIGHT.contains(&weight) {
        bail!(
            "{field}: {weight} is outside of {}..{}",
            WEIGHT.start(),
            WEIGHT.end()
        );
    }
    let value = format!("{device}{weight}");
    Ok(match (is_v2, device) {
        (true, _) => Setting::new(field, "io", "io.bfq.weight", value)
            .or_instead("io.weight", format!("{device}{}", io_weight(weight))),
        (false, "") => Setting::new(field, "blkio", "blkio.bfq.weight", value),
        (false, _) => Setting::new(field, "blkio", "blkio.bfq.weight_device", value),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{error, lines};
    use super::io_weight;

    #[test]
    fn weights_become_those_of_version_2() {
        for (weight, expected) in [(1, 1), (10, 1), (500, 4950), (1000, 10_000)] {
            assert_eq!(io_weight(weight), expected);
        }
        let all: Vec<u64> = (1..=1000).map(io_weight).collect();
        assert!(all.is_sorted());
    }

    #[test]
    fn every_field_is_a_write() {
        let device = |rate| format!(r#"[{{"major":8,"minor":16,"rate":{rate}}}]"#);
        let json = format!(
            r#"{{"blockIO":{{"weight":500,"weightDevice":[{{"major":8,"minor":0,"weight":20}}],
            "throttleReadBpsDevice":{},"throttleWriteBpsDevice":{},"throttleReadIOPSDevice":{},
            "throttleWriteIOPSDevice":{}}}}}"#,
            device(1),
            device(2),
            device(3),
            device(0)
        );
        assert_eq!(
            lines(&json, false),
            [
                "blkio.bfq.weight=500",
                "blkio.bfq.weight_device=8:0 20",
                "blkio.throttle.read_bps_device=8:16 1",
                "blkio.throttle.write_bps_device=8:16 2",
                "blkio.throttle.read_iops_device=8:16 3",
                "blkio.throttle.write_iops_device=8:16 0",
            ]
        );
        assert_eq!(
            lines(&json, true),
            [
                "io.bfq.weight=500",
                "io.bfq.weight=8:0 20",
                "io.max=8:16 rbps=1",
                "io.max=8:16 wbps=2",
                "io.max=8:16 riops=3",
                "io.max=8:16 wiops=max",
            ]
        );
    }

    #[test]
    fn impossible_weights_are_refused() {
        for unified in [false, true] {
            let weight = error(r#"{"blockIO":{"weight":1001}}"#, unified);
            assert_eq!(
                weight,
                "linux.resources.blockIO.weight: 1001 is outside of 1..1000"
            );
            let json = r#"{"blockIO":{"weightDevice":[{"major":1,"minor":1,"leafWeight":9}]}}"#;
            let leaf = error(json, unified);
            assert!(leaf.starts_with("linux.resources.blockIO.weightDevice[0].leafWeight: "));
        }
    }
}
