//! `/dev` of a container, and the devices of its configuration.

use serde_json::{Value, json};

use crate::harness::Bundle;

const LOOK: &str = "stat -c '%n %A %u:%g %t:%T' $(for d in \"$@\"; do echo $d; done)";

fn look(bundle: Bundle, paths: &[&str]) -> Vec<String> {
    let command = ["sh", "-c", LOOK, "sh"].into_iter().chain(paths.iter().copied());
    let done = bundle.args(command).run().success();
    done.stdout.lines().map(str::to_owned).collect()
}

fn with_devices(devices: Value) -> Bundle {
    Bundle::busybox().config(|c| c["linux"]["devices"] = devices)
}

#[test]
fn the_default_devices_are_there() {
    let paths = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
    let numbers = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"];
    let expected: Vec<_> = paths
        .iter()
        .zip(numbers)
        .map(|(path, number)| format!("{path} crw-rw-rw- 0:0 {number}"))
        .collect();
    assert_eq!(look(Bundle::busybox(), &paths), expected);
}

#[test]
fn the_default_links_are_there() {
    let script = "cd /dev; for l in fd stdin stdout stderr ptmx; do readlink $l; done; ls pts";
    let done = Bundle::busybox().script(script).run().success();
    let fds = "/proc/self/fd";
    assert_eq!(done.stdout, format!("{fds}\n{fds}/0\n{fds}/1\n{fds}/2\npts/ptmx\nptmx\n"));
}

/// As runc, which looks at the host's.
#[test]
fn the_kernels_memory_has_a_link_where_the_kernel_shows_it() {
    let done = Bundle::busybox().script("readlink /dev/core; true").run().success();
    let shown = std::path::Path::new("/proc/kcore").exists();
    assert_eq!(done.stdout, if shown { "/proc/kcore\n" } else { "" });
}

#[test]
fn configured_devices_have_their_type_number_mode_and_owner() {
    let devices = json!([
        { "path": "/dev/char", "type": "c", "major": 1, "minor": 3 },
        { "path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 5, "fileMode": 0o640,
          "uid": 3, "gid": 4 },
        { "path": "/dev/deep/block", "type": "b", "major": 7, "minor": 300, "fileMode": 0o100_600 },
        { "path": "/etc/fifo", "type": "p", "fileMode": 0o622, "uid": 5 },
        { "path": "/dev/numbered", "type": "p", "major": 9, "minor": 9, "fileMode": 0o2777 },
        { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "gid": 6 }
    ]);
    let paths = ["char", "unbuffered", "deep/block", "numbered", "null"];
    let paths = paths.map(|name| format!("/dev/{name}"));
    let mut paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    paths.push("/etc/fifo");
    assert_eq!(
        look(with_devices(devices).writable(), &paths),
        [
            "/dev/char crw-rw-rw- 0:0 1:3",
            "/dev/unbuffered crw-r----- 3:4 1:5",
            "/dev/deep/block brw------- 0:0 7:12c",
            "/dev/numbered prwxrwsrwx 0:0 0:0",
            "/dev/null crw------- 0:6 1:3",
            "/etc/fifo prw--w--w- 5:0 0:0",
        ]
    );
}

#[test]
fn a_configured_multiplexer_is_the_containers_own() {
    let devices = json!([{ "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 }]);
    for bundle in [with_devices(devices.clone()), with_devices(devices).user_namespace()] {
        let done = bundle.args(["readlink", "/dev/ptmx"]).run().success();
        assert_eq!(done.stdout, "pts/ptmx\n");
    }
}

#[test]
fn another_file_in_the_place_of_a_configured_device_is_an_error() {
    let device = json!({ "path": "/etc/device", "type": "c", "major": 1, "minor": 3 });
    for image in [
        Bundle::busybox().file("/etc/device", "text\n"),
        Bundle::busybox().link("/etc/device", "/dev/null"),
        Bundle::busybox().directory("/etc/device"),
    ] {
        let image = image.writable().config(|c| c["linux"]["devices"] = json!([device]));
        image.refused().says(&["device /etc/device"]).one_line();
    }
    let mut other = device.clone();
    other["minor"] = 5.into();
    with_devices(json!([device, other])).writable().refused().says(&["device /etc/device"]);
    with_devices(json!([device, device])).writable().args(["true"]).run().success();
}

#[test]
fn in_a_user_namespace_devices_are_those_of_the_host() {
    let devices = json!([{ "path": "/dev/zero", "type": "c", "major": 1, "minor": 5 },
        { "path": "/dev/fifo", "type": "p", "fileMode": 0o600 }]);
    let expected = ["/dev/zero 1,5", "/dev/null 1,3", "/dev/fifo 0,0"];
    let bundle = with_devices(devices).user_namespace();
    let script = "for d in zero null fifo; do
        stat -c '%n %t %T' /dev/$d; done | while read n a b; do echo $n $((0x$a)),$((0x$b)); done";
    let done = bundle.script(script).run().success();
    assert_eq!(done.stdout.lines().collect::<Vec<_>>(), expected);
    let devices = json!([{ "path": "/dev/null", "type": "c", "major": 1, "minor": 5 }]);
    with_devices(devices).user_namespace().refused().says(&["device /dev/null", "on the host"]);
}

/// A host that is a container itself.
#[test]
fn without_the_right_to_make_devices_those_of_the_host_are_bound() {
    let bundle = Bundle::busybox().script("echo x > /dev/null; stat -c %t:%T /dev/zero");
    let words = ["setpriv", "--bounding-set=-mknod", "timeout", "20"];
    let words = words.map(std::ffi::OsString::from);
    let done = bundle.launch(&["run"], &bundle.id()).command(&words).output().unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "1:5\n");
}

#[test]
fn a_dev_that_is_bound_is_left_alone() {
    let bundle = Bundle::busybox().without_mount("/dev");
    let source = bundle.beside("dev");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("only"), "").unwrap();
    let bundle = bundle
        .mount(json!({ "destination": "/dev/", "source": source, "options": ["bind", "ro"] }))
        .config(|c| c["linux"]["devices"] = json!([{ "path": "/dev/x", "type": "p" }]));
    assert_eq!(bundle.args(["ls", "/dev"]).run().success().stdout, "only\n");
}
