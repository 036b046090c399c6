//! A hostile payload looks at, traces and stops whatever enters its pid namespace: the processes of
//! `exec`, and those of containers that join it. No public advisory; runc and crun give it a process
//! with every capability.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;

use crate::harness::{Bundle, Container, Rt, Running, View, compile, freeze, reap, thaw, until};

/// The bit of CAP_SYS_PTRACE.
const SYS_PTRACE: u64 = 1 << 19;
const SECRET: &str = "hunter2";

/// A container whose payload seizes every process that it sees.
fn tracer(view: View) -> Container {
    let bundle = Bundle::busybox().in_view(view).with_capabilities(&["CAP_SYS_PTRACE"]);
    start_tracer(bundle)
}

fn start_tracer(bundle: Bundle) -> Container {
    compile("attacks/tracer.c", &bundle.rootfs().join("bin/tracer"));
    // The bundle's own place is the host's.
    let place = bundle.rootfs().display().to_string();
    let c = bundle.args(["tracer", SECRET, &place]).start();
    until("the payload looks", || c.output().contains("ready"));
    c
}

/// What the payload has said of the processes that it has got: effective and permitted sets, whether
/// their root is the host's, how many directories they have open.
fn seized(c: &Container) -> Vec<(u64, u64, String, u32)> {
    let output = c.output();
    let lines = output.lines().filter(|line| line.starts_with("seized"));
    let word = |line: &str, name: &str| {
        let word = line.split(' ').find_map(|word| word.strip_prefix(name)).unwrap();
        word.to_owned()
    };
    let set = |line: &str, name| u64::from_str_radix(&word(line, name), 16).unwrap();
    lines
        .map(|line| {
            let directories = word(line, "dirs=").parse().unwrap();
            (set(line, "eff="), set(line, "prm="), word(line, "host="), directories)
        })
        .collect()
}

#[track_caller]
fn assert_nothing_gained(c: &Container) {
    for (effective, permitted, root, directories) in seized(c) {
        assert_eq!((effective | permitted) & !SYS_PTRACE, 0, "more rights\n{}", c.output());
        assert_eq!((&*root, directories), ("0", 0), "a way to the host\n{}", c.output());
    }
}

/// Calls `enter` until the payload has got some of what it brings in.
fn until_seized(c: &Container, mut enter: impl FnMut()) {
    for _ in 0..200 {
        enter();
        if seized(c).len() >= 8 {
            return;
        }
    }
    panic!("the payload has got nothing\n{}", c.output());
}

#[test]
fn a_process_of_exec_has_the_programs_rights_from_its_first_moment() {
    for view in View::all() {
        let c = tracer(view);
        // It is also the payload's to say that the process is let go: exec may fail, but not hang.
        until_seized(&c, || drop(c.exec(["true"])));
        assert_nothing_gained(&c);
    }
}

