//! Hooks: when they run, where, with what, and what becomes of the container when they fail.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Bundle, Container, namespace_of, proc_status, reap, until, write_program};

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Adds a shell script; `$OUT` is a directory beside the bundle, which only hooks on the host's
/// root can reach.
fn hook(bundle: Bundle, kind: &str, script: &str) -> Bundle {
    let out = bundle.beside("hooks");
    fs::create_dir_all(&out).unwrap();
    let env = [
        "PATH=/bin:/usr/bin:/sbin:/usr/sbin".to_owned(),
        format!("OUT={}", out.display()),
        format!("RT_TEST={}", bundle.mark()),
    ];
    add(bundle, kind, json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": env }))
}

fn add(bundle: Bundle, kind: &str, hook: Value) -> Bundle {
    bundle.config(|c| {
        let list = &mut c["hooks"][kind];
        if list.is_null() {
            *list = json!([]);
        }
        list.as_array_mut().unwrap().push(hook);
    })
}

/// What hooks have written to `$OUT`.
fn written(bundle: &Bundle, name: &str) -> String {
    let path = bundle.beside("hooks").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn has_written(bundle: &Bundle, name: &str) -> bool {
    bundle.beside("hooks").join(name).exists()
}

fn warnings(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap();
    text.lines().filter(|line| line.contains("level=warning")).map(str::to_owned).collect()
}

#[test]
fn hooks_run_in_the_order_of_the_containers_life() {
    let mut bundle = Bundle::busybox().writable().args(["sleep", "100"]);
    for kind in KINDS.into_iter().filter(|kind| *kind != "startContainer") {
        bundle = hook(bundle, kind, &format!("echo {kind} 1 >>$OUT/order"));
        bundle = hook(bundle, kind, &format!("echo {kind} 2 >>$OUT/order"));
    }
    let bundle = hook(bundle, "startContainer", "cat >/tmp/started");
    let c = bundle.create();
    let created = "prestart 1\nprestart 2\ncreateRuntime 1\ncreateRuntime 2\n\
                   createContainer 1\ncreateContainer 2\n";
    assert_eq!(written(&c.bundle, "order"), created);
    assert!(!c.bundle.rootfs().join("tmp/started").exists());
    c.start();
    assert!(c.bundle.rootfs().join("tmp/started").exists());
    let started = format!("{created}poststart 1\npoststart 2\n");
    assert_eq!(written(&c.bundle, "order"), started);
    c.kill("KILL");
    c.wait();
    assert_eq!(written(&c.bundle, "order"), started);
    c.delete();
    assert_eq!(written(&c.bundle, "order"), format!("{started}poststop 1\npoststop 2\n"));
}

/// Their parent is not in that namespace, and init does not exist yet.
#[test]
fn create_container_hooks_run_in_a_pid_namespace_that_is_joined() {
    let donor = Bundle::busybox().args(["sleep", "1000"]).start();
    let bundle = Bundle::busybox().writable().joins("pid", &donor.namespace("pid"));
    let script = "cat >$OUT/state; echo $$ >$OUT/pid";
    let bundle = hook(bundle, "createContainer", script).args(["true"]);
    let bundle = hook(bundle, "startContainer", "true");
    bundle.launch(&["run"], &bundle.id()).run().success();
    let state: Value = serde_json::from_str(&written(&bundle, "state")).unwrap();
    assert_eq!((&state["status"], &state["pid"]), (&"creating".into(), &Value::Null));
    // Pids of the joined namespace are small: 1 is the donor's.
    assert!(written(&bundle, "pid").trim().parse::<i32>().unwrap() < 100);
    assert_eq!(donor.status(), "running");
}

/// At its time limit a hook ends with what it has started, also there.
#[test]
fn a_create_container_hook_in_a_joined_pid_namespace_ends_at_its_time_limit() {
    let donor = Bundle::busybox().args(["sleep", "1000"]).start();
    let bundle = Bundle::busybox().joins("pid", &donor.namespace("pid")).args(["true"]);
    let script = "(sleep 1000 &); exec sleep 1000";
    let bundle = hook(bundle, "createContainer", script).config(|c| {
        c["hooks"]["createContainer"][0]["timeout"] = 1.into();
    });
    bundle.refused().one_line().says(&["createContainer", "not finished after 1 s"]);
}

#[test]
fn a_container_is_created_until_its_program_runs() {
    for verb in ["run", "start"] {
        let wait = "echo >/tmp/waiting; until [ -e /tmp/go ]; do sleep 0.02; done";
        let bundle = Bundle::busybox().writable().args(["sleep", "100"]);
        let bundle = hook(bundle, "startContainer", wait);
        let (id, tmp) = (bundle.id(), bundle.rootfs().join("tmp"));
        let launched = match verb {
            "run" => bundle.running(),
            _ => {
                bundle.launch(&["create"], &id).run().success();
                bundle.rt(["start", &id]).spawn()
            }
        };
        let status = || bundle.rt(["state", &id]).run().success().stdout;
        until("the hook waits", || tmp.join("waiting").exists());
        assert!(status().contains("\"created\""), "{verb}: {}", status());
        fs::write(tmp.join("go"), "").unwrap();
        until("the program runs", || status().contains("\"running\""));
        bundle.rt(["delete", "--force", &id]).run().success();
        launched.finish();
    }
}

#[test]
fn each_hook_reads_the_state_of_its_moment() {
    let mut bundle = Bundle::busybox().writable().args(["sleep", "100"]);
    for kind in KINDS.into_iter().filter(|kind| *kind != "startContainer") {
        bundle = hook(bundle, kind, &format!("cat >$OUT/{kind}"));
    }
    let bundle = hook(bundle, "startContainer", "cat >/tmp/startContainer")
        .config(|c| c["annotations"] = json!({ "org.example": "value" }));
    let c = bundle.start();
    c.kill("KILL");
    c.wait();
    c.delete();
    let inside = c.bundle.rootfs().join("tmp/startContainer");
    fs::rename(inside, c.bundle.beside("hooks").join("startContainer")).unwrap();
    for (kind, status, pid) in [
        ("prestart", "created", c.pid()),
        ("createRuntime", "creating", c.pid()),
        // As the container sees itself.
        ("createContainer", "creating", 1),
        ("startContainer", "created", 1),
        ("poststart", "running", c.pid()),
        ("poststop", "stopped", 0),
    ] {
        let state: Value = serde_json::from_str(&written(&c.bundle, kind)).unwrap();
        assert_eq!(state["status"], status, "{kind}");
        assert_eq!(state["pid"].as_i64().unwrap_or(0), i64::from(pid), "{kind}");
        assert_eq!(state["id"], *c.id, "{kind}");
        assert_eq!(state["bundle"], c.bundle.path().to_str().unwrap(), "{kind}");
        assert_eq!(state["annotations"]["org.example"], "value", "{kind}");
        assert!(state["ociVersion"].is_string(), "{kind}");
    }
}

#[test]
fn hooks_of_the_runtime_run_in_its_namespaces_and_the_others_in_the_containers() {
    let mut bundle = Bundle::busybox().writable().args(["sleep", "100"]);
    let list = "for kind in mnt net uts; do readlink /proc/self/ns/$kind; done";
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle = hook(bundle, kind, &format!("{list} >$OUT/{kind}"));
    }
    let c = hook(bundle, "startContainer", &format!("{list} >/tmp/ns")).start();
    let of = |pid: &str| ["mnt", "net", "uts"].map(|kind| namespace_of(pid, kind) + "\n").concat();
    let (ours, theirs) = (of("self"), of(&c.pid().to_string()));
    assert_eq!(fs::read_to_string(c.bundle.rootfs().join("tmp/ns")).unwrap(), theirs);
    assert_eq!(written(&c.bundle, "createContainer"), theirs);
    c.delete_force();
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        assert_eq!(written(&c.bundle, kind), ours, "{kind}");
    }
}

