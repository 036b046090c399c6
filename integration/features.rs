//! `features` tells the truth: it is valid, and what it names is done.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Bundle, Rt, Schema, namespace_of, proc_status};

fn features() -> Value {
    let done = Rt::bare(["features"]).run().success();
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}\n{done}"))
}

/// The strings of a list.
#[track_caller]
fn words(features: &Value, pointer: &str) -> Vec<String> {
    let list = features.pointer(pointer).and_then(Value::as_array);
    let list = list.unwrap_or_else(|| panic!("{pointer} of {features}"));
    list.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[test]
fn features_is_valid_by_the_published_schema() {
    assert_eq!(Schema::features().faults(&features()), [""; 0]);
}

#[test]
fn the_oldest_and_the_newest_version_that_features_names_run() {
    let features = features();
    for version in ["ociVersionMin", "ociVersionMax"] {
        let version = features[version].clone();
        let bundle = Bundle::busybox().config(|c| c["ociVersion"] = version);
        bundle.args(["true"]).run().success();
    }
}

#[test]
fn every_namespace_that_features_names_is_made() {
    let kinds = words(&features(), "/linux/namespaces");
    assert_eq!(kinds.len(), 8, "{kinds:?}");
    let list: Vec<_> = kinds.iter().map(String::as_str).filter(|kind| *kind != "user").collect();
    let bundle = Bundle::busybox().namespaces(&list).user_namespace();
    let c = bundle.args(["sleep", "100"]).start();
    for kind in kinds {
        let file = match kind.as_str() {
            "mount" => "mnt",
            "network" => "net",
            other => other,
        };
        assert_ne!(namespace_of(c.pid(), file), namespace_of("self", file), "{kind}");
    }
}

#[test]
fn every_capability_that_features_names_is_given_if_the_caller_holds_it() {
    let names = words(&features(), "/linux/capabilities");
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let c = Bundle::busybox().with_capabilities(&names).args(["sleep", "100"]).start();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap().trim();
    assert_eq!(proc_status(c.pid(), "CapEff"), own);
}

/// Each on a mount of its own, so that none hides what another does.
#[test]
fn every_mount_option_that_features_names_can_be_mounted_with() {
    let words = words(&features(), "/mountOptions");
    let map = json!([{ "containerID": 0, "hostID": 5000, "size": 65536 }]);
    let mut bundle = Bundle::busybox().directory("/bound");
    for word in words.iter().filter(|word| *word != "remount") {
        let destination = format!("/tmp/{word}");
        let mount = match word.as_str() {
            "bind" | "rbind" | "copy-symlink" | "src-nofollow" | "dest-nofollow" => {
                json!({ "type": "bind", "source": bundle.rootfs().join("bound") })
            }
            "idmap" | "ridmap" => json!({ "type": "bind", "source": bundle.rootfs().join("bound"),
                "uidMappings": map, "gidMappings": map }),
            _ => json!({ "type": "tmpfs", "source": "tmpfs" }),
        };
        bundle = bundle.writable().mount(mount).config(|c| {
            let mount = c["mounts"].as_array_mut().unwrap().last_mut().unwrap();
            mount["destination"] = destination.into();
            mount["options"] = json!([word]);
        });
    }
    let again = json!({ "destination": "/tmp/rw", "options": ["remount", "ro"] });
    let done = bundle.mount(again).args(["cat", "/proc/self/mountinfo"]).run().success();
    for word in words.iter().filter(|word| *word != "remount") {
        assert!(done.stdout.contains(&format!(" /tmp/{word} ")), "{word}\n{done}");
    }
    let remounted = done.stdout.lines().find(|line| line.contains(" /tmp/rw ")).unwrap();
    assert!(remounted.contains(" /tmp/rw ro"), "{remounted}");
}

#[test]
fn every_word_of_seccomp_that_features_names_is_taken() {
    let features = features();
    let seccomp = |list: &str| words(&features, &format!("/linux/seccomp/{list}"));
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    let rule = |action: &str, operator: &str| {
        let argument = json!({ "index": 0, "value": 1, "op": operator });
        json!({ "names": ["acct"], "action": action, "args": [argument] })
    };
    // Who is asked has a test of its own.
    let actions = seccomp("actions").into_iter().filter(|action| action != "SCMP_ACT_NOTIFY");
    let mut rules: Vec<_> = actions.map(|action| rule(&action, "SCMP_CMP_EQ")).collect();
    rules.extend(seccomp("operators").iter().map(|operator| rule("SCMP_ACT_ERRNO", operator)));
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": seccomp("archs"),
        "flags": seccomp("supportedFlags"),
        "syscalls": rules,
    });
    let c = Bundle::busybox().config(|c| c["linux"]["seccomp"] = profile);
    let c = c.args(["sleep", "100"]).start();
    assert_eq!(proc_status(c.pid(), "Seccomp"), "2");
    for flag in seccomp("supportedFlags") {
        assert!(seccomp("knownFlags").contains(&flag), "{flag}");
    }
}

