//! Limits as properties of a unit. systemd writes control files by itself, for example on
//! `daemon-reload`, and would reset a limit that it does not know of. A limit for which there is no
//! property is only written to its control file.

use anyhow::Result;

use super::super::devices::{self, DeviceRule};
use super::super::limits::Limits;
use super::super::setting::Setting;
use super::wire::{Property, Value};

/// The kernel's default period of the CPU quota, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;
/// systemd counts a CPU quota in steps of 10 ms for each second; in microseconds.
const STEP: u64 = 10_000;

/// Returns the properties for `limits`, and adapts `limits` to systemd. A quota that systemd cannot
/// express is rounded up in `limits` too, since otherwise systemd and `rt` would overwrite each
/// other's. A weight that an idle cgroup would refuse is removed. `present` reads a control file of
/// the CPU controllers.
pub(super) fn from_limits(
    limits: &mut Limits,
    present: impl Fn(&str) -> Option<String>,
) -> Vec<Property> {
    let of_one = |setting: &Setting| simple(setting.chosen(|file| present(file).is_some()));
    let mut properties: Vec<Property> = limits
        .v1
        .iter()
        .chain(&limits.v2)
        .filter_map(of_one)
        .collect();
    properties.extend(cpu_weight(&limits.v2, &present));
    if limits
        .v2
        .iter()
        .any(|setting| setting.file == "cpu.idle" && setting.value.trim() == "1")
    {
        limits.v2.retain(|setting| setting.file != "cpu.weight");
    }
    for setting in limits
        .v2
        .iter_mut()
        .filter(|setting| setting.file == "cpu.max")
    {
        let given: Vec<&str> = setting.value.split(' ').collect();
        let kept = setting.keeps_first;
        let now = if kept || given.len() < 2 {
            present("cpu.max")
        } else {
            None
        };
        let now: Vec<&str> = now.iter().flat_map(|text| text.split(' ')).collect();
        let (quota, period) = match kept {
            true => (now.first(), given.first()),
            false => (given.first(), given.get(1).or(now.get(1))),
        };
        let period = period.and_then(|period| period.parse().ok());
        let quota = quota.and_then(|quota| quota.parse().ok());
        let rounded = cpu_quota(quota, period.unwrap_or(DEFAULT_PERIOD), &mut properties);
        if let (Some(rounded), false) = (rounded, kept) {
            let rest = given
                .get(1)
                .map(|period| format!(" {period}"))
                .unwrap_or_default();
            setting.value = format!("{rounded}{rest}");
        }
    }
    quota_v1(&mut limits.v1, present, &mut properties);
    properties
}

/// Returns the properties for device rules; systemd knows only a list of allowed devices. Without
/// these properties it would allow every device again.
pub(super) fn devices(rules: &[DeviceRule]) -> Result<Vec<Property>> {
    let allow = |list| ("DeviceAllow".to_owned(), Value::Devices(list));
    let list = devices::allow_list(rules)?;
    let policy = if list.is_some() { "strict" } else { "auto" };
    // An empty list first clears the present one.
    let mut properties = vec![
        ("DevicePolicy".to_owned(), Value::Text(policy.to_owned())),
        allow(Vec::new()),
    ];
    properties.extend(list.map(allow));
    Ok(properties)
}

/// The property for `cpu.idle` since systemd 252; older versions refuse it.
pub(super) fn idle() -> Property {
    ("CPUWeight".to_owned(), Value::U64(0))
}

/// Returns the property for the CPU weight. An idle cgroup has no weight; one that stops being idle
/// has the kernel's default.
fn cpu_weight(settings: &[Setting], present: impl Fn(&str) -> Option<String>) -> Option<Property> {
    let given = |file: &str| {
        let setting = settings.iter().rfind(|setting| setting.file == file);
        setting.map(|setting| setting.value.trim())
    };
    let weight = match (given("cpu.idle"), given("cpu.weight")) {
        (Some("1"), _) => return Some(idle()),
        (_, Some(weight)) => weight,
        (Some("0"), None) if present("cpu.idle")? == "1" => "100",
        _ => return None,
    };
    Some(("CPUWeight".to_owned(), number(weight)?))
}

