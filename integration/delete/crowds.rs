//! Crowds that fork without end, with hardly any CPU time to die.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{delete_all, groups, shell};
use crate::cgroups::has;
use crate::harness::{Bundle, Container, View};

/// With the program of `bomb.c`: a shell ends where it cannot fork.
fn bomb(view: View, pids: u32, quota: u32) -> Bundle {
    let bundle = Bundle::busybox().in_view(view).args(["/bomb"]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/delete/bomb.c");
    let program = bundle.rootfs().join("bomb");
    let compiled = Command::new("cc").arg("-static").arg(source).arg("-o").arg(program).output();
    let compiled = compiled.unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let bundle = match has(view, "pids") {
        true => bundle.resources(json!({ "pids": { "limit": pids } })),
        false => bundle.config(|c| {
            // Without the controller the bound is the one for a user's processes.
            c["process"]["rlimits"] =
                json!([{ "type": "RLIMIT_NPROC", "soft": pids, "hard": pids }]);
            c["process"]["user"] = json!({ "uid": 54_321, "gid": 54_321 });
        }),
    };
    match has(view, "cpu") {
        true => bundle.resources(json!({ "cpu": { "quota": quota, "period": 100_000 } })),
        false => bundle,
    }
}

/// Waits as long as it takes with hardly any CPU time, on a busy host.
fn grown(c: &Container, size: usize) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let ps = c.rt(["ps", "--format", "json", &c.id]).limit(Duration::from_secs(60)).run();
        let pids: Vec<i32> = serde_json::from_str(&ps.success().stdout).unwrap();
        if pids.len() > size {
            return;
        }
        assert!(Instant::now() < end, "{} processes are no crowd yet", pids.len());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_fork_bomb_with_hardly_any_cpu_time_is_gone_at_the_first_try() {
    for view in View::all() {
        let c = bomb(view, 300, 4000).start();
        grown(&c, 100);
        delete_all(&c);
    }
}

#[test]
fn a_fork_bomb_in_the_hosts_pid_namespace_is_gone_at_the_first_try() {
    for view in View::all() {
        let c = bomb(view, 200, 3000).without_namespace("pid").start();
        grown(&c, 60);
        delete_all(&c);
    }
}

/// The container has set the quota itself, in a group below.
#[test]
fn a_crowd_that_has_no_cpu_time_in_a_group_below_is_gone_at_the_first_try() {
    for view in View::all().filter(|view| has(*view, "cpu")) {
        let c = bomb(view, 300, 100_000).start();
        grown(&c, 150);
        for group in groups(&c) {
            let script = format!(
                "cd {}; if [ -e cpu.cfs_quota_us ]; then mkdir in; echo 1000 >in/cpu.cfs_quota_us
                elif [ -e cpu.max ]; then mkdir in; else exit 0; fi
                for pid in $(cat cgroup.procs); do echo $pid >in/cgroup.procs 2>/dev/null || :; done",
                group.display()
            );
            shell(view, &script);
        }
        delete_all(&c);
    }
}
