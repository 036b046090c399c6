//! Every field of `linux.resources`: it is in its control file, or it is refused by its name.

use serde_json::{Value, json};

use super::{Files, Setup, file, place, sleeper, v2_weight};
use crate::harness::{Disk, View};

/// Everywhere: where the kernel has the files they show the values; where it has not, `create`
/// refuses by the JSON path and the file.
#[track_caller]
fn assert_field(resources: &Value, path: &str, v1: Files<'_>, v2: Files<'_>) {
    for setup in Setup::all() {
        assert_field_in(setup, resources, path, v1, v2);
    }
}

#[track_caller]
fn assert_field_in(setup: Setup, resources: &Value, path: &str, v1: Files<'_>, v2: Files<'_>) {
    let bundle = setup.sleeper().resources(resources.clone());
    let files = match place(setup.view, v1, v2) {
        Ok(files) => files,
        Err(word) => return drop(bundle.refused().one_line().says(&[path, &word])),
    };
    let c = bundle.start();
    for (name, value) in files {
        let written = file(&c, setup.view, name.split('.').next().unwrap(), name);
        let written = written.unwrap_or_else(|| panic!("{setup:?} {name} is not there"));
        assert!(written.lines().any(|line| line == *value), "{setup:?} {name}: {written:?}");
    }
}

#[test]
fn pids_limit() {
    for (limit, written) in [(33, "33"), (0, "1"), (-1, "max")] {
        let files = &[("pids.max", written)];
        assert_field(&json!({ "pids": { "limit": limit } }), "pids.limit", files, files);
    }
}

#[test]
fn memory_limit() {
    assert_field(
        &json!({ "memory": { "limit": 16 << 20 } }),
        "linux.resources.memory.limit",
        &[("memory.limit_in_bytes", "16777216")],
        &[("memory.max", "16777216")],
    );
}

#[test]
fn memory_without_limit() {
    assert_field(
        &json!({ "memory": { "limit": -1 } }),
        "linux.resources.memory.limit",
        &[("memory.limit_in_bytes", "9223372036854771712")],
        &[("memory.max", "max")],
    );
}

#[test]
fn memory_swap() {
    assert_field(
        &json!({ "memory": { "limit": 16 << 20, "swap": 24 << 20 } }),
        "linux.resources.memory",
        &[("memory.limit_in_bytes", "16777216"), ("memory.memsw.limit_in_bytes", "25165824")],
        &[("memory.swap.max", "8388608"), ("memory.max", "16777216")],
    );
}

#[test]
fn memory_reservation() {
    assert_field(
        &json!({ "memory": { "reservation": 4 << 20 } }),
        "linux.resources.memory.reservation",
        &[("memory.soft_limit_in_bytes", "4194304")],
        &[("memory.low", "4194304")],
    );
}

#[test]
fn memory_kernel_tcp() {
    assert_field(
        &json!({ "memory": { "kernelTCP": 8 << 20 } }),
        "linux.resources.memory.kernelTCP",
        &[("memory.kmem.tcp.limit_in_bytes", "8388608")],
        &[],
    );
}

/// Linux 5.16 took the limit away, and newer ones only pretend to set it.
#[test]
fn memory_kernel_is_set_or_left_out_with_a_warning() {
    const NAME: &str = "memory.kmem.limit_in_bytes";
    for setup in Setup::all() {
        let memory = json!({ "kernel": 8 << 20 });
        let c = setup.sleeper().resources(json!({ "memory": memory })).create();
        let is_set = file(&c, setup.view, "memory", NAME).as_deref() == Some("8388608");
        let warned = c
            .errors()
            .lines()
            .any(|line| line.starts_with("rt: warning: linux.resources.memory.kernel:"));
        assert_ne!(is_set, warned, "{}", c.errors());
    }
}

#[test]
fn memory_swappiness() {
    assert_field(
        &json!({ "memory": { "swappiness": 7 } }),
        "linux.resources.memory.swappiness",
        &[("memory.swappiness", "7")],
        &[],
    );
}