fn simple((file, value): (&str, &str)) -> Option<Property> {
    let (name, value) = match file {
        // systemd refuses 0. Init itself is counted, so both mean "no second task".
        "pids.max" if value.trim() == "0" => ("TasksMax", Value::U64(1)),
        "pids.max" => ("TasksMax", number(value)?),
        "memory.max" => ("MemoryMax", number(value)?),
        "memory.high" => ("MemoryHigh", number(value)?),
        "memory.low" => ("MemoryLow", number(value)?),
        "memory.min" => ("MemoryMin", number(value)?),
        "memory.swap.max" => ("MemorySwapMax", number(value)?),
        "memory.limit_in_bytes" => ("MemoryLimit", number(value)?),
        "io.weight" => ("IOWeight", number(value.trim_start_matches("default "))?),
        "io.bfq.weight" => ("IOWeight", Value::U64(bfq(value)?)),
        "blkio.bfq.weight" => ("BlockIOWeight", Value::U64(bfq(value)?.clamp(10, 1000))),
        "cpu.shares" => ("CPUShares", number(value)?),
        "cpuset.cpus" => ("AllowedCPUs", bits(value)?),
        "cpuset.mems" => ("AllowedMemoryNodes", bits(value)?),
        _ => return None,
    };
    Some((name.to_owned(), value))
}

/// Returns the weight that systemd converts to this one for the I/O scheduler BFQ (`BFQ_WEIGHT`).
/// It converts on version 1, too, where the result is at most 181.
fn bfq(weight: &str) -> Option<u64> {
    let weight: u64 = weight.trim_start_matches("default ").trim().parse().ok()?;
    (1..=1000)
        .contains(&weight)
        .then(|| weight + weight.saturating_sub(100) * 10)
}

/// Parses a number; no limit is the largest one.
fn number(text: &str) -> Option<Value> {
    match text.trim() {
        "max" | "-1" => Some(Value::U64(u64::MAX)),
        text => text.parse().ok().map(Value::U64),
    }
}

/// Converts `0-2,4` to a mask with the lowest bit first. An empty mask removes the property.
fn bits(list: &str) -> Option<Value> {
    let mut mask = Vec::new();
    for part in list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        // No kernel has so many; it will refuse the list itself.
        if last >= 1 << 16 {
            return None;
        }
        mask.resize(mask.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|bit| mask[bit / 8] |= 1 << (bit % 8));
    }
    Some(Value::Bytes(mask))
}

/// Adds the two properties of a quota. Returns the quota in microseconds that they stand for, or
/// None for no limit.
fn cpu_quota(quota: Option<u64>, period: u64, properties: &mut Vec<Property>) -> Option<u64> {
    let per_second = quota.filter(|_| period > 0).map(|quota| {
        let exact = u128::from(quota) * 1_000_000 / u128::from(period);
        u64::try_from(exact)
            .unwrap_or(u64::MAX - STEP)
            .next_multiple_of(STEP)
    });
    properties.push(("CPUQuotaPeriodUSec".to_owned(), Value::U64(period)));
    let value = Value::U64(per_second.unwrap_or(u64::MAX));
    properties.push(("CPUQuotaPerSecUSec".to_owned(), value));
    per_second.map(|per_second| (u128::from(per_second) * u128::from(period) / 1_000_000) as u64)
}

