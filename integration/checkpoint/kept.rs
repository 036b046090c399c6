//! What a restored container may do with what is the host's: no more than before.

use std::fs;

use nix::mount::{MsFlags, mount};
use serde_json::json;

use super::host::Mounted;
use super::{COUNT, counting, goes_on, has_begun, images_of, restored_as, survives};
use crate::harness::{Container, View, until};

/// It can move the places of its mounts, and links lead to them from where they were.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn mounts_that_the_container_has_exchanged_are_not_taken_for_each_other() {
    let bundle = counting().writable();
    let [kept, own] = ["kept", "own"].map(|name| bundle.beside(name));
    for directory in [&kept, &own] {
        fs::create_dir(directory).unwrap();
    }
    let script = format!(
        "mv /a /x; mv /b /a; mv /x /b; ln -s rw /a/ro; ln -s ro /b/rw; echo >/dev/shm/done; {COUNT}"
    );
    let bundle = bundle
        .mount(json!({ "destination": "/a/ro", "source": kept, "options": ["bind", "ro"] }))
        .mount(json!({ "destination": "/b/rw", "source": own, "options": ["bind", "rw"] }));
    let c = bundle.script(&script).start();
    has_begun(&c);
    c.checkpoint(&[]).one_line().says(&["/a/ro: shows something else there than"]);
    assert_eq!(c.status(), "running");
    goes_on(&c);
}

/// The images say what is mounted with which attributes, and whoever had them can change that.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_mount_gives_no_more_rights_than_the_configuration_whatever_the_images_say() {
    for word in ["ro", "nosuid", "nodev", "noexec"] {
        let bundle = counting();
        let volume = bundle.beside("volume");
        fs::create_dir(&volume).unwrap();
        let mount =
            |word| json!({ "destination": "/mnt", "source": volume, "options": ["rbind", word] });
        let c = images_of(bundle.mount(mount("defaults")));
        let stricter = counting().mount(mount(word));
        restored_as(&stricter, &c).success();
        let stricter = Container::of(stricter);
        let mounts = stricter.exec(["grep", " /mnt ", "/proc/mounts"]).success().stdout;
        let options = mounts.split(' ').nth(3).unwrap();
        assert!(options.split(',').any(|option| option == word), "{mounts}");
    }
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_root_is_read_only_if_the_configuration_says_so() {
    let c = images_of(counting().writable());
    let stricter = counting().directory("/tmp");
    restored_as(&stricter, &c).success();
    let stricter = Container::of(stricter);
    stricter.exec(["touch", "/file"]).says(&["Read-only file system"]);
}

/// What somebody has open for writing cannot become read-only.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_restore_is_refused_if_rights_cannot_be_taken_away() {
    let bundle = counting();
    let volume = bundle.beside("volume");
    fs::create_dir(&volume).unwrap();
    let mount =
        |word| json!({ "destination": "/mnt", "source": volume, "options": ["rbind", word] });
    let bundle = bundle.script(&format!("exec 7>/mnt/file; {COUNT}"));
    let c = images_of(bundle.mount(mount("rw")));
    let stricter = counting().mount(mount("ro"));
    let done = restored_as(&stricter, &c).one_line();
    done.says(&["/mnt: shows", "/volume of", "without ro"]);
    stricter.leftovers().assert_none_since();
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_root_that_the_container_has_made_writable_is_refused_while_it_runs() {
    let script = format!("mount -o remount,bind,rw /; echo >/dev/shm/done; {COUNT}");
    let bundle = counting().script(&script).with_capabilities(&["CAP_SYS_ADMIN"]);
    let c = bundle.start();
    until("it is mounted", || fs::exists(format!("/proc/{}/root/dev/shm/done", c.pid())).unwrap());
    c.checkpoint(&[]).one_line().says(&["/: shows", "without ro"]);
    assert_eq!(c.status(), "running");
}

