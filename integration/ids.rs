//! Ids: mounts that have their own, and user namespaces whose root has no rights on the host.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::Bundle;

fn map(lines: &[[u32; 3]]) -> Value {
    let line = |[inside, outside, count]: &[u32; 3]| json!({ "containerID": inside, "hostID": outside, "size": count });
    lines.iter().map(line).collect()
}

/// A directory beside the bundle with a file of user 1000 and one of root.
fn volume(bundle: &Bundle) -> PathBuf {
    let volume = bundle.beside("volume");
    fs::create_dir(&volume).unwrap();
    fs::set_permissions(&volume, Permissions::from_mode(0o777)).unwrap();
    for (name, owner) in [("users", 1000), ("roots", 0)] {
        fs::write(volume.join(name), name).unwrap();
        chown(volume.join(name), Some(owner), Some(owner)).unwrap();
    }
    volume
}

/// Mounts the volume with these options, and perhaps a map of its own.
fn with_volume(bundle: Bundle, options: &[&str], own: Option<&[[u32; 3]]>) -> Bundle {
    let volume = volume(&bundle);
    let mut mount = json!({ "destination": "/volume", "type": "bind", "source": volume,
        "options": options });
    if let Some(lines) = own {
        mount["uidMappings"] = map(lines);
        mount["gidMappings"] = map(lines);
    }
    bundle.directory("/volume").mount(mount)
}

fn owners(script: &str) -> Bundle {
    let look = "cd /volume; stat -c '%n %u %g' users roots";
    Bundle::busybox().script(&format!("{look}; {script}"))
}

#[test]
fn a_mount_with_a_map_of_its_own_shows_other_ids() {
    for words in [&["bind", "idmap"][..], &["rbind", "ridmap"], &["rbind"]] {
        let done = with_volume(owners("true"), words, Some(&[[0, 5000, 65_536]])).run().success();
        assert_eq!(done.stdout, "users 6000 6000\nroots 5000 5000\n", "{words:?}");
    }
    let map = [[0, 7, 1], [1000, 77, 1]];
    let done = with_volume(owners("true"), &["bind", "idmap"], Some(&map)).run().success();
    assert_eq!(done.stdout, "users 77 77\nroots 7 7\n", "several ranges");
}

#[test]
fn what_is_written_through_an_id_mapped_mount_has_the_ids_of_the_file_system() {
    let bundle = owners("echo x >new").config(|c| {
        c["process"]["user"] = json!({ "uid": 6000, "gid": 6000 });
    });
    let bundle = with_volume(bundle, &["bind", "idmap"], Some(&[[0, 5000, 65_536]]));
    let new = bundle.beside("volume").join("new");
    let c = bundle.start();
    assert_eq!(c.wait(), 0, "{}", c.errors());
    let new = fs::metadata(new).unwrap();
    assert_eq!((new.uid(), new.gid()), (1000, 1000));
}

#[test]
fn without_a_map_of_its_own_the_mount_takes_the_containers() {
    let plain = with_volume(owners("true").user_namespace(), &["bind"], None).run().success();
    assert_eq!(plain.stdout, "users 65534 65534\nroots 65534 65534\n");
    let bundle = with_volume(owners("echo x >new").user_namespace(), &["bind", "idmap"], None);
    let new = bundle.beside("volume").join("new");
    let c = bundle.start();
    assert_eq!(c.wait(), 0, "{}", c.errors());
    assert_eq!(c.output(), "users 1000 1000\nroots 0 0\n");
    assert_eq!(fs::metadata(new).unwrap().uid(), 0);
}

#[test]
fn a_map_of_its_own_goes_before_the_containers() {
    // Inside, the host's 100000 is 0: a file of 1000 is to be of the container's 5.
    let lines = [[1000, 100_005, 1], [0, 100_000, 1]];
    let bundle = with_volume(owners("true").user_namespace(), &["bind", "idmap"], Some(&lines));
    assert_eq!(bundle.run().success().stdout, "users 5 5\nroots 0 0\n");
}

#[test]
fn a_map_may_be_a_value_of_the_option() {
    let value = "uids=0-5000-65536;gids=0-7-1#1000-77-1";
    let done = with_volume(owners("true"), &["bind", &format!("idmap={value}")], None).run();
    assert_eq!(done.success().stdout, "users 6000 77\nroots 5000 7\n");
    // Inside, the host's 100000 is 0.
    let relative = "ridmap=uids=@1000-5-1#@0-0-1;gids=@1000-6-1#@0-0-1";
    let bundle = with_volume(owners("true").user_namespace(), &["rbind", relative], None);
    assert_eq!(bundle.run().success().stdout, "users 5 6\nroots 0 0\n");
}

#[test]
fn a_joined_user_namespace_has_a_map_too() {
    let donor = Bundle::busybox().args(["sleep", "1000"]).user_namespace().start();
    let bundle = owners("true").user_namespace().joins("user", &donor.namespace("user"));
    let done = with_volume(bundle, &["bind", "idmap"], None).run().success();
    assert_eq!(done.stdout, "users 1000 1000\nroots 0 0\n");
}