#[test]
fn the_first_hook_finds_everything_mounted_at_the_root_path() {
    let look = "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); root=/proc/$pid/root$ROOT; \
                head -c 13 $root/proc/version >$OUT/version; ls $root/dev >$OUT/dev";
    let bundle = Bundle::busybox().args(["true"]);
    let look = look.replace("$ROOT", &bundle.rootfs().display().to_string());
    let c = hook(bundle, "prestart", &look).create();
    assert_eq!(written(&c.bundle, "version"), "Linux version");
    assert!(written(&c.bundle, "dev").lines().any(|name| name == "null"));
}

#[test]
fn what_a_hook_mounts_below_the_root_path_is_in_the_container() {
    for kind in ["createRuntime", "createContainer"] {
        let bundle = Bundle::busybox().directory("gpu").script("cat /gpu/driver");
        let (source, root) = (bundle.beside("driver"), bundle.rootfs());
        fs::create_dir(&source).unwrap();
        fs::write(source.join("driver"), "loaded\n").unwrap();
        let mount = format!("mount --bind {} {}/gpu", source.display(), root.display());
        let script = match kind {
            "createContainer" => mount,
            _ => {
                let enter = "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); nsenter -t $pid -m";
                format!("{enter} {mount}")
            }
        };
        assert_eq!(hook(bundle, kind, &script).create().finish().1, "loaded\n", "{kind}");
    }
}

