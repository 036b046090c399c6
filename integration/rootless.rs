//! Ordinary users: the whole life of a container, and one line for what they cannot have.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Bundle, Done, Rt, View, proc_status, until, user};

fn sleeper() -> Bundle {
    Bundle::busybox().args(["sleep", "1000"]).of_user()
}

fn shell(script: &str) -> Bundle {
    Bundle::busybox().script(script).of_user()
}

/// A refusal is one line, and nothing is left without any `delete`.
#[track_caller]
fn assert_refused(bundle: Bundle, words: &[&str]) {
    bundle.refused().one_line().says(words);
}

#[test]
fn an_ordinary_users_container_has_the_whole_life() {
    let c = sleeper().create();
    assert_eq!(c.status(), "created");
    assert_eq!(c.exec(["id", "-u"]).success().stdout, "0\n", "exec before start");
    c.start();
    assert_eq!(c.status(), "running");
    assert_eq!(proc_status(c.pid(), "Uid"), [user::ID.to_string().as_str(); 4].join("\t"));
    let seen = c.exec(["sh", "-c", "cat /proc/self/uid_map /proc/1/comm; hostname"]).success();
    let seen: Vec<_> = seen.stdout.split_whitespace().collect();
    assert_eq!(seen, ["0", "65533", "1", "sleep", "box"]);
    let list = c.rt(["list", "--quiet"]).run().success();
    assert_eq!(list.stdout.trim(), c.id);
    c.kill("KILL");
    until("it has stopped", || c.status() == "stopped");
    c.delete();
    assert!(c.rt(["list", "--quiet"]).run().success().stdout.is_empty());
}

#[test]
fn an_ordinary_user_may_run_it_in_the_foreground_and_gets_its_status() {
    let done = shell("echo out; echo err >&2; exit 7").run();
    assert_eq!((done.status, &*done.stdout, &*done.stderr), (7, "out\n", "err\n"));
}

#[test]
fn exec_passes_the_status_on_and_sees_the_same_namespaces() {
    let c = sleeper().start();
    assert_eq!(c.exec(["sh", "-c", "exit 5"]).status, 5);
    for kind in ["pid", "ipc", "uts", "mnt", "user", "net", "cgroup", "time"] {
        let link = c.exec(["ls", "-l", &format!("/proc/self/ns/{kind}")]).success().stdout;
        let init = c.exec(["ls", "-l", &format!("/proc/1/ns/{kind}")]).success().stdout;
        let target = |line: &str| line.split(" -> ").last().unwrap().to_owned();
        assert_eq!(target(&link), target(&init), "{kind}");
    }
}

#[test]
fn the_state_is_in_the_users_runtime_directory() {
    let bundle = sleeper();
    bundle.write();
    let program = bundle.beside("rt");
    let runtime_dir = bundle.beside("state");
    fs::create_dir(&runtime_dir).unwrap();
    chown(&runtime_dir, Some(user::ID), Some(user::ID)).unwrap();
    let id = bundle.id();
    let rt = |words: &[&str]| -> Done {
        let set = format!("XDG_RUNTIME_DIR={}", runtime_dir.display());
        Rt::bare(words).program(&program).between(&["env", &set]).between(user::PLAIN).run()
    };
    let directory = bundle.path().display().to_string();
    rt(&["run", "--detach", "--bundle", &directory, &id]).success();
    assert!(runtime_dir.join("rt").join(&id).join("state.json").exists());
    assert_eq!(rt(&["list", "--quiet"]).success().stdout.trim(), id);
    rt(&["delete", "--force", &id]).success();
    fs::remove_dir_all(&runtime_dir).unwrap();
}

#[test]
fn without_a_runtime_directory_the_user_is_told() {
    let between = ["env", "-u", "XDG_RUNTIME_DIR"];
    let bundle = sleeper();
    let rt = Rt::bare(["state", "x"]).program(&bundle.beside("rt")).between(&between);
    rt.between(user::PLAIN).run().one_line().says(&["XDG_RUNTIME_DIR"]);
    // Nor does everything need one.
    let rt = Rt::bare(["features"]).program(&bundle.beside("rt")).between(&between);
    rt.between(user::PLAIN).run().success();
}

