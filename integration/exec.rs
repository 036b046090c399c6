//! exec: a second process in a container, as near to the first as it can be.

mod caller;
mod options;
mod terminal;

use nix::sys::signal::Signal;

use crate::harness::{ALL_CAPABILITIES, Bundle, Container, namespace_of, proc_status, until};

fn sleeper() -> Container {
    Bundle::busybox().args(["sleep", "1000"]).start()
}

#[test]
fn exec_gives_the_output_and_the_status_of_the_process() {
    let c = sleeper();
    let done = c.exec(["sh", "-c", "echo out; echo err >&2; exit 6"]);
    assert_eq!((done.status, &*done.stdout, &*done.stderr), (6, "out\n", "err\n"));
    assert_eq!(c.exec(["true"]).success().stdout, "");
}

#[test]
fn exec_of_a_killed_process_gives_128_and_the_signal() {
    let c = sleeper();
    assert_eq!(c.exec(["sh", "-c", "kill -9 $$"]).status, 128 + 9);
    assert_eq!(c.exec(["sh", "-c", "kill -TERM $$"]).status, 128 + 15);
}

#[test]
fn exec_gives_255_for_every_error_of_the_runtime() {
    let c = sleeper();
    let done = c.exec(["no-such-program"]);
    assert_eq!(done.status, 255, "{done}");
    done.says(&["executable file not found in $PATH"]);
    let done = c.exec(["/no/such"]);
    assert_eq!(done.status, 255, "{done}");
    done.says(&["no such file or directory"]);
    assert_eq!(c.rt(["exec", &c.id]).run().status, 255);
    c.rt(["exec", "--no-such-option", &c.id, "true"]).run().failure();
}

#[test]
fn everything_after_the_command_belongs_to_the_command() {
    let c = sleeper();
    let done = c.exec(["echo", "--help", "-t", "--", "--cwd"]).success();
    assert_eq!(done.stdout, "--help -t -- --cwd\n");
}

#[test]
fn exec_enters_every_namespace_and_the_root_of_the_container() {
    let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let c = Bundle::busybox()
        .namespaces(&kinds)
        .user_namespace()
        .file("/here", "the image\n")
        .args(["sleep", "1000"])
        .start();
    let done = c.exec(["sh", "-c", "cat /here; for n in /proc/self/ns/*; do readlink $n; done"]);
    let done = done.success();
    let mut seen = done.stdout.lines();
    assert_eq!(seen.next(), Some("the image"));
    let init: Vec<_> = seen.collect();
    for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user"] {
        let own = namespace_of(c.pid(), kind);
        assert!(init.contains(&&*own), "{kind}: {own} is not in {init:?}");
    }
}

#[test]
fn exec_enters_the_cgroups_of_the_container() {
    let c = sleeper();
    let own = c.exec(["cat", "/proc/self/cgroup"]).success().stdout;
    let init = std::fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    assert_eq!(own, init);
}

#[test]
fn exec_has_the_users_environment_directory_and_limits_of_the_container() {
    let c = Bundle::busybox()
        .config(|c| {
            let process = &mut c["process"];
            process["cwd"] = "/tmp".into();
            process["user"] = serde_json::json!({ "uid": 7, "gid": 8 });
            process["env"].as_array_mut().unwrap().push("GREETING=hello".into());
        })
        .args(["sleep", "1000"])
        .start();
    let done = c.exec(["sh", "-c", "pwd; id -u; id -g; echo $GREETING; ulimit -n"]).success();
    assert_eq!(done.stdout, "/tmp\n7\n8\nhello\n1024\n");
}

#[test]
fn exec_has_the_out_of_memory_score_of_the_container_and_the_runtime_does_not_keep_it() {
    let c = Bundle::busybox().args(["sleep", "1000"]);
    let c = c.config(|c| c["process"]["oomScoreAdj"] = 321.into()).start();
    let exec = c.exec_rt(&[], ["sh", "-c", "cat /proc/self/oom_score_adj; sleep 1000"]).spawn();
    until("it has looked", || exec.output_so_far() == "321\n");
    let own = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", exec.pid())).unwrap();
    assert_eq!(own, std::fs::read_to_string("/proc/self/oom_score_adj").unwrap());
    c.kill("KILL");
    exec.finish();
}