#[test]
fn other_options_hold_for_an_id_mapped_mount() {
    let script = "! echo x >new; grep ' /volume ' /proc/self/mountinfo";
    let words = ["bind", "idmap", "ro", "nosuid", "noexec"];
    let done = with_volume(owners(script), &words, Some(&[[0, 5000, 9999]])).run().success();
    assert!(done.stdout.contains(" ro,nosuid,noexec,"), "{done}");
    let done = with_volume(owners(script).user_namespace(), &words, None).run().success();
    assert!(done.stdout.contains(" ro,nosuid,noexec,"), "{done}");
}

#[test]
fn ridmap_holds_for_the_mounts_below_and_idmap_does_not() {
    for (word, below) in [("idmap", "0"), ("ridmap", "5000")] {
        let look = "stat -c %u /volume/below/file /volume/roots";
        let bundle = Bundle::busybox().script(look);
        let bundle = with_volume(bundle, &["rbind", word], Some(&[[0, 5000, 65_536]]));
        let place = bundle.beside("volume").join("below");
        fs::create_dir(&place).unwrap();
        let place = place.display();
        let script = format!("mount -t tmpfs tmpfs {place} && echo >{place}/file && exec \"$@\"");
        let done = bundle.behind(&["unshare", "-m", "sh", "-c", &script, "sh"]).run().success();
        assert_eq!(done.stdout, format!("{below}\n5000\n"), "{word}");
    }
}

#[test]
fn a_file_system_that_cannot_map_ids_is_refused() {
    let mount = |own: bool| {
        let mut mount = json!({ "destination": "/x", "type": "bind", "source": "/proc",
            "options": ["rbind", "idmap"] });
        if own {
            mount["uidMappings"] = map(&[[0, 5000, 1]]);
            mount["gidMappings"] = map(&[[0, 5000, 1]]);
        }
        mount
    };
    let says = ["mounts[7] /x", "/proc", "id-mapped"];
    Bundle::busybox().directory("/x").mount(mount(true)).refused().one_line().says(&says);
    let bundle = Bundle::busybox().directory("/x").user_namespace().mount(mount(false));
    bundle.refused().one_line().says(&says);
}

#[test]
fn an_ordinary_user_has_no_id_mapped_mounts() {
    let bundle = Bundle::busybox().directory("/x").of_user();
    let source = bundle.rootfs().join("tmp");
    let mount = json!({ "destination": "/x", "type": "bind", "source": source,
        "options": ["bind", "idmap"] });
    bundle.mount(mount).refused().one_line().says(&["mounts[7] /x"]);
}

#[test]
fn the_root_of_a_user_namespace_need_not_reach_the_bundle() {
    let bundle = Bundle::busybox().args(["cat", "/data/users"]).user_namespace();
    let volume = volume(&bundle);
    let data = json!({ "destination": "/data", "type": "bind", "source": volume.join("..").join("volume"),
        "options": ["rbind"] });
    let bundle = bundle.directory("/data").mount(data);
    let place = bundle.path();
    // Neither root.path nor a source can be reached by the host's user 100000.
    for private in [place.as_path(), place.parent().unwrap()] {
        fs::set_permissions(private, Permissions::from_mode(0o700)).unwrap();
    }
    assert_eq!(bundle.run().success().stdout, "users");
}

#[test]
fn what_the_host_has_locked_stays_locked_below_a_private_directory() {
    let bundle = Bundle::busybox()
        .script(
            "mount -o remount,bind,rw /data; echo x >/data/file; test ! -e /data/file && echo kept",
        )
        .with_capabilities(&["CAP_SYS_ADMIN"])
        .user_namespace();
    let private = bundle.beside("private");
    let place = private.join("data");
    fs::create_dir_all(&place).unwrap();
    fs::set_permissions(&private, Permissions::from_mode(0o700)).unwrap();
    let data =
        json!({ "destination": "/data", "type": "bind", "source": place, "options": ["bind"] });
    let place = place.display().to_string();
    let script = format!("mount -t tmpfs -o ro,mode=777 tmpfs {place} && exec \"$@\"");
    let bundle = bundle.directory("/data").mount(data);
    let done = bundle.behind(&["unshare", "-m", "sh", "-c", &script, "sh"]).run();
    assert_eq!(done.stdout, "kept\n", "{done}");
}

/// A map is one write to a file of /proc, which takes less than a page.
#[test]
fn more_ranges_than_the_kernel_takes_are_refused() {
    let lines: Vec<[u32; 3]> = (0..340).map(|i| [i, 100_000 + 2 * i, 1]).collect();
    let bundle = Bundle::busybox().user_namespace().maps(&lines);
    bundle.refused().one_line().says(&["linux.uidMappings", "4096"]);
}

#[test]
fn a_user_namespace_of_root_need_not_have_a_root() {
    let bundle =
        Bundle::busybox().args(["sleep", "1000"]).user_namespace().maps(&[[7, 100_000, 9]]);
    let c = bundle.config(|c| {
        c["process"]["user"] = json!({ "uid": 8, "gid": 7 });
        for mount in c["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "devpts" {
                mount["options"].as_array_mut().unwrap().retain(|word| word != "gid=5");
            }
        }
    });
    let c = c.start();
    assert_eq!(c.exec(["id", "-u"]).success().stdout, "8\n");
}