#[test]
fn what_spec_rootless_writes_runs() {
    let bundle = shell("true");
    let directory = bundle.path();
    bundle.rt(["spec", "--rootless", "--bundle", &directory.display().to_string()]).run().success();
    let file = directory.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(config["linux"]["uidMappings"][0]["hostID"], user::ID);
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", "id -u; cat /proc/self/setgroups"]);
    let done = bundle.config(|c| *c = config).run().success();
    assert_eq!(done.stdout, "0\ndeny\n");
}

#[test]
fn a_single_id_need_not_become_root() {
    let done =
        shell("id -u; id -g; test -c /dev/null && echo x >/dev/null && cat /proc/self/uid_map")
            .maps(&[[1000, user::ID, 1]])
            .config(|c| c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }))
            .run()
            .success();
    let words: Vec<_> = done.stdout.split_whitespace().collect();
    assert_eq!(words, ["1000", "1000", "1000", "65533", "1"]);
}

#[test]
fn subordinate_ids_are_mapped_by_the_helpers() {
    let c = Bundle::busybox()
        .args(["sleep", "1000"])
        .of_user_with_more_ids()
        .config(|c| {
            c["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 7] });
        })
        .start();
    assert_eq!(proc_status(c.pid(), "Uid").split('\t').next(), Some("200999"));
    assert_eq!(c.exec(["id"]).success().stdout, "uid=1000 gid=1000 groups=5,7\n");
    let map = fs::read_to_string(format!("/proc/{}/uid_map", c.pid())).unwrap();
    let map: Vec<_> = map.split_whitespace().collect();
    assert_eq!(map, ["0", "65533", "1", "1", "200000", "65535"]);
    c.kill("TERM");
    c.kill("KILL");
    until("it has stopped", || c.status() == "stopped");
}

#[test]
fn ids_that_are_not_his_are_refused() {
    let more = || Bundle::busybox().of_user_with_more_ids();
    for map in [[0, 0, 1], [0, 199_999, 2], [0, 200_000, 65_537], [0, 100, 1]] {
        assert_refused(more().maps(&[map]), &["linux.uidMappings", "newuidmap", "not allowed"]);
    }
}

#[test]
fn without_the_helpers_a_user_has_one_id() {
    let bundle = sleeper().maps(&user::MORE_IDS).through(&["env", "PATH=/nowhere"]);
    assert_refused(bundle, &["linux.uidMappings", "newuidmap"]);
}

#[test]
fn groups_cannot_be_set_with_one_id() {
    let bundle = sleeper().config(|c| c["process"]["user"]["additionalGids"] = json!([0]));
    assert_refused(bundle, &["process.user.additionalGids"]);
}

#[test]
fn a_user_namespace_is_required() {
    assert_refused(
        sleeper().without_namespace("user").config(|c| {
            let linux = c["linux"].as_object_mut().unwrap();
            linux.remove("uidMappings");
            linux.remove("gidMappings");
        }),
        &["linux.namespaces", "user namespace"],
    );
}

#[test]
fn namespaces_of_others_cannot_be_joined() {
    let of_root = Bundle::busybox().args(["sleep", "1000"]).start();
    for (kind, link) in [("network", "net"), ("ipc", "ipc"), ("pid", "pid"), ("uts", "uts")] {
        let bundle = sleeper().joins(kind, &of_root.namespace(link)).config(|c| {
            c.as_object_mut().unwrap().remove("hostname");
        });
        assert_refused(bundle, &["linux.namespaces["]);
    }
}

#[test]
fn namespaces_of_an_own_container_can_be_joined() {
    let donor = sleeper().start();
    let kinds = [("user", "user"), ("pid", "pid"), ("ipc", "ipc"), ("uts", "uts")];
    let c = kinds
        .into_iter()
        .fold(sleeper(), |bundle, (kind, link)| bundle.joins(kind, &donor.namespace(link)))
        .config(|c| {
            c.as_object_mut().unwrap().remove("hostname");
        })
        .start();
    assert_eq!(c.exec(["cat", "/proc/1/comm"]).success().stdout, "sleep\n");
    let link = |c: &crate::harness::Container, kind| fs::read_link(c.namespace(kind)).unwrap();
    for (_, kind) in kinds {
        assert_eq!(link(&c, kind), link(&donor, kind), "{kind}");
    }
}

#[test]
fn a_network_of_his_own_has_loopback_and_its_sysctls() {
    let done =
        shell("ip -o address show lo; cat /proc/sys/net/ipv4/ip_forward; mount | grep sysfs")
            .config(|c| {
                c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "network" }));
                c["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
                for mount in c["mounts"].as_array_mut().unwrap() {
                    if mount["destination"] == "/sys" {
                        *mount =
                            json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs" });
                    }
                }
            })
            .run()
            .success();
    assert!(done.stdout.contains("127.0.0.1/8"), "{done}");
    assert!(done.stdout.contains("\n1\n"), "{done}");
}

