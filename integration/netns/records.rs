//! Records, leases and networks' files that cannot be read, or lie.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::world::{World, world};

const VERBS: [&[&str]; 3] = [&["del", "b"], &["prune"], &["check", "--repair"]];

fn record(w: &World, id: &str) -> PathBuf {
    w.state().join("containers").join(format!("{id}.json"))
}

fn json_of(w: &World, id: &str) -> Value {
    serde_json::from_slice(&fs::read(record(w, id)).unwrap()).unwrap()
}

/// The name of the host's end.
fn interface(w: &World, id: &str) -> String {
    json_of(w, id)["endpoints"][0]["hostInterface"].as_str().unwrap().to_owned()
}

/// What may stand in the place of b's record, and what it is called.
fn damage(w: &World, kind: &str) {
    let path = record(w, "b");
    let whole = fs::read(&path).unwrap();
    let mut lie = json_of(w, "b");
    let text = match kind {
        "empty" => vec![],
        "cut" => whole[..whole.len() / 2].to_vec(),
        "foreign" => br#"{"ociVersion":"1.0.2","id":"b"}"#.to_vec(),
        "list" => b"[]".to_vec(),
        "bytes" => vec![0xff; 5000],
        "another id" => fs::read(record(w, "a")).unwrap(),
        "another's interface" => {
            lie["endpoints"][0]["hostInterface"] = json!(interface(w, "a"));
            lie.to_string().into_bytes()
        }
        "the host's interface" => {
            lie["endpoints"][0]["hostInterface"] = json!("hi");
            lie.to_string().into_bytes()
        }
        "another's address" => {
            lie["endpoints"][0]["address"] = json_of(w, "a")["endpoints"][0]["address"].clone();
            lie.to_string().into_bytes()
        }
        "impossible ports" => {
            lie["endpoints"][0]["publish"][0]["count"] = json!(65_535);
            lie.to_string().into_bytes()
        }
        "a point that is the host's" => {
            lie["points"] = json!([{ "peer": "host", "interface": "p", "own": "10.1.1.1",
                "its": "10.1.1.2", "peer_interface": "hi" }]);
            lie.to_string().into_bytes()
        }
        "a pipe" | "a directory" | "a link" => {
            fs::remove_file(&path).unwrap();
            let path = path.display();
            w.host().sh(&match kind {
                "a pipe" => format!("mkfifo {path}"),
                "a directory" => format!("mkdir -p {path}/x"),
                _ => format!("ln -s /etc/passwd {path}"),
            });
            return;
        }
        other => panic!("{other}"),
    };
    fs::write(&path, text).unwrap();
}

const KINDS: [&str; 14] = [
    "empty",
    "cut",
    "foreign",
    "list",
    "bytes",
    "another id",
    "another's interface",
    "the host's interface",
    "another's address",
    "impossible ports",
    "a point that is the host's",
    "a pipe",
    "a directory",
    "a link",
];

/// Container a goes on as if nothing had been.
#[track_caller]
fn a_is_well(w: &World, what: &str) {
    w.internet.place().reaches("192.0.2.1:8080");
    assert!(w.host().sh(&format!("ip link show {}", interface(w, "a"))).contains("UP"), "{what}");
    let asker = w.add("asker", "--network six");
    let answer = asker.place().sh("dig +short +time=5 @172.21.0.1 -q a.");
    assert_eq!(answer.trim(), w.address("a"), "{what}");
    w.del("asker");
    let done = w.rt(["check"]);
    assert_eq!(done.status, 0, "{what}: {done}");
}

fn with_two(driver: &str, test: impl Fn(&World, &str, &[&str]) + Sync) {
    for (n, kind) in KINDS.iter().enumerate() {
        let verb = VERBS[n % VERBS.len()];
        world(|w| {
            w.create("six", &format!("--subnet6 fd00:6::/64 --driver {driver}"));
            let a = w.add("a", "--network six --publish 8080:80");
            let _b = w.add("b", "--network six --publish 8081:80");
            let _server = a.place().serve("[::]:80");
            test(w, kind, verb);
        });
    }
}

