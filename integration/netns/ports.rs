//! Masquerading and published ports.

use super::world::{Guest, world};
use crate::harness::until;

#[test]
fn a_container_reaches_the_internet_with_the_host_s_address() {
    world(|w| {
        w.create("six", "--subnet6 fd00:6::/64");
        let a = w.add("a", "--network six");
        let internet = w.internet.place();
        let _server = internet.serve("[::]:80");
        assert_eq!(a.place().reaches("198.51.100.1:80"), "192.0.2.1");
        assert_eq!(a.place().reaches("[2001:db8::2]:80"), "2001:db8::1");
    });
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    for bridge_nf in ["0", "1"] {
        world(|w| {
            w.host().sh(&format!(
                "echo {bridge_nf} | tee /proc/sys/net/bridge/bridge-nf-call-ip*tables"
            ));
            w.create("six", "--subnet6 fd00:6::/64");
            let a = w.add("a", "--network six --publish 8080:80 --publish 5353:80/udp");
            let b = w.add("b", "--network six");
            let c = w.add("c", "");
            let _server = a.place().serve("[::]:80");
            let internet = w.internet.place();
            // The client's address is kept.
            assert_eq!(internet.reaches("192.0.2.1:8080"), "192.0.2.2");
            assert_eq!(internet.reaches("[2001:db8::1]:8080"), "2001:db8::2");
            assert_eq!(internet.ask_udp("192.0.2.1:5353").as_deref(), Some("192.0.2.2"));
            for place in [w.host(), a.place(), b.place(), c.place()] {
                place.reaches("192.0.2.1:8080");
                assert!(place.ask_udp("192.0.2.1:5353").is_some());
            }
            for address in ["127.0.0.1", "[::1]", "192.0.2.1", "[2001:db8::1]"] {
                w.host().reaches(&format!("{address}:8080"));
                assert!(w.host().ask_udp(&format!("{address}:5353")).is_some(), "{address}");
            }
            let own = w.address("a");
            w.host().reaches(&format!("{own}:80"));
            assert_eq!(b.place().reaches(&format!("{own}:80")), w.address("b"));
            internet.does_not_reach("192.0.2.1:5353");
        });
    }
}

#[test]
fn a_range_is_published_port_by_port() {
    world(|w| {
        let a = w.add("a", "--publish 9000-9010:90-100");
        let _servers = (a.place().serve("0.0.0.0:90"), a.place().serve("0.0.0.0:100"));
        let internet = w.internet.place();
        internet.reaches("192.0.2.1:9000");
        internet.reaches("192.0.2.1:9010");
        internet.does_not_reach("192.0.2.1:9011");
    });
}

#[test]
fn a_port_published_on_one_address_is_on_that_one_only() {
    world(|w| {
        w.host().sh("ip addr add 192.0.2.9/24 dev lan");
        let a = w.add("a", "--publish 192.0.2.9:80:80");
        let _server = a.place().serve("0.0.0.0:80");
        w.internet.place().reaches("192.0.2.9:80");
        w.internet.place().does_not_reach("192.0.2.1:80");
    });
}

#[test]
fn exposed_ports_get_free_ports_of_the_host() {
    world(|w| {
        let a = w.add("a", "--publish-all --expose 80 --expose 81/udp");
        let _server = a.place().serve("0.0.0.0:80");
        let ports = w.inspect("a")["endpoints"][0]["ports"].clone();
        let first = ports[0].as_str().unwrap();
        let port = first.trim_start_matches("*:").split("->").next().unwrap();
        w.internet.place().reaches(&format!("192.0.2.1:{port}"));
        assert_eq!(ports.as_array().unwrap().len(), 2);
    });
}

#[test]
fn a_port_is_published_once() {
    world(|w| {
        let _a = w.add("a", "--publish 8080:80");
        let b = Guest::new();
        w.try_add("b", &b, "--publish 127.0.0.1:8080:80").says(&["8080"]).one_line();
        w.try_add("b", &b, "--publish 8080:80/udp").success();
        // A program of the host is in the way as well.
        let _listener = std::net::TcpListener::bind("192.0.2.1:7000").unwrap();
        let c = Guest::new();
        w.try_add("c", &c, "--publish 7000:80").says(&["7000"]).one_line();
        assert_eq!(w.rt(["inspect", "c"]).failure().stdout, "");
    });
}

#[test]
fn a_port_of_a_container_that_is_gone_is_free() {
    world(|w| {
        let mut a = w.add("a", "--publish 8080:80");
        a.end();
        let b = w.add("b", "--publish 8080:80");
        let _server = b.place().serve("0.0.0.0:80");
        w.internet.place().reaches("192.0.2.1:8080");
        w.rt(["inspect", "a"]).failure();
    });
}

#[test]
fn a_udp_client_that_began_too_early_is_served_once_the_port_is_published() {
    world(|w| {
        let internet = w.internet.place();
        let client = internet.run(|| std::net::UdpSocket::bind("192.0.2.2:4000").unwrap());
        // Another connection to the same port elsewhere is nobody's business (moby#46276).
        w.host().sh("sysctl -q net.ipv4.ip_forward=1; ip addr add 203.0.113.1/24 dev lan");
        w.host().sh(
            "nft 'table ip t { chain c { type filter hook input priority 0; ct state new; }; }'",
        );
        client.send_to(b"?", "192.0.2.1:5000").unwrap();
        let known = "conntrack -L -p udp --orig-port-dst 5000 2>/dev/null | grep -q 5000";
        until("the kernel remembers it", || w.host().try_sh(known));
        let a = w.add("a", "--publish 5000:80/udp");
        let _server = a.place().serve("0.0.0.0:80");
        client.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        client.send_to(b"?", "192.0.2.1:5000").unwrap();
        let mut buffer = [0; 100];
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"192.0.2.2");
        w.del("a");
        let left = w.host().sh("conntrack -L -p udp --orig-port-dst 5000 2>/dev/null || true");
        assert_eq!(left, "");
        w.host().sh("nft delete table ip t");
    });
}

#[test]
fn without_a_driver_the_helper_process_carries_everything() {
    world(|w| {
        w.create("plain", "--driver none --localhost proxy");
        let a = w.add("a", "--network plain --publish 8080:80 --publish 8080:80/udp");
        let _server = a.place().serve("0.0.0.0:80");
        w.internet.place().reaches("192.0.2.1:8080");
        assert!(w.internet.place().ask_udp("192.0.2.1:8080").is_some());
        w.host().reaches("127.0.0.1:8080");
    });
}
