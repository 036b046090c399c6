//! The limits that are compared, and the differences that are right.

use serde_json::{Value, json};

use super::view::CgroupVersion::{self, V1, V2};
use super::view::ControlFiles;

/// One or more properties of `linux.resources`.
#[derive(Debug)]
pub(super) struct LimitCase {
    pub(super) name: &'static str,
    pub(super) resources: Value,
    /// The control files that these limits are written to; none if the version has no such limit.
    v1: &'static [&'static str],
    v2: &'static [&'static str],
}

impl LimitCase {
    pub(super) fn files(&self, version: CgroupVersion) -> &'static [&'static str] {
        if version == V1 { self.v1 } else { self.v2 }
    }
}

/// Whether the limits were applied, beside the control files.
pub(super) const RESULT: &str = "result";
pub(super) const APPLIED: &str = "applied";
pub(super) const REFUSED: &str = "refused";
/// What a control file contains in a new cgroup.
const NEW: &str = "new";

/// A control file that `rt` and cgroups-rs rightly leave with different contents.
#[derive(Debug)]
pub(super) struct RightDifference {
    pub(super) version: CgroupVersion,
    /// The name of a [`LimitCase`].
    pub(super) case: &'static str,
    pub(super) file: &'static str,
    /// What `rt` leaves in it, and cgroups-rs.
    values: [&'static str; 2],
    #[expect(dead_code, reason = "read by people")]
    pub(super) reason: &'static str,
}

impl RightDifference {
    /// The values, where `new` are the files of a new cgroup.
    pub(super) fn values<'a>(&'a self, new: &'a ControlFiles) -> [&'a str; 2] {
        let of_new = new.get(self.file).map_or("", String::as_str);
        self.values.map(|value| if value == NEW { of_new } else { value })
    }
}

/// Files that have to be compared in a view with their controller, which is named first.
pub(super) const STATED: [(CgroupVersion, &str, &str); 16] = [
    (V1, "memory", "memory.limit_in_bytes"),
    (V1, "memory", "memory.soft_limit_in_bytes"),
    (V1, "cpu", "cpu.cfs_quota_us"),
    (V1, "cpuset", "cpuset.cpus"),
    (V1, "pids", "pids.max"),
    (V1, "blkio", "blkio.throttle.read_bps_device"),
    (V1, "hugetlb", "hugetlb.2MB.limit_in_bytes"),
    (V1, "net_cls", "net_cls.classid"),
    (V1, "net_prio", "net_prio.ifpriomap"),
    (V2, "memory", "memory.max"),
    (V2, "memory", "memory.low"),
    (V2, "cpu", "cpu.max"),
    (V2, "cpuset", "cpuset.cpus"),
    (V2, "pids", "pids.max"),
    (V2, "io", "io.max"),
    (V2, "hugetlb", "hugetlb.2MB.max"),
];

const MIB: i64 = 1 << 20;

