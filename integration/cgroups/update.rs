//! `update`: the control files change, or nothing does.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{file, is_v2, place, sleeper, v2_weight, views_with};
use crate::harness::{Bundle, Container, Done, View};

fn update(c: &Container, options: &[&str]) -> Done {
    let mut args = vec!["update", &c.id];
    args.extend(options);
    c.rt(args).run()
}

/// With the resources in a file.
fn update_from(c: &Container, resources: &Value) -> Done {
    let path = c.bundle.beside("resources.json");
    fs::write(&path, resources.to_string()).unwrap();
    update(c, &["--resources", path.to_str().unwrap()])
}

#[test]
fn every_option_changes_its_control_file() {
    for (options, controller, v1, v2) in [
        (&["--pids-limit", "55"][..], "pids", ("pids.max", "55"), ("pids.max", "55")),
        (
            &["--memory", "50M"],
            "memory",
            ("memory.limit_in_bytes", "52428800"),
            ("memory.max", "52428800"),
        ),
        (
            &["--memory", "50M", "--memory-swap", "60M"],
            "memory",
            ("memory.memsw.limit_in_bytes", "62914560"),
            ("memory.swap.max", "10485760"),
        ),
        (
            &["--memory-reservation", "1m"],
            "memory",
            ("memory.soft_limit_in_bytes", "1048576"),
            ("memory.low", "1048576"),
        ),
        (&["--cpu-share", "512"], "cpu", ("cpu.shares", "512"), ("cpu.weight", "59")),
        (
            &["--cpu-quota", "30000"],
            "cpu",
            ("cpu.cfs_quota_us", "30000"),
            ("cpu.max", "30000 100000"),
        ),
        (
            &["--cpu-period", "50000"],
            "cpu",
            ("cpu.cfs_period_us", "50000"),
            ("cpu.max", "max 50000"),
        ),
        (
            &["--cpu-quota", "30000", "--cpu-burst", "9000"],
            "cpu",
            ("cpu.cfs_burst_us", "9000"),
            ("cpu.max.burst", "9000"),
        ),
        (&["--cpu-idle", "1"], "cpu", ("cpu.idle", "1"), ("cpu.idle", "1")),
        (&["--cpuset-cpus", "0"], "cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0")),
        (&["--cpuset-mems", "0"], "cpuset", ("cpuset.mems", "0"), ("cpuset.mems", "0")),
    ] {
        for view in View::all() {
            let c = sleeper(view).start();
            let (name, value) = if is_v2(view) { v2 } else { v1 };
            if file(&c, view, controller, name).is_none() {
                update(&c, options).says(&["linux.resources."]);
                continue;
            }
            update(&c, options).success();
            assert_eq!(file(&c, view, controller, name).as_deref(), Some(value), "{view:?}");
            assert_eq!(c.status(), "running");
        }
    }
}

/// Version 2 has no such limits, and a group above that has no such time gives none.
#[test]
fn real_time_can_be_changed_on_version_1() {
    for view in views_with("cpu") {
        let bundle = sleeper(view);
        let path = format!("/{}", bundle.id());
        let c = bundle.config(|c| c["linux"]["cgroupsPath"] = path.into()).start();
        for (option, field, name, value) in [
            ("--cpu-rt-period", "realtimePeriod", "cpu.rt_period_us", "500000"),
            ("--cpu-rt-runtime", "realtimeRuntime", "cpu.rt_runtime_us", "1000"),
        ] {
            let done = update(&c, &[option, value]);
            match place(view, &[(name, value)], &[]) {
                Err(word) => drop(done.one_line().says(&[field, &word])),
                Ok(_) => {
                    done.success();
                    assert_eq!(file(&c, view, "cpu", name).as_deref(), Some(value), "{view:?}");
                }
            }
        }
    }
}

