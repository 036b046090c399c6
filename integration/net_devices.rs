//! `linux.netDevices`: interfaces of the host in a container.

use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use serde_json::{Value, json};

use crate::harness::inject::{At, CALLER, Fault, inject, sweep_step, trace};
use crate::harness::{Bundle, Host, reap};

#[track_caller]
fn ip(words: &str) -> String {
    let done = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Two pairs, of which one half each is for a container.
fn links() {
    ip("link add one0 type veth peer name one1");
    ip("link add two0 type veth peer name two1");
    ip("link set one0 address 02:00:00:00:00:17 mtu 1400 up");
    ip("address add 10.9.8.7/24 brd 10.9.8.255 label one0:lan dev one0");
    ip("address add 10.9.8.6/24 dev one0");
    ip("address add 10.9.7.1/32 scope link dev one0");
    ip("-6 address add fd00:9::7/64 nodad dev one0");
}

fn bundle(devices: Value) -> Bundle {
    Bundle::busybox().args(["sleep", "1000"]).config(|c| c["linux"]["netDevices"] = devices)
}

fn seen(pid: i32) -> String {
    let target = format!("/proc/{pid}/ns/net");
    let net = format!("--net={target}");
    let done = Command::new("nsenter").args([&*net, "ip", "-o", "-d", "address"]).output().unwrap();
    let links = Command::new("nsenter").args([&*net, "ip", "-o", "link"]).output().unwrap();
    String::from_utf8([done.stdout, links.stdout].concat()).unwrap()
}

#[test]
fn interfaces_move_into_the_container_with_all_they_have() {
    Host::isolated(|| {
        links();
        for user in [false, true] {
            let devices = json!({ "one0": { "name": "lan" }, "two0": { "name": "more%d" } });
            let bundle = bundle(devices);
            let bundle = if user { bundle.user_namespace() } else { bundle };
            let c = bundle.start();
            let text = seen(c.pid());
            for part in [
                "10.9.8.7/24 brd 10.9.8.255 scope global lan:lan",
                "10.9.8.6/24 scope global secondary lan",
                "fd00:9::7/64 scope global",
                "02:00:00:00:00:17",
                "mtu 1400",
                " more0",
            ] {
                assert!(text.contains(part), "{part}:\n{text}");
            }
            assert!(!text.contains("10.9.7.1"), "only what is of global scope:\n{text}");
            let flags = text.lines().rfind(|line| line.contains(" lan@")).unwrap();
            assert!(flags.contains(",UP"), "{flags}");
            assert!(!ip("-o link").contains("one0@"), "it has left the host");
            drop(c);
            // Virtual interfaces end with their namespace: spec 1.3.
            crate::harness::until("the pair has gone", || !ip("-o link").contains("one1"));
            crate::harness::until("the pair has gone", || !ip("-o link").contains("two1"));
            links();
        }
    });
}

#[test]
fn an_interface_that_cannot_move_is_refused_and_stays() {
    Host::isolated(|| {
        links();
        let before = ip("-o address show dev one0");
        for (devices, words) in [
            (json!({ "none0": {} }), ["linux.netDevices.none0", "no such interface"]),
            (json!({ "one0": { "name": "lo" } }), ["linux.netDevices.one0", "lo"]),
            (json!({ "lo": { "name": "other" } }), ["linux.netDevices.lo", "Invalid argument"]),
            // The first of the two has moved by then.
            (
                json!({ "one0": { "name": "lan" }, "zone": {} }),
                ["linux.netDevices.zone", "no such"],
            ),
        ] {
            bundle(devices).refused().one_line().says(&words);
        }
        let mut later = bundle(json!({ "one0": { "name": "lan" } }));
        later = later.args(["/no/such/program"]);
        later.refused().one_line();
        let strip = |text: &str| text.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
        let after = ip("-o address show dev one0");
        let lines = |text: &str| -> Vec<String> {
            let global = text.lines().filter(|line| line.contains("scope global"));
            let lines = global.map(|line| strip(line.split(" valid_lft").next().unwrap()));
            lines.collect()
        };
        assert_eq!(lines(&after), lines(&before));
        assert!(ip("-o link show one0").contains(",UP"), "it is up again");
        bundle(json!({ "one0": {} })).without_namespace("network").refused().one_line();
    });
}

/// Whatever call fails, and whenever init is killed. A caller that is killed itself leaves a virtual
/// interface to the kernel, which ends it with the container's namespace.
#[test]
fn an_interface_comes_back_wherever_create_fails() {
    Host::isolated(|| {
        links();
        let bundle = bundle(json!({ "one0": { "name": "lan" } }));
        bundle.write();
        let (path, id) = (bundle.path().display().to_string(), bundle.id());
        let [out, err] = ["out", "err"].map(|name| bundle.beside(name));
        let create = bundle.rt(["create", "--bundle", &path, &id]);
        let delete = || bundle.rt(["delete", "--force", &id]).run().success();
        let calls = trace(&create, &out, &err).calls;
        delete();
        // Before there is a process it is as everywhere.
        let late = calls.iter().skip_while(|call| call.number != nix::libc::SYS_clone3);
        for call in late.step_by(sweep_step(1)) {
            let killed = (call.process != CALLER).then_some(Fault::Kill);
            for fault in [Fault::Error(Errno::EIO)].into_iter().chain(killed) {
                if matches!(fault, Fault::Error(_)) && !call.can_fail() {
                    continue;
                }
                if !ip("-o link").contains("one0@") {
                    crate::harness::until("the pair has gone", || !ip("-o link").contains("one1"));
                    ip("link del two0");
                    links();
                }
                let at = At { process: call.process, n: call.n };
                let traced = inject(&create, (&out, &err), at, fault);
                let here = ip("-o link").contains("one0@");
                assert!(here || traced.status == 0, "{fault} at {call}: it is gone");
                assert!(!here || traced.status != 0, "{fault} at {call}: it has not moved");
                let addresses = ip("-o address");
                assert_eq!(
                    addresses.contains(" one0    inet 10.9.8.7/24"),
                    here,
                    "{fault} at {call}"
                );
                delete();
                for child in traced.children {
                    reap(child, Duration::from_secs(2));
                }
            }
        }
    });
}

#[test]
fn an_ordinary_user_has_no_interface_to_give_away() {
    Host::isolated(|| {
        links();
        let bundle = bundle(json!({ "one0": {} })).of_user().config(|c| {
            let list = c["linux"]["namespaces"].as_array_mut().unwrap();
            list.push(json!({ "type": "network" }));
        });
        bundle.refused().one_line().says(&["linux.netDevices"]);
        assert!(ip("-o link").contains("one0@"));
    });
}