#[test]
fn hooks_find_the_limits_set_and_may_change_them() {
    let script = "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); \
                  group=/sys/fs/cgroup/pids$(sed -n 's/.*:pids://p' /proc/$pid/cgroup); \
                  cat $group/pids.max >$OUT/before; echo 23 >$group/pids.max";
    let bundle = Bundle::busybox().resources(json!({ "pids": { "limit": 17 } }));
    let bundle = hook(bundle.args(["sleep", "100"]), "createRuntime", script);
    // Where pids is a controller of version 1.
    let c = bundle.in_view(crate::harness::View::V1).start();
    assert_eq!(written(&c.bundle, "before"), "17\n");
    let path = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    let path = path.lines().find_map(|line| line.split_once(":pids:")).unwrap().1;
    let limit = fs::read_to_string(format!("/sys/fs/cgroup/pids{path}/pids.max")).unwrap();
    assert_eq!(limit, "23\n");
}

#[test]
fn a_hook_has_its_environment_its_name_the_bundle_and_no_descriptor_of_anybody() {
    let bundle = Bundle::busybox().args(["true"]).options(["--preserve-fds", "2"]);
    let bundle = bundle.redirections("3</dev/null 4</dev/null");
    let out = bundle.beside("seen");
    let script = format!(
        "#!/bin/sh\nls /proc/$$/fd >{0}.fds\n\
         {{ pwd; echo $0; echo $(cat {0}.fds); tr '\\0' '\\n' </proc/$$/environ; }} >{0}",
        out.display()
    );
    let program = bundle.beside("hook");
    write_program(&program, script.as_bytes());
    let env = ["PATH=/bin:/usr/bin", "A=1"];
    let c = add(bundle, "createRuntime", json!({ "path": program, "env": env })).create();
    let seen = fs::read_to_string(out).unwrap();
    let (bundle, program) = (c.bundle.path(), program.display());
    // Three streams, the script that the shell reads, and its own output, which it puts aside.
    let expected =
        format!("{}\n{program}\n0 1 10 11 2\nPATH=/bin:/usr/bin\nA=1\n", bundle.display());
    assert_eq!(seen, expected);
}

