//! Filters: what the program may call, that nothing of the runtime's own has to pass them, and who
//! else gets them.

mod agent;
mod program;

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::{Value, json};

use crate::harness::{Bundle, Container, Running, proc_status, until};
pub(crate) use agent::Agent;

/// What docker gives a container without options.
pub(crate) const DOCKER: &str = include_str!("../src/security/seccomp/tests/docker.json");
/// What a process has that a filter has killed.
const KILLED: i32 = 128 + 31;

fn docker() -> Value {
    serde_json::from_str(DOCKER).unwrap()
}

/// `action` for `names`, everything else is allowed.
fn only(names: &[&str], action: &str) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": names, "action": action }],
    })
}

trait WithFilter {
    fn filter(self, profile: Value) -> Self;
    fn may_gain_privileges(self) -> Self;
}

impl WithFilter for Bundle {
    fn filter(self, profile: Value) -> Self {
        self.config(|c| c["linux"]["seccomp"] = profile)
    }

    fn may_gain_privileges(self) -> Self {
        self.config(|c| c["process"]["noNewPrivileges"] = json!(false))
    }
}

/// Tries to make a directory with that action, and says what becomes of the shell.
fn mkdir(action: &str, errno: Option<u32>) -> (i32, String) {
    let mut profile = only(&["mkdir", "mkdirat"], action);
    if let Some(errno) = errno {
        profile["syscalls"][0]["errnoRet"] = json!(errno);
    }
    let script = "mkdir /tmp/new 2>&1; echo status $?; ls -d /tmp/new";
    let done = Bundle::busybox().writable().filter(profile).script(script).run();
    (done.status, done.stdout)
}

#[test]
fn errno_is_the_answer_without_the_call() {
    let (_, output) = mkdir("SCMP_ACT_ERRNO", Some(28));
    assert!(output.contains("No space left on device\nstatus 1\n"), "{output}");
    let (_, output) = mkdir("SCMP_ACT_ERRNO", None);
    assert!(output.contains("Operation not permitted\nstatus 1\n"), "{output}");
}

#[test]
fn kill_ends_the_process_and_nobody_else() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS"] {
        let (status, output) = mkdir(action, None);
        assert!(output.ends_with(&format!("status {KILLED}\n")), "{action}: {output}");
        assert_eq!(status, 1, "{action}");
    }
    let bundle = Bundle::busybox().filter(only(&["mkdir", "mkdirat"], "SCMP_ACT_KILL"));
    assert_eq!(bundle.args(["mkdir", "/tmp/new"]).run().status, KILLED);
}

#[test]
fn trap_is_a_signal_that_can_be_caught() {
    let (_, output) = mkdir("SCMP_ACT_TRAP", None);
    assert!(output.ends_with(&format!("status {KILLED}\n")), "{output}");
    let bundle = Bundle::busybox().filter(only(&["umask"], "SCMP_ACT_TRAP"));
    let done = bundle.script("trap 'echo caught' SYS; umask 0; echo alive").run().success();
    assert_eq!(done.stdout, "caught\nalive\n");
}

#[test]
fn trace_without_a_tracer_is_no_such_call() {
    let (_, output) = mkdir("SCMP_ACT_TRACE", None);
    assert!(output.contains("Function not implemented\nstatus 1\n"), "{output}");
}

#[test]
fn log_lets_the_call_through() {
    assert_eq!(mkdir("SCMP_ACT_LOG", None), (0, "status 0\n/tmp/new\n".to_owned()));
    assert_eq!(mkdir("SCMP_ACT_ALLOW", None), (0, "status 0\n/tmp/new\n".to_owned()));
}

#[test]
fn arguments_decide() {
    let set_user_id = |index| json!([{ "index": index, "value": 0o4000, "valueTwo": 0o4000, "op": "SCMP_CMP_MASKED_EQ" }]);
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            { "names": ["chmod"], "action": "SCMP_ACT_ERRNO", "args": set_user_id(1) },
            { "names": ["fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "args": set_user_id(2) },
        ],
    });
    let script = "touch /tmp/f; chmod 755 /tmp/f && echo fine; chmod 4755 /tmp/f || echo refused";
    let done = Bundle::busybox().writable().filter(profile).script(script).run().success();
    assert_eq!(done.stdout, "fine\nrefused\n");
}

