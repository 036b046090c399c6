//! New limits for a container that has limits already. The old ones are not remembered but read
//! from the control files, so that a change by somebody else is respected.

use anyhow::{Context, Result};
use nix::errno::Errno;
use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::cgroup_dir::{CgroupDir, with_controller};
use super::cgroups::Cgroup;
use super::limits::Limits;
use super::setting::Setting;
use super::{devices, file};

impl Cgroup {
    /// Changes the limits that `resources` has. After an error all limits are as they were.
    pub fn update(&self, mut resources: LinuxResources) -> Result<()> {
        if let Some(memory) = resources
            .memory_mut()
            .as_mut()
            .filter(|_| self.is_v2("memory"))
        {
            complete(memory, self)?;
        }
        let mut limits = Limits::from_resources(&resources, self)?;
        // `Limits` leaves this out, because a new container has the OOM killer enabled already.
        if resources
            .memory()
            .is_some_and(|memory| memory.disable_oom_killer() == Some(false))
            && !self.is_v2("memory")
        {
            let field = "linux.resources.memory.disableOOMKiller";
            limits
                .v1
                .push(Setting::new(field, "memory", "memory.oom_control", 0));
        }
        let devices = with_controller(&self.cgroups, "devices");
        if let (Some(rules), Some(cgroup)) = (&limits.devices, devices) {
            devices::try_on_version_1(&cgroup.directory, rules)?;
        }
        let before = before(self, &limits);
        let mut unit = self.connect()?;
        self.write(&limits, unit.as_mut(), true).inspect_err(|_| {
            // The error that is being returned says more than an error of one of these.
            for limits in &before {
                let _ = self.write(limits, unit.as_mut(), true);
            }
        })
    }
}

/// Adds the missing one of the two memory limits. Version 2 limits swap alone, but the
/// configuration has the sum of memory and swap, so a change of one limit needs the other.
fn complete(memory: &mut LinuxMemory, cgroup: &Cgroup) -> Result<()> {
    let Some(v2) = cgroup.v2() else {
        return Ok(());
    };
    let is_set = |value: Option<i64>| value.is_some_and(|value| value != 0);
    let read = |name: &str| -> Result<Option<i64>> {
        let path = v2.directory.join(name);
        match file::read(&path) {
            // Writing the limit will report the missing controller.
            Err(Errno::ENOENT) => Ok(None),
            text => Ok(text
                .with_context(|| path.display().to_string())?
                .parse::<i64>()
                .ok()),
        }
    };
    match (is_set(memory.limit()), is_set(memory.swap())) {
        (false, true) if memory.swap() != Some(-1) => {
            memory.set_limit(Some(read("memory.max")?.unwrap_or(-1)));
        }
        (true, false) if memory.limit() != Some(-1) => {
            // Without a limit on one of the two, or without swap, there is no sum to keep.
            if let (Some(limit), Some(swap)) = (read("memory.max")?, read("memory.swap.max")?) {
                memory.set_swap(Some(limit.saturating_add(swap)));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Returns the settings that undo `limits`: those of version 1, those of version 2, and last those
/// lists of version 2 that were empty.
fn before(cgroup: &Cgroup, limits: &Limits) -> [Limits; 3] {
    let undo = |setting: &Setting, cgroup: Option<&CgroupDir>| {
        let directory = &cgroup?.directory;
        let (name, value) = setting.chosen(|name| directory.join(name).exists());
        let read = |name: &str| file::read(&directory.join(name)).ok();
        // An idle cgroup shows a weight but does not accept one.
        if name == "cpu.weight" && read("cpu.idle").is_some_and(|idle| idle == "1") {
            return Some(with(setting, "cpu.idle", "1".to_owned()));
        }
        Some(with(setting, name, previous(name, &read(name)?, value)))
    };
    let cgroup_v1 = |setting: &Setting| with_controller(&cgroup.cgroups, &setting.controller);
    let v1 = limits
        .v1
        .iter()
        .filter_map(|setting| undo(setting, cgroup_v1(setting)))
        .collect();
    let v2 = limits
        .v2
        .iter()
        .filter_map(|setting| undo(setting, cgroup.v2()));
    // Some kernels do not accept an empty CPU list for a cgroup with processes, so the effective
    // list is written first.
    let (empty, mut v2): (Vec<_>, Vec<_>) = v2.partition(|setting| setting.value.is_empty());
    v2.extend(empty.iter().filter_map(|setting| {
        let effective = cgroup
            .v2()?
            .directory
            .join(format!("{}.effective", setting.file));
        Some(with(setting, &setting.file, file::read(&effective).ok()?))
    }));
    [
        Limits {
            v1,
            ..Limits::default()
        },
        Limits {
            v2,
            ..Limits::default()
        },
        Limits {
            v2: empty,
            ..Limits::default()
        },
    ]
}

fn with(setting: &Setting, name: &str, value: String) -> Setting {
    let Setting {
        field, controller, ..
    } = setting;
    Setting::new(field.clone(), controller.clone(), name.to_owned(), value)
}

/// Returns what to write to the file `name`, whose present contents are `present`, to undo a write
/// of `value`.
fn previous(name: &str, present: &str, value: &str) -> String {
    let first = present.lines().next().unwrap_or_default();
    let Some((key, rest)) = value.split_once(' ') else {
        let first = first.trim_start_matches("default ");
        return first.trim_start_matches("oom_kill_disable ").to_owned();
    };
    let of_key = |line: &&str| line.split(' ').next() == Some(key);
    match (present.lines().find(of_key), rest.split_once('=')) {
        (Some(line), _) => line.to_owned(),
        // The device had no limit.
        (None, Some((limit, _))) if key.contains(':') => format!("{key} {limit}=max"),
        (None, None) if name.contains("weight") => format!("{key} default"),
        (None, None) if key.contains(':') => format!("{key} 0"),
        (None, _) => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::previous;

    #[test]
    fn what_was_there_comes_back() {
        let disks = "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=2";
        for (name, present, value, expected) in [
            ("pids.max", "max", "33", "max"),
            ("cpu.max", "max 100000", "20000 50000", "max 100000"),
            ("cpu.max", "max 100000", "50000", "max 100000"),
            ("cpuset.cpus", "", "0-1", ""),
            ("io.weight", "default 100\n8:0 50", "500", "100"),
            ("io.weight", "default 100\n8:0 50", "8:0 500", "8:0 50"),
            (
                "io.weight",
                "default 100\n8:0 50",
                "8:16 500",
                "8:16 default",
            ),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0",
                "1",
                "0",
            ),
            ("io.max", disks, "8:16 rbps=7", "8:16 rbps=2"),
            ("io.max", disks, "8:32 wiops=7", "8:32 wiops=max"),
            (
                "blkio.throttle.read_bps_device",
                "8:0 5",
                "8:16 7",
                "8:16 0",
            ),
            ("net_prio.ifpriomap", "lo 0\neth0 3", "eth0 5", "eth0 3"),
        ] {
            assert_eq!(
                previous(name, present, value),
                expected,
                "{name} {present:?} {value:?}"
            );
        }
    }
}