#[test]
fn a_hook_without_an_environment_has_the_one_of_the_command_or_of_the_program() {
    let mut bundle = Bundle::busybox().writable().args(["/bin/sleep", "100"]);
    bundle = bundle.config(|c| c["process"]["env"] = json!(["OF=program"]));
    let mark = format!("RT_TEST={}", bundle.mark());
    bundle = bundle.behind(&["env", "-i", "FROM=caller", &mark]);
    let out = bundle.beside("hooks");
    fs::create_dir_all(&out).unwrap();
    for kind in KINDS {
        let to = if kind == "startContainer" { Path::new("/tmp") } else { &out };
        for (name, env) in [("absent", None), ("empty", Some(json!([])))] {
            let path = to.join(format!("{kind}.{name}"));
            let script = format!("/bin/env >{}", path.display());
            let mut value = json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
            if let Some(env) = env {
                value["env"] = env;
            }
            bundle = add(bundle, kind, value);
        }
    }
    let c = bundle.start();
    c.kill("KILL");
    c.wait();
    c.delete();
    for kind in KINDS {
        let from =
            if kind == "startContainer" { c.bundle.rootfs().join("tmp") } else { out.clone() };
        let read = |name: &str| {
            let text = fs::read_to_string(from.join(format!("{kind}.{name}"))).unwrap();
            // What a shell sets by itself.
            let own = |line: &&str| {
                ["PATH=", "PWD=", "SHLVL=", "_="].iter().any(|own| line.starts_with(own))
            };
            let mut lines: Vec<_> = text.lines().filter(|line| !own(line)).collect();
            lines.sort_unstable();
            lines.join(" ")
        };
        let inherited = match kind {
            "createContainer" => "",
            "startContainer" => "HOME=/root OF=program",
            _ => &format!("FROM=caller {mark}"),
        };
        assert_eq!(read("absent"), inherited, "{kind}");
        assert_eq!(read("empty"), "", "{kind}");
    }
}

#[test]
fn a_hook_that_fails_ends_create_and_everything_is_taken_back() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let bundle = hook(Bundle::busybox(), kind, "echo no bridge >&2; exit 3");
        let bundle = hook(bundle, kind, "echo second >$OUT/second");
        let bundle = hook(bundle, "poststop", "echo stopped >$OUT/poststop");
        bundle.write();
        let name = format!(
            "hooks.{kind}[0] /bin/sh: error running {kind} hook #0: exit status 3: no bridge"
        );
        bundle.launch(&["create"], &bundle.id()).run().says(&[&name]).one_line();
        bundle.rt(["state", &bundle.id()]).run().says(&["does not exist"]);
        assert!(!has_written(&bundle, "second"), "{kind}");
        assert_eq!(written(&bundle, "poststop"), "stopped\n", "{kind}");
    }
}

#[test]
fn a_hook_that_is_not_there_is_named() {
    let bundle = Bundle::busybox();
    let done = add(bundle, "createRuntime", json!({ "path": "/no/such/hook" })).refused();
    done.says(&["hooks.createRuntime[0] /no/such/hook", "No such file or directory"]).one_line();
}

#[test]
fn a_start_container_hook_that_fails_ends_start_and_the_program_never_runs() {
    let bundle = hook(Bundle::busybox().script("echo ran"), "startContainer", "exit 4");
    let c = bundle.create();
    let done = c.rt(["start", &c.id]).run();
    done.says(&["hooks.startContainer[0] /bin/sh", "exit status 4"]).one_line();
    c.wait();
    assert_eq!((c.status().as_str(), c.output().as_str()), ("stopped", ""));
    c.delete();
}

#[test]
fn a_start_container_hook_sees_the_container_as_its_user() {
    let bundle = Bundle::busybox().writable().args(["true"]);
    let bundle = bundle.config(|c| c["process"]["user"] = json!({ "uid": 7, "gid": 8 }));
    let c = hook(bundle, "startContainer", "id -u >/tmp/user; ls / >/tmp/root").start();
    assert_eq!(c.wait(), 0);
    let tmp = c.bundle.rootfs().join("tmp");
    assert_eq!(fs::read_to_string(tmp.join("user")).unwrap(), "7\n");
    assert!(fs::read_to_string(tmp.join("root")).unwrap().contains("proc"));
}

#[test]
fn a_poststart_hook_that_fails_ends_the_container() {
    let bundle = Bundle::busybox().args(["sleep", "100"]);
    let c = hook(bundle, "poststart", "exit 5").create();
    let done = c.rt(["start", &c.id]).run();
    done.says(&["hooks.poststart[0] /bin/sh", "exit status 5"]).one_line();
    assert_eq!(c.wait(), 128 + 9);
    assert_eq!(c.status(), "stopped");

    let bundle = hook(Bundle::busybox().args(["sleep", "100"]), "poststart", "exit 5");
    bundle.running().finish().says(&["hooks.poststart[0] /bin/sh"]);
    bundle.rt(["state", &bundle.id()]).run().says(&["does not exist"]);
}