#[test]
fn exec_is_confined_like_the_process_of_the_container() {
    let c = sleeper();
    let fields = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"];
    let status = c.exec(["cat", "/proc/self/status"]).success().stdout;
    for field in fields {
        let own = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        assert_eq!(own.unwrap().trim(), proc_status(c.pid(), field), "{field}");
    }
}

#[test]
fn nothing_is_ever_inheritable() {
    let c = Bundle::busybox().with_capabilities(ALL_CAPABILITIES).args(["sleep", "1000"]).start();
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(proc_status(c.pid(), set), "0000000000000000", "{set} of init");
        let done = c.exec(["grep", set, "/proc/self/status"]).success();
        assert!(done.stdout.contains("0000000000000000"), "{done}");
    }
}

#[test]
fn exec_works_in_a_created_container() {
    let c = Bundle::busybox().args(["echo", "init"]).create();
    assert_eq!(c.exec(["echo", "before init"]).success().stdout, "before init\n");
    assert_eq!(c.status(), "created");
    assert_eq!(c.finish(), (0, "init\n".to_owned()));
}

#[test]
fn exec_in_a_stopped_container_is_refused() {
    let c = Bundle::busybox().args(["true"]).start();
    c.wait();
    let done = c.exec(["true"]).says(&["cannot exec in a stopped container"]);
    assert_eq!(done.status, 255);
}

#[test]
fn exec_forwards_signals() {
    let c = sleeper();
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done";
    let exec = c.exec_rt(&[], ["sh", "-c", script]).spawn();
    until("the trap is set", || exec.output_so_far().contains("ready"));
    exec.signal(Signal::SIGTERM);
    assert_eq!(exec.finish().status, 3);
}

#[test]
fn exec_ends_when_the_container_is_killed() {
    let c = sleeper();
    let exec = c.exec_rt(&[], ["sh", "-c", "echo ready; sleep 1000"]).spawn();
    until("the process runs", || exec.output_so_far().contains("ready"));
    c.kill("KILL");
    c.wait();
    assert_eq!(exec.finish().status, 128 + 9);
}

#[test]
fn exec_gives_the_process_three_streams_and_nothing_more() {
    let c = sleeper();
    let rt = c.exec_rt(&[], ["sh", "-c", "echo $$; exec sleep 1000"]);
    let exec = rt.redirections("3</etc 5</ 8</proc").spawn();
    until("the process runs", || exec.output_so_far().contains('\n'));
    // By name: the container has one sleep more than its init, as soon as the shell has become it.
    let look = "for p in /proc/[0-9]*; do
        [ $p != /proc/1 ] && [ \"$(cat $p/comm)\" = sleep ] && ls $p/fd; done; true";
    until("it has its three streams", || {
        c.exec(["sh", "-c", look]).success().stdout == "0\n1\n2\n"
    });
    c.kill("KILL");
    exec.finish();
}

#[test]
fn many_execs_at_once_all_succeed() {
    let c = sleeper();
    let all: Vec<_> = (0..20).map(|n| c.exec_rt(&[], ["echo", &n.to_string()]).spawn()).collect();
    for (n, exec) in all.into_iter().enumerate() {
        assert_eq!(exec.finish().success().stdout, format!("{n}\n"));
    }
}

#[test]
fn an_ended_exec_leaves_no_process_in_the_container() {
    let c = sleeper();
    for _ in 0..5 {
        c.exec(["true"]).success();
    }
    let done = c.exec(["sh", "-c", "ls -d /proc/[0-9]*"]).success();
    assert_eq!(done.stdout.lines().count(), 2, "init and the shell: {done}");
}
