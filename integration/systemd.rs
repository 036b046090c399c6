//! Groups that systemd makes. They need a host with it: `make test-vm` runs them in a guest.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::{Bundle, Container, Done, until, user};

fn systemctl(args: &[&str]) -> String {
    let done = Command::new("systemctl").args(args).output().unwrap();
    assert!(done.status.success(), "systemctl {args:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A property of the container's scope as systemd shows it.
fn property(c: &Container, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, &unit(c)])
}

fn unit(c: &Container) -> String {
    format!("rt-{}.scope", c.id)
}

fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.procs").exists()
}

/// Where the container's group is in the hierarchy of `controller`, which is version 2's if
/// version 1 has none.
fn directory(c: &Container, controller: &str) -> String {
    let scope = format!("rttest.slice/rttest-a.slice/{}", unit(c));
    let top = if unified() {
        String::new()
    } else if Path::new("/sys/fs/cgroup").join(controller).exists() {
        controller.to_owned()
    } else {
        "unified".to_owned()
    };
    format!("/sys/fs/cgroup/{top}/{scope}")
}

fn file(c: &Container, name: &str) -> String {
    let controller = name.split('.').next().unwrap();
    let path = format!("{}/{name}", directory(c, controller));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.trim().to_owned()
}

/// A bundle whose container is a scope in a slice of a slice.
fn scope() -> Bundle {
    let bundle = Bundle::busybox().global_options(&["--systemd-cgroup"]).args(["sleep", "1000"]);
    let path = format!("rttest-a.slice:rt:{}", bundle.id());
    bundle.config(|c| c["linux"]["cgroupsPath"] = path.into())
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn a_container_is_a_scope_that_is_its_own() {
    let c = scope().start();
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    let path = format!(":/rttest.slice/rttest-a.slice/{}", unit(&c));
    // In every hierarchy, also in those that systemd leaves alone.
    assert!(groups.lines().all(|line| line.ends_with(&path)), "{groups}");
    assert_eq!(property(&c, "Delegate"), "yes");
    assert_eq!(property(&c, "Slice"), "rttest-a.slice");
    assert_eq!(property(&c, "ActiveState"), "active");
    c.exec(["true"]).success();
    assert_eq!(c.status(), "running");
    c.kill("KILL");
    assert_eq!(c.wait(), 128 + 9);
    c.delete();
    assert_eq!(property(&c, "LoadState"), "not-found");
    c.bundle.leftovers().assert_none_since();
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn a_scope_without_a_path_is_in_the_systems_slice() {
    let c = Bundle::busybox().global_options(&["--systemd-cgroup"]).args(["sleep", "1000"]).start();
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    assert!(groups.contains(&format!("/system.slice/rt-{}.scope\n", c.id)), "{groups}");
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn a_running_scope_is_deleted_with_force() {
    let c = scope().start();
    c.delete_force();
    assert_eq!(property(&c, "LoadState"), "not-found");
    c.bundle.leftovers().assert_none_since();
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn run_leaves_no_scope() {
    let bundle = scope().args(["echo", "hello"]);
    let unit = format!("rt-{}.scope", bundle.id());
    assert_eq!(bundle.run().success().stdout, "hello\n");
    assert_eq!(systemctl(&["show", "--value", "--property", "LoadState", &unit]), "not-found");
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn limits_are_properties_and_stay_when_systemd_reloads() {
    let c = scope()
        .resources(json!({
            "pids": { "limit": 33 },
            "memory": { "limit": 64 << 20, "reservation": 32 << 20 },
            "cpu": { "shares": 512, "quota": 33_333, "period": 50_000 },
            "unified": { "memory.high": "50000000" }
        }))
        .start();
    let weight = if unified() { ("CPUWeight", "59") } else { ("CPUShares", "512") };
    for (name, value) in [
        ("TasksMax", "33"),
        ("MemoryMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("MemoryHigh", "50000000"),
        weight,
        ("CPUQuotaPerSecUSec", "670ms"),
        ("CPUQuotaPeriodUSec", "50ms"),
    ] {
        assert_eq!(property(&c, name), value, "{name}");
    }
    let cpu = match unified() {
        true => [("cpu.weight", "59"), ("cpu.max", "33500 50000")],
        false => [("cpu.shares", "512"), ("cpu.cfs_quota_us", "33500")],
    };
    let files = [
        ("pids.max", "33"),
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.high", "49999872"),
        cpu[0],
        cpu[1],
    ];
    for (name, value) in files {
        assert_eq!(file(&c, name), value, "{name}");
    }
    systemctl(&["daemon-reload"]);
    for (name, value) in files {
        assert_eq!(file(&c, name), value, "{name} after the reload");
    }
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn update_changes_the_property_and_the_file() {
    let c = scope().resources(json!({ "cpu": { "quota": 20_000, "period": 50_000 } })).start();
    let update = |options: &[&str]| c.rt([&["update", &c.id], options].concat()).run();
    update(&["--pids-limit", "44", "--memory", "50M"]).success();
    assert_eq!((&*property(&c, "TasksMax"), &*file(&c, "pids.max")), ("44", "44"));
    assert_eq!((&*property(&c, "MemoryMax"), &*file(&c, "memory.max")), ("52428800", "52428800"));
    let quota = || match unified() {
        true => file(&c, "cpu.max"),
        false => ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|name| file(&c, name)).join(" "),
    };
    update(&["--cpu-quota", "10000"]).success();
    assert_eq!((&*property(&c, "CPUQuotaPerSecUSec"), &*quota()), ("200ms", "10000 50000"));
    update(&["--cpu-period", "40000"]).success();
    assert_eq!((&*property(&c, "CPUQuotaPerSecUSec"), &*quota()), ("250ms", "10000 40000"));
    // What is refused is set back in both places.
    update(&["--pids-limit", "55", "--cpuset-cpus", "4000"]).failure();
    assert_eq!((&*property(&c, "TasksMax"), &*file(&c, "pids.max")), ("44", "44"));
    let cpus = format!("{}/cpuset.cpus", directory(&c, "cpuset"));
    if unified() && Path::new(&cpus).exists() {
        let all = file(&c, "cpuset.cpus.effective");
        update(&["--cpuset-cpus", "0", "--cpuset-mems", "4000"]).failure();
        // Some kernels take no empty list while there are processes.
        for list in [property(&c, "AllowedCPUs"), file(&c, "cpuset.cpus")] {
            assert!(list.is_empty() || list == all, "{list}, {all}");
        }
    }
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn devices_stay_denied_when_systemd_reloads() {
    let c = scope()
        .with_capabilities(&["CAP_MKNOD", "CAP_SYSLOG"])
        .script("mknod /dev/log c 1 11; echo made; exec sleep 1000")
        .start();
    until("the node is there", || c.output() == "made\n");
    let opens = || c.exec(["sh", "-c", ": < /dev/log"]).status == 0;
    assert!(!opens());
    systemctl(&["daemon-reload"]);
    assert!(!opens());
    c.exec(["sh", "-c", ": < /dev/null"]).success();
}

/// systemd has no list of what is denied: what it leaves is less than the rules allow, never more.
#[test]
#[ignore = "needs systemd: make test-vm"]
fn a_device_that_is_an_exception_stays_denied_when_systemd_reloads() {
    let c = scope()
        .with_capabilities(&["CAP_MKNOD", "CAP_SYSLOG"])
        .resources(json!({ "devices": [
            { "allow": true, "access": "rwm" },
            { "allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm" }
        ] }))
        .script("mknod /dev/log c 1 11; mknod /dev/one c 195 1; echo made; exec sleep 1000")
        .start();
    until("the nodes are there", || c.output() == "made\n");
    let refused = |node: &str| refused(&c, node);
    assert!(refused("/dev/log") && !refused("/dev/one"));
    systemctl(&["daemon-reload"]);
    assert!(refused("/dev/log") && !refused("/dev/null"));
    c.exec(["mknod", "/dev/after", "c", "1", "11"]).success();
}

/// Whether the group's rules forbid to read the node; a device without a driver is another error.
fn refused(c: &Container, node: &str) -> bool {
    let done = c.exec(["sh", "-c", &format!(": < {node}")]);
    done.stderr.contains("Operation not permitted") && done.status != 0
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn devices_without_a_driver_stay_allowed_when_systemd_reloads() {
    let c = scope()
        .with_capabilities(&["CAP_MKNOD"])
        .resources(json!({ "devices": [
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 195, "access": "rwm" },
            { "allow": true, "type": "b", "major": 8, "access": "rm" }
        ] }))
        .script(
            "mknod /dev/one c 195 1; mknod /dev/disk b 8 1; mknod /dev/other b 65 1; echo made
            exec sleep 1000",
        )
        .start();
    until("the nodes are there", || c.output() == "made\n");
    let look = || ["/dev/one", "/dev/disk", "/dev/other"].map(|node| refused(&c, node));
    assert_eq!(look(), [false, false, true]);
    systemctl(&["daemon-reload"]);
    assert_eq!(look(), [false, false, true]);
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn an_idle_container_stays_idle_when_systemd_reloads() {
    let shares = json!({ "cpu": { "shares": 512, "idle": 1 } });
    let mut wanted = vec![shares];
    wanted.extend(unified().then(|| json!({ "unified": { "cpu.idle": "1" } })));
    for resources in wanted {
        let c = scope().resources(resources).start();
        let update = |options: &[&str]| c.rt([&["update", &c.id], options].concat()).run();
        assert_eq!(file(&c, "cpu.idle"), "1");
        systemctl(&["daemon-reload"]);
        assert_eq!(file(&c, "cpu.idle"), "1");
        update(&["--cpu-quota", "20000"]).success();
        assert_eq!(file(&c, "cpu.idle"), "1");
        update(&["--cpu-share", "300", "--cpuset-cpus", "4000"]).failure();
        assert_eq!(file(&c, "cpu.idle"), "1");
        update(&["--cpu-idle", "0"]).success();
        assert_eq!(file(&c, "cpu.idle"), "0");
        systemctl(&["daemon-reload"]);
        assert_eq!(file(&c, "cpu.idle"), "0");
    }
}

/// Without the scheduler BFQ version 2 has another weight, and version 1 has none.
#[test]
#[ignore = "needs systemd: make test-vm"]
fn the_weight_of_disks_stays_when_systemd_reloads() {
    for bfq in [false, true] {
        // A kernel that has no modules has it or not.
        let _ = Command::new("modprobe").args(bfq.then_some("bfq")).output().unwrap();
        let c = scope().start();
        let (controller, files) = match unified() {
            true => ("io", ["io.bfq.weight", "io.weight"]),
            false => ("blkio", ["blkio.bfq.weight", "blkio.weight"]),
        };
        let place = directory(&c, controller);
        let there = files.iter().find(|name| Path::new(&place).join(name).exists());
        let update = |weight: &str| c.rt(["update", &c.id, "--blkio-weight", weight]).run();
        let Some(name) = there else {
            update("150").says(&["linux.resources.blockIO.weight"]);
            continue;
        };
        update("150").success();
        let weight = file(&c, name);
        let expected = ["150", "default 150", "default 1415"];
        assert!(expected.contains(&&*weight), "{name}: {weight}");
        systemctl(&["daemon-reload"]);
        assert_eq!(file(&c, name), weight);
        // What is refused is set back in both places.
        let change = ["update", &c.id, "--blkio-weight", "60", "--cpuset-cpus", "4000"];
        c.rt(change).run().says(&["linux.resources.cpu.cpus"]);
        assert_eq!(file(&c, name), weight);
        systemctl(&["daemon-reload"]);
        assert_eq!(file(&c, name), weight);
    }
}

/// Those that it does not know of go with the last container in them, the others when it says so.
#[test]
#[ignore = "needs systemd: make test-vm"]
fn slices_are_left_to_systemd_alone() {
    let bundle = scope().args(["true"]);
    let slice =
        format!("rttest-b{}.slice", bundle.mark().replace(|c: char| !c.is_ascii_digit(), ""));
    let path = format!("{slice}:rt:{}", bundle.id());
    bundle.config(|c| c["linux"]["cgroupsPath"] = path.into()).run().success();
    systemctl(&["stop", &slice]);
    let found = Command::new("find").args(["/sys/fs/cgroup", "-name", &slice]).output().unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn annotations_are_properties() {
    let annotate = |name: &str, value: &str| {
        let key = format!("org.systemd.property.{name}");
        scope().config(|c| c["annotations"] = json!({ key: value }))
    };
    let c = annotate("TimeoutStopSec", "uint64 17").start();
    assert_eq!(property(&c, "TimeoutStopUSec"), "17s");
    let c = annotate("Description", "'a name'").start();
    assert_eq!(property(&c, "Description"), "a name");
    let c = annotate("AllowedCPUs", "@ay [0x01]").start();
    assert_eq!(property(&c, "AllowedCPUs"), "0");
    annotate("CollectMode", "nonsense").refused().says(&["org.systemd.property.CollectMode"]);
    annotate("NoSuchProperty", "true").refused().says(&["NoSuchProperty"]);
}

/// The scope has the limits as properties, the group in it as files; what is delegated has none.
#[test]
#[ignore = "needs systemd: make test-vm"]
fn a_container_can_be_in_a_group_within_its_scope() {
    let annotations = json!({ "run.oci.systemd.subgroup": "payload",
        "run.oci.delegate-cgroup": "own" });
    let bundle = scope().config(|c| c["annotations"] = annotations);
    if !unified() {
        bundle.refused().one_line().says(&["run.oci.systemd.subgroup", "cgroup v2"]);
        return;
    }
    let c = bundle.resources(json!({ "pids": { "limit": 33 } })).start();
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    assert!(groups.trim().ends_with(&format!("/{}/payload/own", unit(&c))), "{groups}");
    assert_eq!(property(&c, "TasksMax"), "33");
    assert_eq!(file(&c, "payload/pids.max"), "33");
    assert_eq!(file(&c, "payload/own/pids.max"), "max");
    c.exec(["true"]).success();
    c.kill("KILL");
    assert_eq!(c.wait(), 128 + 9);
    c.delete();
    assert_eq!(property(&c, "LoadState"), "not-found");
    c.bundle.leftovers().assert_none_since();
}

/// The image has a user who may have a manager of his own.
#[test]
#[ignore = "needs systemd: make test-vm"]
fn a_users_container_is_a_scope_of_his_own_manager() {
    systemctl(&["start", &format!("user@{}.service", user::OF_GUEST)]);
    let bundle = || {
        Bundle::busybox()
            .of_user_of_guest()
            .global_options(&["--systemd-cgroup"])
            .args(["sleep", "1000"])
    };
    let limit = json!({ "pids": { "limit": 33 } });
    if !unified() {
        // Version 1 cannot be delegated.
        bundle()
            .resources(limit.clone())
            .refused()
            .one_line()
            .says(&["linux.resources.pids.limit"]);
    }
    let c = if unified() { bundle().resources(limit).start() } else { bundle().start() };
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    let path = format!("/user@{}.service/user.slice/{}", user::OF_GUEST, unit(&c));
    let scope = groups
        .lines()
        .find_map(|line| line.splitn(3, ':').nth(2).filter(|group| group.ends_with(&path)));
    let scope = scope.unwrap_or_else(|| panic!("{path} is not in {groups}"));
    if unified() {
        let limit = fs::read_to_string(format!("/sys/fs/cgroup{scope}/pids.max")).unwrap();
        assert_eq!(limit, "33\n");
        c.rt(["update", &c.id, "--pids-limit", "44"]).run().success();
        let limit = fs::read_to_string(format!("/sys/fs/cgroup{scope}/pids.max")).unwrap();
        assert_eq!(limit, "44\n");
    }
    c.exec(["true"]).success();
    c.kill("KILL");
    until("it has stopped", || c.status() == "stopped");
    c.delete();
    c.bundle.leftovers().assert_none_since();
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn a_scope_that_ran_out_of_memory_is_not_remembered() {
    let c = scope()
        .resources(json!({ "memory": { "limit": 8 << 20, "swap": 8 << 20 } }))
        .mount(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }))
        .args(["dd", "if=/dev/zero", "of=/tmp/full", "bs=1M", "count=64"])
        .start();
    assert_eq!(c.wait(), 137);
    c.delete();
    until("the scope is gone", || property(&c, "LoadState") == "not-found");
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn a_scope_can_be_paused() {
    let c = scope().start();
    c.rt(["pause", &c.id]).run().success();
    assert_eq!(c.status(), "paused");
    c.rt(["resume", &c.id]).run().success();
    assert_eq!(c.status(), "running");
    c.rt(["pause", &c.id]).run().success();
    c.delete_force();
    assert_eq!(property(&c, "LoadState"), "not-found");
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn little_memory_and_a_single_process_are_enough() {
    let bundle = scope().args(["echo", "small"]);
    let limits = json!({ "memory": { "limit": 512 << 10 }, "pids": { "limit": 1 } });
    assert_eq!(bundle.resources(limits).run().success().stdout, "small\n");
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn a_second_container_of_a_scope_is_refused() {
    let c = scope().start();
    let path = format!("rttest-a.slice:rt:{}", c.id);
    let other = scope().config(|config| config["linux"]["cgroupsPath"] = path.into());
    other.refused().says(&["not empty"]);
    assert_eq!(c.status(), "running");
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn a_path_that_names_no_scope_is_refused() {
    for path in ["/a/b", "a:b", "noslice:rt:x", "a--b.slice:rt:x"] {
        scope()
            .config(|c| c["linux"]["cgroupsPath"] = path.into())
            .refused()
            .says(&["linux.cgroupsPath"]);
    }
}

/// The runtime where systemd's own socket is hidden, and the bus too if that is asked for.
fn hidden(c: &Bundle, hide: &[&str], args: &[&str]) -> Done {
    let mounts: Vec<String> =
        hide.iter().map(|place| format!("mount -t tmpfs tmpfs {place} && ")).collect();
    let script = format!("{}exec \"$@\"", mounts.concat());
    c.rt(args).between(&["unshare", "-m", "sh", "-c", &script, "sh"]).run()
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn only_create_update_and_delete_ask_systemd() {
    let c = scope().start();
    let both = ["/run/systemd", "/run/dbus"];
    for args in [
        &["state", &*c.id][..],
        &["exec", &c.id, "true"],
        &["ps", "-f", "json", &c.id],
        &["kill", &c.id, "USR1"],
    ] {
        hidden(&c.bundle, &both, args).success();
    }
    let done = hidden(&c.bundle, &both, &["update", &c.id, "--pids-limit", "7"]);
    done.says(&["D-Bus", "No such file"]);
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn the_message_bus_does_as_well() {
    let bundle = scope();
    bundle.write();
    let (path, id) = (bundle.path().display().to_string(), bundle.id());
    let pid_file = bundle.beside("pid").display().to_string();
    let create = ["--systemd-cgroup", "create", "--bundle", &path, "--pid-file", &pid_file, &id];
    hidden(&bundle, &["/run/systemd"], &create).success();
    let c = Container::of(bundle);
    assert_eq!(property(&c, "ActiveState"), "active");
    hidden(&c.bundle, &["/run/systemd"], &["update", &c.id, "--pids-limit", "7"]).success();
    assert_eq!(property(&c, "TasksMax"), "7");
    hidden(&c.bundle, &["/run/systemd"], &["delete", "--force", &c.id]).success();
    assert_eq!(property(&c, "LoadState"), "not-found");
}

#[test]
#[ignore = "needs systemd: make test-vm"]
fn the_tests_of_limits_make_use_of_systemd() {
    assert!(crate::cgroups::has_systemd());
}

#[test]
fn without_systemd_there_is_a_clear_error() {
    let bundle = scope();
    bundle.write();
    let path = bundle.path().display().to_string();
    // Where it runs, it is hidden.
    let places =
        ["/run/systemd", "/run/dbus"].map(|place| Path::new(place).exists().then_some(place));
    let places: Vec<_> = places.into_iter().flatten().collect();
    let create = ["--systemd-cgroup", "create", "--bundle", &path, &bundle.id()];
    hidden(&bundle, &places, &create).says(&["--systemd-cgroup", "D-Bus"]);
}
