//! `linux.resources` decided: checked, converted, and as the writes to control files that it
//! comes to. Nothing is read from the kernel here.

mod block_io;
mod others;

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, Error, Result, bail};
use nix::errno::Errno;
use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::devices::{self, Rule};
use super::{Cgroup, Group, file, v1, v2};
use crate::log;

pub(super) use block_io::settings as block_io;
pub(super) use others::{cpuset, huge_pages, network, pids_max, rdma, unified};

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
    pub(super) devices: Option<Vec<Rule>>,
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
}

/// One write to a control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The JSON path of what the user asked for.
    pub(super) field: Cow<'static, str>,
    pub(super) controller: Cow<'static, str>,
    pub(super) file: Cow<'static, str>,
    pub(super) value: String,
    /// The first word of the file stays, and the value comes behind it.
    pub(super) keeps_first: bool,
    absent: Absent,
}

/// What it means that the kernel has no such file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Absent {
    /// The limit cannot be had.
    Error,
    /// It behaves as if the value were set.
    Met,
    /// Another file takes another value.
    Instead(&'static str, String),
    /// As `Error`, and so it is if the file then shows more than the value: some kernels take the
    /// write and do nothing.
    Checked,
    /// A warning, also if the file then shows more than the value: nobody can have this limit any
    /// more, and old clients still ask for it.
    Obsolete,
}

impl Setting {
    pub(super) fn new(
        field: impl Into<Cow<'static, str>>,
        controller: impl Into<Cow<'static, str>>,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> Self {
        Self {
            field: field.into(),
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            keeps_first: false,
            absent: Absent::Error,
        }
    }

    pub(super) fn behind_first(mut self) -> Self {
        self.keeps_first = true;
        self
    }

    pub(super) fn met_if_absent(mut self, met: bool) -> Self {
        self.absent = if met { Absent::Met } else { Absent::Error };
        self
    }

    pub(super) fn or_instead(mut self, file: &'static str, value: impl ToString) -> Self {
        self.absent = Absent::Instead(file, value.to_string());
        self
    }

    pub(super) fn checked(mut self) -> Self {
        self.absent = Absent::Checked;
        self
    }

    pub(super) fn obsolete(mut self) -> Self {
        self.absent = Absent::Obsolete;
        self
    }

    /// The file and its value, where `is_there` knows which files the kernel has.
    pub(super) fn chosen(&self, is_there: impl Fn(&str) -> bool) -> (&str, &str) {
        match &self.absent {
            Absent::Instead(file, value) if !is_there(&self.file) => (file, value),
            _ => (&self.file, &self.value),
        }
    }

    fn write(&self, directory: &Path) -> nix::Result<()> {
        let path = directory.join(&*self.file);
        let written = match self.keeps_first {
            false => file::write(&path, &self.value),
            true => file::read(&path).and_then(|now| {
                let first = now.split(' ').next().unwrap_or_default();
                file::write(&path, &format!("{first} {}", self.value))
            }),
        };
        match (written, &self.absent) {
            // What has been withdrawn from version 1 may still have a file.
            (Err(Errno::ENOENT | Errno::EOPNOTSUPP), Absent::Met) => Ok(()),
            (Err(Errno::ENOENT), Absent::Instead(name, value)) => {
                file::write(&directory.join(name), value)
            }
            (Ok(()), Absent::Checked) if !self.holds(&path)? => Err(Errno::EOPNOTSUPP),
            (Ok(()), Absent::Obsolete) if self.holds(&path)? => Ok(()),
            (Ok(()) | Err(Errno::ENOENT | Errno::EOPNOTSUPP), Absent::Obsolete) => {
                log::warn(format!(
                    "{}: left out, the kernel has no such limit",
                    self.field
                ));
                Ok(())
            }
            (result, _) => result,
        }
    }