/// CRIU knows a mount by its place alone.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn two_mounts_in_one_place_are_refused_unless_both_show_the_same() {
    let bundle = counting();
    let [one, other] = ["one", "other"].map(|name| bundle.beside(name));
    for directory in [&one, &other] {
        fs::create_dir(directory).unwrap();
    }
    let mount = |source| json!({ "destination": "/mnt", "source": source, "options": ["bind"] });
    let c = bundle.mount(mount(&one)).mount(mount(&other)).start();
    c.checkpoint(&[]).one_line().says(&["/mnt: shows something else there than", "or both"]);
    assert_eq!(c.status(), "running");
    let bundle = counting();
    let bundle =
        bundle.mount(mount(&one)).config(|c| c["linux"]["readonlyPaths"] = json!(["/mnt"]));
    let c = survives(bundle);
    c.exec(["touch", "/mnt/file"]).says(&["Read-only file system"]);
}

/// What is configured read-only in one place and not in another, in every order, comes back.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn several_mounts_of_one_source_come_back_each_as_it_was() {
    for options in [["rbind", "ro", "rslave"], ["bind", "nodev", "private"]] {
        for bundle in [counting(), counting().user_namespace()] {
            let volume = bundle.beside("volume");
            fs::create_dir_all(volume.join("in")).unwrap();
            let bundle = bundle
                .mount(json!({ "destination": "/mnt/a", "source": volume, "options": options }))
                .mount(json!({ "destination": "/mnt/b", "source": volume, "options": ["bind"] }))
                .mount(json!({ "destination": "/mnt/c", "source": volume.join("in"), "options": ["bind", "ro", "noexec"] }))
                .mount(json!({ "destination": "/mnt/b", "options": ["remount", "bind", "ro"] }));
            let mut c = bundle.start();
            has_begun(&c);
            let mounts =
                |c: &Container| c.exec(["grep", " /mnt/", "/proc/mounts"]).success().stdout;
            let before = mounts(&c);
            c.checkpoint(&[]).success();
            c.restore(&[]);
            goes_on(&c);
            assert_eq!(mounts(&c), before);
            c.exec(["touch", "/mnt/b/file"]).says(&["Read-only file system"]);
        }
    }
}

/// In version 1 of a hybrid host, which it does not see, it stays in the roots of the hierarchies.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn groups_that_cannot_be_kept_are_ignored_at_both_ends() {
    let script =
        format!("mkdir /sys/fs/cgroup/sub; echo 0 >/sys/fs/cgroup/sub/cgroup.procs; {COUNT}");
    let cgroup = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup" });
    for view in View::all().filter(|view| *view == View::V2) {
        let bundle = counting().in_view(view).without_mount("/sys/fs/cgroup").mount(cgroup.clone());
        let mut c = bundle.script(&script).start();
        has_begun(&c);
        let hybrid = fs::read_to_string("/proc/self/cgroup").unwrap().lines().count() > 1;
        if hybrid {
            let done = c.checkpoint(&["--manage-cgroups-mode", "soft"]).one_line();
            done.says(&["--manage-cgroups-mode: nothing of this container's cgroups can be kept"]);
            assert!(!c.bundle().beside("images").exists());
        }
        c.checkpoint(&[]).success();
        if hybrid {
            let done = c.try_restore(&["--manage-cgroups-mode", "full"]).one_line();
            done.says(&["--manage-cgroups-mode: nothing of this container's cgroups can be kept"]);
        }
        c.restore(&[]);
        goes_on(&c);
    }
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_restore_makes_nothing_in_the_root_that_create_does_not() {
    let bundle = counting().writable();
    let file = bundle.beside("uptime");
    fs::write(&file, "1 1\n").unwrap();
    let bundle = bundle
        .file("/secret", "")
        .config(|c| c["linux"]["maskedPaths"] = json!(["/secret", "/never/was", "/proc/kcore"]))
        .mount(json!({ "destination": "/proc/uptime", "source": file, "options": ["bind"] }));
    let mut c = bundle.start();
    has_begun(&c);
    c.checkpoint(&[]).success();
    // The image may have been unpacked again.
    fs::remove_file(c.bundle().rootfs().join("secret")).unwrap();
    c.restore(&[]);
    goes_on(&c);
    assert_eq!(c.exec(["cat", "/proc/uptime"]).success().stdout, "1 1\n");
    c.exec(["test", "-c", "/secret"]).success();
    for path in ["never", "proc/uptime", "proc/kcore"] {
        assert!(!c.bundle().rootfs().join(path).exists(), "{path}");
    }
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_root_on_a_read_only_mount_comes_back() {
    let bundle =
        counting().config(|c| c["linux"]["maskedPaths"] = json!(["/never/was", "/proc/kcore"]));
    let bundle = ["/dev", "/proc", "/sys", "/tmp"].iter().fold(bundle, |b, path| b.directory(path));
    let rootfs = bundle.rootfs();
    let none = None::<&str>;
    mount(Some(&rootfs), &rootfs, none, MsFlags::MS_BIND, none).unwrap();
    let mounted = Mounted(rootfs.clone());
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, &rootfs, none, flags, none).unwrap();
    let c = survives(bundle);
    drop(mounted);
    c.exec(["touch", "/file"]).says(&["Read-only file system"]);
}