#[test]
fn memory_disable_oom_killer() {
    assert_field(
        &json!({ "memory": { "disableOOMKiller": true } }),
        "linux.resources.memory.disableOOMKiller",
        &[("memory.oom_control", "oom_kill_disable 1")],
        &[],
    );
}

/// All that kernels since 5.11 know: there is nothing to refuse where there is no file.
#[test]
fn memory_use_hierarchy() {
    let resources = json!({ "memory": { "useHierarchy": true } });
    for setup in Setup::with("memory") {
        let c = setup.sleeper().resources(resources.clone()).start();
        let is_v1 = place(setup.view, &[("memory.use_hierarchy", "1")], &[]).is_ok();
        let value = file(&c, setup.view, "memory", "memory.use_hierarchy");
        assert_eq!(value.as_deref(), is_v1.then_some("1"), "{setup:?}");
    }
}

#[test]
fn cpu_shares() {
    assert_field(
        &json!({ "cpu": { "shares": 512 } }),
        "linux.resources.cpu.shares",
        &[("cpu.shares", "512")],
        &[("cpu.weight", "59")],
    );
}

#[test]
fn cpu_quota_and_period() {
    assert_field(
        &json!({ "cpu": { "quota": 20_000, "period": 50_000 } }),
        "linux.resources.cpu",
        &[("cpu.cfs_period_us", "50000"), ("cpu.cfs_quota_us", "20000")],
        &[("cpu.max", "20000 50000")],
    );
}

#[test]
fn cpu_quota_alone() {
    assert_field(
        &json!({ "cpu": { "quota": 20_000 } }),
        "linux.resources.cpu.quota",
        &[("cpu.cfs_quota_us", "20000")],
        &[("cpu.max", "20000 100000")],
    );
}

#[test]
fn cpu_period_alone() {
    assert_field(
        &json!({ "cpu": { "period": 50_000 } }),
        "linux.resources.cpu.period",
        &[("cpu.cfs_period_us", "50000")],
        &[("cpu.max", "max 50000")],
    );
}

#[test]
fn cpu_burst() {
    assert_field(
        &json!({ "cpu": { "quota": 20_000, "burst": 10_000 } }),
        "linux.resources.cpu",
        &[("cpu.cfs_quota_us", "20000"), ("cpu.cfs_burst_us", "10000")],
        &[("cpu.max", "20000 100000"), ("cpu.max.burst", "10000")],
    );
}

#[test]
fn cpu_idle() {
    let files = &[("cpu.idle", "1")];
    assert_field(&json!({ "cpu": { "idle": 1 } }), "linux.resources.cpu.idle", files, files);
    // An idle group has no weight: whichever is written first, the other must not fail.
    let both = json!({ "cpu": { "idle": 1, "shares": 512 } });
    for setup in Setup::with("cpu") {
        assert_field_in(setup, &both, "linux.resources.cpu", files, files);
    }
}

/// A group takes its time from the one above, and one that is new or a service of systemd's has
/// none to give.
#[test]
fn cpu_realtime() {
    const PATH: &str = "linux.resources.cpu.realtime";
    const FILES: Files<'_> = &[("cpu.rt_period_us", "500000"), ("cpu.rt_runtime_us", "1000")];
    let resources = json!({ "cpu": { "realtimeRuntime": 1000, "realtimePeriod": 500_000 } });
    for setup in Setup::all() {
        if place(setup.view, FILES, &[]).is_ok() {
            let done = setup.sleeper().resources(resources.clone()).refused();
            done.one_line().says(&[PATH, "cpu.rt_runtime_us", "Invalid argument"]);
        }
    }
    for view in View::all() {
        let bundle = sleeper(view).resources(resources.clone());
        let path = format!("/{}", bundle.id());
        let bundle = bundle.config(|c| c["linux"]["cgroupsPath"] = path.into());
        match place(view, FILES, &[]) {
            Err(word) => drop(bundle.refused().one_line().says(&[PATH, &word])),
            Ok(files) => {
                let c = bundle.start();
                for (name, value) in files {
                    assert_eq!(file(&c, view, "cpu", name).as_deref(), Some(*value), "{view:?}");
                }
            }
        }
    }
}

