//! Known attacks on container networks; the names are those of the public advisories.

use std::io::Write;
use std::net::TcpStream;

use super::world::world;

/// CVE-2019-9946: rules of ours before the administrator's.
#[test]
fn rules_that_were_there_first_stay_first() {
    world(|w| {
        w.host().sh(
            "iptables-nft -t nat -A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 9999",
        );
        let a = w.add("a", "--publish 8080:80");
        let _servers = (a.place().serve("0.0.0.0:80"), w.host().serve("0.0.0.0:9999"));
        // The host's own server answers with the client's address as well, so it has to be alone.
        drop(a);
        assert_eq!(w.internet.place().reaches("192.0.2.1:8080"), "192.0.2.2");
        w.host().sh("iptables-nft -t nat -L PREROUTING -v -n | grep -q ' 1 .*REDIRECT'");
    });
}

/// CVE-2020-10749, CVE-2020-13401: a container that advertises itself as the host's router.
#[test]
fn a_router_advertisement_from_a_container_changes_nothing() {
    world(|w| {
        w.create("six", "--subnet6 fd00:6::/64");
        let a = w.add("a", "--network six");
        let b = w.add("b", "--network six");
        b.place().sh("sysctl -qw net.ipv6.conf.eth0.accept_ra=2");
        let routes = |place: &super::world::Place| {
            place.sh("ip -6 route show proto ra; ip -6 route | grep -c default || true")
        };
        let (host, neighbour) = (routes(&w.host()), routes(&b.place()));
        // Even a host that listens to advertisements everywhere.
        w.host().sh("sysctl -qw net.ipv6.conf.rt-six.accept_ra=2 || true");
        let script = "
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex('eth0'))
for _ in range(3):
    s.sendto(struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0), ('ff02::1', 0, 0, socket.if_nametoindex('eth0')))
";
        let path = w.directory.path().join("ra.py");
        std::fs::write(&path, script).unwrap();
        a.place().sh("for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do ip -6 addr show dev eth0 tentative | grep -q . || break; sleep 0.2; done");
        a.place().sh(&format!("python3 {}", path.display()));
        // What comes after the advertisements has come after them.
        w.host().sh("ping=$(command -v busybox); $ping ping -c1 -W2 172.21.0.2 >/dev/null");
        b.place().sh("busybox ping -c1 -W2 172.21.0.2 >/dev/null");
        assert_eq!(routes(&w.host()), host);
        assert_eq!(routes(&b.place()), neighbour);
    });
}

/// CVE-2024-29018: names that leave an internal network.
#[test]
fn an_internal_network_asks_nobody_for_names() {
    world(|w| {
        w.create("inner", "--internal true --dns 192.0.2.2");
        let socket = w.internet.place().run(|| std::net::UdpSocket::bind("192.0.2.2:53").unwrap());
        let a = w.add("a", "--network inner");
        for how in ["", "+tcp"] {
            let answer =
                a.place().sh(&format!("dig +time=5 +tries=2 {how} @172.21.0.1 -q www.example"));
            assert!(answer.contains("NXDOMAIN"), "{answer}");
        }
        assert_eq!(a.place().sh("dig +short @172.21.0.1 -q a."), "172.21.0.2\n");
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut [0; 10]).is_err(), "a query came out");
    });
}

