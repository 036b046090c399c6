//! What podman, docker and containerd do to the runtime that they call, and to the containers in
//! which they run themselves. The clients' own scenarios are in `integration/clients`.

use serde_json::json;

use crate::harness::{ALL_CAPABILITIES, Bundle, View, runtime};

#[test]
fn a_container_outlives_a_caller_whose_end_would_be_the_runtimes() {
    let bundle = Bundle::busybox().args(["sleep", "100"]);
    let script = "\"$@\" & wait $!";
    let c = bundle.behind(&["sh", "-c", script, "sh", "setpriv", "--pdeathsig", "KILL"]).create();
    c.start();
    assert_eq!(c.status(), "running");
    c.exec(["true"]).success();
}

/// conmon has closed the descriptors that its variables name, and podman's runtime directory of
/// users is empty for root.
#[test]
fn the_environment_of_conmon_changes_nothing() {
    let words = ["env", "_OCI_SYNCPIPE=3", "_OCI_STARTPIPE=4", "XDG_RUNTIME_DIR="];
    let c = Bundle::busybox().behind(&words).args(["env"]).create();
    let (status, output) = c.finish();
    assert_eq!(status, 0);
    assert!(!output.contains("_OCI_") && !output.contains("XDG_"), "{output}");
}

#[test]
fn a_program_with_the_modest_rights_that_podman_gives_may_ping() {
    let range = "net.ipv4.ping_group_range";
    let bundle = Bundle::busybox().config(|c| c["linux"]["sysctl"] = json!({ range: "0 0" }));
    let done = bundle.args(["cat", "/proc/sys/net/ipv4/ping_group_range"]).run().success();
    assert_eq!(done.stdout, "0\t0\n");
}

/// docker's and podman's profiles, whose default answer is that there is no such call.
#[test]
fn the_default_of_a_profile_may_have_a_number_of_its_own() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "syscalls": [{ "names": ["execve", "brk", "arch_prctl", "set_tid_address", "getuid", "write",
            "set_robust_list", "prctl", "mprotect", "exit_group", "writev"], "action": "SCMP_ACT_ALLOW" }]
    });
    let bundle = Bundle::busybox().config(|c| c["linux"]["seccomp"] = profile);
    let done = bundle.args(["mkdir", "/tmp/new"]).run().failure();
    done.says(&["Function not implemented"]);
}

#[test]
fn control_groups_can_be_seen_in_a_joined_pid_namespace() {
    for view in View::all() {
        let donor = Bundle::busybox().in_view(view).args(["sleep", "100"]).start();
        let joins = Bundle::busybox().in_view(view).joins("pid", &donor.namespace("pid"));
        let done = joins.script("grep -c cgroup /proc/self/mountinfo").run().success();
        assert_ne!(done.stdout, "0\n", "{view:?}");
    }
}

#[test]
fn a_container_runs_in_a_container() {
    for view in View::all() {
        let script = "cp -a /bin /run/bundle/rootfs/ && cd /run/bundle &&
            sed -i 's/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"echo\", \"inner\"/' config.json &&
            rt --root /run/state run inner";
        let script = format!(
            "mkdir -p /run/state /run/bundle/rootfs && rt --root /run/state spec -b /run/bundle && {script}"
        );
        let bundle = Bundle::busybox().in_view(view).file("/bin/rt", "").script(&script);
        let bundle = bundle.with_capabilities(ALL_CAPABILITIES).writable();
        let bundle = bundle.mount(json!({ "destination": "/bin/rt", "type": "bind",
            "source": runtime(), "options": ["bind", "ro"] }));
        let bundle = bundle.mount(json!({ "destination": "/run", "type": "tmpfs" }));
        let done = bundle.config(|c| {
            c["linux"]["maskedPaths"] = json!([]);
            c["linux"]["readonlyPaths"] = json!([]);
            for mount in c["mounts"].as_array_mut().into_iter().flatten() {
                if mount["type"] == "cgroup" {
                    mount["options"] = json!(["rw"]);
                }
            }
        });
        assert_eq!(done.run().success().stdout, "inner\n", "{view:?}");
    }
}
