//! Hosts and containers with so many mounts that their tables come from the kernel in many pieces.
//! What matters stands at the end of them.

use std::fs;

use nix::mount::{MsFlags, mount};
use serde_json::json;

use super::host::{BIND, Mounted, is_not_led_outside};
use super::{COUNT, counting, goes_on, has_begun, survives};
use crate::harness::{Bundle, Host, TempDir, until};

/// Mounts file systems of the container's own before anything else.
const MANY: &str = "for i in $(seq 90); do mkdir /dev/shm/m$i; mount -t tmpfs t /dev/shm/m$i; done; touch /dev/shm/made";

/// A file system that is mounted after all others of the host, at a path with odd letters.
fn late(host: &TempDir) -> Mounted {
    let place = host.path().join("late one\nof \u{e4}");
    fs::create_dir(&place).unwrap();
    mount(Some("late"), &place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    fs::create_dir_all(place.join("y")).unwrap();
    fs::write(place.join("y/file"), "of the host").unwrap();
    Mounted(place)
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn what_is_bound_from_the_last_of_hundreds_of_mounts_comes_back() {
    Host::with_mounts(320, || {
        let host = TempDir::new();
        let late = late(&host);
        for (destination, source) in [("/mnt", late.0.clone()), ("/a b\u{e4}", late.0.join("y"))] {
            let bind =
                json!({ "destination": destination, "source": source, "options": ["rbind"] });
            let c = survives(counting().mount(bind));
            let find = format!("cat '{destination}/file' '{destination}/y/file'");
            assert_eq!(c.exec(["sh", "-c", &find]).stdout, "of the host", "{destination}");
        }
    });
}

/// The source is bound without what is mounted below it, but what is mounted there later arrives in
/// the container: nobody has named it.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_mount_that_came_into_the_container_later_is_refused_on_any_host() {
    for number in [0, 43, 320] {
        Host::with_mounts(number, || comes_later(counting(), ""));
    }
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn and_behind_many_mounts_of_the_containers_own() {
    let bundle = counting().script(&format!("{MANY}; {COUNT}"));
    comes_later(bundle.with_capabilities(&["CAP_SYS_ADMIN"]), "/dev/shm/made");
}

#[track_caller]
fn comes_later(bundle: Bundle, made: &str) {
    let host = TempDir::new();
    let volume = host.path().join("volume");
    fs::create_dir_all(volume.join("leak")).unwrap();
    mount(Some(&volume), &volume, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let _volume = Mounted(volume.clone());
    mount(None::<&str>, &volume, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
    let bind = json!({ "destination": "/mnt", "source": volume, "options": ["bind", "rslave"] });
    let c = bundle.mount(bind).start();
    has_begun(&c);
    if !made.is_empty() {
        c.exec(["test", "-e", made]).success();
    }
    c.checkpoint(&["--leave-running"]).success();
    let leak = volume.join("leak");
    mount(Some("t"), &leak, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let _leak = Mounted(leak.clone());
    fs::write(leak.join("secret"), "of the host").unwrap();
    until("it arrives", || c.exec(["cat", "/mnt/leak/secret"]).stdout == "of the host");
    let done = c.checkpoint(&["--leave-running"]).one_line();
    done.says(&["/mnt/leak: shows", "which the configuration does not name"]);
    goes_on(&c);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_link_does_not_lead_a_restored_mount_to_the_last_of_hundreds() {
    Host::with_mounts(320, || {
        let host = TempDir::new();
        let late = late(&host);
        let outside = host.path().join("plain");
        std::os::unix::fs::symlink(&late.0, &outside).unwrap();
        is_not_led_outside(counting().script(&format!("{BIND}; {COUNT}")), &outside, "shows /y of");
    });
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn nor_behind_many_mounts_of_the_containers_own() {
    let bundle = counting();
    let outside = bundle.beside("outside");
    fs::create_dir_all(outside.join("y")).unwrap();
    let script = format!("{MANY}; {BIND}; {COUNT}");
    is_not_led_outside(bundle.script(&script), &outside, "/outside/y");
}
