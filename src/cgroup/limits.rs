//! `linux.resources` decided: checked, converted, and as the writes to control files that it
//! comes to. Nothing is read from the kernel here.

use std::path::Path;

use anyhow::{Context, Error, Result, bail};
use nix::errno::Errno;
use oci_spec::runtime::{LinuxBlockIo, LinuxMemory, LinuxResources};

use super::devices::{self, Rule};
use super::{file, v1, v2};

/// Every limit of a container. The default is none, and no device rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    /// In the order of writing, the settings of one controller next to each other.
    pub(super) settings: Vec<Setting>,
    /// `memory.checkBeforeUpdate` on version 2: the usage in bytes that must not be reached.
    pub(super) usage_below: Option<(&'static str, u64)>,
    /// In the order of the configuration, with the default rules at the end.
    pub(super) devices: Option<Vec<Rule>>,
}

/// One write to a control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The JSON path of what the user asked for.
    pub(super) field: &'static str,
    pub(super) controller: &'static str,
    pub(super) file: &'static str,
    pub(super) value: String,
    /// A kernel without the file behaves as if the value were set.
    pub(super) met_if_absent: bool,
}

impl Setting {
    pub(super) fn new(
        field: &'static str,
        controller: &'static str,
        file: &'static str,
        value: impl ToString,
    ) -> Self {
        Self { field, controller, file, value: value.to_string(), met_if_absent: false }
    }

    pub(super) fn met_if_absent(mut self, met: bool) -> Self {
        self.met_if_absent = met;
        self
    }
}

impl Limits {
    /// Checks and converts `linux.resources` for a host with the unified hierarchy alone or for
    /// any other. What is not supported is an error with its JSON path, never ignored; a zero
    /// means "not set" where runc takes it so, since clients write zeros.
    pub(crate) fn from_spec(
        resources: Option<&LinuxResources>,
        unified_host: bool,
    ) -> Result<Self> {
        let default = LinuxResources::default();
        let resources = resources.unwrap_or(&default);
        refuse_unsupported(resources)?;
        let mut limits = Self {
            settings: Vec::new(),
            usage_below: None,
            devices: Some(devices::rules(resources.devices().as_deref().unwrap_or_default())?),
        };
        if let Some(memory) = resources.memory() {
            check_memory(memory, unified_host)?;
        }
        if unified_host {
            v2::settings(resources, &mut limits)?;
        } else {
            v1::settings(resources, &mut limits)?;
            devices::v1_writes(limits.devices.as_deref().unwrap_or_default())?;
        }
        Ok(limits)
    }
}

/// Refuses what is set but has no implementation.
fn refuse_unsupported(resources: &LinuxResources) -> Result<()> {
    let network = resources.network().as_ref();
    let memory = resources.memory().as_ref();
    let number = |value: Option<i64>| value.is_some_and(|value| value != 0);
    #[allow(deprecated, reason = "it must be looked at to be refused")]
    let kernel = memory.and_then(LinuxMemory::kernel);
    let refused = [
        ("blockIO", resources.block_io().as_ref().is_some_and(sets_block_io)),
        ("hugepageLimits", resources.hugepage_limits().as_ref().is_some_and(|l| !l.is_empty())),
        ("network.classID", network.is_some_and(|network| network.class_id().is_some())),
        (
            "network.priorities",
            network.and_then(|n| n.priorities().as_ref()).is_some_and(|list| !list.is_empty()),
        ),
        ("rdma", resources.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty())),
        ("unified", resources.unified().as_ref().is_some_and(|unified| !unified.is_empty())),
        ("memory.kernel", number(kernel)),
        ("memory.kernelTCP", number(memory.and_then(LinuxMemory::kernel_tcp))),
    ];
    match refused.iter().find(|(_, set)| *set) {
        Some((name, _)) => bail!("linux.resources.{name}: not yet supported"),
        None => Ok(()),
    }
}

