//! What somebody aims at who may choose annotations, ids and addresses.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::world::{Guest, World, world};
use crate::harness::Done;

fn hook(w: &World, guest: &Guest, files: &str) -> Done {
    let bundle = w.directory.path().join("bundle");
    fs::create_dir_all(bundle.join("rootfs")).unwrap();
    let pid: i32 = guest.pid().parse().unwrap();
    w.hook(&json!({
        "ociVersion": "1.0.2", "id": "x", "status": "creating", "pid": pid, "bundle": bundle,
        "annotations": { "org.rt.network.files": files },
    }))
}

#[test]
fn files_of_a_container_are_written_below_its_bundle_or_the_state_directory_only() {
    world(|w| {
        let outside = w.directory.path().join("outside");
        fs::create_dir_all(&outside).unwrap();
        let bundle = w.directory.path().join("bundle");
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        symlink(&outside, bundle.join("rootfs/etc")).unwrap();
        symlink("../outside", bundle.join("link")).unwrap();
        let guest = Guest::new();
        let outside_name = outside.display().to_string();
        let within = format!("{}/../outside", bundle.display());
        let records = w.state().join("containers/y.json").display().to_string();
        for files in [
            &*outside_name,
            "../outside",
            "a/../../outside",
            "rootfs/etc",
            "link",
            &within,
            &records,
        ] {
            hook(w, &guest, files).failure().one_line();
            let left: Vec<_> = fs::read_dir(&outside).unwrap().collect();
            assert!(left.is_empty(), "{files}: {left:?}");
            assert!(!w.state().join("containers/y.json").exists());
        }
        let state = w.state().join("files/x");
        for files in [
            "etc/x",
            "./etc",
            &bundle.join("etc").display().to_string(),
            &state.display().to_string(),
        ] {
            hook(w, &guest, files).success();
            w.del("x");
        }
        assert!(bundle.join("etc/x/hosts").exists() && state.join("hosts").exists());
    });
}

#[test]
fn a_directory_that_becomes_a_link_is_not_followed_and_keeps_nobody_from_del() {
    world(|w| {
        let outside = w.directory.path().join("outside");
        fs::create_dir_all(&outside).unwrap();
        let kept = "# rt netns default\nkept\n# end of rt netns default\n";
        fs::write(outside.join("hosts"), kept).unwrap();
        let guest = Guest::new();
        hook(w, &guest, "rootfs/etc").success();
        let etc = w.directory.path().join("bundle/rootfs/etc");
        fs::rename(&etc, etc.with_file_name("old")).unwrap();
        symlink(&outside, &etc).unwrap();
        let _other = w.add("other", "");
        w.del("x");
        assert_eq!(fs::read_to_string(outside.join("hosts")).unwrap(), kept);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    });
}

