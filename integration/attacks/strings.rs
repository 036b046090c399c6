//! Long and strange strings. CVE-2021-43784 (runc): a length that overflowed 16 bits.

use serde_json::json;

use super::try_run;
use crate::harness::{Bundle, TempDir};

const LONG: usize = 70_000;

#[test]
fn a_long_argument_arrives_whole() {
    let text = "a".repeat(LONG);
    let done = Bundle::busybox().args(["sh", "-c", "echo ${#1}", "sh", &text]).run().success();
    assert_eq!(done.stdout, format!("{LONG}\n"));
}

#[test]
fn many_arguments_arrive_whole() {
    let numbers = (0..20_000).map(|number| number.to_string());
    let words = ["sh", "-c", "echo $#", "sh"].map(str::to_owned);
    let done = Bundle::busybox().args(words.into_iter().chain(numbers)).run().success();
    assert_eq!(done.stdout, "20000\n");
}

#[test]
fn an_argument_longer_than_the_kernel_takes_is_an_error() {
    let text = "a".repeat(200_000);
    Bundle::busybox().args(["echo", &text]).run().failure();
}

#[test]
fn a_long_environment_arrives_whole() {
    let value = "b".repeat(LONG);
    let bundle = Bundle::busybox().config(|c| {
        c["process"]["env"].as_array_mut().unwrap().push(json!(format!("LONG={value}")));
    });
    let done = bundle.script("echo ${#LONG}").run().success();
    assert_eq!(done.stdout, format!("{LONG}\n"));
}

#[test]
fn a_long_hostname_is_refused() {
    for length in [65, LONG] {
        let name = "h".repeat(length);
        Bundle::busybox().config(|c| c["hostname"] = name.into()).refused();
    }
}

#[test]
fn huge_id_maps_are_refused_or_whole() {
    for count in [341, 5_000] {
        let map: Vec<_> = (0..count)
            .map(|id| json!({ "containerID": id, "hostID": 100_000 + 2 * id, "size": 1 }))
            .collect();
        let bundle = Bundle::busybox().user_namespace().config(|c| {
            c["linux"]["uidMappings"] = json!(map);
            c["linux"]["gidMappings"] = json!(map);
        });
        bundle.refused();
    }
}

/// The kernel takes one page of text and at most 340 lines.
#[test]
fn two_hundred_and_fifty_id_maps_are_written() {
    let map: Vec<_> = (0..250)
        .map(|id| json!({ "containerID": id, "hostID": 100_000 + 2 * id, "size": 1 }))
        .collect();
    let bundle = Bundle::busybox().user_namespace().config(|c| {
        c["linux"]["uidMappings"] = json!(map);
        c["linux"]["gidMappings"] = json!(map);
    });
    let bundle = bundle.without_mount("/dev/pts").script("wc -l < /proc/self/uid_map");
    assert_eq!(bundle.run().success().stdout, "250\n");
}

#[test]
fn maps_that_overflow_are_refused() {
    for (container, host, size) in [
        (0_u64, 100_000_u64, 0_u64),
        (0, u64::from(u32::MAX), 2),
        (u64::from(u32::MAX), 100_000, 2),
        (0, 100_000, 1 << 33),
        (0, 1 << 33, 1),
    ] {
        let map = json!([{ "containerID": container, "hostID": host, "size": size }]);
        let bundle = Bundle::busybox().user_namespace().config(|c| {
            c["linux"]["uidMappings"] = map.clone();
            c["linux"]["gidMappings"] = map;
        });
        bundle.refused();
    }
}

#[test]
fn a_long_working_directory_and_a_long_destination_are_refused_or_work() {
    let deep = format!("/tmp{}", "/directory".repeat(300));
    try_run(&Bundle::busybox().writable().config(|c| c["process"]["cwd"] = deep.clone().into()));
    let long = format!("/{}", "d".repeat(LONG));
    for destination in [deep, long.clone()] {
        let mount = json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" });
        try_run(&Bundle::busybox().writable().mount(mount).args(["true"]));
    }
    Bundle::busybox().config(|c| c["process"]["cwd"] = long.into()).run().failure();
}

#[test]
fn a_nul_in_a_string_is_refused() {
    let change = |pointer: &str| {
        let bundle = Bundle::busybox().args(["echo", "hello"]);
        let mount = json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
            "options": ["size=1m"] });
        let bundle = bundle.mount(mount).config(|c| {
            let value = c.pointer_mut(pointer).unwrap();
            *value = format!("{}\0tail", value.as_str().unwrap()).into();
        });
        bundle.run().failure();
    };
    for pointer in [
        "/process/args/0",
        "/process/args/1",
        "/process/env/0",
        "/process/cwd",
        "/hostname",
        "/root/path",
        "/mounts/7/destination",
        "/mounts/7/source",
        "/mounts/7/options/0",
    ] {
        change(pointer);
    }
}

#[test]
fn a_long_id_and_a_long_root_work_together() {
    // A socket's path has room for 108 bytes: clients' paths are longer.
    let directory = TempDir::new();
    let root = directory.path().join("r".repeat(120)).join("s".repeat(60));
    let bundle = Bundle::busybox().args(["echo", "far away"]);
    let id = format!("{}{}", bundle.mark(), "i".repeat(64));
    let done = bundle.launch(&["run"], &id).root(&root, bundle.mark()).run().success();
    assert_eq!(done.stdout, "far away\n");
}

#[test]
fn a_configuration_that_is_no_object_or_is_cut_short_is_refused() {
    for text in ["", "{", "[]", "null", "{}", "{\"ociVersion\": \"1.0.2\"", &"[".repeat(100_000)] {
        let bundle = Bundle::busybox();
        std::fs::write(bundle.path().join("config.json"), text).unwrap();
        let path = bundle.path();
        let args = ["create", "--bundle", path.to_str().unwrap(), &bundle.id()].map(str::to_owned);
        bundle.rt(args).run().failure();
    }
}
