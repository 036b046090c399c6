//! The `/dev` of an image is hostile.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::try_run;
use crate::harness::{ALL_CAPABILITIES, Bundle, Canary};

const NAMES: [&str; 8] = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"];

/// Every device name of the image is a link to a file of that name in `target`.
fn linked(bundle: Bundle, target: &Path) -> Bundle {
    NAMES
        .iter()
        .fold(bundle, |bundle, name| bundle.link(&format!("/dev/{name}"), target.join(name)))
}

/// What a masked file is, and what happens to what it may be a disguise of.
const TOUCH_THE_MASK: &str = "stat -L -c '%F %t:%T' /proc/keys; echo x > /proc/keys; cat /secret";

/// The container is refused, or the mask is the null device and nothing else is hit.
#[track_caller]
fn assert_masked(bundle: &Bundle) {
    let done = try_run(bundle);
    let masked = done.stdout == "character special file 1:3\nsecret\n";
    assert!(masked || done.status != 0 && done.stdout.is_empty(), "a mask that is none\n{done}");
}

fn with_a_secret(bundle: Bundle) -> Bundle {
    let bundle = bundle.without_mount("/dev").writable().file("/secret", "secret\n");
    bundle.with_capabilities(ALL_CAPABILITIES).script(TOUCH_THE_MASK)
}

/// CVE-2025-31133 (runc), CVE-2025-62161 (youki).
#[test]
fn a_null_device_of_the_image_is_not_what_masks() {
    for target in ["/secret", "../secret", "/proc/sys/kernel/domainname", "/nowhere", "null"] {
        assert_masked(&with_a_secret(Bundle::busybox()).link("/dev/null", target));
    }
    assert_masked(&with_a_secret(Bundle::busybox()).file("/dev/null", "plain\n"));
    assert_masked(&with_a_secret(Bundle::busybox()).directory("/dev/null"));
    assert_masked(&with_a_secret(Bundle::busybox()));
}

/// CVE-2026-41579 (runc), CVE-2026-47766 (crun).
#[test]
fn a_dev_that_is_a_link_to_the_host_does_not_reach_it() {
    let canary = Canary::plant();
    let up = format!("{}{}", "../".repeat(20), canary.path().display());
    for target in [canary.path().to_str().unwrap(), &up] {
        for mounted in [true, false] {
            for user in [0, 7] {
                let bundle = Bundle::busybox().writable().link("/dev", target);
                let bundle = if mounted { bundle } else { bundle.without_mount("/dev") };
                let bundle = bundle.config(|c| c["process"]["user"]["uid"] = user.into());
                try_run(&bundle.args(["true"]));
                canary.assert_untouched();
            }
        }
    }
}

/// CVE-2026-88264 and 88265 (crun): created through links, opened and changed in owner.
#[test]
fn links_in_the_dev_of_an_image_do_not_reach_the_host() {
    let canary = Canary::plant();
    for readonly in [true, false] {
        for user in [0, 7] {
            let bundle = linked(Bundle::busybox().without_mount("/dev"), &canary.path());
            let bundle = bundle.config(|c| {
                c["root"]["readonly"] = readonly.into();
                c["process"]["user"]["uid"] = user.into();
            });
            try_run(&bundle.script("echo x > /dev/null; echo y > /dev/console"));
            canary.assert_untouched();
        }
    }
}

#[test]
fn links_in_a_shared_volume_on_dev_do_not_reach_the_host() {
    let canary = Canary::plant();
    let bundle = Bundle::busybox().without_mount("/dev");
    let volume = bundle.beside("volume");
    fs::create_dir(&volume).unwrap();
    for name in NAMES {
        std::os::unix::fs::symlink(canary.path().join(name), volume.join(name)).unwrap();
    }
    let bundle = bundle.mount(json!({ "destination": "/dev", "type": "bind", "source": volume,
        "options": ["rbind", "rw"] }));
    try_run(&bundle.args(["true"]));
    canary.assert_untouched();
}

#[test]
fn a_configured_device_is_made_in_the_image() {
    let canary = Canary::plant();
    let host = canary.path();
    for path in ["/link/device", "/dev/../../../../../../../../link/device", "/link/null"] {
        let bundle = Bundle::busybox().writable().link("/link", &host).config(|c| {
            c["linux"]["devices"] = json!([{ "path": path, "type": "c", "major": 1, "minor": 3,
                "fileMode": 438, "uid": 7, "gid": 7 }]);
        });
        try_run(&bundle.args(["true"]));
        canary.assert_untouched();
    }
}

#[test]
fn a_device_with_the_number_of_another_is_not_taken_for_it() {
    // The image's null is the kernel's kmsg: a process that is given it would hold the log.
    let bundle = Bundle::busybox().without_mount("/dev").writable();
    let kmsg = nix::sys::stat::makedev(1, 11);
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    let path = bundle.rootfs().join("dev/null");
    nix::sys::stat::mknod(&path, nix::sys::stat::SFlag::S_IFCHR, mode, kmsg).unwrap();
    let done = try_run(&bundle.script("stat -L -c '%t:%T' /proc/keys"));
    assert!(done.status != 0 || done.stdout == "1:3\n", "{done}");
}