#[test]
fn cpu_cpus_and_mems() {
    let files = &[("cpuset.cpus", "0"), ("cpuset.mems", "0")];
    let resources = json!({ "cpu": { "cpus": "0", "mems": "0" } });
    assert_field(&resources, "linux.resources.cpu", files, files);
}

#[test]
fn block_io_weight() {
    let resources = json!({ "blockIO": { "weight": 500 } });
    for setup in Setup::all() {
        let v1 = [("blkio.bfq.weight", "500")];
        let v2 = [v2_weight(setup.view, "default 500", "default 4950")];
        assert_field_in(setup, &resources, "linux.resources.blockIO.weight", &v1, &v2);
    }
}

#[test]
fn block_io_weight_of_a_device() {
    let disk = Disk::new();
    let [major, minor] = disk.numbers();
    let weight = json!([{ "major": major, "minor": minor, "weight": 500 }]);
    let resources = json!({ "blockIO": { "weightDevice": weight } });
    for setup in Setup::all() {
        let number = disk.number();
        let (bfq, iocost) = (format!("{number} 500"), format!("{number} 4950"));
        // Only a disk whose time somebody divides has a weight.
        let v1 = [("blkio.bfq.weight_device", &*bfq)];
        let v2 = [v2_weight(setup.view, &bfq, &iocost)];
        match v2[0].0 {
            "io.weight" => disk.divided_by_iocost(),
            _ => disk.divided_by_bfq(),
        }
        let path = "linux.resources.blockIO.weightDevice[0].weight";
        assert_field_in(setup, &resources, path, &v1, &v2);
    }
}

#[test]
fn block_io_leaf_weight_went_with_its_scheduler() {
    for view in View::all() {
        let bundle = sleeper(view).resources(json!({ "blockIO": { "leafWeight": 500 } }));
        bundle.refused().one_line().says(&["linux.resources.blockIO.leafWeight"]);
    }
}

#[test]
fn block_io_throttling() {
    let disk = Disk::new();
    let ([major, minor], number) = (disk.numbers(), disk.number());
    for (name, v1, v2) in [
        ("throttleReadBpsDevice", "read_bps", "rbps=5000 wbps=max riops=max wiops=max"),
        ("throttleWriteBpsDevice", "write_bps", "rbps=max wbps=5000 riops=max wiops=max"),
        ("throttleReadIOPSDevice", "read_iops", "rbps=max wbps=max riops=5000 wiops=max"),
        ("throttleWriteIOPSDevice", "write_iops", "rbps=max wbps=max riops=max wiops=5000"),
    ] {
        let limit = json!([{ "major": major, "minor": minor, "rate": 5000 }]);
        assert_field(
            &json!({ "blockIO": { name: limit } }),
            &format!("linux.resources.blockIO.{name}[0]"),
            &[(&format!("blkio.throttle.{v1}_device"), &format!("{number} 5000"))],
            &[("io.max", &format!("{number} {v2}"))],
        );
    }
}

#[test]
fn a_device_that_is_not_there_is_named_with_its_field() {
    const FIELD: &str = "throttleReadBpsDevice";
    let limit = json!([{ "major": 4000, "minor": 1, "rate": 5000 }]);
    for setup in Setup::all() {
        let files = [[("blkio.throttle.read_bps_device", "")], [("io.max", "")]];
        let word = match place(setup.view, &files[0], &files[1]) {
            Ok(files) => format!("/{}: 4000:1 ", files[0].0),
            Err(word) => word,
        };
        let bundle = setup.sleeper().resources(json!({ "blockIO": { FIELD: limit } }));
        let path = format!("linux.resources.blockIO.{FIELD}[0]");
        bundle.refused().one_line().says(&[&path, &word]);
    }
}