#[test]
fn run_start_and_exec_have_the_filter_with_and_without_new_privileges() {
    let status = ["grep", "-E", "Seccomp|NoNewPrivs", "/proc/self/status"];
    let seen = |new: u8| format!("NoNewPrivs:\t{new}\nSeccomp:\t2\nSeccomp_filters:\t1\n");
    for new in [1, 0] {
        let bundle = || {
            let bundle = Bundle::busybox().filter(docker());
            if new == 1 { bundle } else { bundle.may_gain_privileges() }
        };
        assert_eq!(bundle().args(status).run().success().stdout, seen(new));
        let c = bundle().args(["sleep", "1000"]).start();
        assert_eq!(proc_status(c.pid(), "Seccomp"), "2");
        assert_eq!(proc_status(c.pid(), "NoNewPrivs"), new.to_string());
        // What came after `create` changes nothing: exec has the same filter.
        fs::remove_file(c.bundle().path().join("config.json")).unwrap();
        assert_eq!(c.exec(status).success().stdout, seen(new));
        c.exec(["unshare", "-m", "true"]).failure();
    }
}

#[test]
fn a_container_without_a_profile_has_no_filter() {
    let c = Bundle::busybox().args(["sleep", "1000"]).start();
    assert_eq!(proc_status(c.pid(), "Seccomp"), "0");
    let done = c.exec(["grep", "Seccomp:", "/proc/self/status"]).success();
    assert_eq!(done.stdout, "Seccomp:\t0\n");
}

/// The program makes one call besides the execve(2) that becomes it.
#[test]
fn nothing_of_the_runtimes_own_passes_the_filter() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "syscalls": [{ "names": ["execve", "exit"], "action": "SCMP_ACT_ALLOW" }],
    });
    let exits = || program::container(&program::exits(42)).filter(profile.clone());
    assert_eq!(exits().run().status, 42);
    assert_eq!(exits().may_gain_privileges().run().status, 42);
    assert_eq!(exits().may_gain_privileges().create().finish().0, 42);
    let other_user = |c: &mut Value| c["process"]["user"] = json!({ "uid": 7, "gid": 8 });
    assert_eq!(exits().may_gain_privileges().config(other_user).run().status, 42);
    assert_eq!(exits().may_gain_privileges().user_namespace().run().status, 42);
}