#[test]
fn a_process_of_exec_with_a_filter_has_the_programs_rights_from_its_first_moment() {
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
        { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" } ] });
    let bundle = Bundle::busybox().with_capabilities(&["CAP_SYS_PTRACE"]);
    let c = start_tracer(bundle.config(|c| c["linux"]["seccomp"] = filter));
    until_seized(&c, || drop(c.exec(["true"])));
    assert_nothing_gained(&c);
}

#[test]
fn a_process_of_exec_with_a_terminal_and_another_user_has_no_more_rights_than_asked_for() {
    let c = tracer(View::Host);
    let [socket, pid] = ["console", "exec.pid"].map(|name| c.bundle().beside(name));
    let listener = UnixListener::bind(&socket).unwrap();
    let paths = [&socket, &pid].map(|path| path.to_str().unwrap());
    let options =
        ["-d", "-t", "--user", "7:8", "--console-socket", paths[0], "--pid-file", paths[1]];
    until_seized(&c, || {
        c.exec_with(&options, ["true"]).success();
        drop(listener.accept());
        // It is ours by now, and init ends after it.
        let pid = fs::read_to_string(&pid).unwrap().parse().unwrap();
        reap(pid, Duration::from_secs(20)).unwrap();
    });
    assert_nothing_gained(&c);
}

#[test]
fn a_container_in_a_pid_namespace_of_another_has_its_programs_rights_from_its_first_moment() {
    let c = tracer(View::Host);
    until_seized(&c, || {
        let joins = Bundle::busybox().joins("pid", &c.namespace("pid")).args(["true"]);
        let joins = joins.with_capabilities(&["CAP_SYS_PTRACE"]);
        drop(joins.launch(&["run"], &joins.id()).run());
    });
    assert_nothing_gained(&c);
}

#[test]
fn a_procfs_shows_the_pid_namespace_that_is_joined() {
    let donor = Bundle::busybox().args(["sleep", "1000"]).start();
    let joins = Bundle::busybox().joins("pid", &donor.namespace("pid"));
    let done = joins.script("cat /proc/1/comm; readlink /proc/self/ns/pid; ls /proc/self/root");
    let done = done.launch(&["run"], &done.id()).run().success();
    let own = fs::read_link(donor.namespace("pid")).unwrap();
    assert!(done.stdout.starts_with(&format!("sleep\n{}\n", own.display())), "{done}");
}

/// What is inside with the words of the command that brings it in, while that may be seen.
#[test]
fn nothing_inside_shows_the_words_or_the_environment_of_the_caller() {
    let c = tracer(View::Host);
    let word = format!("SECRET={SECRET}");
    until_seized(&c, || {
        let exec = c.exec_rt(&["--env", "OTHER=1"], ["true"]);
        drop(exec.between(&["env", &word]).run());
    });
    assert!(!c.output().contains("word"), "{}", c.output());
}

#[test]
fn nobody_inside_reads_the_options_of_exec_in_proc() {
    let user_namespace = Bundle::busybox().user_namespace();
    for bundle in [Bundle::busybox(), user_namespace] {
        let look = "while :; do for p in /proc/[0-9]*; do
            [ $p = /proc/1 ] || tr '\\0' ' ' <$p/cmdline; done; done 2>/dev/null";
        let bundle = bundle.config(|c| c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
        let c = bundle.script(look).start();
        for _ in 0..40 {
            let option = format!("OPTION={SECRET}");
            c.exec_with(&["--user", "0", "--env", &option], ["true"]).success();
        }
        c.delete_force();
        assert!(!c.output().contains(SECRET), "{}", c.output());
    }
}

#[test]
fn the_init_of_a_created_container_shows_no_words_of_its_caller() {
    let bundle = Bundle::busybox().args(["true"]);
    let word = format!("SECRET={SECRET}");
    let c = bundle.through(&["env", &word]).create();
    let inside = c.exec(["sh", "-c", "cat /proc/1/cmdline /proc/1/environ 2>/dev/null; true"]);
    let inside = inside.success().stdout;
    assert!(!inside.contains(SECRET) && !inside.contains("create"), "{inside}");
    let path = |file| format!("/proc/{}/{file}", c.pid());
    let outside = [path("cmdline"), path("environ")].map(|path| fs::read(path).unwrap());
    let outside = String::from_utf8_lossy(&outside.concat()).into_owned();
    assert!(!outside.contains(SECRET) && !outside.contains("--bundle"), "{outside}");
}

/// A container whose payload stops every process that it sees.
fn stopper() -> Container {
    let bundle = Bundle::busybox().with_capabilities(&["CAP_KILL"]);
    compile("attacks/stopper.c", &bundle.rootfs().join("bin/stopper"));
    // It leaves time for others on a machine with few processors.
    let quota = json!({ "cpu": { "quota": 30_000, "period": 100_000 } });
    bundle.resources(quota).args(["stopper"]).start()
}

/// The processes besides init in the pid namespace of the container. Those that have ended and are
/// left to us, since their parent has ended too, are reaped: init cannot end before.
fn pids(c: &Container) -> Vec<i32> {
    let own = fs::read_link(c.namespace("pid")).unwrap();
    let all = fs::read_dir("/proc").unwrap().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    all.filter(|pid| *pid != c.pid())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|ns| ns == own))
        .filter(|pid| {
            waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG))
                .is_ok_and(|status| status == WaitStatus::StillAlive)
                || is_alive(*pid)
        })
        .collect()
}

fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Their names.
fn others(c: &Container) -> Vec<String> {
    let name = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    pids(c).into_iter().filter_map(name).map(|name| name.trim().to_owned()).collect()
}