#[test]
fn the_weight_of_a_containers_disks_can_be_changed() {
    for view in views_with("blkio") {
        let c = sleeper(view).start();
        let done = update(&c, &["--blkio-weight", "500"]);
        let v2 = [v2_weight(view, "default 500", "default 4950")];
        match place(view, &[("blkio.bfq.weight", "500")], &v2) {
            Err(word) => drop(done.one_line().says(&["linux.resources.blockIO.weight", &word])),
            Ok(files) => {
                done.success();
                let controller = if files == v2 { "io" } else { "blkio" };
                let written = file(&c, view, controller, files[0].0);
                assert_eq!(written.as_deref(), Some(files[0].1), "{view:?}");
            }
        }
    }
}

#[test]
fn zeros_leave_what_there_is() {
    // What docker sends to change the number of processes alone.
    let zeros = json!({
        "memory": { "limit": 0, "reservation": 0, "kernel": 0 },
        "cpu": { "shares": 0, "quota": 0, "period": 0 },
        "pids": { "limit": 55 }, "blockIO": { "weight": 0 }
    });
    for view in views_with("pids") {
        let limits = json!({ "memory": { "limit": 64 << 20 }, "cpu": { "shares": 300 } });
        let c = sleeper(view).resources(limits).start();
        update_from(&c, &zeros).success();
        assert_eq!(file(&c, view, "pids", "pids.max").as_deref(), Some("55"));
        let memory = if is_v2(view) { "memory.max" } else { "memory.limit_in_bytes" };
        assert_eq!(file(&c, view, "memory", memory).as_deref(), Some("67108864"));
        let (name, value) = if is_v2(view) { ("cpu.weight", "39") } else { ("cpu.shares", "300") };
        assert_eq!(file(&c, view, "cpu", name).as_deref(), Some(value));
    }
}