fn gone(w: &World, link: &str, address: &str, what: &str) {
    assert!(!w.host().try_sh(&format!("ip link show {link}")), "{what}: interface");
    let rules = w.host().sh("nft list ruleset; iptables-save");
    for word in [link, address, "8081"] {
        assert!(!rules.contains(word), "{what}: {word} in {rules}");
    }
    let left = w.host().sh(&format!("find {}", w.state().display()));
    assert!(!left.contains("b.json") && !left.contains(address), "{what}: {left}");
}

#[test]
fn an_unreadable_record_is_named_stops_nobody_and_is_cleaned() {
    with_two("nftables", |w, kind, verb| {
        let (link, address) = (interface(w, "b"), w.address("b"));
        damage(w, kind);
        let list = w.rt(["list"]).success();
        assert!(list.stdout.contains("\na "), "{kind}: {list}");
        assert!(
            list.stderr.contains("b.json") && list.stderr.lines().count() == 1,
            "{kind}: {list}"
        );
        w.rt(["list", "--json"]).success();
        w.rt(["check"]).says(&["b.json"]).one_line();
        w.rt(["inspect", "b"]).says(&["b.json"]).one_line();
        // Others come and go.
        let c = w.add("c", "--network six --publish 8082:80");
        w.internet.place().does_not_reach("192.0.2.1:8082");
        w.del("c");
        drop(c);
        w.rt(verb).success();
        gone(w, &link, &address, kind);
        a_is_well(w, kind);
        let _again = w.add("d", "--network six --publish 8081:80");
    });
}

#[test]
fn the_driver_of_iptables_cleans_unreadable_records_too() {
    for kind in ["empty", "another id"] {
        for verb in VERBS {
            world(|w| {
                w.create("six", "--subnet6 fd00:6::/64 --driver iptables");
                let a = w.add("a", "--network six --publish 8080:80");
                let _b = w.add("b", "--network six --publish 8081:80");
                let _server = a.place().serve("[::]:80");
                let (link, address) = (interface(w, "b"), w.address("b"));
                damage(w, kind);
                w.rt(verb).success();
                gone(w, &link, &address, kind);
                a_is_well(w, kind);
            });
        }
    }
}

#[test]
fn a_container_with_an_unreadable_record_stays_confined() {
    world(|w| {
        w.create("apart", "--icc false --internal true");
        let (a, b) = (w.add("a", "--network apart"), w.add("b", "--network apart"));
        let _servers = (a.place().serve("0.0.0.0:80"), w.host().serve("0.0.0.0:7000"));
        fs::write(record(w, "b"), "").unwrap();
        // The tables are made anew, from what can be read.
        w.host().sh("nft delete table inet rtnet; nft delete table bridge rtnet");
        let _c = w.add("c", "--network apart");
        b.place().does_not_reach("172.21.0.2:80");
        b.place().does_not_reach("172.21.0.1:7000");
    });
}

#[test]
fn a_record_that_was_removed_by_hand_leaves_nothing_for_ever() {
    for verb in VERBS {
        world(|w| {
            let mut b = w.add("b", "--publish 8081:80");
            let _a = w.add("a", "");
            let (link, address) = (interface(w, "b"), w.address("b"));
            // The namespace outlives its processes.
            let path = w.directory.path().join("ns");
            fs::write(&path, "").unwrap();
            let at = format!("/proc/{}/ns/net", b.pid());
            w.host().sh(&format!("mount --bind {at} {}", path.display()));
            b.end();
            fs::remove_file(record(w, "b")).unwrap();
            w.rt(verb).success();
            w.host().sh(&format!("umount {}", path.display()));
            gone(w, &link, &address, verb[0]);
        });
    }
}

