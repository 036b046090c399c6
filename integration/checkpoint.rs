//! Checkpoints, and containers that go on from them. `CRIU` is the directory of a criu that works
//! on this kernel: `make test-criu` sees to it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::harness::inject::{Call, Fault, Traced, inject_alone, sweep_step, trace_alone};
use crate::harness::terminal::ConsoleSocket;
use crate::harness::{Bundle, Container, Rt, View, namespace_of, proc_status, reap, until};

/// Counts on a tmpfs of its own, with nothing of the host's open.
fn counting() -> Bundle {
    with_criu(Bundle::busybox().script(COUNT)).redirections("</dev/null >/dev/null 2>&1")
}

const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >/dev/shm/n; sleep 0.02; done";

fn with_criu(bundle: Bundle) -> Bundle {
    let place = std::env::var("CRIU").expect("CRIU is the directory of criu (make test-criu)");
    bundle.behind(&["env", &format!("PATH={place}:{}", std::env::var("PATH").unwrap())])
}

fn count(c: &Container) -> u32 {
    let path = format!("/proc/{}/root/dev/shm/n", c.pid());
    // It is empty for a moment each time.
    let mut count = None;
    until("it has counted", || {
        count = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        count.is_some()
    });
    count.unwrap()
}

#[track_caller]
fn has_begun(c: &Container) {
    until("it counts", || count(c) > 3);
}

#[track_caller]
fn goes_on(c: &Container) {
    let before = count(c);
    until("it goes on", || count(c) > before);
}