#[test]
fn a_filter_costs_the_program_no_capability_and_gives_it_none() {
    let capabilities = |user: u32, profile: Option<Value>| {
        let mut bundle = Bundle::busybox()
            .with_capabilities(&["CAP_KILL", "CAP_CHOWN"])
            .config(|c| c["process"]["user"] = json!({ "uid": user, "gid": user }))
            .args(["grep", "Cap", "/proc/self/status"]);
        if let Some(profile) = profile {
            bundle = bundle.filter(profile);
        }
        bundle.run().success().stdout
    };
    for user in [0, 7] {
        assert_eq!(capabilities(user, Some(docker())), capabilities(user, None));
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_an_error_under_a_filter_too() {
    let bundle = || Bundle::busybox().file("/text", "no program\n").args(["/text"]);
    bundle().filter(docker()).run().says(&["exec format error"]);
    bundle().filter(docker()).may_gain_privileges().run().says(&["exec format error"]);
    bundle().filter(only(&["execve"], "SCMP_ACT_ERRNO")).run().says(&["operation not permitted"]);
}

/// Programs fall back to older calls then; after EPERM they give up.
#[test]
fn a_call_newer_than_the_profile_is_no_such_call() {
    let calls = |number: u16| program::container(&program::calls(number)).filter(docker());
    assert_eq!(calls(999).run().status, nix::libc::ENOSYS);
    assert_eq!(calls(nix::libc::SYS_unshare as u16).run().status, nix::libc::EPERM);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_32_bit_program_runs_under_dockers_profile() {
    let bundle = || program::container(&program::writes_32("from 32 bits\n"));
    let done = bundle().filter(docker()).run();
    assert_eq!((done.status, &*done.stdout), (7, "from 32 bits\n"));
    let mut profile = docker();
    profile["architectures"] = json!(["SCMP_ARCH_X86_64"]);
    assert_eq!(bundle().filter(profile).run().status, KILLED);
}

/// What busybox's mkdir calls.
#[cfg(target_arch = "x86_64")]
const MKDIR: i64 = nix::libc::SYS_mkdir;
#[cfg(not(target_arch = "x86_64"))]
const MKDIR: i64 = nix::libc::SYS_mkdirat;

/// A profile under which an agent is asked, which answers mkdir with ENOSPC.
pub(crate) fn asking(bundle: &Bundle, mut profile: Value) -> (Agent, Value) {
    let agent = Agent::start(bundle, MKDIR, nix::libc::ENOSPC);
    profile["listenerPath"] = json!(agent::socket(bundle));
    (agent, profile)
}

pub(crate) fn notify() -> Value {
    only(&["mkdir", "mkdirat"], "SCMP_ACT_NOTIFY")
}

#[test]
fn an_agent_answers_the_calls_of_a_container_and_of_exec() {
    let bundle = Bundle::busybox().writable();
    let (agent, mut profile) = asking(&bundle, notify());
    profile["listenerMetadata"] = json!("some words");
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    let bundle = bundle.filter(profile).config(|c| c["annotations"] = json!({ "a": "b" }));
    let c = bundle.script("mkdir /tmp/one 2>&1; exec sleep 1000").start();
    until("init has been answered", || c.output().contains("No space left on device"));
    let done = c.exec(["sh", "-c", "echo $$; mkdir /tmp/two 2>&1"]).failure();
    assert!(done.stdout.contains("No space left on device"), "{done}");
    assert_eq!(agent.output().matches(&format!("call {MKDIR}\n")).count(), 2);

    let [init, exec] = &agent.states()[..] else { panic!("two states: {}", agent.output()) };
    let mut state = init["state"].clone();
    assert_eq!(state["annotations"]["a"], "b");
    for (property, value) in [
        ("id", json!(c.id)),
        ("status", json!("created")),
        ("pid", json!(c.pid())),
        ("bundle", json!(c.bundle().path())),
    ] {
        assert_eq!(state[property], value, "{property}");
    }
    assert_eq!(
        *init,
        json!({
            "ociVersion": init["ociVersion"], "fds": ["seccompFd"], "pid": c.pid(),
            "metadata": "some words", "state": state,
        })
    );
    state["status"] = json!("running");
    assert_eq!(exec["state"], state);
    assert_ne!(exec["pid"], init["pid"]);
}

#[test]
fn an_agent_answers_the_calls_of_a_start_container_hook_and_of_the_program_after_it() {
    let bundle = Bundle::busybox().writable();
    let (agent, profile) = asking(&bundle, notify());
    let hook =
        json!({ "path": "/bin/sh", "args": ["sh", "-c", "mkdir /tmp/hook 2>/tmp/seen; true"] });
    let bundle =
        bundle.filter(profile).config(|c| c["hooks"] = json!({ "startContainer": [hook] }));
    let bundle = bundle.script("cat /tmp/seen; mkdir /tmp/program 2>&1");
    let done = bundle.launch(&["run"], &bundle.id()).run();
    assert_eq!(done.stdout.matches("No space left on device").count(), 2, "{done}");
    assert_eq!(agent.output().matches(&format!("call {MKDIR}\n")).count(), 2);
    assert_eq!(agent.states().len(), 2, "{}", agent.output());
}

#[test]
fn an_annotation_names_the_agent_of_a_profile_that_names_none() {
    let names = |path: std::path::PathBuf| json!({ "run.oci.seccomp.receiver": path });
    let script = "mkdir /tmp/one 2>&1";
    let bundle = Bundle::busybox().writable().script(script);
    let (agent, mut profile) = asking(&bundle, notify());
    profile.as_object_mut().unwrap().remove("listenerPath");
    let annotations = names(agent::socket(&bundle));
    let c = bundle.filter(profile).config(|c| c["annotations"] = annotations).create();
    assert!(c.finish().1.contains("No space left on device"), "{}", c.errors());
    assert_eq!(agent.states().len(), 1);
    // What the profile says goes first.
    let bundle = Bundle::busybox().writable().script(script);
    let (agent, profile) = asking(&bundle, notify());
    let elsewhere = names("/no/such/socket".into());
    let c = bundle.filter(profile).config(|c| c["annotations"] = elsewhere).create();
    assert!(c.finish().1.contains("No space left on device"), "{}", c.errors());
    assert_eq!(agent.states().len(), 1);
}

#[test]
fn names_of_no_call_are_refused_if_that_is_asked_for() {
    let with = |value: &str, profile: Value| {
        let annotations = json!({ "run.oci.seccomp_fail_unknown_syscall": value });
        Bundle::busybox().filter(profile).config(|c| c["annotations"] = annotations).args(["true"])
    };
    let profile = only(&["mkdir", "no_such_call"], "SCMP_ACT_ERRNO");
    let done = with("1", profile.clone()).refused();
    done.says(&["linux.seccomp.syscalls[0].names[1]: ", "no_such_call"]).one_line();
    with("0", profile).run().success();
    with("1", docker()).run().success();
}

/// Not even the calls that would bring the listener to the agent.
#[test]
fn an_agent_may_be_asked_about_every_call() {
    let profile = json!({ "defaultAction": "SCMP_ACT_NOTIFY" });
    for changes in [true, false] {
        let bundle = program::container(&program::exits(42));
        let (agent, profile) = asking(&bundle, profile.clone());
        let bundle = bundle.config(|c| c["process"]["noNewPrivileges"] = json!(changes));
        let bundle = bundle.filter(profile);
        assert_eq!(bundle.running().finish().status, 42);
        let calls = [nix::libc::SYS_execve, nix::libc::SYS_exit].map(|n| format!("call {n}"));
        let output = agent.output();
        assert_eq!(output.lines().skip(2).collect::<Vec<_>>(), calls, "{output}");
    }
}

#[test]
fn the_program_does_not_hold_the_listener_or_the_agents_socket() {
    let bundle = Bundle::busybox();
    let (_agent, profile) = asking(&bundle, notify());
    let c = bundle.filter(profile).args(["sleep", "1000"]).start();
    let held = format!("/proc/{}/fd", c.pid());
    until("it holds its three streams", || fs::read_dir(&held).unwrap().count() == 3);
}

/// What tells the agent is a second thread for a moment.
#[test]
fn an_agent_is_asked_where_one_process_is_allowed() {
    for view in crate::cgroups::views_with("pids") {
        let bundle = Bundle::busybox().in_view(view);
        let (_agent, profile) = asking(&bundle, notify());
        let bundle = bundle.filter(profile).resources(json!({ "pids": { "limit": 1 } }));
        assert_eq!(bundle.args(["echo", "alone"]).run().success().stdout, "alone\n");
    }
}

#[test]
fn without_an_agent_nothing_is_created_and_nothing_started() {
    let bundle = Bundle::busybox().args(["sleep", "1000"]);
    let (agent, profile) = asking(&bundle, notify());
    let socket = agent::socket(&bundle);
    let c = bundle.filter(profile.clone()).create();
    drop(agent);
    c.rt(["start", &c.id]).run().says(&["linux.seccomp.listenerPath", "Connection refused"]);
    assert_eq!(c.status(), "created");
    fs::remove_file(&socket).unwrap();
    let agent = Agent::start(c.bundle(), MKDIR, nix::libc::ENOSPC);
    c.start();
    drop(agent);
    c.exec(["true"]).says(&["linux.seccomp.listenerPath", "Connection refused"]);

    let done = Bundle::busybox().filter(profile.clone()).refused();
    done.one_line().says(&["linux.seccomp.listenerPath", "Connection refused"]);
    profile_at(profile, "/no/such").refused().says(&["listenerPath", "No such file or directory"]);
}

/// The agent is there when the container is planned, and gone before its program is to run.
#[test]
fn without_an_agent_run_leaves_nothing_and_runs_nothing() {
    let bundle = Bundle::busybox().writable().script("echo program > /ran");
    let (_agent, profile) = asking(&bundle, notify());
    let rm = json!({ "path": "/bin/rm", "args": ["rm", agent::socket(&bundle)] });
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", "echo hook > /ran"] });
    let bundle = bundle.filter(profile).config(|c| {
        c["hooks"] = json!({ "createRuntime": [rm], "startContainer": [hook] });
    });
    let (id, ran) = (bundle.id(), bundle.rootfs().join("ran"));
    let done = bundle.launch(&["run"], &id).run();
    let done = done.says(&["linux.seccomp.listenerPath", "No such file or directory"]);
    assert!(!ran.exists(), "{done}");
    bundle.rt(["state", &id]).run().says(&["does not exist"]);
}

fn profile_at(mut profile: Value, path: &str) -> Bundle {
    profile["listenerPath"] = json!(path);
    Bundle::busybox().filter(profile)
}

#[test]
fn an_agent_that_takes_nothing_ends_the_container() {
    let bundle = Bundle::busybox().args(["sleep", "1000"]);
    let socket = bundle.beside("deaf.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut profile = notify();
    profile["listenerPath"] = json!(socket);
    // More than the socket takes, of which nobody ever reads: the agent hangs up instead.
    profile["listenerMetadata"] = json!("x".repeat(4 << 20));
    let c = bundle.filter(profile).create();
    let agent = std::thread::spawn(move || drop(listener.accept().unwrap()));
    c.rt(["start", &c.id]).run().says(&["linux.seccomp.listenerPath"]);
    agent.join().unwrap();
    assert_eq!(c.wait(), 1);
    assert_eq!(c.status(), "stopped");
}

/// A container whose start waits for an agent that has not read all of what it is told.
fn beside_a_slow_agent(profile: &Value) -> (Container, Running, UnixStream) {
    let bundle = Bundle::busybox().args(["sh", "-c", "exit 7"]);
    let socket = bundle.beside("slow.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut profile = profile.clone();
    profile["listenerPath"] = json!(socket);
    profile["listenerMetadata"] = json!("x".repeat(4 << 20));
    let c = bundle.filter(profile).create();
    let start = c.rt(["start", &c.id]).spawn();
    (c, start, listener.accept().unwrap().0)
}

/// Whether every thread of the process sleeps.
fn sleeps(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map(Result::unwrap).all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().unwrap().starts_with('S')
    })
}

#[test]
fn init_sleeps_while_a_slow_agent_is_told_whatever_its_profile_forbids() {
    let asked = |default: &str, names: &[&str], args: Value| {
        json!({ "defaultAction": default, "syscalls":
            [{ "names": names, "action": "SCMP_ACT_NOTIFY", "args": args }] })
    };
    let argument =
        |index: u32, value: u64, op: &str| json!({ "index": index, "value": value, "op": op });
    for profile in [
        notify(),
        json!({ "defaultAction": "SCMP_ACT_NOTIFY" }),
        asked("SCMP_ACT_ERRNO", &["kexec_load"], json!([])),
        asked("SCMP_ACT_KILL_PROCESS", &["exit_group"], json!([])),
        asked(
            "SCMP_ACT_ERRNO",
            &["mknodat"],
            json!([
                argument(0, 5, "SCMP_CMP_EQ"),
                argument(3, 1 << 40, "SCMP_CMP_GT"),
                argument(1, 77, "SCMP_CMP_NE"),
            ]),
        ),
        asked(
            "SCMP_ACT_TRAP",
            &["socket"],
            json!([
                { "index": 1, "value": 0x8_000f, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ" },
            ]),
        ),
    ] {
        let (c, start, stream) = beside_a_slow_agent(&profile);
        // The messenger sleeps while the caller is busy, and so does init: nobody looks and looks.
        let mut times = 0;
        until("init sleeps", || {
            times = if sleeps(c.pid()) { times + 1 } else { 0 };
            times == 20
        });
        drop(stream);
        start.finish().says(&["linux.seccomp.listenerPath"]);
        assert_eq!(c.wait(), 1, "{profile}");
    }
}

#[test]
fn a_slow_agent_that_reads_in_the_end_gets_its_program() {
    let (c, start, mut stream) = beside_a_slow_agent(&notify());
    std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    start.finish().success();
    assert_eq!(c.wait(), 7);
}

#[test]
fn a_program_that_cannot_be_executed_is_an_error_with_an_agent_too() {
    let bundle = Bundle::busybox().file("/text", "no program\n").args(["/text"]);
    let (_agent, profile) = asking(&bundle, notify());
    bundle.filter(profile).run().says(&["exec format error"]);
}

#[test]
fn every_flag_is_taken() {
    let mut profile = docker();
    profile["flags"] = json!([
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    ]);
    Bundle::busybox().filter(profile).args(["true"]).run().success();
}