/// Where a mount really is, not where the configuration has it by way of the image's links.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_mount_behind_a_link_of_the_image_stays_read_only() {
    let bundle = counting().directory("/run").directory("/var").link("/var/run", "/run");
    let volume = bundle.beside("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("token"), "").unwrap();
    let token = |destination| {
        let source = volume.join("token");
        json!({ "destination": destination, "source": source, "options": ["bind", "ro"] })
    };
    let all = json!({ "destination": "/mnt", "source": volume, "options": ["bind"] });
    let bundle = bundle.mount(token("/var/run/one")).mount(token("/var/run/two")).mount(all);
    let c = survives(bundle);
    for place in ["/run/one", "/run/two"] {
        c.exec(["touch", place]).says(&["Read-only file system"]);
    }
}

/// CRIU would find the new one in the place of the old one, and give up.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_source_that_has_been_replaced_is_refused_while_the_container_runs() {
    let bundle = counting();
    let [file, new] = ["hosts", "hosts.new"].map(|name| bundle.beside(name));
    fs::write(&file, "old").unwrap();
    let hosts = json!({ "destination": "/hosts", "source": file, "options": ["bind"] });
    let c = bundle.mount(hosts).start();
    has_begun(&c);
    fs::write(&new, "new").unwrap();
    fs::rename(&new, &file).unwrap();
    c.checkpoint(&[]).one_line().says(&["/hosts: shows something else there than what is"]);
    assert_eq!(c.status(), "running");
    goes_on(&c);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn mounts_below_a_source_are_refused_in_a_user_namespace_while_the_container_runs() {
    let bundle = counting().user_namespace();
    let volume = bundle.beside("volume");
    let below = volume.join("below");
    fs::create_dir_all(&below).unwrap();
    let none = None::<&str>;
    mount(Some("tmpfs"), &below, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let mounted = Mounted(below);
    let volume = json!({ "destination": "/mnt", "source": volume, "options": ["rbind"] });
    let c = bundle.mount(volume).start();
    has_begun(&c);
    c.checkpoint(&[]).one_line().says(&["/mnt: in a user namespace criu does not bring back"]);
    assert_eq!(c.status(), "running");
    drop(mounted);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn what_the_container_has_mounted_of_the_hosts_is_refused_while_it_runs() {
    let script = format!("mount -t cgroup2 none /mnt; echo >/dev/shm/done; {COUNT}");
    let bundle = counting().directory("/mnt").script(&script);
    let c = bundle.with_capabilities(&["CAP_SYS_ADMIN"]).start();
    until("it is mounted", || fs::exists(format!("/proc/{}/root/dev/shm/done", c.pid())).unwrap());
    c.checkpoint(&[]).one_line().says(&["/mnt: shows", "which the configuration does not name"]);
    assert_eq!(c.status(), "running");
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_group_that_was_its_users_is_so_again() {
    let cgroup = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup" });
    for view in View::all().filter(|view| *view == View::V2) {
        let all = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
        let bundle = counting().in_view(view).namespaces(&all).user_namespace();
        let c = survives(bundle.without_mount("/sys/fs/cgroup").mount(cgroup.clone()));
        c.exec(["mkdir", "/sys/fs/cgroup/sub"]).success();
    }
}