/// Starts the command again and again until its process has been stopped before it is the program.
fn stopped_half_way(c: &Container, command: impl Fn() -> Rt) -> Running {
    for _ in 0..100 {
        let running = command().spawn();
        until("there is a process to be stopped", || !others(c).is_empty());
        std::thread::sleep(Duration::from_millis(200));
        let names = others(c);
        if !names.is_empty() && names.iter().all(|name| name != "sleep") {
            return running;
        }
        // The program itself, which is the payload's to stop.
        for pid in pids(c) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        drop(running.finish());
    }
    panic!("the payload is never quick enough");
}

#[test]
fn a_command_whose_process_is_stopped_half_way_ends_when_it_is_told_and_takes_the_process_along() {
    for (signal, options) in [
        (Signal::SIGTERM, &[][..]),
        (Signal::SIGINT, &[]),
        (Signal::SIGHUP, &[]),
        (Signal::SIGTERM, &["-d"]),
        (Signal::SIGKILL, &[]),
    ] {
        let c = stopper();
        let exec = stopped_half_way(&c, || c.exec_rt(options, ["sleep", "1000"]));
        exec.signal(signal);
        let done = exec.finish();
        assert_ne!(done.status, 0, "{signal}: {done}");
        until("nothing is left in the container", || others(&c).is_empty());
    }
}

#[test]
fn a_run_whose_init_is_stopped_half_way_takes_everything_back_when_it_is_told() {
    let c = stopper();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let joins = Bundle::busybox().joins("pid", &c.namespace("pid")).args(["sleep", "1000"]);
        let command = || joins.launch(&["run"], &joins.id());
        let run = stopped_half_way(&c, command);
        run.signal(signal);
        let done = run.finish();
        assert_eq!(done.status, 128 + signal as i32, "{done}");
        let state = joins.beside("state").join(joins.id());
        assert!(!state.exists(), "{}", state.display());
    }
}

#[test]
fn a_run_that_waits_for_a_hook_takes_everything_back_when_it_is_told() {
    let hook = json!([{ "path": "/bin/sleep", "args": ["sleep", "1000"] }]);
    let bundle = Bundle::busybox().args(["true"]);
    let bundle = bundle.config(|c| c["hooks"] = json!({ "createRuntime": hook }));
    let run = bundle.launch(&["run"], &bundle.id()).spawn();
    let state = bundle.beside("state").join(bundle.id());
    until("it is under way", || state.exists());
    std::thread::sleep(Duration::from_millis(500));
    run.signal(Signal::SIGTERM);
    let done = run.finish();
    assert_eq!(done.status, 128 + Signal::SIGTERM as i32, "{done}");
    assert!(!state.exists(), "{}", state.display());
}

#[test]
fn an_exec_that_waits_for_a_paused_container_obeys_at_once() {
    let c = Bundle::busybox().args(["sleep", "1000"]).start();
    freeze(c.pid());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGKILL] {
        let exec = c.exec_rt(&["--ignore-paused"], ["sleep", "1000"]).spawn();
        std::thread::sleep(Duration::from_millis(300));
        exec.signal(signal);
        assert_ne!(exec.finish().status, 0);
    }
    thaw(c.pid());
    assert!(others(&c).is_empty());
    c.exec(["true"]).success();
}

/// As when a pause comes a moment after `exec` has looked.
#[test]
fn an_exec_that_is_frozen_on_its_way_obeys_at_once_and_leaves_nothing_after_the_thaw() {
    let c = Bundle::busybox().args(["sleep", "1000"]).start();
    let group = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    let group = group.lines().find_map(|line| line.split_once(":freezer:")).unwrap().1.to_owned();
    let group = format!("/sys/fs/cgroup/freezer{group}/sub");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGKILL] {
        fs::create_dir(&group).unwrap();
        fs::write(format!("{group}/freezer.state"), "FROZEN").unwrap();
        let exec = c.exec_rt(&["--cgroup", "freezer:sub"], ["sleep", "1000"]).spawn();
        let members = || fs::read_to_string(format!("{group}/tasks")).unwrap();
        until("it is frozen", || !members().is_empty());
        exec.signal(signal);
        assert_ne!(exec.finish().status, 0);
        fs::write(format!("{group}/freezer.state"), "THAWED").unwrap();
        until("nothing is left", || members().is_empty() && pids(&c).is_empty());
        fs::remove_dir(&group).unwrap();
    }
}