#[test]
fn resources_come_from_standard_input() {
    for view in views_with("pids") {
        let c = sleeper(view).start();
        let path = c.bundle.beside("resources.json");
        fs::write(&path, r#"{"pids":{"limit":44}}"#).unwrap();
        let stdin = Stdio::from(fs::File::open(path).unwrap());
        c.rt(["update", "-r", "-", &c.id]).spawn_with(stdin).finish().success();
        assert_eq!(file(&c, view, "pids", "pids.max").as_deref(), Some("44"));
        // They are all that counts.
        let path = c.bundle.beside("resources.json");
        let with_more = ["-r", path.to_str().unwrap(), "--pids-limit", "7"];
        update(&c, &with_more).success();
        assert_eq!(file(&c, view, "pids", "pids.max").as_deref(), Some("44"));
        // An object without a limit is not a limit of 0.
        update_from(&c, &json!({ "pids": {} })).success();
        assert_eq!(file(&c, view, "pids", "pids.max").as_deref(), Some("44"));
    }
}

#[test]
fn memory_goes_up_and_down_together_with_swap() {
    for view in views_with("memory") {
        let megabytes = |n: i64| n << 20;
        let limits = json!({ "memory": { "limit": megabytes(20), "swap": megabytes(40) } });
        let c = sleeper(view).resources(limits).start();
        let now = || {
            let number = |name| file(&c, view, "memory", name).unwrap().parse::<i64>().unwrap();
            match is_v2(view) {
                true => (number("memory.max"), number("memory.max") + number("memory.swap.max")),
                false => (number("memory.limit_in_bytes"), number("memory.memsw.limit_in_bytes")),
            }
        };
        assert_eq!(now(), (megabytes(20), megabytes(40)));
        // Above the old sum, below the old limit, and one of the two alone.
        update(&c, &["--memory", "100M", "--memory-swap", "200M"]).success();
        assert_eq!(now(), (megabytes(100), megabytes(200)));
        update(&c, &["--memory", "10M", "--memory-swap", "10M"]).success();
        assert_eq!(now(), (megabytes(10), megabytes(10)));
        update(&c, &["--memory-swap", "50M"]).success();
        assert_eq!(now(), (megabytes(10), megabytes(50)));
        update(&c, &["--memory", "30M"]).success();
        assert_eq!(now(), (megabytes(30), megabytes(50)));
        update(&c, &["--memory", "60M"]).failure();
        assert_eq!(now(), (megabytes(30), megabytes(50)));
    }
}

#[test]
fn all_limits_of_memory_can_be_taken_away() {
    for view in views_with("memory") {
        let limits = json!({ "memory": { "limit": 20 << 20, "swap": 40 << 20 } });
        let c = sleeper(view).resources(limits).start();
        update(&c, &["--memory", "-1"]).success();
        let (names, none) = match is_v2(view) {
            true => (["memory.max", "memory.swap.max"], "max"),
            false => {
                (["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"], "9223372036854771712")
            }
        };
        for name in names {
            assert_eq!(file(&c, view, "memory", name).as_deref(), Some(none), "{view:?}");
        }
    }
}

#[test]
fn a_period_alone_keeps_the_quota_and_the_other_way_round() {
    for view in views_with("cpu") {
        let limits = json!({ "cpu": { "quota": 20_000, "period": 40_000 } });
        let c = sleeper(view).resources(limits).start();
        let now = || match is_v2(view) {
            true => file(&c, view, "cpu", "cpu.max").unwrap(),
            false => ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
                .map(|name| file(&c, view, "cpu", name).unwrap())
                .join(" "),
        };
        update(&c, &["--cpu-period", "80000"]).success();
        assert_eq!(now(), "20000 80000");
        update(&c, &["--cpu-quota", "5000"]).success();
        assert_eq!(now(), "5000 80000");
    }
}

#[test]
fn a_refused_update_changes_nothing() {
    for view in views_with("pids") {
        let limits = json!({ "pids": { "limit": 33 }, "cpu": { "shares": 300 } });
        let c = sleeper(view).resources(limits).start();
        // The first two are good, the last is a processor that no machine has.
        let options = ["--pids-limit", "44", "--cpu-share", "2000", "--cpuset-cpus", "4000"];
        update(&c, &options).says(&["linux.resources.cpu.cpus"]);
        assert_eq!(file(&c, view, "pids", "pids.max").as_deref(), Some("33"), "{view:?}");
        let (name, value) = if is_v2(view) { ("cpu.weight", "39") } else { ("cpu.shares", "300") };
        assert_eq!(file(&c, view, "cpu", name).as_deref(), Some(value), "{view:?}");
    }
}

/// The group above may forbid a device, and that shows only when the rules are written.
#[test]
fn a_refused_device_leaves_all_rules_as_they_were() {
    let refused = |c: &Container, node: &str| {
        let done = c.exec(["sh", "-c", &format!(": < {node}")]);
        done.stderr.contains("Operation not permitted")
    };
    let device = |allow, minor| json!({ "allow": allow, "type": "c", "major": 195, "minor": minor, "access": "rwm" });
    for view in View::all().filter(|view| super::has(*view, "devices")) {
        for all in [false, true] {
            let bundle = sleeper(view).with_capabilities(&["CAP_MKNOD"]).script(
                "mknod /dev/one c 195 1; mknod /dev/two c 195 2; mknod /dev/ten c 195 10
                echo made; exec sleep 1000",
            );
            let above = format!("/sys/fs/cgroup/devices/{}above", bundle.mark());
            fs::create_dir(&above).unwrap();
            fs::write(format!("{above}/devices.deny"), "c 195:10 rw").unwrap();
            let path = format!("/{}above/box", bundle.mark());
            let c = bundle
                .config(|c| c["linux"]["cgroupsPath"] = path.into())
                .resources(
                    json!({ "devices": [{ "allow": all, "access": "rwm" }, device(!all, 1)] }),
                )
                .start();
            crate::harness::until("the nodes are there", || c.output() == "made\n");
            let look = || ["/dev/one", "/dev/two", "/dev/ten"].map(|node| refused(&c, node));
            let list = || fs::read_to_string(format!("{above}/box/devices.list")).unwrap();
            let (looked, listed) = (look(), list());
            assert_eq!(looked, [all, !all, true], "{view:?}");
            let rules =
                [json!({ "allow": false, "access": "rwm" }), device(true, 2), device(true, 10)];
            update_from(&c, &json!({ "pids": { "limit": 5 }, "devices": rules }))
                .says(&["linux.resources.devices[2]"]);
            assert_eq!((look(), list()), (looked, listed), "{view:?}");
            assert_eq!(file(&c, view, "pids", "pids.max").as_deref(), Some("max"));
            c.delete_force();
            fs::remove_dir(&above).unwrap();
        }
    }
}

/// Some kernels take no empty list while there are processes: then it is all that the group had.
#[test]
fn a_refused_update_leaves_the_processors_as_they_were() {
    for view in views_with("cpuset") {
        let c = sleeper(view).start();
        let list = |name| file(&c, view, "cpuset", name).unwrap();
        let all = list(if is_v2(view) { "cpuset.cpus.effective" } else { "cpuset.cpus" });
        let options = ["--cpuset-cpus", "0", "--cpuset-mems", "4000"];
        update(&c, &options).says(&["linux.resources.cpu.mems"]);
        let cpus = list("cpuset.cpus");
        assert!(is_v2(view) && cpus.is_empty() || cpus == all, "{view:?}: {cpus:?}, {all}");
        if is_v2(view) {
            update(&c, &["--cpuset-cpus", "0"]).success();
            let done = update_from(&c, &json!({ "unified": { "cpuset.cpus": "" } }));
            match &*list("cpuset.cpus") {
                "" => done.success(),
                "0" => done.says(&["unified[\"cpuset.cpus\"]", "No space left"]),
                other => panic!("{other}"),
            };
        }
    }
}

/// Where BFQ is missing, version 2 has another file for the weight.
#[test]
fn a_refused_update_leaves_the_weight_of_disks() {
    for view in View::all() {
        let c = sleeper(view).start();
        let names = ["blkio.bfq.weight", "io.bfq.weight", "io.weight"];
        let now = || {
            let of = |name: &str| file(&c, view, name.split('.').next().unwrap(), name);
            names.map(of)
        };
        let before = now();
        let options = ["--blkio-weight", "300", "--pids-limit", "5", "--cpuset-cpus", "4000"];
        update(&c, &options).says(&["linux.resources."]);
        assert_eq!(now(), before, "{view:?}");
    }
}

/// A word of the program's own would pass for a value.
#[test]
fn the_name_of_what_there_is_is_no_value() {
    for view in views_with("cpuset") {
        let c = sleeper(view).start();
        update(&c, &["--cpuset-cpus", "present"]).says(&["linux.resources.cpu.cpus"]);
    }
    for view in views_with("memory").into_iter().filter(|view| is_v2(*view)) {
        let c = sleeper(view).start();
        update_from(&c, &json!({ "unified": { "memory.max": "present" } }))
            .says(&["linux.resources.unified[\"memory.max\"]"]);
    }
}

#[test]
fn a_limit_below_the_usage_is_refused_if_that_is_asked_for() {
    for view in views_with("memory") {
        let c = sleeper(view).resources(json!({ "memory": { "limit": 64 << 20 } })).start();
        let little = json!({ "memory": { "limit": 4096, "checkBeforeUpdate": true } });
        update_from(&c, &little).says(&["linux.resources.memory.limit", "4096"]);
        let name = if is_v2(view) { "memory.max" } else { "memory.limit_in_bytes" };
        assert_eq!(file(&c, view, "memory", name).as_deref(), Some("67108864"), "{view:?}");
        assert_eq!(c.status(), "running");
    }
}

#[test]
fn what_is_no_limit_is_refused() {
    let c = sleeper(View::Host).start();
    update(&c, &["--memory", "lots"]).says(&["--memory"]);
    update(&c, &["-r", "/no/such/file"]).says(&["/no/such/file", "No such file"]);
    update_from(&c, &json!({ "memory": { "limit": "much" } })).says(&["memory.limit"]);
    update_from(&c, &json!({ "unified": { "../x": "1" } })).says(&["unified"]);
}

/// A container that has some needs hardware.
#[test]
fn schemata_are_for_containers_that_have_some() {
    let c = sleeper(View::Host).start();
    let file = c.bundle.beside("resources.json");
    fs::write(&file, "{}").unwrap();
    let file = file.to_str().unwrap();
    for options in [
        &["--l3-cache-schema", "L3:0=f"][..],
        &["--mem-bw-schema", "MB:0=20", "--pids-limit", "5"],
        &["-r", file, "--mem-bw-schema", "MB:0=20"],
    ] {
        update(&c, options).one_line().says(&[&c.id, "linux.intelRdt"]);
    }
    update(&c, &["--mem-bw-schema", "L3:0=20"]).says(&["memBwSchema", "MB:"]);
    update(&c, &["--l3-cache-schema", "L3:0=f\nL3:1=f"]).says(&["more than one line"]);
}

#[test]
fn limits_of_kernel_memory_are_ignored_with_a_warning() {
    for view in views_with("pids") {
        let c = sleeper(view).start();
        let log = c.bundle.beside("log").display().to_string();
        let options = ["--kernel-memory", "5M", "--kernel-memory-tcp=-1", "--pids-limit", "44"];
        c.rt([&["--log", &log, "update", &c.id], &options[..]].concat()).run().success();
        assert_eq!(file(&c, view, "pids", "pids.max").as_deref(), Some("44"));
        assert!(fs::read_to_string(&log).unwrap().contains("--kernel-memory"), "{view:?}");
        update(&c, &["--kernel-memory", "much"]).says(&["--kernel-memory"]);
    }
}

#[test]
fn a_stopped_container_has_no_limits_to_change() {
    let c = Bundle::busybox().args(["true"]).start();
    c.wait();
    update(&c, &["--pids-limit", "5"]).says(&["container not running"]);
    c.rt(["update", "no-such-container", "--pids-limit", "5"]).run().says(&["does not exist"]);
}

#[test]
fn devices_are_replaced_as_often_as_one_likes() {
    let allow = |allow: bool| {
        json!({ "devices": [
            { "allow": false, "access": "rwm" },
            { "allow": allow, "type": "c", "major": 1, "minor": 11, "access": "rm" }
        ] })
    };
    for view in View::all() {
        let c = sleeper(view)
            .with_capabilities(&["CAP_MKNOD", "CAP_SYSLOG"])
            .script("mknod /dev/log c 1 11 && exec sleep 1000")
            .start();
        let opens = || c.exec(["sh", "-c", ": < /dev/log"]).status == 0;
        crate::harness::until("the node is there", || c.exec(["ls", "/dev/log"]).status == 0);
        assert!(!opens(), "{view:?}");
        // A group of version 2 has room for 64 programs.
        for _ in 0..35 {
            update_from(&c, &allow(true)).success();
            update_from(&c, &allow(false)).success();
        }
        assert!(!opens(), "{view:?}");
        update_from(&c, &allow(true)).success();
        assert!(opens(), "{view:?}");
        // Other limits leave the devices alone.
        update_from(&c, &json!({})).success();
        assert!(opens(), "{view:?}");
        let all = json!({ "devices": [{ "allow": true, "access": "rwm" }] });
        update_from(&c, &all).success();
        assert!(opens(), "{view:?}");
        update_from(&c, &allow(false)).success();
        assert!(!opens(), "{view:?}");
    }
}