/// CVE-2025-54388, CVE-2025-54410: somebody reloads his firewall.
#[test]
fn isolation_outlives_the_flush_of_other_tables() {
    world(|w| {
        w.create("one", "");
        w.create("two", "");
        let one = w.add("one", "--network one --publish 127.0.0.1:8080:80");
        let two = w.add("two", "--network two");
        let _server = one.place().serve("0.0.0.0:80");
        let at = format!("{}:80", w.address("one"));
        w.host().sh("for c in iptables-nft ip6tables-nft; do for t in filter nat mangle raw; do
               $c -t $t -F; $c -t $t -X; done; done
             echo '*filter\n:FORWARD ACCEPT\nCOMMIT' | iptables-nft-restore");
        two.place().does_not_reach(&at);
        w.neighbour.place().sh("ip route add 172.21.0.0/16 via 192.0.2.1");
        w.neighbour.place().does_not_reach(&at);
        w.host().reaches("127.0.0.1:8080");
        // And if it was everything, it can be had again.
        w.host().sh("nft flush ruleset");
        w.rt(["check"]).failure().one_line();
        w.rt(["check", "--repair"]).success();
        two.place().does_not_reach(&at);
    });
}

/// CVE-2025-67499: traffic that only passes through the host.
#[test]
fn a_published_port_takes_no_packets_that_are_for_others() {
    world(|w| {
        let a = w.add("a", "--publish 80:80");
        let inner = a.place().serve("0.0.0.0:80");
        let _outer = w.internet.place().serve("198.51.100.1:80");
        // The neighbour goes to the internet by way of this host.
        w.neighbour.place().sh("ip route add 198.51.100.1 via 192.0.2.1");
        w.host().sh("ip route add 198.51.100.1 via 192.0.2.2; sysctl -qw net.ipv4.conf.all.send_redirects=0");
        drop(inner);
        drop(a);
        w.neighbour.place().reaches("198.51.100.1:80");
    });
}

/// moby#45610, #48721: a neighbour on the same wire with a route of his own.
#[test]
fn a_neighbour_reaches_only_what_is_published_to_him() {
    world(|w| {
        let a = w.add("a", "--publish 127.0.0.1:8080:80 --publish 8081:81");
        let _servers = (a.place().serve("0.0.0.0:80"), a.place().serve("0.0.0.0:81"));
        let neighbour = w.neighbour.place();
        neighbour.sh("ip route add 172.20.0.0/16 via 192.0.2.1");
        neighbour.sh("sysctl -qw net.ipv4.conf.all.route_localnet=1
            ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via 192.0.2.1");
        neighbour.does_not_reach("172.20.0.2:80");
        neighbour.does_not_reach("172.20.0.2:81");
        neighbour.does_not_reach("127.0.0.1:8080");
        neighbour.does_not_reach("192.0.2.1:8080");
        assert!(!neighbour.try_sh("dig +time=1 +tries=1 @172.20.0.1 -q a."));
        assert_eq!(neighbour.reaches("192.0.2.1:8081"), "192.0.2.3");
        w.host().reaches("127.0.0.1:8080");
        // A container has no business with the host's own loopback either.
        let b = w.add("b", "");
        b.place().sh("sysctl -qw net.ipv4.conf.all.route_localnet=1
            ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via 172.20.0.1");
        let _local = w.host().serve("127.0.0.1:7000");
        b.place().does_not_reach("127.0.0.1:7000");
    });
}

/// CVE-2026-35406: a query over TCP that is broken off.
#[test]
fn a_broken_query_costs_the_resolver_nothing() {
    world(|w| {
        let a = w.add("a", "");
        let place = a.place();
        for bytes in [&[][..], &[0], &[0, 40, 1], &[0xff; 70_000], &[0, 2, 1, 1]] {
            let mut stream = place.run(|| TcpStream::connect("172.20.0.1:53").unwrap());
            let _ = stream.write_all(bytes);
            // Closed with a reset.
            nix::sys::socket::setsockopt(
                &stream,
                nix::sys::socket::sockopt::Linger,
                &nix::libc::linger { l_onoff: 1, l_linger: 0 },
            )
            .unwrap();
        }
        assert_eq!(place.sh("dig +short +tcp @172.20.0.1 -q a."), "172.20.0.2\n");
        let [helper] = w.helpers()[..] else { panic!("one helper: {:?}", w.helpers()) };
        let ticks = || {
            let stat = std::fs::read_to_string(format!("/proc/{helper}/stat")).unwrap();
            let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        let before = ticks();
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert!(ticks() - before < 10, "the helper is busy with nothing");
    });
}