/// Counts to some number, is checkpointed, restored, and goes on from there.
#[track_caller]
fn survives(bundle: Bundle) -> Container {
    let mut c = bundle.start();
    has_begun(&c);
    c.checkpoint(&[]).success();
    c.restore(&[]);
    assert!(count(&c) > 3, "it has begun anew");
    goes_on(&c);
    c
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_container_goes_on_from_its_checkpoint() {
    let mut c = counting().start();
    has_begun(&c);
    let before = count(&c);
    c.checkpoint(&[]).success();
    let done = c.rt(["state", &c.id]).run();
    done.says(&["does not exist"]);
    c.restore(&[]);
    assert_eq!(c.status(), "running");
    assert!(count(&c) >= before);
    goes_on(&c);
    assert_eq!(c.exec(["echo", "inside"]).success().stdout, "inside\n");
    c.kill("KILL");
    c.wait();
    c.delete();
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_container_that_is_left_running_goes_on() {
    let c = counting().start();
    c.checkpoint(&["--leave-running", "--leave-running"]).success();
    assert_eq!(c.status(), "running");
    goes_on(&c);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_paused_container_is_checkpointed_and_stays_paused() {
    let c = counting().start();
    has_begun(&c);
    c.rt(["pause", &c.id]).run().success();
    c.checkpoint(&["--leave-running"]).success();
    assert_eq!(c.status(), "paused");
    c.rt(["resume", &c.id]).run().success();
    goes_on(&c);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn only_a_container_that_runs_has_a_checkpoint() {
    let c = counting().create();
    c.checkpoint(&[]).says(&["cannot be checkpointed in created state"]);
    c.start();
    c.kill("KILL");
    c.wait();
    c.checkpoint(&[]).says(&["cannot be checkpointed in stopped state"]);
    assert!(!c.bundle().beside("images").exists());
    c.rt(["checkpoint", "nobody"]).run().says(&["nobody: container does not exist"]);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_checkpoint_may_build_upon_one_of_the_memory_before() {
    let mut c = counting().start();
    has_begun(&c);
    let images = c.bundle().beside("images");
    fs::create_dir(&images).unwrap();
    let before = images.join("before").display().to_string();
    c.checkpoint(&["--parent-path", "/before"]).says(&["--parent-path /before: must be relative"]);
    c.checkpoint(&["--parent-path", "nowhere"]).says(&["invalid --parent-path nowhere"]);
    let done = c.rt(["checkpoint", "--pre-dump", "--image-path", &before, &c.id]).run();
    assert_eq!(c.status(), "running");
    goes_on(&c);
    // What a kernel without CONFIG_MEM_SOFT_DIRTY cannot do, which `criu check` knows.
    let criu = Path::new(&std::env::var("CRIU").unwrap()).join("criu");
    let known =
        Command::new(criu).args(["check", "--feature", "mem_dirty_track"]).output().unwrap();
    if !known.status.success() {
        done.says(&["criu failed: type PRE_DUMP", "Tracking memory is not available"]);
        return;
    }
    done.success();
    c.checkpoint(&["--parent-path", "before"]).success();
    c.restore(&[]);
    goes_on(&c);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_restored_container_has_its_limits_and_its_filter() {
    let seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13 }] });
    let bundle = counting().resources(json!({ "pids": { "limit": 33 } }));
    let bundle = bundle.config(|c| c["linux"]["seccomp"] = seccomp);
    let c = survives(bundle);
    let limit = "cat /sys/fs/cgroup/pids/pids.max || cat /sys/fs/cgroup/pids.max";
    assert_eq!(c.exec(["sh", "-c", limit]).success().stdout, "33\n");
    assert_eq!(proc_status(c.pid(), "Seccomp"), "2");
    assert_eq!(proc_status(c.pid(), "NoNewPrivs"), "1");
    c.exec(["mkdir", "/dev/shm/d"]).says(&["Permission denied"]);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn loopback_is_up_and_hooks_find_the_new_network() {
    let bundle = counting();
    let out = bundle.beside("hooks");
    let script = format!(
        "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); nsenter -n -t $pid ip -o link | wc -l >>{}",
        out.display()
    );
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script],
        "env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin"] });
    let c = survives(bundle.config(|c| c["hooks"] = json!({ "prestart": [hook] })));
    assert_eq!(fs::read_to_string(&out).unwrap(), "1\n1\n");
    let flags = c.exec(["cat", "/sys/class/net/lo/flags"]).success().stdout;
    assert_eq!(flags, "0x9\n");
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn what_is_bound_from_the_host_is_bound_again_as_it_was() {
    let bundle = counting();
    let data = bundle.beside("data");
    fs::create_dir_all(data.join("in/deep")).unwrap();
    fs::write(data.join("file"), "of the host").unwrap();
    let bundle = bundle
        .link("/data", "real")
        .mount(json!({ "destination": "/data/a", "source": data, "options": ["rbind", "ro"] }))
        .mount(
            json!({ "destination": "/mnt/file", "source": data.join("file"), "options": ["bind"] }),
        )
        .mount(json!({ "destination": "/mnt/t", "type": "tmpfs", "source": "tmpfs" }))
        .mount(json!({ "destination": "/mnt/t/b", "source": data, "options": ["bind"] }));
    let mut c = bundle.start();
    has_begun(&c);
    c.checkpoint(&[]).success();
    // The image may have been unpacked again.
    fs::remove_dir_all(c.bundle().rootfs().join("real")).unwrap();
    fs::remove_dir_all(c.bundle().rootfs().join("mnt")).unwrap();
    c.restore(&[]);
    goes_on(&c);
    for file in ["/real/a/file", "/mnt/file", "/mnt/t/b/file"] {
        assert_eq!(c.exec(["cat", file]).success().stdout, "of the host", "{file}");
    }
    c.exec(["touch", "/real/a/new"]).says(&["Read-only file system"]);
    c.exec(["touch", "/mnt/t/b/new"]).success();
    c.exec(["touch", "/new"]).says(&["Read-only file system"]);
    c.exec(["cat", "/proc/timer_list"]).success();
    assert_eq!(fs::read_dir(&data).unwrap().count(), 3);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn namespaces_of_all_kinds_come_back() {
    let mut neighbour = Command::new("unshare").args(["-n", "sleep", "100"]).spawn().unwrap();
    let network = format!("/proc/{}/ns/net", neighbour.id());
    let ours = namespace_of("self", "net");
    until("it has a network", || namespace_of(neighbour.id(), "net") != ours);
    for (case, bundle) in [
        ("user", counting().user_namespace()),
        (
            "cgroup",
            counting().config(|c| {
                let list = c["linux"]["namespaces"].as_array_mut().unwrap();
                list.push(json!({ "type": "cgroup" }));
            }),
        ),
        ("the host's network", counting().without_namespace("network")),
        ("a network by its path", counting().joins("network", &network)),
        ("writable", counting().writable()),
    ] {
        eprintln!("{case}");
        survives(bundle);
    }
    neighbour.kill().unwrap();
    neighbour.wait().unwrap();
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn control_groups_of_each_version_come_back() {
    for view in View::all() {
        survives(counting().in_view(view));
    }
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn pipes_of_the_caller_take_the_place_of_those_before() {
    let script = "trap 'echo asked' USR1; echo begun; while :; do sleep 0.02; done";
    let bundle = with_criu(Bundle::busybox().script(script));
    let mut line = String::new();
    let mut output = piped(&bundle.launch(&["run", "--detach"], &bundle.id()));
    output.read_line(&mut line).unwrap();
    let c = Container::of(bundle);
    c.checkpoint(&[]).success();
    c.wait();
    let images = c.bundle().beside("images").display().to_string();
    let words = ["restore", "--detach", "--image-path", &images];
    let mut output = piped(&c.bundle().launch(&words, &c.id));
    until("it runs", || c.rt(["state", &c.id]).run().stdout.contains("running"));
    c.kill("USR1");
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "begun\nasked\n");
}

/// What comes out of a pipe that it writes to.
fn piped(rt: &Rt) -> BufReader<ChildStdout> {
    let mut command = rt.command(&[]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    BufReader::new(command.spawn().unwrap().stdout.unwrap())
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_terminal_comes_back_on_the_console_socket() {
    let bundle =
        with_criu(Bundle::busybox().script("stty -echo; while read line; do echo got $line; done"));
    let bundle = bundle.config(|c| c["process"]["terminal"] = json!(true));
    let socket = ConsoleSocket::at(bundle.beside("console"));
    let mut c = bundle.options(["--console-socket", &socket.path().display().to_string()]).start();
    let mut terminal = socket.master();
    terminal.type_in("one\n");
    terminal.expect("got one");
    c.checkpoint(&[]).success();
    drop(terminal);
    c.restore(&[]);
    let mut terminal = socket.master();
    terminal.type_in("two\n");
    terminal.expect("got two");
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn restore_in_the_foreground_ends_with_the_containers_status() {
    let bundle = with_criu(
        Bundle::busybox().script("while ! [ -e /dev/shm/end ]; do sleep 0.02; done; exit 7"),
    );
    let c = bundle.redirections("</dev/null >/dev/null 2>&1").start();
    c.checkpoint(&[]).success();
    c.wait();
    let images = c.bundle().beside("images").display().to_string();
    let running = c.bundle().launch(&["restore", "--image-path", &images], &c.id).spawn();
    until("it runs", || c.rt(["state", &c.id]).run().stdout.contains("running"));
    c.exec(["touch", "/dev/shm/end"]).success();
    assert_eq!(running.finish().status, 7);
    c.rt(["state", &c.id]).run().says(&["does not exist"]);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_restore_that_fails_leaves_nothing() {
    let c = counting().start();
    c.checkpoint(&[]).success();
    let images = c.bundle().beside("images");
    let missing = c.bundle().beside("nowhere").display().to_string();
    let restore = |images: &str| {
        let words = ["restore", "--detach", "--image-path", images];
        c.bundle().launch(&words, &c.id).redirections("").run().one_line()
    };
    c.wait();
    restore(&missing).says(&["--image-path", "No such file or directory"]);
    fs::remove_file(images.join("core-1.img")).unwrap();
    let done = restore(images.to_str().unwrap());
    done.says(&["criu failed: type RESTORE errno", "empty-image", "restore.log"]);
    fs::remove_file(images.join("descriptors.json")).unwrap();
    restore(images.to_str().unwrap()).says(&["descriptors.json: No such file or directory"]);
    c.bundle().leftovers().assert_none_since();
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_checkpoint_that_fails_lets_the_container_go_on() {
    let bundle = with_criu(Bundle::busybox().script(COUNT));
    // The host's file that it writes to cannot be dumped.
    let c = bundle.start();
    has_begun(&c);
    let done = c.checkpoint(&[]).one_line();
    done.says(&["criu failed: type DUMP", "Can't lookup mount", "dump.log"]);
    assert_eq!(c.status(), "running");
    goes_on(&c);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn without_criu_the_error_says_what_to_install() {
    let bundle = Bundle::busybox().script(COUNT).behind(&["env", "PATH=/nonexistent"]);
    let c = bundle.start();
    c.checkpoint(&[]).one_line().says(&["criu: executable file not found", "install"]);
    assert_eq!(c.status(), "running");
    let images = c.bundle().beside("images").display().to_string();
    let restore = c.bundle().launch(&["restore", "--image-path", &images], "another").run();
    restore.one_line().says(&["criu: executable file not found"]);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_restore_that_is_killed_is_cleared_by_delete() {
    let c = counting().start();
    has_begun(&c);
    c.checkpoint(&[]).success();
    c.wait();
    let images = c.bundle().beside("images").display().to_string();
    for milliseconds in (5..150).step_by(10) {
        let words = ["restore", "--detach", "--image-path", &images];
        let running = c.bundle().launch(&words, &c.id).spawn();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        running.signal(nix::sys::signal::Signal::SIGKILL);
        running.finish();
        c.rt(["delete", "--force", &c.id]).run().success();
        c.bundle().leftovers().assert_none_since();
    }
    assert!(Path::new(&images).exists());
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn what_criu_would_lose_is_refused_at_both_ends() {
    let c = counting().start();
    let socket = ConsoleSocket::at(c.bundle().beside("agent"));
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket.path(),
        "syscalls": [{ "names": ["acct"], "action": "SCMP_ACT_NOTIFY" }] });
    let cases: [(&str, Value, &str); 4] = [
        ("/annotations", json!({ "org.rt.landlock.read": "/" }), "org.rt.landlock.read"),
        ("/linux/seccomp", profile, "SCMP_ACT_NOTIFY"),
        ("/linux/personality", json!({ "domain": "LINUX32" }), "linux.personality"),
        ("/linux/memoryPolicy", json!({ "mode": "MPOL_LOCAL" }), "linux.memoryPolicy"),
    ];
    c.checkpoint(&["--leave-running"]).success();
    let images = c.bundle().beside("images");
    for (place, value, name) in cases {
        let (object, key) = place.rsplit_once('/').unwrap();
        let bundle = counting().config(|c| c.pointer_mut(object).unwrap()[key] = value);
        let words = ["restore", "--detach", "--image-path", images.to_str().unwrap()];
        let done = bundle.launch(&words, &bundle.id()).redirections("").run().one_line();
        done.says(&[name, "criu does not keep it"]);
    }
    let bundle = counting().config(|c| c["linux"]["personality"] = json!({ "domain": "LINUX32" }));
    let c = bundle.start();
    c.checkpoint(&[]).one_line().says(&["linux.personality: criu does not keep it"]);
    assert_eq!(c.status(), "running");
    for word in ["copy-symlink", "src-nofollow", "dest-nofollow"] {
        let source = c.bundle().beside("");
        let mount = json!({ "destination": "/mnt", "source": source, "options": ["bind", word] });
        let c = counting().mount(mount).start();
        c.checkpoint(&[]).one_line().says(&["/mnt: criu follows links"]);
        assert_eq!(c.status(), "running");
    }
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_restored_container_has_its_sysctls_priorities_and_oom_score() {
    let bundle = counting().config(|c| {
        c["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "7",
            "kernel.msgmax": "4096" });
        c["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 7 });
        c["process"]["oomScoreAdj"] = json!(500);
    });
    let c = survives(bundle);
    let sysctl = |path: &str| c.exec(["cat", &format!("/proc/sys/{path}")]).success().stdout;
    assert_eq!(sysctl("net/ipv4/ip_unprivileged_port_start"), "7\n");
    assert_eq!(sysctl("kernel/msgmax"), "4096\n");
    let ionice = Command::new("ionice").args(["-p", &c.pid().to_string()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ionice.stdout), "best-effort: prio 7\n");
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", c.pid())).unwrap();
    assert_eq!(score, "500\n");
}

/// CRIU finds what a bind mount within the root shows by its path, from the host's root on. In the
/// container `script` has made `/b` of `/x/y`; then `/x` leads to the directory `outside`.
#[track_caller]
fn is_not_led_outside(bundle: Bundle, outside: &Path, shown: &str) {
    let bundle = bundle.writable().directory("/x/y").directory("/b");
    let c = bundle.with_capabilities(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]).start();
    has_begun(&c);
    c.checkpoint(&["--leave-running"]).success();
    let link = format!("mv /x /x.old && ln -s {} /x", outside.display());
    c.exec(["sh", "-c", &link]).success();
    c.delete_force();
    let done = c.try_restore(&[]).one_line();
    done.says(&["/b: shows", shown, "which the configuration does not name"]);
    c.bundle().leftovers().assert_none_since();
}

const BIND: &str = "mount -o bind /x/y /b";

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_link_in_the_image_does_not_lead_a_mount_to_the_host() {
    let bundle = counting();
    let outside = bundle.beside("outside");
    fs::create_dir_all(outside.join("y")).unwrap();
    let script = format!("{BIND}; {COUNT}");
    is_not_led_outside(bundle.script(&script), &outside, "/outside/y");
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn nor_does_it_in_a_mount_namespace_below_or_without_a_cgroup() {
    let bundle = counting().global_options(&["--cgroup-manager", "disabled"]);
    let outside = bundle.beside("outside");
    fs::create_dir_all(outside.join("y")).unwrap();
    let script = format!("unshare -m sh -c '{BIND}; exec sleep 1000' & {COUNT}");
    is_not_led_outside(bundle.script(&script), &outside, "/outside/y");
}

/// The network is another's, and so is its sysfs.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn nor_to_the_hosts_sysfs_from_a_network_that_was_joined() {
    let mut neighbour = Command::new("unshare").args(["-n", "sleep", "100"]).spawn().unwrap();
    let network = format!("/proc/{}/ns/net", neighbour.id());
    let ours = namespace_of("self", "net");
    until("it has a network", || namespace_of(neighbour.id(), "net") != ours);
    let bundle = counting().joins("network", &network).directory("/x/sys");
    let script = format!("mount -o bind /x/sys /b; {COUNT}");
    is_not_led_outside(bundle.script(&script), Path::new("/"), "shows / of");
    neighbour.kill().unwrap();
    neighbour.wait().unwrap();
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn nor_below_a_source_that_is_bound_without_what_is_mounted_there() {
    let (bundle, host) = (counting(), counting());
    let volume = host.beside("volume");
    fs::create_dir_all(volume.join("y")).unwrap();
    mount(Some("tmpfs"), &volume.join("y"), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let _mounted = Mounted(volume.join("y"));
    let bundle =
        bundle.mount(json!({ "destination": "/mnt", "source": volume, "options": ["bind"] }));
    let script = format!("{BIND}; {COUNT}");
    is_not_led_outside(bundle.script(&script), &volume, "shows / of");
}

/// Unmounted in the end, also of a test that fails.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// A container without a group of its own is in the host's, with all that is below.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn groups_of_the_host_are_not_made_again() {
    let top =
        ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].into_iter().find(|top| Path::new(top).exists());
    let group = format!("{}/rt-test-{}-other", top.unwrap(), std::process::id());
    let disabled = counting().global_options(&["--cgroup-manager", "disabled"]);
    // Where it does not see version 1, it stays in the roots of its hierarchies.
    let views = View::all().filter(|view| *view == View::V2).map(|view| counting().in_view(view));
    for bundle in [disabled].into_iter().chain(views) {
        let mut c = bundle.start();
        has_begun(&c);
        fs::create_dir(&group).unwrap();
        c.checkpoint(&[]).success();
        fs::remove_dir(&group).unwrap();
        c.restore(&[]);
        goes_on(&c);
        assert!(fs::remove_dir(&group).is_err(), "{group}");
    }
}

/// What the host has one of is the same one after a restore.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn file_systems_of_the_hosts_that_the_configuration_names_come_back() {
    let bundle = counting().mount(json!({ "destination": "/mnt", "type": "devtmpfs" }));
    let c = survives(bundle);
    c.exec(["test", "-c", "/mnt/null"]).success();
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn the_configuration_of_a_container_is_that_which_it_was_made_from() {
    let bundle = counting().config(|c| c["linux"]["personality"] = json!({ "domain": "LINUX32" }));
    bundle.write();
    let other = bundle.beside("other.json");
    fs::copy(bundle.path().join("config.json"), &other).unwrap();
    let bundle = bundle.config(|c| c["linux"]["personality"] = Value::Null);
    let c = bundle.options(["--config", &other.display().to_string()]).start();
    c.checkpoint(&[]).one_line().says(&["linux.personality: criu does not keep it"]);
}

/// The caller's may hold what is not for the container.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_restored_container_has_a_session_keyring_of_its_own() {
    let bundle = counting().config(|c| c["linux"]["maskedPaths"] = json!([]));
    let mut c = bundle.start();
    has_begun(&c);
    c.checkpoint(&[]).success();
    c.wait();
    c.restore(&[]);
    // A kernel shows keyrings to whom they belong; those of a process that has ended go a bit later.
    let keys = c.exec(["cat", "/proc/keys"]).success().stdout;
    assert!(keys.contains(&format!("_ses.{}:", c.id)), "{keys}");
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_criu_that_is_killed_is_an_error_and_what_hooks_made_is_taken_back() {
    let bundle = counting();
    let log = bundle.beside("hooks");
    let hook = |script: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] }]);
    // The first process of the group is CRIU.
    let kill = format!(
        "echo created >>{0}; [ -e {0}.armed ] || exit 0; pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/');
        for other in $(cat /sys/fs/cgroup/pids$(sed -n 's/.*:pids://p' /proc/$pid/cgroup)/cgroup.procs); do
            [ $other = $pid ] || kill -9 $other; done",
        log.display()
    );
    let bundle = bundle.config(|c| {
        c["hooks"] = json!({ "createRuntime": hook(&kill),
            "poststop": hook(&format!("echo removed >>{}", log.display())) });
    });
    let c = bundle.start();
    has_begun(&c);
    c.checkpoint(&[]).success();
    assert_eq!(fs::read_to_string(&log).unwrap(), "created\nremoved\n");
    fs::write(log.with_extension("armed"), "").unwrap();
    c.try_restore(&[]).one_line().says(&["criu was killed by SIGKILL"]);
    assert_eq!(fs::read_to_string(&log).unwrap(), "created\nremoved\n".repeat(2));
    c.bundle().leftovers().assert_none_since();
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn files_in_the_way_of_images_are_not_followed_and_not_waited_for() {
    let c = counting().start();
    has_begun(&c);
    let images = c.bundle().beside("images");
    let victim = c.bundle().beside("victim");
    fs::create_dir(&images).unwrap();
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, images.join("dump.log")).unwrap();
    symlink(&victim, images.join("descriptors.json")).unwrap();
    c.checkpoint(&["--leave-running"]).one_line().says(&["descriptors.json"]);
    fs::remove_file(images.join("descriptors.json")).unwrap();
    c.checkpoint(&[]).success();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    fs::remove_file(images.join("descriptors.json")).unwrap();
    nix::unistd::mkfifo(&images.join("descriptors.json"), Mode::S_IRUSR).unwrap();
    nix::unistd::mkfifo(&images.join("restore.log"), Mode::S_IRUSR).unwrap();
    c.try_restore(&[]).one_line().says(&["descriptors.json"]);
    c.bundle().leftovers().assert_none_since();
}

/// Every call of the runtime's own, each with an error and with SIGKILL: what CRIU does is its own
/// affair, but it must not go on alone.
fn each_fault(rt: &Rt, files: (&Path, &Path), mut judge: impl FnMut(&Traced)) {
    let sample = trace_alone(rt, files.0, files.1);
    assert_eq!(sample.status, 0, "{}", fs::read_to_string(files.1).unwrap());
    judge(&sample);
    // Before its execve it is another program, which sets PATH.
    let begin = sample.calls.iter().rposition(Call::is_execve).unwrap() + 1;
    let own = sample.calls[begin..].iter().filter(|call| !call.startup);
    let calls = own.step_by(sweep_step(1));
    for call in calls {
        let error = call.can_fail().then_some(Fault::Error(Errno::EIO));
        for fault in error.into_iter().chain([Fault::Kill]) {
            fs::write(files.1, "").unwrap();
            let traced = inject_alone(rt, files, call.n, fault);
            eprintln!("{fault} at {call}: {}", traced.status);
            assert!(!traced.hung, "it hangs");
            judge(&traced);
            let errors = fs::read_to_string(files.1).unwrap();
            let told = errors.lines().count() == 1 && errors.starts_with("rt: ");
            assert!(told || traced.status == 0 || matches!(fault, Fault::Kill), "{errors:?}");
        }
    }
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_fault_at_any_system_call_of_restore_leaves_nothing() {
    let c = counting().start();
    has_begun(&c);
    c.checkpoint(&[]).success();
    c.wait();
    let bundle = c.bundle();
    let images = bundle.beside("images").display().to_string();
    let [out, err, pid_file] = ["out", "err", "pid"].map(|name| bundle.beside(name));
    let rt = bundle.launch(&["restore", "--detach", "--image-path", &images], &c.id);
    let rt = rt.redirections("");
    each_fault(&rt, (&out, &err), |traced| {
        if traced.status == 0 {
            assert_eq!(c.status(), "running");
        }
        c.rt(["delete", "--force", &c.id]).run().success();
        if let Ok(pid) = fs::read_to_string(&pid_file) {
            reap(pid.parse().unwrap(), Duration::from_secs(10));
        }
        bundle.leftovers().assert_none_since();
        let _ = fs::remove_file(&pid_file);
    });
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_fault_at_any_system_call_of_checkpoint_lets_the_container_go_on() {
    let c = counting().start();
    has_begun(&c);
    let bundle = c.bundle();
    let images = bundle.beside("images").display().to_string();
    let [out, err] = ["out", "err"].map(|name| bundle.beside(name));
    let rt = c.rt(["checkpoint", "--leave-running", "--image-path", &images, &c.id]);
    each_fault(&rt, (&out, &err), |_| {
        until("it runs", || c.status() == "running");
        goes_on(&c);
    });
}