fn sets_block_io(io: &LinuxBlockIo) -> bool {
    let throttles = [
        io.throttle_read_bps_device(),
        io.throttle_write_bps_device(),
        io.throttle_read_iops_device(),
        io.throttle_write_iops_device(),
    ];
    io.weight().is_some_and(|weight| weight != 0)
        || io.leaf_weight().is_some_and(|weight| weight != 0)
        || io.weight_device().as_ref().is_some_and(|list| !list.is_empty())
        || throttles.iter().any(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
}

/// What both versions ask of memory limits: -1 is "no limit", and no other number is negative.
fn check_memory(memory: &LinuxMemory, unified_host: bool) -> Result<()> {
    let values =
        [("limit", memory.limit()), ("reservation", memory.reservation()), ("swap", memory.swap())];
    for (name, value) in values {
        if value.is_some_and(|value| value < -1) {
            bail!("linux.resources.memory.{name}: {} is negative", value.unwrap_or_default());
        }
    }
    if let (Some(limit), Some(swap)) = (set(memory.limit()), set(memory.swap())) {
        // The kernel refuses it too, but after the first of the two has been written. On version 2
        // the swap of unlimited memory is a limit of its own.
        if swap != -1 && (swap < limit || limit == -1 && !unified_host) {
            bail!("linux.resources.memory.swap: {swap} is less than the memory limit {limit}");
        }
    }
    Ok(())
}

/// A number that is present and not zero.
pub(super) fn set<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

/// Writes the settings of one controller to the group `directory`. Several of them bound each
/// other (memory and memory+swap, period and quota): what the kernel finds invalid is tried again
/// after the others, so that any allowed state can be reached from any other.
pub(super) fn write(settings: &[Setting], directory: &Path) -> Result<()> {
    let mut pending: Vec<&Setting> = settings.iter().collect();
    while let Some(first) = pending.first().copied() {
        let count = pending.len();
        let mut refused = Vec::new();
        for setting in pending {
            match file::write(&directory.join(setting.file), &setting.value) {
                Ok(()) => {}
                Err(Errno::ENOENT) if setting.met_if_absent => {}
                Err(Errno::EINVAL) => refused.push(setting),
                Err(errno) => return Err(refusal(setting, directory, errno)),
            }
        }
        if refused.len() == count {
            return Err(refusal(first, directory, Errno::EINVAL));
        }
        pending = refused;
    }
    Ok(())
}

/// The error of a write: the JSON path, the control file, and what the user can do about it.
fn refusal(setting: &Setting, directory: &Path, errno: Errno) -> Error {
    let Setting { field, controller, file, value, .. } = setting;
    let path = directory.join(file);
    let path = path.display();
    match errno {
        Errno::ENOENT if lacks_controller(directory, controller) => {
            anyhow::anyhow!(
                "{field}: {path}: the cgroup controller `{controller}` is not available"
            )
        }
        Errno::EBUSY => Error::new(errno).context(format!("{field}: {path}: {value} is in use")),
        _ => Error::new(errno).context(format!("{field}: {path}: {value}")),
    }
}

/// Whether `directory` is a version 2 group in which `controller` is not enabled.
fn lacks_controller(directory: &Path, controller: &str) -> bool {
    file::read(&directory.join("cgroup.controllers"))
        .is_ok_and(|enabled| !enabled.split(' ').any(|name| name == controller))
}

/// Refuses an update to a limit that is below the present usage of the group `directory`.
pub(super) fn check_usage(directory: &Path, field: &str, limit: u64) -> Result<()> {
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `linux.resources` from JSON, as (file, value).
    pub(in super::super) fn settings(
        json: &str,
        unified: bool,
    ) -> Result<Vec<(&'static str, String)>> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let limits = Limits::from_spec(Some(&resources), unified)?;
        Ok(limits.settings.into_iter().map(|s| (s.file, s.value)).collect())
    }

    pub(in super::super) fn error(json: &str, unified: bool) -> String {
        format!("{:#}", settings(json, unified).unwrap_err())
    }

    #[test]
    fn the_default_is_no_limit() {
        let limits = Limits::default();
        assert!(limits.settings.is_empty() && limits.devices.is_none());
        for json in ["{}", r#"{"memory":{},"cpu":{},"blockIO":{},"network":{}}"#] {
            assert_eq!(settings(json, true).unwrap(), []);
            assert_eq!(settings(json, false).unwrap(), []);
        }
    }

    #[test]
    fn zeros_of_clients_are_not_set() {
        let json = r#"{"memory":{"limit":0,"reservation":0,"swap":0,"kernel":0,"kernelTCP":0,
            "disableOOMKiller":false,"useHierarchy":false},"cpu":{"shares":0,"quota":0,"period":0,
            "realtimeRuntime":0,"realtimePeriod":0,"cpus":"","mems":""},"blockIO":{"weight":0,
            "throttleReadBpsDevice":[]},"hugepageLimits":[],"network":{"priorities":[]},
            "rdma":{},"unified":{}}"#;
        assert_eq!(settings(json, true).unwrap(), []);
        assert_eq!(settings(json, false).unwrap(), []);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_its_json_path() {
        for (json, path) in [
            (r#"{"blockIO":{"weight":100}}"#, "blockIO"),
            (
                r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]}}"#,
                "blockIO",
            ),
            (r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1}]}"#, "hugepageLimits"),
            (r#"{"network":{"classID":1}}"#, "network.classID"),
            (r#"{"network":{"priorities":[{"name":"lo","priority":1}]}}"#, "network.priorities"),
            (r#"{"rdma":{"mlx":{"hcaHandles":1}}}"#, "rdma"),
            (r#"{"unified":{"memory.high":"1"}}"#, "unified"),
            (r#"{"memory":{"kernel":1}}"#, "memory.kernel"),
            (r#"{"memory":{"kernelTCP":1}}"#, "memory.kernelTCP"),
        ] {
            for unified in [false, true] {
                let expected = format!("linux.resources.{path}: not yet supported");
                assert_eq!(error(json, unified), expected);
            }
        }
    }

    #[test]
    fn impossible_memory_is_refused_before_anything_is_written() {
        for unified in [false, true] {
            let less = error(r#"{"memory":{"limit":2000000,"swap":1000000}}"#, unified);
            assert!(less.starts_with("linux.resources.memory.swap: 1000000 is less"), "{less}");
            let negative = error(r#"{"memory":{"limit":-2}}"#, unified);
            assert!(negative.starts_with("linux.resources.memory.limit: -2"), "{negative}");
        }
    }
}
