//! `linux.resources` written to control files by `rt` and by cgroups-rs has to be read back equal.

use std::fs;
use std::path::{Path, PathBuf};

use cgroups_rs::fs::{Cgroup, hierarchies};
use cgroups_rs::manager::{FsManager, Manager};
use oci_spec::runtime::LinuxResources;
use oracles::Bundle;
use serde_json::{Value, json};

/// The limits for which this host has controllers: each property, with its controller.
fn resources() -> Value {
    let all = [
        (
            "memory",
            "memory",
            json!({ "limit": 67_108_864, "reservation": 33_554_432, "swap": 134_217_728 }),
        ),
        ("cpu", "cpu", json!({ "shares": 512, "quota": 50_000, "period": 100_000 })),
        ("cpuset", "cpu", json!({ "cpus": "0", "mems": "0" })),
        ("pids", "pids", json!({ "limit": 100 })),
        ("hugetlb", "hugepageLimits", json!([{ "pageSize": "2MB", "limit": 4_194_304 }])),
        ("net_cls", "network", json!({ "classID": 65_537 })),
        ("net_prio", "network", json!({ "priorities": [{ "name": "lo", "priority": 3 }] })),
    ];
    let mut resources = json!({});
    for (_, property, limits) in all.into_iter().filter(|(name, ..)| has(name)) {
        match (resources[property].as_object_mut(), limits) {
            (Some(others), Value::Object(limits)) => others.extend(limits),
            (_, limits) => resources[property] = limits,
        }
    }
    resources
}

/// Whether this host has the controller.
fn has(controller: &str) -> bool {
    let top = Path::new("/sys/fs/cgroup");
    match fs::read_to_string(top.join("cgroup.controllers")) {
        Ok(list) => list.split_ascii_whitespace().any(|name| name == controller),
        Err(_) => top.join(controller).exists(),
    }
}

/// The controllers of version 1 and the files to compare.
const V1: [(&str, &str); 12] = [
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.soft_limit_in_bytes"),
    ("memory", "memory.memsw.limit_in_bytes"),
    ("cpu", "cpu.shares"),
    ("cpu", "cpu.cfs_quota_us"),
    ("cpu", "cpu.cfs_period_us"),
    ("cpuset", "cpuset.cpus"),
    ("cpuset", "cpuset.mems"),
    ("pids", "pids.max"),
    ("hugetlb", "hugetlb.2MB.limit_in_bytes"),
    ("net_cls", "net_cls.classid"),
    ("net_prio", "net_prio.ifpriomap"),
];
const V2: [&str; 9] = [
    "memory.max",
    "memory.low",
    "memory.swap.max",
    "cpu.weight",
    "cpu.max",
    "cpuset.cpus",
    "cpuset.mems",
    "pids.max",
    "hugetlb.2MB.max",
];
/// Files whose values differ, and why `rt` is right.
const DIFFERENCES: [(&str, &str); 1] = [(
    "cpu.weight",
    "cgroups-rs converts shares linearly, so that the default of 1024 is not the default weight",
)];

/// The control files that this host has, in the cgroup `name`.
fn files(name: &str) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let all: Vec<PathBuf> = match top.join("cgroup.controllers").exists() {
        true => V2.iter().map(|file| top.join(name).join(file)).collect(),
        false => {
            V1.iter().map(|(hierarchy, file)| top.join(hierarchy).join(name).join(file)).collect()
        }
    };
    all.into_iter().filter(|file| file.exists()).collect()
}

fn text(file: &Path) -> String {
    match fs::read_to_string(file) {
        Ok(text) => text.trim().to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn limits_are_those_that_cgroups_rs_writes() {
    let bundle = Bundle::new("ours");
    bundle.configure(&["sleep", "1000"], |config| config["linux"]["resources"] = resources());
    assert!(bundle.rt("create").status.success());
    let name = bundle.id.replace("ours", "theirs");
    // The manager itself makes cgroups only for a process.
    Cgroup::new(hierarchies::auto(), &name).unwrap();
    let mut theirs = FsManager::new(&name).unwrap();
    let limits: LinuxResources = serde_json::from_value(resources()).unwrap();
    let set = theirs.set(&limits);
    let pairs: Vec<_> = files(&bundle.id)
        .into_iter()
        .map(|ours| {
            let theirs = PathBuf::from(ours.to_str().unwrap().replace(&bundle.id, &name));
            let file = ours.file_name().unwrap().to_str().unwrap().to_owned();
            (file, text(&ours), text(&theirs))
        })
        .collect();
    theirs.destroy().unwrap();
    set.unwrap();
    for (file, ours, theirs) in &pairs {
        println!("{file}: {ours} {theirs}");
        let known = DIFFERENCES.iter().find(|(known, _)| known == file);
        assert_eq!(
            ours == theirs,
            known.is_none(),
            "{file}: {ours}, cgroups-rs {theirs}: {known:?}"
        );
    }
    // What the views of this repository's own machines have at least.
    let least = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { 1 } else { 8 };
    assert!(pairs.len() >= least, "{pairs:?}");
}
