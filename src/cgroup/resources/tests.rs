use anyhow::Result;

use super::super::cgroup_dir::CgroupDir;
use super::super::cgroups::Cgroup;
use super::super::limits::Limits;
use super::super::setting::Setting;

/// A host with version 2 alone, or one with every controller on version 1.
fn host(unified: bool) -> Cgroup {
    let all = "pids,memory,cpu,cpuset,blkio,hugetlb,rdma,net_cls,net_prio,devices";
    let controllers = if unified { "" } else { all };
    let (directory, existing) = ("/x".into(), "/".into());
    let cgroups = vec![CgroupDir {
        controllers: controllers.into(),
        directory,
        existing,
    }];
    Cgroup {
        unified,
        cgroups,
        ..Cgroup::default()
    }
}

fn limits(json: &str, cgroup: &Cgroup) -> Result<Limits> {
    Limits::from_spec(Some(&serde_json::from_str(json).unwrap()), cgroup)
}

/// `linux.resources` from JSON, as FILE=VALUE.
#[track_caller]
pub(super) fn lines(json: &str, unified: bool) -> Vec<String> {
    let limits = limits(json, &host(unified)).unwrap();
    let all = limits.v1.into_iter().chain(limits.v2);
    let first = |setting: &Setting| if setting.keeps_first { "_ " } else { "" };
    all.map(|s| format!("{}={}{}", s.file, first(&s), s.value))
        .collect()
}

pub(super) fn error(json: &str, unified: bool) -> String {
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
    let cgroup = |controllers: &str| CgroupDir {
        controllers: controllers.into(),
        directory: "/x".into(),
        existing: "/".into(),
    };
    let cgroups = vec![cgroup("memory"), cgroup("")];
    let hybrid = Cgroup {
        cgroups,
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
