//! Labels of security modules. Profiles of AppArmor need a kernel that has it: `make test-vm` runs
//! their tests in a guest.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::harness::{ALL_CAPABILITIES, Bundle, Container, reap, until};

/// A profile in the kernel, which may do anything but write to `/tmp/forbidden`.
struct Profile(String);

impl Profile {
    fn load(name: &str) -> Self {
        let name = format!("rt-test-{}-{name}", std::process::id());
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{
                file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, dbus,
                change_profile -> **,
                deny /tmp/forbidden w,
            }}\n"
        );
        parser("--replace", &text);
        Self(name)
    }

    fn enforced(&self) -> String {
        format!("{} (enforce)\n", self.0)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        parser("--remove", &format!("profile {} {{ }}\n", self.0));
    }
}

fn parser(verb: &str, text: &str) {
    let mut parser = Command::new("apparmor_parser");
    let parser = parser.args([verb, "--skip-cache"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut running = parser.spawn().unwrap();
    running.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(running.wait().unwrap().success(), "apparmor_parser {verb}: {text}");
}

fn under(profile: &Profile, bundle: Bundle) -> Bundle {
    let name = profile.0.clone();
    bundle.config(|c| c["process"]["apparmorProfile"] = name.into())
}

/// What the host sees init run under.
fn of_init(c: &Container) -> String {
    fs::read_to_string(format!("/proc/{}/attr/apparmor/current", c.pid())).unwrap()
}

const OWN: [&str; 2] = ["cat", "/proc/self/attr/apparmor/current"];

#[test]
#[ignore = "needs AppArmor: make test-vm"]
fn a_profile_holds_for_init_and_for_exec() {
    let profile = Profile::load("holds");
    for new_privileges in [true, false] {
        for user in [0, 7] {
            let bundle = Bundle::busybox().writable().directory("/tmp").config(|c| {
                c["process"]["noNewPrivileges"] = (!new_privileges).into();
                c["process"]["user"]["uid"] = user.into();
                c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls":
                    [{ "names": ["openat2", "acct"], "action": "SCMP_ACT_ERRNO" }] });
            });
            let c = under(&profile, bundle).args(["sleep", "1000"]).start();
            assert_eq!(of_init(&c), profile.enforced());
            assert_eq!(c.exec(OWN).success().stdout, profile.enforced());
            c.exec(["sh", "-c", "echo x > /tmp/allowed"]).success();
            c.exec(["sh", "-c", "echo x > /tmp/forbidden"]).failure();
        }
    }
}

#[test]
#[ignore = "needs AppArmor: make test-vm"]
fn a_profile_holds_in_a_user_namespace() {
    let profile = Profile::load("user");
    let c = under(&profile, Bundle::busybox().user_namespace()).args(["sleep", "1000"]).start();
    assert_eq!(of_init(&c), profile.enforced());
    assert_eq!(c.exec(OWN).success().stdout, profile.enforced());
}

#[test]
#[ignore = "needs AppArmor: make test-vm"]
fn exec_chooses_another_profile_or_keeps_that_of_the_container() {
    let (one, other) = (Profile::load("one"), Profile::load("other"));
    let c = under(&one, Bundle::busybox()).args(["sleep", "1000"]).start();
    assert_eq!(c.exec_with(&["--apparmor", &other.0], OWN).success().stdout, other.enforced());
    let process = json!({ "cwd": "/", "args": OWN, "env": ["PATH=/bin"],
        "user": { "uid": 0, "gid": 0 } });
    let file = c.bundle().beside("process.json");
    fs::write(&file, process.to_string()).unwrap();
    let done = c.exec_with(&["--process", file.to_str().unwrap()], [""; 0]);
    assert_eq!(done.success().stdout, one.enforced());
    c.exec_with(&["--apparmor", "rt-test-no-such"], OWN).failure().says(&["apparmorProfile"]);
}

#[test]
#[ignore = "needs AppArmor: make test-vm"]
fn a_profile_that_is_not_loaded_is_refused() {
    let bundle = Bundle::busybox().config(|c| {
        c["process"]["apparmorProfile"] = "rt-test-no-such".into();
    });
    bundle.refused().one_line().says(&["process.apparmorProfile", "rt-test-no-such"]);
}

/// Init and a process that joins it run under the profile, or do not run.
#[track_caller]
fn assert_under(profile: &Profile, bundle: Bundle) {
    let Ok(c) = under(profile, bundle).try_start() else { return };
    assert_eq!(of_init(&c), profile.enforced(), "started without its label");
    until("it has done what it does", || c.output().contains("ready"));
    let file = c.bundle().beside("pid");
    let options = ["--detach", "--pid-file", file.to_str().unwrap()];
    if c.exec_with(&options, ["sleep", "1000"]).status == 0 {
        let pid: i32 = fs::read_to_string(&file).unwrap().parse().unwrap();
        let label = fs::read_to_string(format!("/proc/{pid}/attr/apparmor/current")).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        reap(pid, Duration::from_secs(10));
        assert_eq!(label, profile.enforced(), "joined without its label");
    }
}

const READY: &str = "echo ready; exec sleep 1000";