#[test]
fn hugepage_limits() {
    assert_field(
        &json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] }),
        "linux.resources.hugepageLimits[0]",
        &[
            ("hugetlb.2MB.limit_in_bytes", "4194304"),
            ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
        ],
        &[("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")],
    );
}

#[test]
fn a_page_size_that_the_kernel_does_not_have_is_refused_by_field_and_file() {
    assert_field(
        &json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 1 }] }),
        "linux.resources.hugepageLimits[0]",
        &[("hugetlb.3MB.limit_in_bytes", "no kernel has it")],
        &[("hugetlb.3MB.max", "no kernel has it")],
    );
}

#[test]
fn network() {
    let class = json!({ "network": { "classID": 1_048_577 } });
    let files = &[("net_cls.classid", "1048577")];
    assert_field(&class, "linux.resources.network.classID", files, &[]);
    let priorities = json!({ "network": { "priorities": [{ "name": "lo", "priority": 5 }] } });
    let files = &[("net_prio.ifpriomap", "lo 5")];
    assert_field(&priorities, "linux.resources.network.priorities", files, &[]);
}

#[test]
fn rdma_of_a_device_that_is_not_there_is_refused_by_field_and_file() {
    let resources = json!({ "rdma": { "no_such_hca": { "hcaHandles": 3 } } });
    for setup in Setup::all() {
        let files = &[("rdma.max", "")];
        let word = match place(setup.view, files, files) {
            Ok(_) => "/rdma.max: no_such_hca hca_handle=3: ".to_owned(),
            Err(word) => word,
        };
        let bundle = setup.sleeper().resources(resources.clone());
        bundle.refused().one_line().says(&["linux.resources.rdma[\"no_such_hca\"]", &word]);
    }
}

#[test]
fn unified_is_refused_without_version_2() {
    for setup in Setup::all().into_iter().filter(|setup| setup.view == View::V1) {
        let bundle = setup.sleeper().resources(json!({ "unified": { "cgroup.max.depth": "3" } }));
        bundle.refused().one_line().says(&["unified[\"cgroup.max.depth\"]", "v1"]);
    }
}

/// The kernel takes one of these lines at a time.
#[test]
fn a_value_of_unified_is_written_line_by_line() {
    for setup in with_v2() {
        let resources = json!({ "unified": { "cgroup.max.depth": "5\n3\n" } });
        let c = setup.sleeper().resources(resources).start();
        let depth = file(&c, setup.view, "no-such", "cgroup.max.depth");
        assert_eq!(depth.as_deref(), Some("3"), "{setup:?}");
        if place(setup.view, &[("none.at.all", "")], &[("io.max", "")]).is_err() {
            continue;
        }
        let disks = [Disk::new(), Disk::new()].map(|disk| (disk.number(), disk));
        let lines = disks.each_ref().map(|(number, _)| format!("{number} rbps=5000 wiops=7"));
        let c = setup.sleeper().resources(json!({ "unified": { "io.max": lines.join("\n") } }));
        let written = file(&c.start(), setup.view, "io", "io.max").unwrap();
        for (number, _) in &disks {
            let line = format!("{number} rbps=5000 wbps=max riops=max wiops=7");
            assert!(written.lines().any(|one| one == line), "{setup:?}: {written}");
        }
    }
}

#[test]
fn unified_of_a_controller_that_is_not_there_is_refused_by_its_name() {
    for setup in with_v2() {
        let refused = |name: &str| {
            let resources = json!({ "unified": { name: "3" } });
            setup.sleeper().resources(resources).refused().one_line()
        };
        refused("nonsense.max").says(&["unified[\"nonsense.max\"]", "`nonsense`"]);
        refused("cgroup.nonsense").says(&["unified[\"cgroup.nonsense\"]", "No such file"]);
    }
}

/// Every kernel can show it.
fn with_v2() -> Vec<Setup> {
    let all: Vec<_> = Setup::all().into_iter().filter(|one| one.view != View::V1).collect();
    assert!(!all.is_empty());
    all
}
