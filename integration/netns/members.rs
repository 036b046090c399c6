//! A network's resolver is for the members of that network.

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::world::{Place, World, world};

/// A name server at 192.0.2.2 that tells which questions have come.
fn upstream(w: &World) -> Receiver<Vec<u8>> {
    let socket = w.internet.place().run(|| UdpSocket::bind("192.0.2.2:53").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let mut answer = buffer[..length].to_vec();
            if sender.send(answer.clone()).is_err() {
                return;
            }
            answer[2] |= 0x80;
            let _ = socket.send_to(&answer, client);
        }
    });
    receiver
}

/// What dig says, also when there is no answer.
fn dig(place: &Place, words: &str) -> String {
    place.sh(&format!("dig +time=1 +tries=1 {words} || true"))
}

const WAYS: [&str; 6] = [
    "@172.21.0.1 -q a.",
    "@172.21.0.1 -x 172.21.0.2",
    "@172.21.0.1 -q www.example.",
    "@fd00:1::1 -t AAAA -q a.",
    "@fd00:1::1 -x fd00:1::2",
    "@fd00:1::1 -q www.example.",
];

#[test]
fn who_is_no_member_is_told_nothing() {
    world(|w| {
        w.create("one", "--subnet6 fd00:1::/64 --dns 192.0.2.2");
        w.create("two", "--subnet6 fd00:2::/64 --dns 192.0.2.2 --isolated false");
        let seen = upstream(w);
        let _a = w.add("a", "--network one");
        let member = w.add("member", "--network one");
        let other = w.add("other", "--network two");
        for (way, how) in WAYS.iter().flat_map(|way| [(way, ""), (way, "+tcp")]) {
            let answer = dig(&member.place(), &format!("{how} {way}"));
            assert!(answer.contains("NOERROR"), "a member, {how} {way}: {answer}");
            while seen.try_recv().is_ok() {}
            for (who, place) in [("another network's", other.place()), ("the host", w.host())] {
                let answer = dig(&place, &format!("{how} {way}"));
                assert!(!answer.contains("NOERROR"), "{who}, {how} {way}: {answer}");
                assert!(!answer.contains("NXDOMAIN"), "{who}, {how} {way}: {answer}");
            }
            assert!(seen.try_recv().is_err(), "{way}: a question came out");
        }
        // The own resolver knows nothing of them either.
        for way in ["-q a.", "-x 172.21.0.2", "-q a.one."] {
            let answer = dig(&other.place(), &format!("+short @172.22.0.1 {way}"));
            assert!(!answer.contains("172.21") && !answer.contains("a."), "{way}: {answer}");
        }
    });
}

#[test]
fn a_resolver_that_asks_another_network_s_learns_nothing() {
    world(|w| {
        w.create("one", "--subnet6 fd00:1::/64");
        w.create("two", "--dns 172.21.0.1");
        w.create("three", "--dns fd00:1::1");
        let _a = w.add("secret", "--network one");
        for network in ["two", "three"] {
            let other = w.add(network, &format!("--network {network}"));
            let gateway = if network == "two" { "172.22.0.1" } else { "172.23.0.1" };
            for way in ["-q secret.", "-x 172.21.0.2"] {
                let answer = dig(&other.place(), &format!("+short +time=6 @{gateway} {way}"));
                assert!(!answer.contains("172.21") && !answer.contains("secret"), "{answer}");
            }
        }
    });
}

/// Its answers would go to the member, but its questions would leave in the member's name.
#[test]
fn a_member_s_address_is_good_on_the_network_s_bridge_only() {
    world(|w| {
        w.create("one", "--subnet6 fd00:1::/64 --dns 192.0.2.2");
        w.create("two", "--subnet6 fd00:2::/64 --dns 192.0.2.2 --isolated false");
        let seen = upstream(w);
        let a = w.add("a", "--network one");
        let other = w.add("other", "--network two");
        // A host that does not look where a source address should come from.
        w.host().sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done");
        other
            .place()
            .sh("ip addr add 172.21.0.2/32 dev eth0; ip addr add fd00:1::2/128 dev eth0 nodad");
        let query = b"\x07\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x00\x00\x01\x00\x01";
        let ways = [("172.21.0.2:0", "172.21.0.1:53"), ("[fd00:1::2]:0", "[fd00:1::1]:53")];
        for (own, server) in ways {
            let server: SocketAddr = server.parse().unwrap();
            let socket = other.place().run(|| UdpSocket::bind(own).unwrap());
            for _ in 0..3 {
                socket.send_to(query, server).unwrap();
            }
            // What the member asks is heard, after all of that.
            let asked = a.place().run(|| {
                let socket = UdpSocket::bind(own).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                socket.send_to(query, server).unwrap();
                socket.recv_from(&mut [0; 512]).is_ok()
            });
            assert!(asked, "{own}: the member itself");
            assert_eq!(seen.try_iter().count(), 1, "{own}");
        }
    });
}

#[test]
fn names_outlive_the_helper_process_and_the_bridge() {
    world(|w| {
        w.create("six", "--subnet6 fd00:6::/64 --dns 192.0.2.2");
        let _seen = upstream(w);
        let (a, _b) = (w.add("a", "--network six"), w.add("b", "--network six"));
        let [helper] = w.helpers()[..] else { panic!("one helper: {:?}", w.helpers()) };
        let names = |when: &str| {
            for way in ["@172.21.0.1 -q b.", "@fd00:6::1 -q b.", "@fd00:6::1 -q www.example."] {
                for how in ["", "+tcp"] {
                    let answer = dig(&a.place(), &format!("+time=5 {how} {way}"));
                    assert!(answer.contains("NOERROR"), "{when}, {how} {way}: {answer}");
                }
            }
        };
        // The bridge's number is another one afterwards.
        w.host().sh("ip link del rt-six");
        w.rt(["check", "--repair"]).success();
        w.host().sh("for port in $(ip -br link | grep -o '^rtv[0-9a-f]*'); do ip link set $port master rt-six; done");
        names("a new bridge");
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(helper),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        w.rt(["check", "--repair"]).success();
        names("a new helper process");
    });
}
