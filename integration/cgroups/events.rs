//! `events`: statistics, and the end of memory.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Setup, has, is_v2, sleeper, views_with};
use crate::harness::{Bundle, Container, View, runc, until, waits_in};

fn stats(c: &Container) -> Value {
    let done = c.rt(["events", "--stats", &c.id]).run().success();
    let begin = format!(r#"{{"type":"stats","id":"{}","data":{{"#, c.id);
    assert!(done.stdout.starts_with(&begin), "{done}");
    let event: Value =
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}\n{done}"));
    event["data"].clone()
}

#[test]
fn stats_have_runcs_shape() {
    for view in View::all() {
        let c = sleeper(view).start();
        let stats = stats(&c);
        for part in ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt"] {
            assert!(stats[part].is_object(), "{view:?} {part}: {stats}");
        }
        assert!(stats["network_interfaces"].is_null());
        assert_eq!(stats["pids"]["current"], 1, "{view:?}");
        assert!(stats["cpu"]["usage"]["total"].is_u64(), "{view:?} {stats}");
        if has(view, "memory") {
            let memory = &stats["memory"];
            assert!(memory["usage"]["usage"].as_u64() > Some(0), "{view:?} {memory}");
            assert!(memory["usage"]["limit"].as_u64() > Some(1 << 50), "{view:?} {memory}");
            // The kernel gathers these now and then (`flush_memcg_stats_dwork`).
            let faults = || self::stats(&c)["memory"]["raw"]["pgfault"].as_u64();
            until("page faults are counted", || faults() > Some(0));
            assert_eq!(memory["events"]["oom_kill"], 0, "{view:?} {memory}");
        }
    }
}

/// The keys of objects, and of the objects in them: `memory.usage.limit`.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        keys(value, &path, found);
        found.insert(path);
    }
    for one in value.as_array().into_iter().flatten() {
        keys(one, &format!("{path}[]"), found);
    }
}

/// Debian's runc as the model, where it can have every controller: on version 1.
#[test]
fn stats_have_every_key_of_runcs() {
    for view in View::all().filter(|view| *view == View::V1) {
        let keys_of = |bundle: Bundle| {
            let mut found = BTreeSet::new();
            keys(&stats(&bundle.start()), "", &mut found);
            found
        };
        let limits = json!({ "pids": { "limit": 33 }, "memory": { "limit": 64 << 20 } });
        let ours = keys_of(sleeper(view).resources(limits.clone()));
        let theirs = keys_of(sleeper(view).resources(limits).for_runtime(runc()));
        assert!(theirs.len() > 40, "{theirs:#?}");
        let missing: Vec<_> = theirs.difference(&ours).collect();
        assert!(missing.is_empty(), "{missing:#?}");
    }
}

#[test]
fn stats_show_the_limits() {
    for view in views_with("memory").into_iter().filter(|view| has(*view, "pids")) {
        let limits = json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 33 } });
        let c = sleeper(view).resources(limits).start();
        let stats = stats(&c);
        assert_eq!(stats["pids"]["limit"], 33);
        assert_eq!(stats["memory"]["usage"]["limit"], 64 << 20);
    }
}

#[test]
fn pressure_is_shown_where_the_kernel_measures_it() {
    for view in View::all() {
        let path = if is_v2(view) { "" } else { "unified/" };
        let file = format!("/sys/fs/cgroup/{path}cpu.pressure");
        let measured = view.command("cat").arg(file).output().unwrap().status.success();
        let c = sleeper(view).start();
        let stats = stats(&c);
        for part in ["cpu", "memory", "blkio"] {
            let some = &stats[part]["psi"]["some"];
            assert_eq!(some["total"].is_u64() && some["avg10"].is_f64(), measured, "{view:?}");
        }
    }
}

#[test]
fn throttled_time_grows_at_a_small_part_of_a_cpu() {
    for setup in Setup::with("cpu") {
        let c = setup
            .bundle()
            // So little that they would get more of every period also on a busy machine.
            .resources(json!({ "cpu": { "quota": 1_000, "period": 50_000 } }))
            .script("f() { while :; do :; done; }; f & f & f & f")
            .start();
        let throttled = || {
            let throttling = &stats(&c)["cpu"]["throttling"];
            [&throttling["throttledPeriods"], &throttling["throttledTime"]]
                .map(|number| number.as_u64().unwrap())
        };
        until("it is throttled", || throttled().iter().all(|number| *number > 0));
        let [_, before] = throttled();
        until("it is throttled more", || throttled()[1] > before);
    }
}

/// A container that runs out of memory after a line on its standard input.
fn glutton(view: View) -> Bundle {
    Bundle::busybox()
        .in_view(view)
        .resources(json!({ "memory": { "limit": 8 << 20, "swap": 8 << 20 } }))
        .mount(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }))
}

#[test]
fn the_end_of_memory_is_an_event_and_137() {
    for view in views_with("memory") {
        let c = glutton(view).args(["dd", "if=/dev/zero", "of=/tmp/full", "bs=1M", "count=64"]);
        let c = c.create();
        let events = c.rt(["events", "--interval", "1h", &c.id]).spawn();
        // It has nothing to say before, so its registration and that it waits can be seen of it.
        let pid = events.pid();
        until("it listens", || {
            let links =
                std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            links
                .filter_map(|link| std::fs::read_link(link.path()).ok())
                .any(|target| target.to_string_lossy().contains("memory."))
                && waits_in(pid, "poll")
        });
        c.start();
        assert_eq!(c.wait(), 137, "{view:?}");
        let done = events.finish().success();
        let lines: Vec<Value> =
            done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!lines.is_empty(), "{view:?}");
        assert!(lines.iter().all(|line| *line == json!({ "type": "oom", "id": c.id })), "{done}");
    }
}

#[test]
fn events_come_again_and_again_and_end_with_the_container() {
    for view in View::all() {
        let c = sleeper(view).start();
        let events = c.rt(["events", "--interval", "10ms", &c.id]).spawn();
        until("there are three", || events.output_so_far().lines().count() >= 3);
        c.kill("KILL");
        c.wait();
        let done = events.finish().success();
        for line in done.stdout.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["type"], "stats");
        }
    }
}

#[test]
fn events_say_what_is_wrong() {
    let c = Bundle::busybox().args(["true"]).start();
    c.rt(["events", "--interval", "0s", &c.id]).run().says(&["--interval"]);
    c.rt(["events", "--interval", "soon", &c.id]).run().says(&["--interval"]);
    c.wait();
    c.rt(["events", "--stats", &c.id]).run().says(&["container with id", "is not running"]);
    c.rt(["events", "no-such-container"]).run().says(&["container does not exist"]);
}