#[test]
fn a_point_takes_no_address_that_is_somebody_else_s() {
    world(|w| {
        w.host().sh("ip route add 10.99.0.0/16 via 192.0.2.3; ip route add 10.98.0.7 via 192.0.2.3 table 77
            ip route add blackhole 10.97.0.0/24; ip -6 route add fd00:99::/64 via 2001:db8::3; ip addr add 10.96.0.1/32 dev lo");
        // Without the link-local addresses, which come by themselves.
        let show = "ip -4 route show table all; ip -4 -o addr
            ip -6 route show table all | grep -v 'fe80\\|ff00'
            ip -6 -o addr show scope global | sed 's/valid.*//'";
        let peer = w.add("peer", "");
        let before = w.host().sh(show);
        let inside = peer.place().sh(show);
        let guest = Guest::new();
        for (own, its) in [
            ("192.0.2.2", "10.1.1.2"),
            ("192.0.2.77", "10.1.1.2"),
            ("10.99.3.4", "10.1.1.2"),
            ("10.98.0.7", "10.1.1.2"),
            ("10.97.0.9", "10.1.1.2"),
            ("10.96.0.1", "10.1.1.2"),
            ("172.20.0.2", "10.1.1.2"),
            ("127.0.0.53", "10.1.1.2"),
            ("224.0.0.251", "10.1.1.2"),
            ("0.0.0.0", "10.1.1.2"),
            ("10.1.1.1", "192.0.2.2"),
            ("10.1.1.1", "192.0.2.1"),
            ("10.1.1.1", "10.99.0.1"),
            ("10.1.1.1", "172.20.0.1"),
            ("[2001:db8::2]", "[fd00:1::2]"),
            ("[fd00:99::5]", "[fd00:1::2]"),
            ("[fd00:1::1]", "[2001:db8::9]"),
            ("[::1]", "[fd00:1::2]"),
        ] {
            let option = format!("--network none --point-to-point host:{own}:{its}");
            w.try_add("x", &guest, &option).says(&["point-to-point"]).one_line();
            assert_eq!(w.host().sh(show), before, "{own} {its}");
        }
        // Nor one that the other container has otherwise.
        for (own, its) in [("172.20.0.1", "10.1.1.2"), ("10.1.1.1", "172.20.0.7")] {
            let option = format!("--network none --point-to-point peer:{own}:{its}");
            w.try_add("x", &guest, &option).says(&["point-to-point"]).one_line();
            assert_eq!(peer.place().sh(show), inside, "{own} {its}");
        }
        // What is nobody's is taken, and the host's end may have one address for several.
        let two = Guest::new();
        w.try_add("x", &guest, "--network none --point-to-point host:10.1.1.1:10.1.1.2").success();
        w.try_add("y", &two, "--network none --point-to-point host:10.1.1.3:10.1.1.2").success();
        w.try_add("z", &Guest::new(), "--network none --point-to-point host:10.1.1.3:10.1.1.4")
            .says(&["point-to-point"])
            .one_line();
        let _server = w.host().serve("10.1.1.2:80");
        assert_eq!(guest.place().reaches("10.1.1.2:80"), "10.1.1.1");
        assert_eq!(two.place().reaches("10.1.1.2:80"), "10.1.1.3");
    });
}

fn host_interface(w: &World, id: &str) -> String {
    w.inspect(id)["endpoints"][0]["hostInterface"].as_str().unwrap().to_owned()
}

/// The name that the next container of this id will have.
fn learn(w: &World, id: &str) -> String {
    let _guest = w.add(id, "");
    let name = host_interface(w, id);
    w.del(id);
    name
}

#[test]
fn an_interface_of_somebody_else_s_is_never_removed_for_its_name() {
    world(|w| {
        let name = learn(w, "x");
        let (guest, stranger) = (Guest::new(), Guest::new());
        let pid = stranger.pid();
        for make in [
            format!("ip link add {name} type ifb"),
            format!("ip link add {name} type bridge"),
            format!("ip link add {name} type veth peer name other"),
            format!("ip link add {name} type veth peer name eth0 netns {pid}"),
            format!("ip link add {name} alias somebody type veth peer name eth0 netns {pid}"),
        ] {
            w.host().sh(&make);
            let index = w.host().sh(&format!("ip -o link show {name} | cut -d: -f1"));
            w.try_add("x", &guest, "").says(&[&name]).one_line();
            w.del("x");
            w.rt(["prune"]).success();
            let after = w.host().sh(&format!("ip -o link show {name} | cut -d: -f1"));
            assert_eq!(index, after, "{make}");
            w.host().sh(&format!("ip link del {name}"));
        }
        // And not when it has taken the place of ours.
        w.try_add("x", &guest, "").success();
        w.host().sh(&format!("ip link del {name}; ip link add {name} type ifb"));
        w.del("x");
        w.host().sh(&format!("ip link show {name} && ip link del {name}"));
    });
}

#[test]
fn a_living_container_whose_record_is_lost_keeps_its_interface() {
    world(|w| {
        let (a, b) = (w.add("x", ""), Guest::new());
        let name = host_interface(w, "x");
        fs::remove_file(w.state().join("containers/x.json")).unwrap();
        // The same id again, for somebody else.
        w.try_add("x", &b, "").says(&[&name]).one_line();
        a.place().sh("ip link show eth0");
        w.rt(["prune"]).success();
        a.place().sh("ip link show eth0");
        // For the container itself it is a crash's left-over.
        w.try_add("x", &a, "").success();
    });
}

#[test]
fn what_a_crash_has_left_is_no_obstacle() {
    world(|w| {
        let name = learn(w, "x");
        let mut stranger = Guest::new();
        let path = w.directory.path().join("ns");
        fs::write(&path, "").unwrap();
        w.host().sh(&format!("mount --bind /proc/{}/ns/net {}", stranger.pid(), path.display()));
        w.host()
            .sh(&format!("ip link add {name} type veth peer name eth0 netns {}", stranger.pid()));
        stranger.end();
        // Nobody is in the namespace, and no record knows it.
        let guest = w.add("x", "");
        guest.place().sh("ip link show eth0");
        w.host().sh(&format!("umount {}", path.display()));
    });
}
