//! A payload with CAP_SYS_PTRACE looks through `/proc/PID` at whatever enters its pid namespace.
//! CVE-2016-9962 (runc) and what CVE-2024-21626 (runc) was made of.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{ALL_CAPABILITIES, Bundle, Canary, View, until};

#[test]
fn a_payload_that_may_trace_never_reaches_the_host_through_an_exec() {
    // What the caller holds of cgroups depends on the view.
    View::all().for_each(look_through_execs);
}

fn look_through_execs(view: View) {
    let canary = Canary::plant();
    let script = format!(
        "echo ready; while :; do for p in /proc/[0-9]*; do
            for way in root cwd; do
                [ -e $p/$way{canary}/file ] && echo \"$p/$way is the host's\"
                echo stolen 2>/dev/null >$p/$way{canary}/new
            done
            for fd in $p/fd/*; do
                # Looked at twice: in between the process may have ended.
                [ -d $fd ] && ! [ $fd -ef / ] || continue
                ! [ $fd/.. -ef $fd ] && [ -d $fd ] && echo \"$fd has something above it\"
                [ -e $fd/self/status ] && echo \"$fd is a procfs\"
                echo max 2>/dev/null >$fd/cgroup.max.depth && echo \"$fd can be written\"
            done
        done; done",
        canary = canary.path().display()
    );
    let bundle = Bundle::busybox().in_view(view).with_capabilities(ALL_CAPABILITIES);
    // The score is written in a procfs, the pid file in a directory of the caller's.
    let bundle = bundle.config(|c| c["process"]["oomScoreAdj"] = 500.into());
    let c = bundle.script(&script).start();
    until("the payload looks", || c.output().contains("ready"));
    let pid_file = c.bundle().beside("exec.pid").display().to_string();
    for _ in 0..60 {
        c.exec_with(&["--pid-file", &pid_file], ["true"]).success();
    }
    c.kill("KILL");
    c.wait();
    let output = c.output();
    let seen: BTreeSet<_> = output.lines().collect();
    assert_eq!(seen, BTreeSet::from(["ready"]));
    canary.assert_untouched();
}

/// Init waits for `start` as long as it takes, beside whatever `exec` has brought in.
#[test]
fn the_init_of_a_created_container_holds_nothing_that_leads_anywhere() {
    let bundle = Bundle::busybox().with_capabilities(ALL_CAPABILITIES).config(|c| {
        c["process"]["oomScoreAdj"] = 100.into();
        c["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "99" });
    });
    let c = bundle.args(["true"]).create();
    let inside =
        c.exec(["sh", "-c", "for fd in /proc/1/fd/*; do [ -d $fd ] && echo $fd; done; true"]);
    assert_eq!(inside.success().stdout, "", "directories");
}