#[test]
fn a_poststop_hook_that_fails_is_a_warning() {
    let bundle = hook(Bundle::busybox().args(["true"]), "poststop", "exit 6");
    let c = hook(bundle, "poststop", "echo second >$OUT/second").start();
    c.wait();
    let log = c.bundle.beside("log");
    c.rt(["--log", log.to_str().unwrap(), "delete", &c.id]).run().success();
    assert_eq!(written(&c.bundle, "second"), "second\n");
    let warnings = warnings(&log);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0]
            .contains("hooks.poststop[0] /bin/sh: error running poststop hook #0: exit status 6"),
        "{warnings:?}"
    );
}

#[test]
fn a_hook_that_takes_longer_than_its_timeout_is_killed() {
    let slow = json!({ "path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1 });
    for kind in ["createRuntime", "createContainer"] {
        let done = add(Bundle::busybox(), kind, slow.clone()).refused();
        done.says(&[&format!(
            "hooks.{kind}[0] /bin/sleep: error running {kind} hook #0: not finished after 1 s"
        )])
        .one_line();
    }
}

#[test]
fn a_hook_need_not_read_a_long_state() {
    let bundle = Bundle::busybox().args(["true"]);
    let mut bundle = bundle.config(|c| c["annotations"] = json!({ "a": "x".repeat(300_000) }));
    for kind in KINDS.into_iter().filter(|kind| *kind != "startContainer") {
        bundle = hook(bundle, kind, "exec <&-; exit 0");
    }
    let c = hook(bundle, "createRuntime", "wc -c >$OUT/length").start();
    assert_eq!(c.wait(), 0);
    assert!(written(&c.bundle, "length").trim().parse::<u32>().unwrap() > 300_000);
}

#[test]
fn what_a_hook_says_is_no_output_of_the_container() {
    let bundle = Bundle::busybox().args(["echo", "payload"]);
    let mut bundle = hook(bundle, "startContainer", "echo noise; echo noise >&2");
    for kind in KINDS.into_iter().filter(|kind| *kind != "startContainer") {
        bundle = hook(bundle, kind, "echo noise; echo noise >&2");
    }
    let done = bundle.run().success();
    assert_eq!((&*done.stdout, &*done.stderr), ("payload\n", ""));
}

#[test]
fn a_killed_create_takes_its_hook_with_it() {
    let bundle = Bundle::busybox().args(["true"]);
    let bundle =
        hook(bundle, "createRuntime", "echo $$ >$OUT/new; mv $OUT/new $OUT/pid; exec sleep 100");
    bundle.write();
    let create = bundle.launch(&["create"], &bundle.id()).spawn();
    until("the hook runs", || has_written(&bundle, "pid"));
    let hook: i32 = written(&bundle, "pid").trim().parse().unwrap();
    let init = bundle.rt(["state", &bundle.id()]).run().success();
    let init: Value = serde_json::from_str(&init.stdout).unwrap();
    assert_eq!(init["status"], "creating");
    create.signal(Signal::SIGKILL);
    create.finish().failure();
    for pid in [hook, init["pid"].as_i64().unwrap() as i32] {
        until("it has ended", || {
            reap(pid, std::time::Duration::ZERO).is_some()
                || !Path::new(&format!("/proc/{pid}")).exists()
                || proc_status(pid, "State").starts_with('Z')
        });
    }
    bundle.rt(["delete", "--force", &bundle.id()]).run().success();
}

#[test]
fn hooks_run_without_a_process_too() {
    let bundle = Bundle::busybox().writable().config(|c| {
        c.as_object_mut().unwrap().remove("process");
    });
    let bundle = hook(bundle, "poststart", "echo poststart >$OUT/poststart");
    let c: Container = hook(bundle, "startContainer", "echo started >/tmp/started").start();
    assert_eq!(c.wait(), 0);
    assert!(c.bundle.rootfs().join("tmp/started").exists());
    assert_eq!(written(&c.bundle, "poststart"), "poststart\n");
}

/// In the background, in a session of their own, and left alone by who started them. Each writes
/// its pid where the caller's side can read it, when it can.
const CROWD: &str = "
    note() { sh -c 'echo $$ >>$OUT/pids; exec sleep 1000'; }
    note & (note &) ; setsid sh -c 'echo $$ >>$OUT/pids; sleep 1000; :' &
    (setsid sh -c 'trap \"\" TERM HUP INT; echo $$ >>$OUT/pids; (exec sleep 1000) & wait' &)
    until [ $(wc -l <$OUT/pids) = 4 ]; do sleep 0.01; done; >$OUT/all";

fn with_time_limit(bundle: Bundle, kind: &str, script: &str, seconds: u32) -> Bundle {
    hook(bundle, kind, script).config(|c| c["hooks"][kind][0]["timeout"] = json!(seconds))
}

fn lives(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists() && !proc_status(pid, "State").starts_with('Z')
}

/// The pids on the host of what [`CROWD`] has started.
fn crowd(bundle: &Bundle) -> Vec<i32> {
    written(bundle, "pids").lines().map(|line| line.parse().unwrap()).collect()
}

#[track_caller]
fn assert_nothing_left(bundle: &Bundle, kind: &str) {
    assert!(has_written(bundle, "all"), "{kind}: not all were started in time");
    for pid in crowd(bundle) {
        assert!(!lives(pid), "{kind}: {pid} of {:?} lives", crowd(bundle));
    }
}

#[test]
fn a_time_out_ends_all_that_the_hook_has_started() {
    let script = format!("{CROWD}; exec sleep 1000");
    // In its own pid namespace the end of init would be that of all.
    let bundles = [Bundle::busybox, || Bundle::busybox().without_namespace("pid")];
    for (kind, i) in [("prestart", 0), ("createRuntime", 0), ("createContainer", 1)] {
        let bundle = with_time_limit(bundles[i](), kind, &script, 3);
        bundle.write();
        let done = bundle.launch(&["create"], &bundle.id()).run();
        done.says(&[&format!("hooks.{kind}[0]"), "not finished after 3 s"]).one_line();
        assert_nothing_left(&bundle, kind);
    }
    for kind in ["poststart", "poststop"] {
        let bundle = Bundle::busybox().args(["sleep", "1000"]);
        let c = with_time_limit(bundle, kind, &script, 3).create();
        let started = c.rt(["start", &c.id]).run();
        if kind == "poststart" {
            started.says(&["hooks.poststart[0]", "not finished after 3 s"]);
            assert_nothing_left(&c.bundle, kind);
        } else {
            started.success();
        }
        c.delete_force();
        assert_nothing_left(&c.bundle, kind);
    }
}

#[test]
fn a_time_out_of_a_hook_in_the_containers_root_leaves_nothing_either() {
    let script = "(setsid sleep 1000 &); sleep 1000 & exec sleep 1000";
    for bundle in [Bundle::busybox(), Bundle::busybox().without_namespace("pid")] {
        let c = with_time_limit(bundle.args(["true"]), "startContainer", script, 1).create();
        c.rt(["start", &c.id]).run().says(&["hooks.startContainer[0]", "not finished after 1 s"]);
        c.wait();
        assert_eq!(marked(&c.bundle), [""; 0]);
    }
}

/// The processes of a bundle's containers and hooks.
fn marked(bundle: &Bundle) -> Vec<String> {
    let mark = format!("RT_TEST={}", bundle.mark());
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let is_marked = |process: &std::path::PathBuf| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    all.filter(is_marked).map(|process| process.display().to_string()).collect()
}

#[test]
fn a_hook_that_starts_ever_more_ends_at_its_time() {
    let bundle = Bundle::busybox();
    let script = "while :; do (setsid sh -c 'sleep 1000 & sleep 1000' &); sleep 0.02; done";
    let bundle = with_time_limit(bundle, "createRuntime", script, 1);
    bundle.write();
    // What is left would be found when the bundle goes.
    bundle.launch(&["create"], &bundle.id()).run().says(&["not finished after 1 s"]).one_line();
}

#[test]
fn a_command_that_ends_while_its_hook_runs_takes_all_of_it_along() {
    let script = format!("{CROWD}; exec sleep 1000");
    for kind in ["createRuntime", "createContainer"] {
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            let bundle = hook(Bundle::busybox().without_namespace("pid"), kind, &script);
            bundle.write();
            let create = bundle.launch(&["create"], &bundle.id()).spawn();
            until("the hook has started all", || has_written(&bundle, "all"));
            create.signal(signal);
            create.finish().failure();
            until("all have ended", || crowd(&bundle).into_iter().all(|pid| !lives(pid)));
            bundle.rt(["delete", "--force", &bundle.id()]).run().success();
        }
    }
}

#[test]
fn what_a_hook_leaves_in_the_background_stays_if_the_hook_ends_in_time() {
    for status in [0, 3] {
        let script = format!("{CROWD}; exit {status}");
        let bundle = with_time_limit(Bundle::busybox(), "createRuntime", &script, 100);
        bundle.write();
        let done = bundle.launch(&["create"], &bundle.id()).run();
        let alive: Vec<_> = crowd(&bundle).into_iter().map(|pid| (pid, lives(pid))).collect();
        for process in marked(&bundle) {
            let pid = process.trim_start_matches("/proc/").parse().unwrap();
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
            reap(pid, std::time::Duration::from_secs(10));
        }
        bundle.rt(["delete", "--force", &bundle.id()]).run();
        assert_eq!(done.status == 0, status == 0, "{done}");
        assert!(alive.len() == 4 && alive.iter().all(|(_, lives)| *lives), "{alive:?}");
    }
}

/// What `/proc/self/status` of a startContainer hook says of filters, and what becomes of mkdir in it.
fn start_hook_under(filter: Value, change: impl FnOnce(&mut Value)) -> String {
    let look = "sed -n 's/^Seccomp:\\s*//p' /proc/self/status; mkdir /tmp/no 2>&1; ulimit -n";
    let hook =
        json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("{{ {look}; }} >/tmp/seen")] });
    let bundle = Bundle::busybox().writable().args(["cat", "/tmp/seen"]).config(|c| {
        c["hooks"] = json!({ "startContainer": [hook] });
        c["linux"]["seccomp"] = filter;
        change(c);
    });
    bundle.launch(&["run"], &bundle.id()).run().success().stdout
}

