//! `linux.maskedPaths` and `linux.readonlyPaths`.

use serde_json::json;

use crate::harness::Bundle;

fn image() -> Bundle {
    Bundle::busybox()
        .writable()
        .file("/secret/key", "key\n")
        .file("/secret/deep/key", "key\n")
        .file("/file", "text\n")
        .link("/to/file", "/file")
        .link("/to/directory", "../secret")
}

#[test]
fn masked_paths_are_empty_and_stay_so() {
    for paths in [
        json!(["/file", "/secret"]),
        json!(["/secret", "/secret", "/file", "/file", "//file", "/secret/", "/./secret/../file"]),
        json!(["/to/file", "/to/directory"]),
        json!(["/secret/deep", "/secret/deep/key", "/secret", "/nowhere", "/file/x", "/file"]),
    ] {
        let bundle = image().config(|c| c["linux"]["maskedPaths"] = paths.clone());
        let script =
            "cat /file; ls -A /secret; echo x > /file; touch /secret/x 2>&1; ls -A /secret";
        let done = bundle.script(script).run();
        assert_eq!(done.stdout, "touch: /secret/x: Read-only file system\n", "{paths} {done}");
    }
}

#[test]
fn readonly_paths_can_be_read_and_not_written() {
    for paths in [
        json!(["/file", "/secret"]),
        json!(["/secret", "/secret/", "/file", "/file", "/secret/deep", "/secret"]),
        json!(["/to/file", "/to/directory", "/nowhere", "/file/x"]),
    ] {
        let bundle = image().config(|c| c["linux"]["readonlyPaths"] = paths.clone());
        let script = "cat /file; cat /secret/deep/key; touch /else && (echo x > /file) 2>&1;
            touch /secret/x /secret/deep/x 2>&1";
        let done = bundle.script(script).run();
        let refused = "Read-only file system";
        let expected = format!(
            "text\nkey\nsh: can't create /file: {refused}\ntouch: /secret/x: {refused}\n\
            touch: /secret/deep/x: {refused}\n"
        );
        assert_eq!(done.stdout, expected, "{paths} {done}");
    }
}

#[test]
fn a_readonly_path_keeps_the_other_flags_of_its_mount() {
    let bundle = image()
        .mount(json!({ "destination": "/tmp", "type": "tmpfs", "options": ["nosuid", "noexec"] }))
        .config(|c| c["linux"]["readonlyPaths"] = json!(["/tmp"]))
        .args(["grep", " /tmp ", "/proc/self/mountinfo"]);
    let done = bundle.run().success();
    let last = done.stdout.lines().last().unwrap();
    assert!(last.contains(" /tmp ro,nosuid,noexec,"), "{done}");
}

#[test]
fn a_readonly_path_can_be_masked_and_below_it_as_well() {
    let bundle = image().config(|c| {
        c["linux"]["readonlyPaths"] = json!(["/secret"]);
        c["linux"]["maskedPaths"] = json!(["/secret/deep"]);
    });
    let done = bundle.script("cat /secret/key; ls -A /secret/deep").run().success();
    assert_eq!(done.stdout, "key\n");
}

#[test]
fn the_root_can_be_a_readonly_path_but_not_a_masked_one() {
    let bundle = image().config(|c| c["linux"]["readonlyPaths"] = json!(["/file", "/"]));
    let done = bundle.script("touch /x /proc/x 2>&1").run();
    assert!(done.stdout.starts_with("touch: /x: Read-only file system\n"), "{done}");
    for root in ["/", "/..", "/tmp/.."] {
        let bundle = image().config(|c| c["linux"]["maskedPaths"] = json!(["/file", root]));
        bundle.refused().says(&["linux.maskedPaths[1]"]).one_line();
    }
}
