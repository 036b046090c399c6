//! Cgroups on every view of the host: created, entered, limited, removed.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Bundle, Container, View};

/// The file of a controller for this container's init, as the view shows it, or `None` where the
/// view has no such controller.
fn file(c: &Container, view: View, controller: &str, name: &str) -> Option<String> {
    let script = format!(
        "line=$(grep -E '^[0-9]+:([^:]*,)?{controller}(,[^:]*)?:' /proc/{pid}/cgroup)
        if [ \"$line\" ]; then
            dir=/sys/fs/cgroup/{controller}${{line##*:}}
        else
            line=$(grep '^0::' /proc/{pid}/cgroup)
            dir=/sys/fs/cgroup${{line##*:}}
            [ -e \"$dir/cgroup.procs\" ] || dir=/sys/fs/cgroup/unified${{line##*:}}
        fi
        cat \"$dir/{name}\"",
        pid = c.pid()
    );
    let done = view.command("sh").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    done.status.success().then(|| text.trim().to_owned())
}

/// Does the view show this controller? On v2 the names differ a little.
fn has(view: View, controller: &str) -> bool {
    let script = format!(
        "[ -e /sys/fs/cgroup/{controller}/cgroup.procs ] ||
        grep -qw {controller} /sys/fs/cgroup/cgroup.controllers"
    );
    view.command("sh").args(["-c", &script]).output().unwrap().status.success()
}

/// The v2 hierarchy is the only one: v1 files have other names.
fn is_v2(view: View) -> bool {
    let test = view.command("test").args(["-e", "/sys/fs/cgroup/cgroup.procs"]).status().unwrap();
    test.success()
}

fn sleeper(view: View) -> Bundle {
    Bundle::busybox().in_view(view).args(["sleep", "1000"])
}

/// With the controller the limit is in its file; without it `create` refuses and names the path.
#[track_caller]
fn assert_limit(controller: &str, resources: &Value, path: &str, [v1, v2]: [(&str, &str); 2]) {
    for view in View::all() {
        let bundle = sleeper(view).resources(resources.clone());
        if has(view, controller) {
            let c = bundle.start();
            let (name, value) = if is_v2(view) { v2 } else { v1 };
            let written = file(&c, view, controller, name).unwrap_or_default();
            assert!(value.split('|').any(|one| one == written), "{view:?} {name}: {written:?}");
        } else {
            bundle.refused().says(&[path]);
        }
    }
}

#[test]
fn a_container_has_a_cgroup_in_every_hierarchy_of_the_view_and_leaves_none() {
    for view in View::all() {
        let c = sleeper(view).start();
        let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
        let entered = text.lines().filter(|line| line.contains(&c.id)).count();
        let wanted = if is_v2(view) { 1 } else { text.lines().count() - 1 };
        assert!(entered >= wanted, "{view:?}:\n{text}");
        c.delete_force();
        c.bundle.leftovers().assert_none_since();
    }
}

#[test]
fn a_container_runs_on_every_view() {
    for view in View::all() {
        let done = Bundle::busybox().in_view(view).args(["echo", "hello"]).run().success();
        assert_eq!(done.stdout, "hello\n", "{view:?}");
    }
}

#[test]
fn exec_enters_the_cgroups_on_every_view() {
    for view in View::all() {
        let c = sleeper(view).start();
        let own = c.exec(["cat", "/proc/self/cgroup"]).success().stdout;
        let init = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
        assert_eq!(own, init, "{view:?}");
    }
}

#[test]
fn the_limit_of_pids_is_written() {
    let files = [("pids.max", "33"), ("pids.max", "33")];
    assert_limit("pids", &json!({ "pids": { "limit": 33 } }), "linux.resources.pids", files);
}

#[test]
fn the_limit_of_pids_holds() {
    for view in View::all().filter(|view| has(*view, "pids")) {
        let done = Bundle::busybox()
            .in_view(view)
            .resources(json!({ "pids": { "limit": 5 } }))
            .script("for n in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait")
            .run();
        assert!(done.stderr.contains("fork"), "{view:?}: {done}");
    }
}

#[test]
fn a_limit_of_one_pid_is_enough_to_start() {
    for view in View::all().filter(|view| has(*view, "pids")) {
        let bundle = Bundle::busybox().in_view(view).resources(json!({ "pids": { "limit": 1 } }));
        assert_eq!(bundle.args(["echo", "alone"]).run().success().stdout, "alone\n");
    }
}

#[test]
fn the_limit_of_memory_is_written() {
    let resources = json!({ "memory": { "limit": 16 << 20 } });
    let files = [("memory.limit_in_bytes", "16777216"), ("memory.max", "16777216")];
    assert_limit("memory", &resources, "linux.resources.memory", files);
}

#[test]
fn the_limit_of_memory_holds() {
    for view in View::all().filter(|view| has(*view, "memory")) {
        let done = Bundle::busybox()
            .in_view(view)
            .resources(json!({ "memory": { "limit": 8 << 20 } }))
            .mount(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }))
            .script("dd if=/dev/zero of=/tmp/full bs=1M count=64; echo survived")
            .run();
        assert!(!done.stdout.contains("survived") || done.stderr.contains("Killed"), "{done}");
    }
}

#[test]
fn half_a_megabyte_is_enough_to_start() {
    for view in View::all().filter(|view| has(*view, "memory")) {
        let bundle = Bundle::busybox().in_view(view);
        let bundle = bundle.resources(json!({ "memory": { "limit": 512 << 10 } }));
        assert_eq!(bundle.args(["echo", "small"]).run().success().stdout, "small\n");
    }
}

#[test]
fn the_shares_of_the_cpu_are_written() {
    // Two conversions are in use: runc's older one and the newer, which keeps 1024 at 100.
    let files = [("cpu.shares", "512"), ("cpu.weight", "20|59")];
    assert_limit("cpu", &json!({ "cpu": { "shares": 512 } }), "linux.resources.cpu", files);
}

#[test]
fn the_quota_of_the_cpu_is_written() {
    let resources = json!({ "cpu": { "quota": 20_000, "period": 50_000 } });
    let files = [("cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 50000")];
    assert_limit("cpu", &resources, "linux.resources.cpu", files);
}

#[test]
fn the_quota_of_the_cpu_holds() {
    for view in View::all().filter(|view| has(*view, "cpu")) {
        let script = "while :; do :; done & sleep 1; kill $!; cat /proc/$$/stat > /dev/null; times";
        let done = Bundle::busybox()
            .in_view(view)
            .resources(json!({ "cpu": { "quota": 10_000, "period": 100_000 } }))
            .script(&format!("{script}; wait; times"))
            .run();
        let last = done.stdout.lines().last().unwrap_or_default().to_owned();
        let user = last.split_whitespace().next().unwrap_or_default();
        let seconds = user.split_once('m').map(|(_, rest)| rest.trim_end_matches('s').to_owned());
        let seconds: f64 = seconds.unwrap_or_default().parse().unwrap_or(9.0);
        assert!(seconds < 0.5, "{view:?}: a tenth of a second was allowed\n{done}");
    }
}

#[test]
fn only_allowed_devices_can_be_opened() {
    for view in View::all() {
        let rules = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "r" }
        ]);
        let done = Bundle::busybox()
            .in_view(view)
            .resources(json!({ "devices": rules }))
            .with_capabilities(&["CAP_MKNOD"])
            .script(
                "cd /dev; mknod kmsg2 c 1 11; head -c 0 kmsg2 && echo kmsg
                mknod port2 c 1 4 && echo port; (: < port2) && echo open
                cat /dev/null && echo null; head -c 1 /dev/zero | wc -c; echo x > /dev/full",
            )
            .run();
        let text = format!("{}{}", done.stdout, done.stderr);
        assert!(!done.stdout.contains("kmsg"), "{view:?}: {done}");
        assert!(!done.stdout.contains("open"), "{view:?}: {done}");
        assert!(done.stdout.contains("null\n1\n"), "{view:?}: {done}");
        assert!(text.contains("Operation not permitted"), "{view:?}: {done}");
        assert!(text.contains("No space left"), "{view:?}: {done}");
    }
}

#[test]
fn an_allowed_device_can_be_opened_as_its_rule_says() {
    for view in View::all() {
        // 1:8 with its own name, writing forbidden: the default rules name /dev/random otherwise.
        let rules = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rm" }
        ]);
        let done = Bundle::busybox()
            .in_view(view)
            .resources(json!({ "devices": rules }))
            .with_capabilities(&["CAP_MKNOD", "CAP_SYSLOG"])
            .script(
                "cd /dev; mknod log c 1 11 || exit 1
                (: < log) && echo reads; (: > log) && echo writes; true",
            )
            .run()
            .success();
        assert_eq!(done.stdout, "reads\n", "{view:?}: {done}");
    }
}