#[test]
fn every_hook_that_features_names_runs() {
    let kinds = words(&features(), "/hooks");
    let bundle = Bundle::busybox();
    // Beside the bundle for the host, in the image for a hook in the container.
    let (outside, inside) = (bundle.beside("ran"), bundle.rootfs().join("ran"));
    let hook = |kind: &String| {
        let file = if kind == "startContainer" { "/ran" } else { outside.to_str().unwrap() };
        let script = format!("echo {kind} >> {file}");
        (kind.clone(), json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]))
    };
    let hooks: serde_json::Map<_, _> = kinds.iter().map(hook).collect();
    let bundle = bundle.writable().config(|c| c["hooks"] = hooks.into()).args(["true"]);
    bundle.launch(&["run"], &bundle.id()).run().success();
    let ran = [outside, inside].map(|file| fs::read_to_string(file).unwrap()).concat();
    let mut ran: Vec<_> = ran.lines().collect();
    ran.sort_by_key(|ran| kinds.iter().position(|kind| kind == ran));
    assert_eq!(ran, kinds);
}

/// CVE-2024-3154 (CRI-O): who lets strangers choose annotations has to know which of them do
/// something.
#[test]
fn features_names_every_annotation_that_does_something() {
    let mut read = BTreeSet::new();
    let mut todo = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let prefix = |word: &&str| {
            word.starts_with("org.") && word.ends_with('.') && !word.contains(char::is_whitespace)
        };
        read.extend(text.split('"').filter(prefix).map(str::to_owned));
    }
    let crun = [
        "keep_original_groups",
        "hooks.stdout",
        "hooks.stderr",
        "pidfd_receiver",
        "systemd.subgroup",
        "delegate-cgroup",
        "seccomp_fail_unknown_syscall",
        "seccomp.receiver",
        "mount_context_type",
    ];
    read.extend(crun.map(|name| format!("run.oci.{name}")));
    read.insert("org.criu.config".to_owned());
    let named = words(&features(), "/potentiallyUnsafeConfigAnnotations");
    assert_eq!(named.iter().cloned().collect::<BTreeSet<_>>(), read);
    assert!(named.contains(&"org.systemd.property.".to_owned()), "{named:?}");
}

#[test]
fn what_features_does_not_name_is_refused() {
    Rt::bare(["--cgroup-manager", "other", "list"]).run().failure().says(&["--cgroup-manager"]);
}

/// Without a mounted resctrl an error is all that there can be: the work itself has unit tests.
#[test]
fn intel_rdt_needs_a_mounted_resctrl() {
    assert_eq!(features()["linux"]["intelRdt"]["enabled"], true);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let bundle = Bundle::busybox().config(|c| c["linux"]["intelRdt"] = json!({}));
    match mounts.contains(" - resctrl ") {
        true => drop(bundle.args(["true"]).run().success()),
        false => drop(bundle.refused().one_line().says(&["linux.intelRdt", "resctrl"])),
    }
}

#[test]
fn every_memory_policy_that_features_names_is_set_for_init_and_exec() {
    let features = features();
    for mode in words(&features, "/linux/memoryPolicy/modes") {
        let nodes = if matches!(&*mode, "MPOL_DEFAULT" | "MPOL_LOCAL") { "" } else { "0" };
        let policy = json!({ "mode": mode, "nodes": nodes });
        let c = Bundle::busybox().config(|c| c["linux"]["memoryPolicy"] = policy);
        let c = c.args(["sleep", "100"]).start();
        let name = mode.trim_start_matches("MPOL_").to_lowercase().replace('_', " ");
        let name = name.replace("preferred many", "prefer (many)").replace("preferred", "prefer");
        let expected = if nodes.is_empty() { name } else { format!("{name}:0") };
        for maps in [
            fs::read_to_string(format!("/proc/{}/numa_maps", c.pid())).unwrap(),
            c.exec(["cat", "/proc/self/numa_maps"]).success().stdout,
        ] {
            let found =
                maps.lines().all(|line| line.split_once(' ').unwrap().1.starts_with(&expected));
            assert!(found, "{mode}: {expected}: {maps}");
        }
    }
    for flag in words(&features, "/linux/memoryPolicy/flags") {
        let policy = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": [flag] });
        let bundle = Bundle::busybox().config(|c| c["linux"]["memoryPolicy"] = policy);
        bundle.args(["true"]).run().success();
    }
    let nowhere = json!({ "mode": "MPOL_BIND", "nodes": "1000" });
    let bundle = Bundle::busybox().config(|c| c["linux"]["memoryPolicy"] = nowhere);
    bundle.refused().one_line().says(&["linux.memoryPolicy"]);
}