/// Adds the two properties of a quota that is given by the two files of version 1, and rounds the
/// setting.
fn quota_v1(
    settings: &mut [Setting],
    present: impl Fn(&str) -> Option<String>,
    properties: &mut Vec<Property>,
) {
    const FILES: [&str; 2] = ["cpu.cfs_quota_us", "cpu.cfs_period_us"];
    let given = |file| {
        let setting = settings.iter().find(|setting| setting.file == file);
        setting.map(|setting| setting.value.clone())
    };
    if FILES.into_iter().all(|file| given(file).is_none()) {
        return;
    }
    let number = |file| given(file).or_else(|| present(file))?.parse::<u64>().ok();
    let [quota, period] = FILES.map(number);
    let rounded = cpu_quota(quota, period.unwrap_or(DEFAULT_PERIOD), properties);
    let setting = settings.iter_mut().find(|setting| setting.file == FILES[0]);
    if let (Some(setting), Some(rounded)) = (setting, rounded) {
        setting.value = rounded.to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(settings: &[(&'static str, &str)]) -> Limits {
        let setting = |(file, value): &(&'static str, &str)| Setting::new("x", "x", *file, value);
        Limits {
            v2: settings.iter().map(setting).collect(),
            ..Limits::default()
        }
    }

    #[test]
    fn limits_become_properties() {
        let mut limits = limits(&[
            ("pids.max", "max"),
            ("memory.max", "1000"),
            ("cpu.weight", "59"),
            ("cpuset.cpus", "0-1,9"),
            ("io.max", "8:0 rbps=1"),
        ]);
        let expected = [
            ("TasksMax", Value::U64(u64::MAX)),
            ("MemoryMax", Value::U64(1000)),
            ("AllowedCPUs", Value::Bytes(vec![3, 2])),
            ("CPUWeight", Value::U64(59)),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(from_limits(&mut limits, |_| None), expected);
    }

    #[test]
    fn an_idle_group_has_no_weight() {
        for (given, present, weight) in [
            (&[("cpu.weight", "59"), ("cpu.idle", "1")][..], "0", Some(0)),
            (&[("cpu.idle", "1"), ("cpu.weight", "59")], "0", Some(0)),
            (&[("cpu.weight", "59"), ("cpu.idle", "0")], "1", Some(59)),
            (&[("cpu.idle", "0")], "1", Some(100)),
            (&[("cpu.idle", "0")], "0", None),
            (&[], "1", None),
        ] {
            let properties = from_limits(&mut limits(given), |_| Some(present.to_owned()));
            let expected = weight.map(|weight| ("CPUWeight".to_owned(), Value::U64(weight)));
            assert_eq!(properties, Vec::from_iter(expected), "{given:?}");
        }
    }

    #[test]
    fn a_weight_of_disks_is_one_that_systemd_turns_into_the_same() {
        for (file, value, property, expected) in [
            ("io.bfq.weight", "60", "IOWeight", Some(60)),
            ("io.bfq.weight", "default 1000", "IOWeight", Some(10_000)),
            ("io.weight", "default 4950", "IOWeight", Some(4950)),
            ("blkio.bfq.weight", "150", "BlockIOWeight", Some(650)),
            ("blkio.bfq.weight", "300", "BlockIOWeight", Some(1000)),
            ("io.bfq.weight", "8:0 60", "IOWeight", None),
            ("io.bfq.weight", "18446744073709551615", "IOWeight", None),
        ] {
            let properties = from_limits(&mut limits(&[(file, value)]), |_| None);
            let expected = expected.map(|weight| (property.to_owned(), Value::U64(weight)));
            assert_eq!(properties, Vec::from_iter(expected), "{file} {value}");
        }
    }

    #[test]
    fn no_list_of_processors_takes_the_property_away() {
        let properties = from_limits(&mut limits(&[("cpuset.cpus", "")]), |_| None);
        assert_eq!(
            properties,
            [("AllowedCPUs".to_owned(), Value::Bytes(vec![]))]
        );
    }

    #[test]
    fn no_process_is_one_process() {
        let properties = from_limits(&mut limits(&[("pids.max", "0")]), |_| None);
        assert_eq!(properties, [("TasksMax".to_owned(), Value::U64(1))]);
    }

    #[test]
    fn a_quota_is_rounded_up_for_both() {
        for (value, present, per_second, period, written) in [
            ("50000 100000", None, 500_000, 100_000, "50000 100000"),
            ("33333 100000", None, 340_000, 100_000, "34000 100000"),
            ("20000", Some("max 50000"), 400_000, 50_000, "20000"),
            ("20000", None, 200_000, 100_000, "20000"),
            ("max 50000", None, u64::MAX, 50_000, "max 50000"),
            ("max", Some("1 50000"), u64::MAX, 50_000, "max"),
        ] {
            let mut limits = limits(&[("cpu.max", value)]);
            let properties = from_limits(&mut limits, |_| present.map(str::to_owned));
            assert_eq!(properties[0].1, Value::U64(period), "{value}");
            assert_eq!(properties[1].1, Value::U64(per_second), "{value}");
            assert_eq!(limits.v2[0].value, written);
        }
        let period = Setting::new("x", "cpu", "cpu.max", 50_000).behind_first();
        let mut limits = Limits {
            v2: vec![period],
            ..Limits::default()
        };
        let properties = from_limits(&mut limits, |_| Some("20000 100000".to_owned()));
        let values: Vec<Value> = properties.into_iter().map(|property| property.1).collect();
        assert_eq!(values, [Value::U64(50_000), Value::U64(400_000)]);
        assert_eq!(limits.v2[0].value, "50000");
    }

    #[test]
    fn version_1_has_two_files_for_a_quota() {
        let mut limits = Limits {
            v1: vec![Setting::new("x", "cpu", "cpu.cfs_quota_us", 10_001)],
            ..Limits::default()
        };
        let present = |file: &str| (file == "cpu.cfs_period_us").then(|| "50000".to_owned());
        let properties = from_limits(&mut limits, present);
        assert_eq!(properties[0].1, Value::U64(50_000));
        assert_eq!(properties[1].1, Value::U64(210_000));
        assert_eq!(limits.v1[0].value, "10500");
    }
}