#[test]
fn a_resource_that_is_not_supported_yet_is_refused_by_its_path() {
    for (resource, path) in [
        (json!({ "blockIO": { "weight": 100 } }), "linux.resources.blockIO"),
        (json!({ "network": { "classID": 7 } }), "linux.resources.network"),
        (json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] }), "hugepageLimits"),
        (json!({ "rdma": { "mlx5_1": { "hcaHandles": 3 } } }), "linux.resources.rdma"),
        (json!({ "unified": { "memory.high": "1000" } }), "linux.resources.unified"),
    ] {
        let done = Bundle::busybox().resources(resource).refused();
        done.says(&[path, "not yet supported"]);
    }
}

#[test]
fn the_cgroup_path_of_the_configuration_is_used() {
    for view in View::all() {
        let bundle = sleeper(view);
        let path = format!("/{}parent/{}child", bundle.mark(), bundle.mark());
        let c = bundle.config(|c| c["linux"]["cgroupsPath"] = path.clone().into()).start();
        let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
        assert!(text.lines().any(|line| line.ends_with(&path)), "{view:?}: {text}");
        c.delete_force();
        // The parent was not there before; runtimes may leave what they did not name, we clean it.
        let parent = format!("/{}parent", c.bundle.mark());
        let script =
            format!("find /sys/fs/cgroup -depth -type d -path '*{parent}*' -exec rmdir {{}} +");
        view.command("sh").args(["-c", &script]).output().unwrap();
    }
}

