//! Attackers who change the image while the runtime works in it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::try_run;
use crate::harness::terminal::ConsoleSocket;
use crate::harness::{ALL_CAPABILITIES, Bundle, Canary, Done, Exchange};

/// Below `/proc/sys`.
const PORT: &str = "net/ipv4/ip_unprivileged_port_start";

/// A few hundred rounds, or as many as ten seconds allow; with `RT_RACES` as many as that says.
fn rounds() -> impl Iterator<Item = usize> {
    let asked = std::env::var("RT_RACES").ok().map(|count| count.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(10);
    (0..asked.unwrap_or(300)).take_while(move |_| asked.is_some() || Instant::now() < end)
}

fn again_and_again(bundle: &Bundle, mut look: impl FnMut(Done)) {
    rounds().for_each(|_| look(try_run(bundle)));
}

/// A runtime that replaces a link by a device has spent it: the attacker makes another.
fn plant_again(link: &Path, target: &Path) {
    let new = link.with_extension("new");
    symlink(target, &new).unwrap();
    fs::rename(&new, link).unwrap();
}

/// A volume in which `real` is a directory and `link` leads to the canary.
fn volume(bundle: &Bundle, canary: &Canary) -> PathBuf {
    let volume = bundle.beside("volume");
    fs::create_dir_all(volume.join("real")).unwrap();
    symlink(canary.path().join("empty"), volume.join("link")).unwrap();
    volume
}

/// CVE-2021-30465, CVE-2024-45310 (runc): a mount's target becomes a link between check and use.
#[test]
fn a_target_that_is_swapped_for_a_link_does_not_lead_a_mount_to_the_host() {
    let canary = Canary::plant();
    let bundle = Bundle::busybox().writable().directory("/volume");
    let volume = volume(&bundle, &canary);
    let tmpfs = |place: &str| json!({ "destination": place, "type": "tmpfs", "source": "racing" });
    let bundle = bundle
        .mount(json!({ "destination": "/volume", "type": "bind", "source": volume,
            "options": ["rbind", "rw"] }))
        .mount(tmpfs("/volume/real"))
        .mount(tmpfs("/volume/real/deep/deeper"))
        .script("grep -c racing /proc/self/mountinfo");
    let race = Exchange::start(&volume, "real", "link");
    again_and_again(&bundle, |done| {
        let inside = done.stdout == "2\n";
        assert!(inside || done.stdout.is_empty(), "a mount has gone elsewhere\n{done}");
        assert!(inside || done.status != 0, "started without its mounts\n{done}");
    });
    drop(race);
    canary.assert_untouched();
}

/// The directories that are made on the way to a target.
#[test]
fn a_parent_that_is_swapped_for_a_link_does_not_make_directories_on_the_host() {
    let canary = Canary::plant();
    let bundle = Bundle::busybox().writable().directory("/volume");
    let volume = volume(&bundle, &canary);
    let source = bundle.beside("source");
    fs::write(&source, "given\n").unwrap();
    let mut bundle = bundle.mount(json!({ "destination": "/volume", "type": "bind",
        "source": volume, "options": ["rbind", "rw"] }));
    for number in 0..20 {
        let place = format!("/volume/real/{number}/a/b/c");
        bundle = bundle.mount(json!({ "destination": place, "type": "bind", "source": source,
            "options": ["bind", "ro"] }));
    }
    let bundle = bundle.args(["true"]);
    let race = Exchange::start(&volume, "real", "link");
    again_and_again(&bundle, |_| {});
    drop(race);
    canary.assert_untouched();
}

/// CVE-2025-31133 (runc) as a race: the null device that masks is swapped for a link.
#[test]
fn a_null_device_that_is_swapped_for_a_link_is_not_what_masks() {
    let bundle = Bundle::busybox()
        .without_mount("/dev")
        .writable()
        .file("/secret", "secret\n")
        .file("/dev/null", "")
        .link("/dev/link", "/secret")
        .with_capabilities(ALL_CAPABILITIES)
        .script("stat -L -c '%t:%T' /proc/keys; echo x > /proc/keys; cat /secret");
    let dev = bundle.rootfs().join("dev");
    let race = Exchange::start(&dev, "null", "link");
    again_and_again(&bundle, |done| {
        plant_again(&dev.join("link"), Path::new("/secret"));
        let masked = done.stdout == "1:3\nsecret\n";
        assert!(masked || done.status != 0 && done.stdout.is_empty(), "no mask\n{done}");
    });
    drop(race);
}

/// CVE-2025-52565 (runc): the console is mounted over a name that becomes a link.
#[test]
fn a_console_that_is_swapped_for_a_link_does_not_reach_the_host() {
    let canary = Canary::plant();
    let bundle = Bundle::busybox().without_mount("/dev").writable();
    let bundle = bundle.file("/dev/console", "").link("/dev/link", canary.path().join("console"));
    let path = bundle.beside("socket");
    let bundle = bundle
        .config(|c| c["process"]["terminal"] = true.into())
        .options(["--console-socket", path.to_str().unwrap()])
        .options(["--detach"])
        .script("echo loud > /dev/console");
    let dev = bundle.rootfs().join("dev");
    let race = Exchange::start(&dev, "console", "link");
    for _ in rounds() {
        plant_again(&dev.join("link"), &canary.path().join("console"));
        let socket = ConsoleSocket::at(path.clone());
        try_run(&bundle);
        bundle.rt(["delete", "--force", &bundle.id()]).run().success();
        drop(socket);
        fs::remove_file(&path).unwrap();
    }
    drop(race);
    canary.assert_untouched();
}

/// What a new tmpfs is filled with is read by the runtime, with its rights.
#[test]
fn a_directory_that_is_swapped_for_a_link_is_not_copied_from_the_host() {
    let canary = Canary::plant();
    let bundle = Bundle::busybox().writable().directory("/volume");
    let volume = volume(&bundle, &canary);
    fs::write(volume.join("real/own"), "own\n").unwrap();
    symlink(canary.path().join("file"), volume.join("leak")).unwrap();
    fs::write(volume.join("file"), "own\n").unwrap();
    let bundle = bundle
        .mount(json!({ "destination": "/volume", "type": "bind", "source": volume,
            "options": ["rbind", "rw"] }))
        .mount(json!({ "destination": "/volume", "type": "tmpfs", "source": "tmpfs",
            "options": ["tmpcopyup"] }))
        .script("cd /volume; cat file leak real/* link/* 2>/dev/null");
    let races =
        [Exchange::start(&volume, "real", "link"), Exchange::start(&volume, "file", "leak")];
    again_and_again(&bundle, |done| {
        assert!(!done.stdout.contains("sings"), "a file of the host was copied\n{done}");
    });
    drop(races);
    canary.assert_untouched();
}

/// CVE-2025-52881 (runc), CVE-2025-62596 (youki) as a race: what looks like procfs changes under
/// the write of a sysctl.
#[test]
fn a_procfs_that_is_swapped_does_not_take_a_sysctl() {
    let bundle = Bundle::busybox().writable().directory("/volume").link("/cover", "/proc");
    let volume = bundle.beside("volume");
    for (sys, port) in [("sys", "1024\n"), ("fake", "1025\n")] {
        fs::create_dir_all(volume.join(sys).join("net/ipv4")).unwrap();
        fs::write(volume.join(sys).join(PORT), port).unwrap();
    }
    let race = Exchange::start(&volume, "sys", "fake");
    let bundle = bundle
        .mount(json!({ "destination": "/real", "type": "proc", "source": "proc" }))
        .mount(json!({ "destination": "/cover", "type": "bind", "source": volume,
            "options": ["rbind", "rw"] }))
        .config(|c| {
            c["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "99" });
            c["linux"]["readonlyPaths"] = json!([]);
            c["linux"]["maskedPaths"] = json!([]);
        })
        .script(&format!("cat /real/sys/{PORT}"));
    again_and_again(&bundle, |done| {
        let real = done.stdout == "99\n";
        assert!(real || done.status != 0 && done.stdout.is_empty(), "gone elsewhere\n{done}");
    });
    drop(race);
    for (sys, port) in [("sys", "102"), ("fake", "102")] {
        let text = fs::read_to_string(volume.join(sys).join(PORT)).unwrap();
        assert!(text.starts_with(port), "{sys} was written: {text}");
    }
}

/// CVE-2019-19921 (runc) as a race: `/proc` of a shared root becomes a link.
#[test]
fn a_proc_that_is_swapped_for_a_link_is_procfs_or_refused() {
    let canary = Canary::plant();
    let bundle = Bundle::busybox().writable().link("/link", canary.path().join("empty"));
    // The names change places for the program as well: only what it finds says anything.
    let bundle = bundle.script("head -c 5 /proc/version || head -c 5 /link/version || exit 3");
    let race = Exchange::start(&bundle.rootfs(), "proc", "link");
    again_and_again(&bundle, |done| {
        assert!(done.stdout == "Linux" || done.status != 0, "no procfs\n{done}");
    });
    drop(race);
    canary.assert_untouched();
}
