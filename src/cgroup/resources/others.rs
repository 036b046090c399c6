//! `hugepageLimits`, `network`, `rdma`, `unified` of `linux.resources`, and limits that both
//! versions have.

use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxCpu, LinuxResources};

use super::super::setting::{Setting, set};

/// Returns for each size a limit of page faults and one of reservations, which the kernel counts
/// since Linux 5.7.
pub(super) fn huge_pages(resources: &LinuxResources, is_v2: bool) -> impl Iterator<Item = Setting> {
    let limits = resources.hugepage_limits().iter().flatten().enumerate();
    limits.flat_map(move |(i, limit)| {
        let field = format!("linux.resources.hugepageLimits[{i}]");
        let end = if is_v2 { "max" } else { "limit_in_bytes" };
        let (size, value) = (limit.page_size(), limit.limit());
        let file = |kind: &str| format!("hugetlb.{size}.{kind}{end}");
        [
            Setting::new(field.clone(), "hugetlb", file(""), value),
            Setting::new(field, "hugetlb", file("rsvd."), value).met_if_absent(true),
        ]
    })
}

/// Returns the write to `pids.max`, which both versions have. A limit of 0 becomes 1, as in runc:
/// init itself is counted, so both mean "no second task".
pub(super) fn pids_max(limit: i64) -> Setting {
    let value = if limit < 0 {
        "max".to_owned()
    } else {
        limit.max(1).to_string()
    };
    Setting::new("linux.resources.pids.limit", "pids", "pids.max", value)
}

/// Returns the writes to `cpuset.cpus` and `cpuset.mems`, which both versions have.
pub(super) fn cpuset(cpu: &LinuxCpu) -> impl Iterator<Item = Setting> {
    let list = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    let cpus = list(cpu.cpus())
        .map(|cpus| Setting::new("linux.resources.cpu.cpus", "cpuset", "cpuset.cpus", cpus));
    let mems = list(cpu.mems())
        .map(|mems| Setting::new("linux.resources.cpu.mems", "cpuset", "cpuset.mems", mems));
    cpus.into_iter().chain(mems)
}

/// Returns the writes to `rdma.max`, which both versions have.
pub(super) fn rdma(resources: &LinuxResources) -> Vec<Setting> {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| *name);
    let line = |(name, limit): (&String, &oci_spec::runtime::LinuxRdma)| {
        let number = |key, value: Option<u32>| value.map(|value| format!(" {key}={value}"));
        let handles = number("hca_handle", limit.hca_handles()).unwrap_or_default();
        let objects = number("hca_object", limit.hca_objects()).unwrap_or_default();
        let field = format!("linux.resources.rdma[{name:?}]");
        Setting::new(
            field,
            "rdma",
            "rdma.max",
            format!("{name}{handles}{objects}"),
        )
    };
    devices.into_iter().map(line).collect()
}

/// Adds the writes for `network`, for which version 1 has two controllers and version 2 none.
pub(super) fn network(
    resources: &LinuxResources,
    unified_host: bool,
    settings: &mut Vec<Setting>,
) -> Result<()> {
    let Some(network) = resources.network() else {
        return Ok(());
    };
    let class = set(network.class_id());
    let priorities = network.priorities().as_deref().unwrap_or_default();
    if unified_host && (class.is_some() || !priorities.is_empty()) {
        let name = if class.is_some() {
            "classID"
        } else {
            "priorities"
        };
        bail!("linux.resources.network.{name}: cgroup v2 has no such limit");
    }
    if let Some(class) = class {
        let field = "linux.resources.network.classID";
        settings.push(Setting::new(field, "net_cls", "net_cls.classid", class));
    }
    for (i, one) in priorities.iter().enumerate() {
        let field = format!("linux.resources.network.priorities[{i}]");
        let value = format!("{} {}", one.name(), one.priority());
        settings.push(Setting::new(field, "net_prio", "net_prio.ifpriomap", value));
    }
    Ok(())
}

/// Adds the writes to arbitrary files of the version 2 cgroup. A value of several lines is written
/// line by line.
pub(super) fn unified(
    resources: &LinuxResources,
    has_v2: bool,
    settings: &mut Vec<Setting>,
) -> Result<()> {
    let mut files: Vec<_> = resources.unified().iter().flatten().collect();
    files.sort();
    for (name, value) in files {
        let field = format!("linux.resources.unified[{name:?}]");
        if !has_v2 {
            bail!("{field}: this host has cgroup v1 only");
        }
        let Some((controller, _)) = name.split_once('.').filter(|(first, _)| !first.is_empty())
        else {
            bail!("{field}: not of the form CONTROLLER.PARAMETER");
        };
        let write =
            |value: &str| Setting::new(field.clone(), controller.to_owned(), name.clone(), value);
        if value.trim().is_empty() {
            settings.push(write(value));
        }
        settings.extend(
            value
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(write),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{error, lines};

    #[test]
    fn huge_pages() {
        let json = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0},
            {"pageSize":"1GB","limit":1073741824}]}"#;
        assert_eq!(
            lines(json, false),
            [
                "hugetlb.2MB.limit_in_bytes=0",
                "hugetlb.2MB.rsvd.limit_in_bytes=0",
                "hugetlb.1GB.limit_in_bytes=1073741824",
                "hugetlb.1GB.rsvd.limit_in_bytes=1073741824",
            ]
        );
        assert_eq!(
            lines(json, true),
            [
                "hugetlb.2MB.max=0",
                "hugetlb.2MB.rsvd.max=0",
                "hugetlb.1GB.max=1073741824",
                "hugetlb.1GB.rsvd.max=1073741824",
            ]
        );
    }

    #[test]
    fn rdma() {
        let json = r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000},
            "mlx4_0":{"hcaObjects":0}}}"#;
        for unified in [false, true] {
            assert_eq!(
                lines(json, unified),
                [
                    "rdma.max=mlx4_0 hca_object=0",
                    "rdma.max=mlx5_1 hca_handle=3 hca_object=10000"
                ]
            );
        }
    }

    #[test]
    fn network() {
        let json = r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}}"#;
        assert_eq!(
            lines(json, false),
            ["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"]
        );
        let refused = error(json, true);
        assert_eq!(
            refused,
            "linux.resources.network.classID: cgroup v2 has no such limit"
        );
        assert_eq!(
            lines(r#"{"network":{"classID":0,"priorities":[]}}"#, true),
            [""; 0]
        );
    }

    #[test]
    fn unified_files_are_written_line_by_line() {
        let json = r#"{"unified":{"memory.high":"1000","io.max":"8:0 rbps=1\n8:16 wiops=2\n"}}"#;
        assert_eq!(
            lines(json, true),
            [
                "io.max=8:0 rbps=1",
                "io.max=8:16 wiops=2",
                "memory.high=1000"
            ]
        );
        let refused = error(json, false);
        assert!(
            refused.starts_with("linux.resources.unified[\"io.max\"]: this host has cgroup v1")
        );
        let refused = error(r#"{"unified":{"memory":"1"}}"#, true);
        assert!(refused.contains("CONTROLLER.PARAMETER"), "{refused}");
    }
}