#[test]
fn a_cgroup_that_has_processes_is_refused() {
    for view in View::all() {
        let c = sleeper(view).start();
        let path = cgroup_path(&c, view);
        let other = sleeper(view).config(|c| c["linux"]["cgroupsPath"] = path.into());
        other.refused();
        assert_eq!(c.status(), "running");
    }
}

/// Where the container is in version 2, or in version 1's hierarchy of pids. In a private view of
/// version 2 the kernel lists the hierarchies of version 1 nevertheless.
fn cgroup_path(c: &Container, view: View) -> String {
    let mark = if is_v2(view) { "0::" } else { ":pids:" };
    let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    let path = text.lines().find_map(|line| Some(line.split_once(mark)?.1)).unwrap();
    assert!(path.len() > 1, "{path} is the root");
    path.to_owned()
}

#[test]
fn sub_cgroups_made_inside_are_removed_with_the_container() {
    for view in View::all() {
        let c = sleeper(view).start();
        let path = cgroup_path(&c, view);
        let top = if is_v2(view) { "" } else { "pids" };
        let script = format!("mkdir -p /sys/fs/cgroup/{top}{path}/one/two");
        assert!(view.command("sh").args(["-c", &script]).status().unwrap().success());
        c.kill("KILL");
        c.wait();
        c.delete();
        c.bundle.leftovers().assert_none_since();
    }
}