#[test]
fn a_time_namespace_of_his_own_has_its_offsets() {
    let c = sleeper()
        .config(|c| {
            c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
            c["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1_000_000 } });
        })
        .start();
    let offsets = c.exec(["cat", "/proc/self/timens_offsets"]).success().stdout;
    assert!(offsets.lines().any(|line| line.starts_with("boottime") && line.contains("1000000")));
    let now: f64 = c
        .exec(["cat", "/proc/uptime"])
        .success()
        .stdout
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(now > 1e6, "{now}");
}

#[test]
fn limits_need_a_cgroup_that_is_his() {
    let limit = json!({ "pids": { "limit": 20 } });
    let bundle = sleeper().config(|c| c["linux"]["resources"] = limit);
    assert_refused(bundle, &["linux.resources.pids.limit", "delegated"]);
    let bundle = sleeper().config(|c| c["linux"]["cgroupsPath"] = json!("/rt-of-a-user"));
    assert_refused(bundle, &["linux.cgroupsPath", "delegated"]);
}

#[test]
fn without_a_cgroup_of_its_own_a_container_sees_the_callers_and_cannot_change_it() {
    for view in View::all() {
        let script = "mount | grep -c '/sys/fs/cgroup.* type cgroup'
            for group in /sys/fs/cgroup /sys/fs/cgroup/*; do
                test -e $group/cgroup.procs || continue
                mkdir $group/x && echo made $group/x
                echo $$ >$group/cgroup.procs && echo moved $group
            done 2>/dev/null; true";
        let done = Bundle::busybox().script(script).of_user().in_view(view).run().success();
        let shown = done.stdout.trim();
        assert!(shown.parse::<u32>().is_ok_and(|count| count > 0), "{view:?}: {done}");
    }
}

/// A version 2 group that is delegated to the user, with one in it for him to be in.
struct Delegated {
    group: PathBuf,
    /// As the view of version 2 shows it.
    seen: PathBuf,
}

impl Delegated {
    fn new() -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(" - cgroup2 "));
        let line = line.expect("these tests need a cgroup2 mount");
        let name = format!("rt-test-{}-user", std::process::id());
        let group = Path::new(line.split(' ').nth(4).unwrap()).join(&name);
        let caller = group.join("caller");
        fs::create_dir_all(&caller).unwrap();
        for group in [&group, &caller] {
            for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                chown(group.join(file), Some(user::ID), Some(user::ID)).unwrap();
            }
        }
        let seen = Path::new("/sys/fs/cgroup").join(name).join("caller");
        Self { group, seen }
    }

    /// Starts what follows in the group.
    fn enter(&self) -> Vec<String> {
        let script = format!("echo $$ >{}/cgroup.procs; exec \"$@\"", self.seen.display());
        ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.group.join("caller"));
        let _ = fs::remove_dir(&self.group);
    }
}

#[test]
fn in_a_delegated_group_a_users_container_has_a_group_of_its_own() {
    let delegated = Delegated::new();
    let enter = delegated.enter();
    let enter: Vec<_> = enter.iter().map(String::as_str).collect();
    let mut limits = json!({ "unified": { "cgroup.max.depth": "3" } });
    // Version 2 has it in the guests.
    let controllers = delegated.group.join("cgroup.controllers");
    let has_pids = fs::read_to_string(controllers).unwrap().split_whitespace().any(|c| c == "pids");
    if has_pids {
        limits["pids"] = json!({ "limit": 20 });
    }
    let bundle = sleeper().in_view(View::V2).behind(&enter);
    let c = bundle.config(|c| c["linux"]["resources"] = limits).start();
    let group = delegated.group.join(&c.id);
    if has_pids {
        assert_eq!(fs::read_to_string(group.join("pids.max")).unwrap(), "20\n");
    }
    let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    assert_eq!(pids.trim(), c.pid().to_string());
    assert_eq!(fs::read_to_string(group.join("cgroup.max.depth")).unwrap(), "3\n");
    let inside = c.exec(["cat", "/proc/self/cgroup"]).success().stdout;
    assert!(inside.trim_end().ends_with(&c.id), "exec is in the group too: {inside}");
    c.rt(["kill", "--all", &c.id, "KILL"]).run().success();
    until("it has stopped", || c.status() == "stopped");
    c.delete();
    assert!(!group.exists());
}

#[test]
fn kill_all_without_a_cgroup_ends_the_pid_namespace() {
    let c = sleeper().start();
    c.rt(["kill", "--all", &c.id, "KILL"]).run().success();
    until("it has stopped", || c.status() == "stopped");
}

#[test]
fn the_oom_score_may_be_raised_and_not_lowered() {
    let score = |score: i32| move |c: &mut Value| c["process"]["oomScoreAdj"] = json!(score);
    let c = sleeper().config(score(300)).start();
    let shown = c.exec(["cat", "/proc/1/oom_score_adj", "/proc/self/oom_score_adj"]).success();
    assert_eq!(shown.stdout, "300\n300\n");
    assert_refused(sleeper().config(score(-900)), &["process.oomScoreAdj"]);
}

#[test]
fn a_hard_limit_may_not_be_raised() {
    let limit = json!([{ "type": "RLIMIT_NPROC", "hard": u64::MAX, "soft": 10 }]);
    let bundle = sleeper().config(|c| c["process"]["rlimits"] = limit);
    let bundle = bundle.behind(&["prlimit", "--nproc=5000:5000"]);
    assert_refused(bundle, &["process.rlimits[0]", "RLIMIT_NPROC"]);
}

#[test]
fn mounts_with_ids_that_are_not_mapped_are_refused() {
    let bundle = sleeper().mount(json!({ "destination": "/x", "type": "tmpfs", "source": "tmpfs",
        "options": ["gid=5"] }));
    assert_refused(bundle, &["gid=5", "not mapped"]);
}

#[test]
fn what_runs_in_a_users_container_is_a_sealed_copy() {
    let c = sleeper().create();
    let image = fs::read_link(format!("/proc/{}/exe", c.pid())).unwrap();
    assert!(image.to_string_lossy().starts_with("/memfd:rt"), "{}", image.display());
}

#[test]
fn devices_are_the_hosts() {
    let script = "for d in null zero full tty urandom random; do stat -c '%n %t,%T' /dev/$d; done
        echo x >/dev/null && head -c 1 /dev/zero | od -An -tx1";
    let done = shell(script).run().success();
    let lines: Vec<_> = done.stdout.lines().map(str::trim).collect();
    assert_eq!(lines[0], "/dev/null 1,3");
    assert_eq!(lines[6], "00");
}

/// podman and others run the runtime as root of a user namespace of theirs.
#[test]
fn root_of_a_user_namespace_runs_containers_without_another_one() {
    let names = ["unshare", "--user", "--map-root-user", "--"];
    let bundle = shell("id -u; test -c /dev/null && echo x >/dev/null; cat /proc/self/uid_map")
        .without_namespace("user")
        .config(|c| {
            let linux = c["linux"].as_object_mut().unwrap();
            linux.remove("uidMappings");
            linux.remove("gidMappings");
        });
    let done = bundle.through(&names).run().success();
    let words: Vec<_> = done.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "65533", "1"]);
}
