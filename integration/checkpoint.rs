//! Checkpoints, and containers that go on from them. `CRIU` is the directory of a criu that works
//! on this kernel: `make test-criu` sees to it.

mod crowded;
mod faults;
mod host;
mod kept;
mod place;
mod refused;
mod returned;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::json;

use crate::harness::terminal::ConsoleSocket;
use crate::harness::{Bundle, Container, Done, Rt, View, namespace_of, proc_status, until};

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

/// A process with namespaces of its own, ended in the end.
struct Neighbour(Child);

impl Neighbour {
    fn start() -> Self {
        let process = Command::new("unshare").args(["-in", "sleep", "100"]).spawn().unwrap();
        let ours = namespace_of("self", "net");
        until("it has a network", || namespace_of(process.id(), "net") != ours);
        Self(process)
    }

    fn network(&self) -> String {
        self.path("net")
    }

    fn path(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.0.id())
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The restore of what `c` was, as a container of `bundle`.
fn restored_as(bundle: &Bundle, c: &Container) -> Done {
    let images = c.bundle().beside("images").display().to_string();
    let words = ["restore", "--detach", "--image-path", &images];
    bundle.launch(&words, &bundle.id()).redirections("").run()
}

/// Only the images of a container of `before` are left.
fn images_of(before: Bundle) -> Container {
    let c = before.start();
    has_begun(&c);
    c.checkpoint(&[]).success();
    c.wait();
    c
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
    let neighbour = Neighbour::start();
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
        ("a network by its path", counting().joins("network", &neighbour.network())),
        ("writable", counting().writable()),
    ] {
        eprintln!("{case}");
        survives(bundle);
    }
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn control_groups_of_each_version_come_back() {
    for view in View::all() {
        survives(counting().in_view(view));
    }
}

/// A process that has ended and that nobody has waited for has no mounts any more.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_process_that_nobody_waits_for_comes_back_as_it_is() {
    let script = format!("(sleep 0.01 & exec sleep 1000) & sleep 0.1; {COUNT}");
    let c = survives(counting().script(&script));
    let states = c.exec(["sh", "-c", "cat /proc/[0-9]*/stat"]).success().stdout;
    assert!(states.contains("(sleep) Z "), "{states}");
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn pipes_of_the_caller_take_the_place_of_those_before() {
    answers_through_a_pipe(Bundle::busybox(), "echo asked");
}

/// Before its checkpoint it writes to one pipe of the caller's, and when `asked` to another one.
fn answers_through_a_pipe(bundle: Bundle, asked: &str) {
    let script =
        format!("trap '{asked} || echo refused' USR1; echo begun; while :; do sleep 0.02; done");
    let bundle = with_criu(bundle.script(&script));
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
