//! Every field of `linux.resources`: it is in its control file, or it is refused by its name.

use std::path::Path;

use serde_json::{Value, json};

use super::{file, is_v2, sleeper};
use crate::harness::View;

/// Where a version has a field: the controller, the file, what stands in it afterwards.
type Place<'a> = Option<(&'a str, &'a str, &'a str)>;

/// On every view: where the kernel has the file it shows the value; where it has not, `create`
/// refuses by the JSON path. No place means that this version has no such limit.
#[track_caller]
fn assert_field(resources: &Value, path: &str, v1: Place<'_>, v2: Place<'_>) {
    for view in View::all() {
        assert_field_in(view, resources, path, if is_v2(view) { v2 } else { v1 });
    }
}

#[track_caller]
fn assert_field_in(view: View, resources: &Value, path: &str, place: Place<'_>) {
    let bundle = sleeper(view).resources(resources.clone());
    let Some((controller, name, value)) = place else {
        bundle.refused().says(&[path]);
        return;
    };
    let plain = sleeper(view).start();
    if file(&plain, view, controller, name).is_some() {
        let c = bundle.start();
        let written = file(&c, view, controller, name).unwrap_or_default();
        assert!(written.lines().any(|line| line == value), "{view:?} {name}: {written:?}");
    } else {
        bundle.refused().says(&[path]);
    }
}

#[test]
fn pids_limit() {
    for (limit, written) in [(33, "33"), (0, "1"), (-1, "max")] {
        let place = Some(("pids", "pids.max", written));
        assert_field(&json!({ "pids": { "limit": limit } }), "pids.limit", place, place);
    }
}

#[test]
fn memory_limit() {
    assert_field(
        &json!({ "memory": { "limit": 16 << 20 } }),
        "linux.resources.memory.limit",
        Some(("memory", "memory.limit_in_bytes", "16777216")),
        Some(("memory", "memory.max", "16777216")),
    );
}

#[test]
fn memory_without_limit() {
    assert_field(
        &json!({ "memory": { "limit": -1 } }),
        "linux.resources.memory.limit",
        Some(("memory", "memory.limit_in_bytes", "9223372036854771712")),
        Some(("memory", "memory.max", "max")),
    );
}

#[test]
fn memory_swap() {
    assert_field(
        &json!({ "memory": { "limit": 16 << 20, "swap": 24 << 20 } }),
        "linux.resources.memory",
        Some(("memory", "memory.memsw.limit_in_bytes", "25165824")),
        Some(("memory", "memory.swap.max", "8388608")),
    );
}

#[test]
fn memory_reservation() {
    assert_field(
        &json!({ "memory": { "reservation": 4 << 20 } }),
        "linux.resources.memory.reservation",
        Some(("memory", "memory.soft_limit_in_bytes", "4194304")),
        Some(("memory", "memory.low", "4194304")),
    );
}

#[test]
fn memory_kernel_tcp() {
    assert_field(
        &json!({ "memory": { "kernelTCP": 8 << 20 } }),
        "linux.resources.memory.kernelTCP",
        Some(("memory", "memory.kmem.tcp.limit_in_bytes", "8388608")),
        None,
    );
}

#[test]
fn memory_kernel_is_set_or_refused_by_its_file() {
    for view in View::all() {
        let bundle = sleeper(view).resources(json!({ "memory": { "kernel": 8 << 20 } }));
        let name = "memory.kmem.limit_in_bytes";
        match bundle.try_start() {
            Ok(c) => assert_eq!(file(&c, view, "memory", name).as_deref(), Some("8388608")),
            // Linux 5.16 took the limit away, and newer ones only pretend to set it. Without a
            // controller of version 1 there is no file.
            Err(done) if !Path::new("/sys/fs/cgroup/memory").exists() || is_v2(view) => {
                drop(done.says(&["linux.resources.memory.kernel"]));
            }
            Err(done) => drop(done.says(&["linux.resources.memory.kernel", name])),
        }
    }
}

#[test]
fn memory_swappiness() {
    assert_field(
        &json!({ "memory": { "swappiness": 7 } }),
        "linux.resources.memory.swappiness",
        Some(("memory", "memory.swappiness", "7")),
        None,
    );
}

#[test]
fn memory_disable_oom_killer() {
    assert_field(
        &json!({ "memory": { "disableOOMKiller": true } }),
        "linux.resources.memory.disableOOMKiller",
        Some(("memory", "memory.oom_control", "oom_kill_disable 1")),
        None,
    );
}

#[test]
fn memory_use_hierarchy() {
    for view in View::all() {
        let c = sleeper(view).resources(json!({ "memory": { "useHierarchy": true } })).start();
        let value = file(&c, view, "memory", "memory.use_hierarchy");
        assert!(value.is_none_or(|value| value == "1"), "{view:?}");
    }
}