/// CVE-2019-16884, CVE-2025-52881 (runc), CVE-2025-62596 (youki): the label is written to a file
/// of the attacker's, or to a harmless one of procfs. By its own name `/proc` cannot be covered.
#[test]
#[ignore = "needs AppArmor: make test-vm"]
fn a_mount_in_the_place_of_the_attributes_does_not_take_the_label() {
    let profile = Profile::load("redirect");
    let linked = || Bundle::busybox().link("/cover", "/proc");
    let bundle = linked().directory("/proc/self/attr/apparmor");
    let fake = bundle.beside("fake");
    fs::create_dir_all(fake.join("self/attr/apparmor")).unwrap();
    fs::write(fake.join("self/attr/apparmor/exec"), "").unwrap();
    let covered = bundle.mount(json!({ "destination": "/cover", "type": "bind", "source": fake,
        "options": ["rbind", "rw"] }));
    assert_under(&profile, covered.script(READY));
    let empty = json!({ "destination": "/cover", "type": "tmpfs", "source": "tmpfs" });
    assert_under(&profile, linked().mount(empty).script(READY));
    for attribute in ["apparmor/exec", "exec"] {
        for source in ["/proc/self/sched", "/proc/sys/kernel/domainname"] {
            let destination = format!("/cover/self/attr/{attribute}");
            let mount = json!({ "destination": destination, "type": "bind", "source": source,
                "options": ["bind", "rw"] });
            assert_under(&profile, linked().mount(mount).script(READY));
        }
    }
}

/// The same by the payload, against `exec`.
#[test]
#[ignore = "needs AppArmor: make test-vm"]
fn a_payload_that_covers_proc_does_not_take_the_label_of_exec() {
    let profile = Profile::load("covered");
    for cover in [
        "mount -t tmpfs none /proc && mkdir -p /proc/self/attr/apparmor && \
            >/proc/self/attr/apparmor/exec",
        "mount --bind /proc/1/sched /proc/self/attr/apparmor/exec",
        "mount --bind /proc/1/sched /proc/thread-self/attr/exec",
    ] {
        let bundle = Bundle::busybox().with_capabilities(ALL_CAPABILITIES);
        assert_under(&profile, bundle.script(&format!("{cover}; {READY}")));
    }
}

/// Labels that no kernel has, by their place in the configuration.
const LABELS: [(&str, &str, &str); 3] = [
    ("process", "apparmorProfile", "rt-test-no-such"),
    ("process", "apparmorProfile", "unconfined_but_not_that"),
    ("process", "selinuxLabel", "system_u:system_r:rt_no_such_t:s0"),
];

#[test]
fn a_label_that_nobody_acts_on_is_refused() {
    for verb in ["create", "run"] {
        for (object, key, label) in LABELS {
            let bundle = Bundle::busybox().args(["echo", "ran"]);
            let bundle = bundle.config(|c| c[object][key] = label.into());
            let done = bundle.launch(&[verb], &bundle.id()).run();
            assert!(!done.stdout.contains("ran"), "{done}");
            done.one_line().says(&[&format!("{object}.{key}"), label]);
        }
    }
}

/// With lsm_list_modules(2) it is known nevertheless; without it nothing tells.
#[test]
fn a_label_is_refused_where_sys_is_hidden() {
    let hide = "for place in kernel module fs; do
            mount -t tmpfs none /sys/$place 2>/dev/null
        done; [ ! -e /sys/module/apparmor ] && exec \"$@\"";
    for (object, key, label) in LABELS {
        let bundle = Bundle::busybox().args(["echo", "ran"]);
        // The cgroups stand below one of the places: they are left out.
        let bundle = bundle.config(|c| c["linux"]["resources"] = json!({}));
        let bundle = bundle.config(|c| c[object][key] = label.into());
        let bundle = bundle.global_options(&["--cgroup-manager", "disabled"]);
        let bundle = bundle.behind(&["unshare", "-m", "sh", "-c", hide, "sh"]);
        let done = bundle.launch(&["run"], &bundle.id()).run();
        assert!(!done.stdout.contains("ran"), "{done}");
        done.one_line().says(&[&format!("{object}.{key}")]);
    }
}

#[test]
fn an_empty_label_is_none() {
    let bundle = Bundle::busybox().args(["echo", "ran"]).config(|c| {
        c["process"]["apparmorProfile"] = "".into();
        c["process"]["selinuxLabel"] = "".into();
        c["linux"]["mountLabel"] = "".into();
    });
    let done = bundle.run().success();
    assert_eq!((&*done.stdout, &*done.stderr), ("ran\n", ""));
}

/// What is mounted without it is no less confined.
#[test]
fn a_label_of_file_systems_is_left_out_with_a_warning_where_there_is_no_selinux() {
    if fs::exists("/sys/fs/selinux").unwrap() {
        return;
    }
    let label = "system_u:object_r:container_file_t:s0";
    let bundle = Bundle::busybox().args(["echo", "ran"]);
    let done = bundle.config(|c| c["linux"]["mountLabel"] = label.into()).run().success();
    assert_eq!(done.stdout, "ran\n");
    let lines: Vec<_> = done.stderr.lines().collect();
    let begins = "rt: warning: linux.mountLabel";
    assert!(lines.len() == 1 && lines[0].starts_with(begins), "{done}");
}