/// It is code of the image.
#[test]
fn a_start_container_hook_is_under_the_filter_and_the_limits_of_the_program() {
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls":
        [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }] });
    for no_new_privileges in [true, false] {
        let seen = start_hook_under(filter.clone(), |c| {
            c["process"]["noNewPrivileges"] = json!(no_new_privileges);
            c["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 77 }]);
        });
        let expected = "2\nmkdir: can't create directory '/tmp/no': Operation not permitted\n77\n";
        assert_eq!(seen, expected, "{no_new_privileges}");
    }
}

/// It waits for its pipe as often as that has room, in a process that has none of the descriptors by
/// which the command in the foreground hears of signals.
#[test]
fn a_container_in_the_foreground_gives_a_create_container_hook_all_of_a_long_state() {
    let bundle = Bundle::busybox().args(["true"]);
    let seen = bundle.beside("seen");
    let read = format!("sleep 0.3; wc -c >{}", seen.display());
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", read] });
    let bundle = bundle.config(|c| {
        c["annotations"] = json!({ "long": "x".repeat(300_000) });
        c["hooks"] = json!({ "createContainer": [hook] });
    });
    bundle.launch(&["run"], &bundle.id()).redirections("5</dev/null 6</dev/null").run().success();
    let length: usize = fs::read_to_string(seen).unwrap().trim().parse().unwrap();
    assert!(length > 300_000, "{length}");
}