#[test]
fn cpu_shares() {
    assert_field(
        &json!({ "cpu": { "shares": 512 } }),
        "linux.resources.cpu.shares",
        Some(("cpu", "cpu.shares", "512")),
        Some(("cpu", "cpu.weight", "59")),
    );
}

#[test]
fn cpu_quota_and_period() {
    let resources = json!({ "cpu": { "quota": 20_000, "period": 50_000 } });
    let v2 = Some(("cpu", "cpu.max", "20000 50000"));
    let quota = Some(("cpu", "cpu.cfs_quota_us", "20000"));
    assert_field(&resources, "linux.resources.cpu", quota, v2);
    let period = Some(("cpu", "cpu.cfs_period_us", "50000"));
    assert_field(&resources, "linux.resources.cpu", period, v2);
}

#[test]
fn cpu_quota_alone() {
    assert_field(
        &json!({ "cpu": { "quota": 20_000 } }),
        "linux.resources.cpu.quota",
        Some(("cpu", "cpu.cfs_quota_us", "20000")),
        Some(("cpu", "cpu.max", "20000 100000")),
    );
}

#[test]
fn cpu_period_alone() {
    assert_field(
        &json!({ "cpu": { "period": 50_000 } }),
        "linux.resources.cpu.period",
        Some(("cpu", "cpu.cfs_period_us", "50000")),
        Some(("cpu", "cpu.max", "max 50000")),
    );
}

#[test]
fn cpu_burst() {
    assert_field(
        &json!({ "cpu": { "quota": 20_000, "burst": 10_000 } }),
        "linux.resources.cpu",
        Some(("cpu", "cpu.cfs_burst_us", "10000")),
        Some(("cpu", "cpu.max.burst", "10000")),
    );
}

#[test]
fn cpu_idle() {
    let place = Some(("cpu", "cpu.idle", "1"));
    assert_field(&json!({ "cpu": { "idle": 1 } }), "linux.resources.cpu.idle", place, place);
    // An idle group has no weight: whichever is written first, the other must not fail.
    let both = json!({ "cpu": { "idle": 1, "shares": 512 } });
    assert_field(&both, "linux.resources.cpu", place, place);
}

/// A group takes its time from the one above, and a service of systemd's has none to give.
#[test]
fn cpu_realtime() {
    const PATH: &str = "linux.resources.cpu.realtime";
    let resources = json!({ "cpu": { "realtimeRuntime": 1000, "realtimePeriod": 500_000 } });
    for view in View::all() {
        let above = file(&sleeper(view).start(), view, "cpu", "../cpu.rt_runtime_us");
        if above.as_deref() == Some("0") {
            let done = sleeper(view).resources(resources.clone()).refused();
            done.one_line().says(&[PATH, "cpu.rt_runtime_us", "Invalid argument"]);
            continue;
        }
        for place in [("cpu", "cpu.rt_runtime_us", "1000"), ("cpu", "cpu.rt_period_us", "500000")] {
            assert_field_in(view, &resources, PATH, Some(place).filter(|_| !is_v2(view)));
        }
    }
}

#[test]
fn cpu_cpus_and_mems() {
    let resources = json!({ "cpu": { "cpus": "0", "mems": "0" } });
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let place = Some(("cpuset", name, "0"));
        assert_field(&resources, "linux.resources.cpu", place, place);
    }
}

#[test]
fn block_io_weight() {
    let resources = json!({ "blockIO": { "weight": 500 } });
    let path = "linux.resources.blockIO.weight";
    for view in View::all() {
        let plain = sleeper(view).start();
        let (controller, known) = match is_v2(view) {
            true => ("io", [("io.bfq.weight", "500"), ("io.weight", "4950")]),
            false => ("blkio", [("blkio.bfq.weight", "500"), ("blkio.weight", "500")]),
        };
        let is_there = |(name, _): &&(&str, &str)| file(&plain, view, controller, name).is_some();
        let bundle = sleeper(view).resources(resources.clone());
        match known.iter().find(is_there) {
            Some((name, value)) => {
                let written = file(&bundle.start(), view, controller, name).unwrap();
                assert_eq!(written.trim_start_matches("default "), *value, "{view:?}");
            }
            None => drop(bundle.refused().says(&[path, known[0].0])),
        }
    }
}

#[test]
fn block_io_leaf_weight_went_with_its_scheduler() {
    for view in View::all() {
        let bundle = sleeper(view).resources(json!({ "blockIO": { "leafWeight": 500 } }));
        bundle.refused().says(&["linux.resources.blockIO.leafWeight"]);
    }
}

