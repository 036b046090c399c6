//! What of the host a restored container has: what the configuration names, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use super::{COUNT, Neighbour, counting, goes_on, has_begun, survives};
use crate::harness::{Bundle, View};

/// CRIU finds what a bind mount within the root shows by its path, from the host's root on. In the
/// container `script` has made `/b` of `/x/y`; then `/x` leads to the directory `outside`.
#[track_caller]
pub(super) fn is_not_led_outside(bundle: Bundle, outside: &Path, shown: &str) {
    let bundle = bundle.writable().directory("/x/y").directory("/b");
    let c = bundle.with_capabilities(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]).start();
    has_begun(&c);
    c.checkpoint(&["--leave-running"]).success();
    let link = format!("mv /x /x.old && ln -s {} /x", outside.display());
    c.exec(["sh", "-c", &link]).success();
    c.delete_force();
    let done = c.try_restore(&[]).one_line();
    done.says(&["/b: shows", shown, "which the configuration does not name"]);
    c.bundle().leftovers().assert_none_since();
}

pub(super) const BIND: &str = "mount -o bind /x/y /b";

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_link_in_the_image_does_not_lead_a_mount_to_the_host() {
    let bundle = counting();
    let outside = bundle.beside("outside");
    fs::create_dir_all(outside.join("y")).unwrap();
    let script = format!("{BIND}; {COUNT}");
    is_not_led_outside(bundle.script(&script), &outside, "/outside/y");
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn nor_does_it_in_a_mount_namespace_below_or_without_a_cgroup() {
    let bundle = counting().global_options(&["--cgroup-manager", "disabled"]);
    let outside = bundle.beside("outside");
    fs::create_dir_all(outside.join("y")).unwrap();
    let script = format!(
        "unshare -m sh -c '{BIND}; echo >/dev/shm/mounted; exec sleep 1000' &
        until [ -e /dev/shm/mounted ]; do sleep 0.02; done; {COUNT}"
    );
    is_not_led_outside(bundle.script(&script), &outside, "/outside/y");
}

/// The network is another's, and so is its sysfs.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn nor_to_the_hosts_sysfs_from_a_network_that_was_joined() {
    let neighbour = Neighbour::start();
    let bundle = counting().joins("network", &neighbour.network()).directory("/x/sys");
    let script = format!("mount -o bind /x/sys /b; {COUNT}");
    is_not_led_outside(bundle.script(&script), Path::new("/"), "shows / of");
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn nor_below_a_source_that_is_bound_without_what_is_mounted_there() {
    let (bundle, host) = (counting(), counting());
    let volume = host.beside("volume");
    fs::create_dir_all(volume.join("y")).unwrap();
    mount(Some("tmpfs"), &volume.join("y"), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let _mounted = Mounted(volume.join("y"));
    let bundle =
        bundle.mount(json!({ "destination": "/mnt", "source": volume, "options": ["bind"] }));
    let script = format!("{BIND}; {COUNT}");
    is_not_led_outside(bundle.script(&script), &volume, "shows / of");
}

/// Unmounted in the end, also of a test that fails.
pub(super) struct Mounted(pub(super) PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// A container without a group of its own is in the host's, with all that is below.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn groups_of_the_host_are_not_made_again() {
    let top =
        ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].into_iter().find(|top| Path::new(top).exists());
    let group = format!("{}/rt-test-{}-other", top.unwrap(), std::process::id());
    let disabled = counting().global_options(&["--cgroup-manager", "disabled"]);
    // Where it does not see version 1, it stays in the roots of its hierarchies.
    let views = View::all().filter(|view| *view == View::V2).map(|view| counting().in_view(view));
    for bundle in [disabled].into_iter().chain(views) {
        let mut c = bundle.start();
        has_begun(&c);
        fs::create_dir(&group).unwrap();
        c.checkpoint(&[]).success();
        fs::remove_dir(&group).unwrap();
        c.restore(&[]);
        goes_on(&c);
        assert!(fs::remove_dir(&group).is_err(), "{group}");
    }
}

/// What the host has one of is the same one after a restore.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn file_systems_of_the_hosts_that_the_configuration_names_come_back() {
    let bundle = counting().mount(json!({ "destination": "/mnt", "type": "devtmpfs" }));
    let c = survives(bundle);
    c.exec(["test", "-c", "/mnt/null"]).success();
}

/// The caller's may hold what is not for the container.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_restored_container_has_a_session_keyring_of_its_own() {
    let bundle = counting().config(|c| c["linux"]["maskedPaths"] = json!([]));
    let mut c = bundle.start();
    has_begun(&c);
    c.checkpoint(&[]).success();
    c.wait();
    c.restore(&[]);
    // A kernel shows keyrings to whom they belong; those of a process that has ended go a bit later.
    let keys = c.exec(["cat", "/proc/keys"]).success().stdout;
    assert!(keys.contains(&format!("_ses.{}:", c.id)), "{keys}");
}