#[test]
fn a_network_s_unreadable_file_stops_no_other_network_and_keeps_it_closed() {
    for (text, known) in [
        (Some(""), false),
        (Some("{\"config\":{}}"), false),
        (Some("[1"), true),
        (None, true),
        (None, false),
    ] {
        world(|w| {
            w.create("inner", "--internal true");
            w.create("other", "");
            let a = w.add("a", "--network inner");
            let b = w.add("b", "--network other --publish 8080:80");
            let _servers = (b.place().serve("0.0.0.0:80"), w.host().serve("0.0.0.0:7000"));
            let file = w.state().join("networks/inner/network.json");
            match text {
                Some(text) => fs::write(file, text).unwrap(),
                None => fs::remove_file(file).unwrap(),
            }
            let description = w.networks().join("inner.json");
            let described = fs::read(&description).unwrap();
            if !known {
                fs::remove_file(&description).unwrap();
            }
            let list = w.rt(["list"]).success();
            assert!(list.stderr.contains("networks/inner"), "{list}");
            assert!(list.stdout.contains("\na ") && list.stdout.contains("\nb "), "{list}");
            w.rt(["check"]).says(&["networks/inner"]).one_line();
            let c = super::world::Guest::new();
            w.try_add("c", &c, "--network inner").says(&["inner", "check --repair"]).one_line();
            w.try_add("c", &c, "--network other").success();
            // The tables are made anew, without what the file said.
            w.host().sh("nft delete table inet rtnet; nft delete table bridge rtnet");
            let repaired = w.rt(["check", "--repair"]);
            assert_eq!(repaired.status == 0, known, "{repaired}");
            a.place().does_not_reach("172.21.0.1:7000");
            w.internet.place().reaches("192.0.2.1:8080");
            assert_eq!(w.rt(["check"]).status == 0, known);
            w.rt(["prune"]).success();
            w.rt(["del", "a"]).success();
            assert!(!w.host().try_sh("ip link show rt-inner"), "the bridge");
            w.internet.place().reaches("192.0.2.1:8080");
            w.rt(["check"]).success();
            fs::write(&description, described).unwrap();
        });
    }
}

#[test]
fn a_network_s_file_that_lies_about_its_bridge_removes_nothing_of_the_host_s() {
    world(|w| {
        w.create("one", "");
        let _a = w.add("a", "--network one");
        let path = w.state().join("networks/one/network.json");
        let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        file["config"]["bridge"] = json!("lan");
        fs::write(&path, file.to_string()).unwrap();
        w.rt(["del", "a"]).success();
        w.host().sh("ip link show lan && ip link del rt-one");
    });
}

#[test]
fn what_is_no_lease_is_removed() {
    for verb in VERBS {
        world(|w| {
            let a = w.add("a", "");
            let b = w.add("b", "");
            let leases = w.state().join("networks/default/leases");
            let lease = |address: &str| leases.join(address).display().to_string();
            // An address of a living container, one of nobody, what is none, one too many.
            w.host().sh(&format!(
                "rm {0}; echo x > {0}; mkdir {1}; echo > {2}; ln -s a {3}; ln -s ../../x {4}",
                lease("172.20.0.2"),
                lease("172.20.0.9"),
                lease("hosts"),
                lease("172.20.0.10"),
                lease("172.20.0.11"),
            ));
            w.rt(["list"]).success();
            w.rt(verb).success();
            let c = super::world::Guest::new();
            w.try_add("c", &c, "--ip 172.20.0.2").failure().one_line();
            w.try_add("c", &c, "--ip 172.20.0.4").success();
            w.rt(["prune"]).success();
            for (id, ip) in [("d", 9), ("e", 10), ("f", 11)] {
                let _guest = w.add(id, &format!("--ip 172.20.0.{ip}"));
                w.del(id);
            }
            w.try_add("g", &super::world::Guest::new(), "--ip 172.20.0.2").failure().one_line();
            drop((a, b));
        });
    }
}