/// A disk of this machine, as MAJOR:MINOR.
fn disk() -> (u64, u64) {
    let disks = std::fs::read_dir("/sys/block").unwrap();
    let mut names: Vec<_> = disks.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let number = std::fs::read_to_string(names[0].join("dev")).unwrap();
    let (major, minor) = number.trim().split_once(':').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap())
}

#[test]
fn block_io_throttling() {
    let (major, minor) = disk();
    for (name, v1, v2) in [
        ("throttleReadBpsDevice", "read_bps", "rbps=5000 wbps=max riops=max wiops=max"),
        ("throttleWriteBpsDevice", "write_bps", "rbps=max wbps=5000 riops=max wiops=max"),
        ("throttleReadIOPSDevice", "read_iops", "rbps=max wbps=max riops=5000 wiops=max"),
        ("throttleWriteIOPSDevice", "write_iops", "rbps=max wbps=max riops=max wiops=5000"),
    ] {
        let limit = json!([{ "major": major, "minor": minor, "rate": 5000 }]);
        let v1_file = format!("blkio.throttle.{v1}_device");
        assert_field(
            &json!({ "blockIO": { name: limit } }),
            &format!("linux.resources.blockIO.{name}[0]"),
            Some(("blkio", &v1_file, &format!("{major}:{minor} 5000"))),
            Some(("io", "io.max", &format!("{major}:{minor} {v2}"))),
        );
    }
}

#[test]
fn a_device_that_is_not_there_is_named_with_its_field() {
    let limit = json!([{ "major": 4000, "minor": 1, "rate": 5000 }]);
    for view in View::all() {
        let bundle =
            sleeper(view).resources(json!({ "blockIO": { "throttleReadBpsDevice": limit } }));
        bundle.refused().says(&["linux.resources.blockIO.throttleReadBpsDevice[0]"]);
    }
}

#[test]
fn hugepage_limits() {
    let resources = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] });
    let path = "linux.resources.hugepageLimits[0]";
    let v2 = Some(("hugetlb", "hugetlb.2MB.max", "4194304"));
    let rsvd = Some(("hugetlb", "hugetlb.2MB.rsvd.max", "4194304"));
    // A hybrid host has them in its version 2 hierarchy, if that is where the controller is.
    let in_v2 = std::fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers");
    let v1 = match in_v2.is_ok_and(|names| names.contains("hugetlb")) {
        true => v2,
        false => Some(("hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304")),
    };
    assert_field(&resources, path, v1, v2);
    assert_field(&resources, path, v1.and(rsvd), rsvd);
}

#[test]
fn a_page_size_that_the_kernel_does_not_have_is_refused_by_field_and_file() {
    let limits = json!([{ "pageSize": "3MB", "limit": 1 }]);
    for view in View::all() {
        let bundle = sleeper(view).resources(json!({ "hugepageLimits": limits }));
        bundle.refused().says(&["linux.resources.hugepageLimits[0]"]);
    }
}

#[test]
fn network() {
    let class = json!({ "network": { "classID": 1_048_577 } });
    let place = Some(("net_cls", "net_cls.classid", "1048577"));
    assert_field(&class, "linux.resources.network.classID", place, None);
    let priorities = json!({ "network": { "priorities": [{ "name": "lo", "priority": 5 }] } });
    let place = Some(("net_prio", "net_prio.ifpriomap", "lo 5"));
    assert_field(&priorities, "linux.resources.network.priorities", place, None);
}

#[test]
fn rdma_of_a_device_that_is_not_there_is_refused() {
    for view in View::all() {
        let bundle =
            sleeper(view).resources(json!({ "rdma": { "no_such_hca": { "hcaHandles": 3 } } }));
        bundle.refused().says(&["linux.resources.rdma[\"no_such_hca\"]"]);
    }
}

#[test]
fn unified() {
    for view in View::all() {
        let bundle = sleeper(view);
        let bundle = bundle.resources(json!({ "unified": { "cgroup.max.depth": "3" } }));
        match view {
            View::V1 => drop(bundle.refused().says(&["unified[\"cgroup.max.depth\"]", "v1"])),
            _ => {
                let c = bundle.start();
                assert_eq!(file(&c, view, "no-such", "cgroup.max.depth").as_deref(), Some("3"));
            }
        }
    }
}

#[test]
fn unified_of_a_controller_that_is_not_there_is_refused_by_its_name() {
    for view in View::all().filter(|view| *view != View::V1) {
        let bundle = sleeper(view).resources(json!({ "unified": { "nonsense.max": "3" } }));
        bundle.refused().says(&["unified[\"nonsense.max\"]", "`nonsense`"]);
        let bundle = sleeper(view).resources(json!({ "unified": { "cgroup.nonsense": "3" } }));
        bundle.refused().says(&["unified[\"cgroup.nonsense\"]", "No such file"]);
    }
}
