//! How the kernel schedules the processes of a container: policies, priorities, CPUs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Bundle, Container, Host, proc_status};

/// A kernel with CONFIG_RT_GROUP_SCHED has real-time policies only where there is time for them.
fn is_grouped() -> bool {
    Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists()
}

/// `process.scheduler` of init, which sleeps.
fn sleeper(scheduler: &Value) -> Bundle {
    let bundle = Bundle::busybox().args(["sleep", "1000"]);
    let bundle = bundle.config(|c| c["process"]["scheduler"] = scheduler.clone());
    match is_grouped() {
        true => bundle.resources(json!({ "cpu": { "realtimeRuntime": 50_000 } })),
        false => bundle,
    }
}

/// Nice value, real-time priority and policy: fields 19, 40 and 41 of proc_pid_stat(5).
fn scheduling(stat: &str) -> [i64; 3] {
    let (_, rest) = stat.rsplit_once(") ").expect("the program's name");
    let fields: Vec<_> = rest.split(' ').collect();
    // After the number and the name the first one is the third.
    [19, 40, 41].map(|number| fields[number - 3].parse().unwrap())
}

fn of_init(c: &Container) -> [i64; 3] {
    scheduling(&fs::read_to_string(format!("/proc/{}/stat", c.pid())).unwrap())
}

fn of_exec(c: &Container) -> [i64; 3] {
    scheduling(&c.exec(["cat", "/proc/self/stat"]).success().stdout)
}

/// The policies of sched(7) by number.
const POLICIES: [(&str, i64); 3] = [("SCHED_OTHER", 0), ("SCHED_BATCH", 3), ("SCHED_IDLE", 5)];

#[test]
fn every_policy_holds_for_init_and_for_exec() {
    for (policy, number) in POLICIES {
        let c = sleeper(&json!({ "policy": policy, "nice": 5 })).start();
        // What is idle has no nice value; the kernel keeps the last one.
        let nice = if policy == "SCHED_IDLE" { of_init(&c)[0] } else { 5 };
        assert_eq!(of_init(&c), [nice, 0, number], "{policy}");
        assert_eq!(of_exec(&c), [nice, 0, number], "{policy}");
    }
    for (policy, number) in [("SCHED_FIFO", 1), ("SCHED_RR", 2)] {
        let c = sleeper(&json!({ "policy": policy, "priority": 7 })).start();
        // Of real time the nice value is no part: it stays the caller's.
        assert_eq!(of_init(&c)[1..], [7, number], "{policy}");
        assert_eq!(of_exec(&c)[1..], [7, number], "{policy}");
    }
}