pub(super) fn cases([major, minor]: [u64; 2]) -> Vec<LimitCase> {
    let device = |key: &str, value: u64| json!([{ "major": major, "minor": minor, key: value }]);
    let case = |name, resources, v1, v2| LimitCase { name, resources, v1, v2 };
    let mut cases = memory_cases();
    cases.extend(cpu_cases());
    for (name, limit) in [("pids", 33), ("pids: 0", 0), ("pids: -1", -1)] {
        let files = &["pids.max"];
        cases.push(case(name, json!({ "pids": { "limit": limit } }), files, files));
    }
    for (name, field, v1) in [
        ("read bps", "throttleReadBpsDevice", &["blkio.throttle.read_bps_device"]),
        ("write bps", "throttleWriteBpsDevice", &["blkio.throttle.write_bps_device"]),
        ("read iops", "throttleReadIOPSDevice", &["blkio.throttle.read_iops_device"]),
        ("write iops", "throttleWriteIOPSDevice", &["blkio.throttle.write_iops_device"]),
    ] {
        let resources = json!({ "blockIO": { field: device("rate", 4096) } });
        cases.push(case(name, resources, v1, &["io.max"]));
    }
    let no_rate = json!({ "blockIO": { "throttleReadBpsDevice": device("rate", 0) } });
    let huge_pages = |size| json!({ "hugepageLimits": [{ "pageSize": size, "limit": 1 << 30 }] });
    let priorities = json!({ "network": { "priorities": [{ "name": "lo", "priority": 3 }] } });
    cases.extend([
        case("read bps: 0", no_rate, &["blkio.throttle.read_bps_device"], &["io.max"]),
        case(
            "weight",
            json!({ "blockIO": { "weight": 500 } }),
            &["blkio.bfq.weight"],
            &["io.bfq.weight"],
        ),
        case(
            "2 MiB pages",
            huge_pages("2MB"),
            &["hugetlb.2MB.limit_in_bytes"],
            &["hugetlb.2MB.max"],
        ),
        case(
            "1 GiB pages",
            huge_pages("1GB"),
            &["hugetlb.1GB.limit_in_bytes"],
            &["hugetlb.1GB.max"],
        ),
        case("class", json!({ "network": { "classID": 0x10_0001 } }), &["net_cls.classid"], &[]),
        case("priorities", priorities, &["net_prio.ifpriomap"], &[]),
        case(
            "many at once",
            json!({
                "memory": { "limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB },
                "cpu": { "shares": 2, "quota": 50_000, "period": 200_000, "cpus": "0", "mems": "0" },
                "pids": { "limit": 100 },
            }),
            &[
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
                "memory.soft_limit_in_bytes",
                "cpu.shares",
                "cpu.cfs_quota_us",
                "cpu.cfs_period_us",
                "cpuset.cpus",
                "cpuset.mems",
                "pids.max",
            ],
            &[
                "memory.max",
                "memory.swap.max",
                "memory.low",
                "cpu.weight",
                "cpu.max",
                "cpuset.cpus",
                "cpuset.mems",
                "pids.max",
            ],
        ),
    ]);
    cases
}

fn memory_cases() -> Vec<LimitCase> {
    let case = |name, memory: Value, v1, v2| LimitCase {
        name,
        resources: json!({ "memory": memory }),
        v1,
        v2,
    };
    let limit_v1 = &["memory.limit_in_bytes"];
    let swap_v1 = &["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];
    let swap_v2 = &["memory.max", "memory.swap.max"];
    vec![
        case("memory", json!({ "limit": 16 * MIB }), limit_v1, &["memory.max"]),
        case("memory: odd", json!({ "limit": 16 * MIB + 1 }), limit_v1, &["memory.max"]),
        case("memory: -1", json!({ "limit": -1 }), limit_v1, &["memory.max"]),
        case("swap", json!({ "limit": 16 * MIB, "swap": 24 * MIB }), swap_v1, swap_v2),
        case("swap: none", json!({ "limit": 16 * MIB, "swap": 16 * MIB }), swap_v1, swap_v2),
        case("swap: -1", json!({ "limit": 16 * MIB, "swap": -1 }), swap_v1, swap_v2),
        case("both -1", json!({ "limit": -1, "swap": -1 }), swap_v1, swap_v2),
        case(
            "reservation",
            json!({ "reservation": 4 * MIB }),
            &["memory.soft_limit_in_bytes"],
            &["memory.low"],
        ),
        case(
            "limit and reservation",
            json!({ "limit": 16 * MIB, "swap": -1, "reservation": 4 * MIB }),
            &["memory.limit_in_bytes", "memory.soft_limit_in_bytes"],
            &["memory.max", "memory.low"],
        ),
        case("swappiness", json!({ "swappiness": 7 }), &["memory.swappiness"], &[]),
        case("no oom killer", json!({ "disableOOMKiller": true }), &["memory.oom_control"], &[]),
    ]
}

fn cpu_cases() -> Vec<LimitCase> {
    let case =
        |name, cpu: Value, v1, v2| LimitCase { name, resources: json!({ "cpu": cpu }), v1, v2 };
    let mut cases = vec![];
    for (name, shares) in [
        ("shares: 2", 2),
        ("shares: 512", 512),
        ("shares: 1024", 1024),
        ("shares: 262144", 262_144),
    ] {
        // cgroups-rs takes no limit of the CPU where there is no controller cpuset.
        let v2 = &["cpu.weight", "cpuset.cpus"];
        cases.push(case(name, json!({ "shares": shares }), &["cpu.shares", "cpuset.cpus"], v2));
    }
    let bandwidth = &["cpu.cfs_quota_us", "cpu.cfs_period_us"];
    cases.extend([
        case("quota", json!({ "quota": 50_000 }), bandwidth, &["cpu.max"]),
        case("quota: -1", json!({ "quota": -1 }), bandwidth, &["cpu.max"]),
        case("period", json!({ "period": 50_000 }), bandwidth, &["cpu.max"]),
        case(
            "quota and period",
            json!({ "quota": 30_000, "period": 50_000 }),
            bandwidth,
            &["cpu.max"],
        ),
        case("processors", json!({ "cpus": "0" }), &["cpuset.cpus"], &["cpuset.cpus"]),
        case("memory nodes", json!({ "mems": "0" }), &["cpuset.mems"], &["cpuset.mems"]),
    ]);
    cases
}

/// A file that the kernel lacks is no difference.
#[rustfmt::skip]
pub(super) const RIGHT_DIFFERENCES: &[RightDifference] = &[
    row(V1, "pids: 0", "pids.max", ["1", "max"], NO_SECOND_TASK),
    row(V2, "pids: 0", "pids.max", ["1", "max"], NO_SECOND_TASK),
    row(V1, "weight", RESULT, [APPLIED, REFUSED], WEIGHT_OF_CFQ),
    row(V1, "weight", "blkio.bfq.weight", ["500", NEW], WEIGHT_OF_CFQ),
    row(V1, "weight", "blkio.bfq.weight_device", ["default 500", NEW], WEIGHT_OF_CFQ),
    row(V2, "read bps: 0", RESULT, [APPLIED, REFUSED], NO_RATE),
    row(V1, "2 MiB pages", "hugetlb.2MB.rsvd.limit_in_bytes", ["1073741824", NEW], RESERVATIONS),
    row(V1, "1 GiB pages", "hugetlb.1GB.rsvd.limit_in_bytes", ["1073741824", NEW], RESERVATIONS),
    row(V2, "2 MiB pages", "hugetlb.2MB.rsvd.max", ["1073741824", NEW], RESERVATIONS),
    row(V2, "1 GiB pages", "hugetlb.1GB.rsvd.max", ["1073741824", NEW], RESERVATIONS),
    row(V2, "memory", "memory.swap.max", [NEW, "0"], SWAP_NOT_SET),
    row(V2, "memory: odd", "memory.swap.max", [NEW, "0"], SWAP_NOT_SET),
    row(V2, "reservation", "memory.low", ["4194304", NEW], RESERVATION_ALONE),
    row(V2, "shares: 512", "cpu.weight", ["59", "20"], CURVE),
    row(V2, "shares: 512", "cpu.weight.nice", ["2", "7"], CURVE),
    row(V2, "shares: 1024", "cpu.weight", [NEW, "39"], CURVE),
    row(V2, "shares: 1024", "cpu.weight.nice", [NEW, "4"], CURVE),
];

const NO_SECOND_TASK: &str = "0 allows init and no other task, as under runc. cgroups-rs takes it \
    for no limit";
const WEIGHT_OF_CFQ: &str = "cgroups-rs writes to blkio.weight, which went with the scheduler CFQ \
    in Linux 5.0; its successor BFQ has blkio.bfq.weight";
const NO_RATE: &str = "a rate of 0 is no limit on version 1, and has to mean the same on version 2, \
    where the kernel takes `max` only. cgroups-rs writes 0, which the kernel refuses";
const RESERVATIONS: &str = "rt limits reserved pages too, as runc does. cgroups-rs limits only those \
    in use";
const SWAP_NOT_SET: &str = "a limit that is not in the configuration is not set. cgroups-rs takes \
    it for 0 and forbids swapping";
const RESERVATION_ALONE: &str = "cgroups-rs writes no reservation without a limit";
const CURVE: &str = "rt has the curve that runc and crun agreed on, where 1024 shares are the default \
    weight of 100. cgroups-rs has the straight line that they had before";

const fn row(
    version: CgroupVersion,
    case: &'static str,
    file: &'static str,
    values: [&'static str; 2],
    reason: &'static str,
) -> RightDifference {
    RightDifference { version, case, file, values, reason }
}