    /// Whether the file shows no more than the value.
    fn holds(&self, path: &Path) -> nix::Result<bool> {
        let number = |text: &str| text.parse().unwrap_or(u64::MAX);
        Ok(number(&file::read(path)?) <= number(&self.value))
    }
}

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

    /// The first field that would be written to `group`.
    pub(super) fn field_of(&self, group: &Group) -> Option<&str> {
        let settings = if group.is_v2() { &self.v2 } else { &self.v1 };
        let here = |setting: &&Setting| group.is_v2() || group.has_controller(&setting.controller);
        settings.iter().find(here).map(|setting| &*setting.field)
    }

    fn set_devices(
        &mut self,
        rules: &[oci_spec::runtime::LinuxDeviceCgroup],
        cgroup: &Cgroup,
    ) -> Result<()> {
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
            match setting.write(directory) {
                Ok(()) => {}
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
    let Setting {
        field,
        controller,
        file,
        value,
        ..
    } = setting;
    let path = directory.join(&**file);
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
    // The files of this one are not a controller's.
    controller != "cgroup"
        && file::read(&directory.join("cgroup.controllers"))
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

    /// A host with version 2 alone, or one with every controller on version 1.
    fn host(unified: bool) -> Cgroup {
        let all = "pids,memory,cpu,cpuset,blkio,hugetlb,rdma,net_cls,net_prio,devices";
        let controllers = if unified { "" } else { all };
        let (directory, existing) = ("/x".into(), "/".into());
        let groups = vec![Group {
            controllers: controllers.into(),
            directory,
            existing,
        }];
        Cgroup {
            unified,
            groups,
            ..Cgroup::default()
        }
    }

    fn limits(json: &str, cgroup: &Cgroup) -> Result<Limits> {
        Limits::from_spec(Some(&serde_json::from_str(json).unwrap()), cgroup)
    }

    /// `linux.resources` from JSON, as FILE=VALUE.
    #[track_caller]
    pub(in super::super) fn lines(json: &str, unified: bool) -> Vec<String> {
        let limits = limits(json, &host(unified)).unwrap();
        let all = limits.v1.into_iter().chain(limits.v2);
        let first = |setting: &Setting| if setting.keeps_first { "_ " } else { "" };
        all.map(|s| format!("{}={}{}", s.file, first(&s), s.value))
            .collect()
    }

    pub(in super::super) fn error(json: &str, unified: bool) -> String {
        format!("{:#}", limits(json, &host(unified)).unwrap_err())
    }

    #[test]
    fn the_default_is_no_limit() {
        let limits = Limits::default();
        assert!(limits.v1.is_empty() && limits.v2.is_empty() && limits.devices.is_none());
        for json in ["{}", r#"{"memory":{},"cpu":{},"blockIO":{},"network":{}}"#] {
            assert_eq!(lines(json, true), [""; 0]);
            assert_eq!(lines(json, false), [""; 0]);
        }
    }

    #[test]
    fn zeros_of_clients_are_not_set() {
        let json = r#"{"memory":{"limit":0,"reservation":0,"swap":0,"kernel":0,"kernelTCP":0,
            "disableOOMKiller":false,"useHierarchy":false},"cpu":{"shares":0,"quota":0,"period":0,
            "realtimeRuntime":0,"realtimePeriod":0,"cpus":"","mems":""},"blockIO":{"weight":0,
            "throttleReadBpsDevice":[]},"hugepageLimits":[],"network":{"priorities":[]},
            "rdma":{},"unified":{}}"#;
        assert_eq!(lines(json, true), [""; 0]);
        assert_eq!(lines(json, false), [""; 0]);
    }

    #[test]
    fn a_hybrid_host_takes_from_version_2_what_version_1_does_not_have() {
        let group = |controllers: &str| Group {
            controllers: controllers.into(),
            directory: "/x".into(),
            existing: "/".into(),
        };
        let groups = vec![group("memory"), group("")];
        let hybrid = Cgroup {
            groups,
            ..Cgroup::default()
        };
        let json = r#"{"memory":{"limit":7},"hugepageLimits":[{"pageSize":"2MB","limit":1}],
            "pids":{"limit":3},"unified":{"cgroup.max.depth":"4"}}"#;
        let limits = limits(json, &hybrid).unwrap();
        let files = |settings: &[Setting]| -> Vec<String> {
            settings
                .iter()
                .map(|setting| setting.file.to_string())
                .collect()
        };
        assert_eq!(files(&limits.v1), ["memory.limit_in_bytes"]);
        assert_eq!(
            files(&limits.v2),
            [
                "pids.max",
                "hugetlb.2MB.max",
                "hugetlb.2MB.rsvd.max",
                "cgroup.max.depth"
            ]
        );
    }

    #[test]
    fn impossible_memory_is_refused_before_anything_is_written() {
        for unified in [false, true] {
            let less = error(r#"{"memory":{"limit":2000000,"swap":1000000}}"#, unified);
            assert!(
                less.starts_with("linux.resources.memory.swap: 1000000 is less"),
                "{less}"
            );
            let negative = error(r#"{"memory":{"limit":-2}}"#, unified);
            assert!(
                negative.starts_with("linux.resources.memory.limit: -2"),
                "{negative}"
            );
        }
    }
}