#[test]
fn a_deadline_holds_for_init() {
    let scheduler = json!({ "policy": "SCHED_DEADLINE", "runtime": 1_000_000,
        "deadline": 100_000_000, "period": 100_000_000, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
    assert_eq!(of_init(&sleeper(&scheduler).start())[2], 6);
}

#[test]
fn a_real_time_policy_without_time_is_refused() {
    let scheduler = json!({ "policy": "SCHED_FIFO", "priority": 7 });
    let bundle = sleeper(&scheduler);
    if is_grouped() {
        let bundle = bundle.resources(json!({ "cpu": { "realtimeRuntime": 0 } }));
        bundle.refused().says(&["process.scheduler", "realtimeRuntime"]).one_line();
    }
    let c = sleeper(&json!({ "policy": "SCHED_DEADLINE", "runtime": 1u64 << 40,
        "deadline": 1u64 << 41 }));
    c.refused().says(&["process.scheduler"]).one_line();
}

#[test]
fn a_policy_that_is_reset_is_not_handed_down() {
    let flags = ["SCHED_FLAG_RESET_ON_FORK"];
    let done = sleeper(&json!({ "policy": "SCHED_FIFO", "priority": 7, "flags": flags }))
        .script("cat /proc/self/stat; true")
        .run();
    assert_eq!(scheduling(&done.success().stdout), [0, 0, 0]);
}

/// Where init itself would not be allowed to.
#[test]
fn a_higher_priority_holds_in_a_user_namespace() {
    let c = sleeper(&json!({ "policy": "SCHED_OTHER", "nice": -9 })).user_namespace();
    let c = c.config(|c| {
        c["process"]["user"]["uid"] = 7.into();
        c["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_RT", "priority": 2 });
    });
    let c = c.start();
    assert_eq!(of_init(&c), [-9, 0, 0]);
    assert_eq!(of_exec(&c), [-9, 0, 0]);
    assert_eq!(c.exec(["ionice"]).success().stdout, "realtime: prio 2\n");
}

#[test]
fn a_priority_for_input_and_output_holds_for_init_and_for_exec() {
    for (class, level, shown) in [
        ("IOPRIO_CLASS_RT", 0, "realtime: prio 0\n"),
        ("IOPRIO_CLASS_BE", 7, "best-effort: prio 7\n"),
        // busybox shows no level of the idle class.
        ("IOPRIO_CLASS_IDLE", 0, "idle\n"),
    ] {
        let bundle = Bundle::busybox().script("ionice; exec sleep 1000");
        let c = bundle.config(|c| {
            c["process"]["ioPriority"] = json!({ "class": class, "priority": level });
        });
        let c = c.start();
        assert_eq!(c.exec(["ionice", "-p", "1"]).success().stdout, shown);
        assert_eq!(c.exec(["ionice"]).success().stdout, shown);
    }
}

fn allowed(c: &Container) -> String {
    proc_status(c.pid(), "Cpus_allowed_list")
}

fn allowed_in_exec(c: &Container) -> String {
    let status = c.exec(["cat", "/proc/self/status"]).success().stdout;
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.expect("a list of CPUs").trim().to_owned()
}

/// CPUs of this machine: all as the kernel lists them, the first and the last.
fn cpus() -> (String, usize, usize) {
    let all = fs::read_to_string("/proc/thread-self/status").unwrap();
    let all = all.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let all = all.trim().to_owned();
    let ends: Vec<usize> = all.split([',', '-']).map(|cpu| cpu.parse().unwrap()).collect();
    (all, ends[0], ends[ends.len() - 1])
}

#[test]
fn the_cpus_that_the_caller_is_bound_to_are_not_those_of_the_container() {
    let (all, first, _) = cpus();
    Host::bound_to(first, || {
        let c = Bundle::busybox().args(["sleep", "1000"]).start();
        assert_eq!(allowed(&c), all);
        assert_eq!(allowed_in_exec(&c), all);
    });
}

#[test]
fn the_cpuset_holds_whatever_the_caller_is_bound_to() {
    let (_, first, last) = cpus();
    Host::bound_to(first, || {
        let limits = json!({ "cpu": { "cpus": last.to_string() } });
        let c = Bundle::busybox().resources(limits).args(["sleep", "1000"]).start();
        assert_eq!(allowed(&c), last.to_string());
        assert_eq!(allowed_in_exec(&c), last.to_string());
    });
}

fn with_exec_affinity(affinity: Value) -> Container {
    let bundle = Bundle::busybox().args(["sleep", "1000"]);
    bundle.config(|c| c["process"]["execCPUAffinity"] = affinity).start()
}

#[test]
fn the_cpus_of_exec_are_not_those_of_init() {
    let (all, first, last) = cpus();
    let c = with_exec_affinity(json!({ "final": last.to_string() }));
    assert_eq!((allowed(&c), allowed_in_exec(&c)), (all.clone(), last.to_string()));
    let both = json!({ "initial": last.to_string(), "final": first.to_string() });
    let c = with_exec_affinity(both);
    assert_eq!((allowed(&c), allowed_in_exec(&c)), (all.clone(), first.to_string()));
    let c = with_exec_affinity(json!({ "initial": "", "final": "" }));
    assert_eq!((allowed(&c), allowed_in_exec(&c)), (all.clone(), all));
}

/// What the file does not say is as in the container, as with runc.
#[test]
fn the_process_of_a_file_is_scheduled_and_limited_as_it_says_or_as_the_container() {
    let (all, first, last) = cpus();
    let c = sleeper(&json!({ "policy": "SCHED_BATCH", "nice": 5 })).config(|c| {
        let process = &mut c["process"];
        process["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
        process["execCPUAffinity"] = json!({ "final": last.to_string() });
        process["oomScoreAdj"] = 321.into();
        process["user"]["umask"] = 0o27.into();
    });
    let c = c.start();
    assert_eq!(allowed(&c), all);
    let script = "cut -d ' ' -f 19,40,41 /proc/$$/stat; ionice -p $$; ulimit -n;
        umask; cat /proc/$$/oom_score_adj; sed -n 's/Cpus_allowed_list:.//p' /proc/$$/status";
    let mut file = json!({ "cwd": "/", "args": ["sh", "-c", script], "user": {} });
    let run = |file: &Value| {
        let path = c.bundle().beside("process.json");
        fs::write(&path, file.to_string()).unwrap();
        let options = ["--process", path.to_str().unwrap()];
        c.exec_with::<&str>(&options, []).success().stdout
    };
    assert_eq!(run(&file), format!("5 0 3\nbest-effort: prio 6\n1024\n0027\n321\n{last}\n"));
    file["scheduler"] = json!({ "policy": "SCHED_OTHER", "nice": 7 });
    file["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 1 });
    file["execCPUAffinity"] = json!({ "final": first.to_string() });
    file["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 64 }]);
    file["oomScoreAdj"] = 322.into();
    file["user"]["umask"] = 0o77.into();
    assert_eq!(run(&file), format!("7 0 0\nbest-effort: prio 1\n64\n0077\n322\n{first}\n"));
}

#[test]
fn cpus_that_do_not_exist_are_refused_by_exec_alone() {
    for name in ["initial", "final"] {
        let c = with_exec_affinity(json!({ name: "4095,60000" }));
        c.exec(["true"]).says(&["CPU", "Invalid argument"]).one_line();
    }
    let wrong = json!({ "initial": "0-65536" });
    Bundle::busybox()
        .config(|c| c["process"]["execCPUAffinity"] = wrong)
        .refused()
        .says(&["process.execCPUAffinity.initial"]);
}
