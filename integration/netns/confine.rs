//! What a container reaches of the host and of other networks when it makes its packets itself.

use std::net::UdpSocket;
use std::path::PathBuf;

use super::world::{Guest, Place, World, world};

const DRIVERS: [&str; 2] = ["nftables", "iptables"];

/// Sends UDP packets as frames to a hardware address, with whatever source is wanted: words
/// `SOURCE PORT DESTINATION PORT`.
const FRAMES: &str = "
import ipaddress, socket, struct, sys
own = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
own.bind(('eth0', 0))
to = bytes.fromhex(sys.argv[1].replace(':', ''))
def total(data):
    data += b'\\0' * (len(data) % 2)
    one = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while one >> 16:
        one = (one & 0xffff) + (one >> 16)
    return ~one & 0xffff
words = sys.argv[2:]
while words:
    source, source_port, destination, port = words[:4]
    words = words[4:]
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    udp = struct.pack('!HHHH', int(source_port), int(port), 9, 0) + b'?'
    pseudo = source.packed + destination.packed + struct.pack('!II', 9, 17)
    udp = udp[:6] + struct.pack('!H', total(pseudo + udp) or 0xffff) + udp[8:]
    if source.version == 4:
        head = struct.pack('!BBHHHBBH', 0x45, 0, 29, 1, 0, 64, 17, 0)
        head += source.packed + destination.packed
        head = head[:10] + struct.pack('!H', total(head)) + head[12:]
        kind = 0x800
    else:
        head = struct.pack('!IHBB', 6 << 28, 9, 17, 64) + source.packed + destination.packed
        kind = 0x86dd
    own.send(to + own.getsockname()[4] + struct.pack('!H', kind) + head + udp)
";

/// A socket of the host's that must hear nothing.
struct Ear(UdpSocket);

impl Ear {
    fn new(host: &Place, address: &str) -> Self {
        let socket = host.run(|| UdpSocket::bind(address).unwrap());
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    /// What has come until now, by whom it claims to be from.
    fn heard(&self) -> Vec<String> {
        let mut all = Vec::new();
        while let Ok((_, from)) = self.0.recv_from(&mut [0; 100]) {
            all.push(from.to_string());
        }
        all
    }
}

/// Forges packets from a container with CAP_NET_RAW and no other capability.
struct Forger<'a> {
    place: &'a Place,
    script: PathBuf,
    mac: String,
}

impl<'a> Forger<'a> {
    fn new(w: &World, place: &'a Place, bridge: &str) -> Self {
        let script = w.directory.path().join("frames.py");
        std::fs::write(&script, FRAMES).unwrap();
        let mac = w.host().sh(&format!("ip -o link show {bridge} | sed 's/.*ether //; s/ .*//'"));
        Self { place, script, mac: mac.trim().to_owned() }
    }

    fn send(&self, source: &str, source_port: u16, destination: &str, port: u16) {
        self.send_all(&[source], source_port, &[destination], port);
    }

    /// From each of the sources to each of the destinations.
    fn send_all(&self, sources: &[&str], source_port: u16, destinations: &[&str], port: u16) {
        let mut words = String::new();
        for source in sources {
            for destination in destinations {
                words += &format!(" {source} {source_port} {destination} {port}");
            }
        }
        self.place.sh(&format!(
            "setpriv --bounding-set -all,+net_raw --inh-caps -all --no-new-privs \
             python3 {} {}{words}",
            self.script.display(),
            self.mac
        ));
    }
}

/// Nothing of the kernel's own stands between a forged source and the host.
fn believe_every_source(w: &World) {
    w.host().sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done");
}

fn link_local(w: &World, bridge: &str) -> String {
    let show = format!("ip -6 -o addr show dev {bridge} scope link | sed 's/.*inet6 //; s,/.*,,'");
    crate::harness::until("the bridge has its link-local address", || {
        !w.host().sh(&show).trim().is_empty()
    });
    w.host().sh(&show).trim().to_owned()
}

/// An internal network, another one with a published port, a host with services.
fn with_internal(driver: &str, test: impl FnOnce(&World, &Guest, &Guest) + Send) {
    world(|w| {
        believe_every_source(w);
        w.create(
            "inner",
            &format!(
                "--internal true --subnet 172.30.0.0/24 --subnet6 fd00:30::/64 --driver {driver}"
            ),
        );
        w.create(
            "outer",
            &format!("--subnet 172.29.0.0/24 --subnet6 fd00:29::/64 --driver {driver}"),
        );
        let outer = w.add("outer", "--network outer --publish 8080:80");
        let _published = outer.place().serve("[::]:80");
        let (a, b) = (w.add("a", "--network inner"), w.add("b", "--network inner"));
        let _members = (a.place().serve("[::]:81"), b.place().serve("[::]:80"));
        let _services = (w.host().serve("[::]:7000"), w.host().serve("127.0.0.1:7002"));
        test(w, &a, &b);
    });
}

/// What a container of an internal network has to have, whatever else is closed.
#[track_caller]
fn own_network_works(w: &World, a: &Guest) {
    let inside = a.place();
    assert_eq!(inside.reaches("172.30.0.3:80"), "172.30.0.2");
    assert_eq!(inside.reaches("[fd00:30::3]:80"), "fd00:30::2");
    for how in ["@172.30.0.1", "+tcp @172.30.0.1", "@fd00:30::1", "+tcp @fd00:30::1"] {
        let answer = inside.sh(&format!("dig +short +time=5 +tries=2 {how} -q b. -t A"));
        assert_eq!(answer, "172.30.0.3\n", "{how}");
    }
    inside.sh("busybox ping -c1 -W5 172.30.0.1; busybox ping -6 -c1 -W5 fd00:30::1");
    // The host may begin a connection: the answers come in.
    w.host().reaches("172.30.0.2:81");
    w.host().reaches("[fd00:30::2]:81");
    assert!(w.host().ask_udp("172.30.0.2:81").is_some());
}

/// Packets from every kind of source to every kind of address of the host.
fn forge_everything(w: &World, inside: &Place, bridge: &str) {
    let forger = Forger::new(w, inside, "rt-inner");
    forger.send_all(
        &["172.30.0.2", "192.0.2.2", "192.0.2.1", "172.29.0.2", "127.0.0.9", "0.0.0.0"],
        53,
        &["172.30.0.1", "192.0.2.1", "172.29.0.1", "127.0.0.1"],
        7001,
    );
    forger.send_all(
        &["fd00:30::2", "2001:db8::2", "2001:db8::1", "fd00:29::2", "::1", "fe80::1"],
        53,
        &["fd00:30::1", "2001:db8::1", "fd00:29::1", bridge],
        7003,
    );
    // Frames to the addresses of bridges themselves, and with a tag, come in another way.
    for mac in ["01:80:c2:00:00:02", "01:80:c2:00:00:0e", "ff:ff:ff:ff:ff:ff"] {
        let other = Forger { mac: mac.to_owned(), script: forger.script.clone(), place: inside };
        other.send_all(&["172.30.0.2", "192.0.2.2"], 53, &["172.30.0.1", "192.0.2.1"], 7001);
        other.send_all(&["fd00:30::2"], 53, &["fd00:30::1", "2001:db8::1"], 7003);
    }
}

#[track_caller]
fn nothing_else_is_reached(w: &World, a: &Guest) {
    let bridge = link_local(w, "rt-inner");
    let (ear4, ear6) = (Ear::new(&w.host(), "0.0.0.0:7001"), Ear::new(&w.host(), "[::]:7003"));
    let inside = a.place();
    inside.sh("ip route add default via 172.30.0.1; ip -6 route add default via fd00:30::1
        ip addr add 192.0.2.77/32 dev eth0; ip -6 addr add 2001:db8::77/128 dev eth0 nodad");
    for address in [
        "172.30.0.1:7000",
        "192.0.2.1:7000",
        "172.29.0.1:7000",
        "[fd00:30::1]:7000",
        "[2001:db8::1]:7000",
        "[fd00:29::1]:7000",
        "172.30.0.1:8080",
        "192.0.2.1:8080",
        "[2001:db8::1]:8080",
        "172.29.0.1:53",
        "[fd00:29::1]:53",
        "172.29.0.2:80",
        "[fd00:29::2]:80",
    ] {
        inside.does_not_reach(address);
    }
    let script = format!(
        "import socket
for where in [('{bridge}%eth0', 7000), ('{bridge}%eth0', 53)]:
    one = socket.getaddrinfo(*where, type=socket.SOCK_STREAM)[0]
    s = socket.socket(one[0], one[1]); s.settimeout(0.5)
    try:
        s.connect(one[4])
        raise SystemExit(1)
    except OSError: pass
one = socket.getaddrinfo('{bridge}%eth0', 7003, type=socket.SOCK_DGRAM)[0]
s = socket.socket(one[0], one[1]); s.sendto(b'?', one[4])
s.sendto(b'?', ('ff02::1%eth0', 7003))
s = socket.socket(); s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for to in ['172.30.0.255', '172.30.0.1', '192.0.2.1', '224.0.0.1']: s.sendto(b'?', (to, 7001))
"
    );
    let path = w.directory.path().join("local.py");
    std::fs::write(&path, script).unwrap();
    inside.sh(&format!("python3 {}", path.display()));
    forge_everything(w, &inside, &bridge);
    // What comes after the packets has come after them.
    inside.sh("dig +short +time=5 +tries=2 @172.30.0.1 -q b.");
    assert_eq!((ear4.heard(), ear6.heard()), (vec![], vec![]));
    inside.sh("ip route del default; ip -6 route del default
        ip addr del 192.0.2.77/32 dev eth0; ip -6 addr del 2001:db8::77/128 dev eth0");
}

#[test]
fn an_internal_network_reaches_its_members_and_its_resolver_and_nothing_else() {
    for driver in DRIVERS {
        with_internal(driver, |w, a, _| {
            own_network_works(w, a);
            nothing_else_is_reached(w, a);
            own_network_works(w, a);
        });
    }
}

#[test]
fn an_internal_network_without_ipv6_has_none_to_the_host_either() {
    for driver in DRIVERS {
        world(|w| {
            w.create("inner", &format!("--internal true --driver {driver}"));
            let a = w.add("a", "--network inner");
            let bridge = link_local(w, "rt-inner");
            let ear = Ear::new(&w.host(), "[::]:7003");
            let place = a.place();
            let forger = Forger::new(w, &place, "rt-inner");
            let sources = ["fe80::77", "2001:db8::77"];
            forger.send_all(&sources, 53, &[&bridge, "2001:db8::1"], 7003);
            place.sh("dig +short +time=5 +tries=2 @172.21.0.1 -q a.");
            assert_eq!(ear.heard(), [""; 0]);
        });
    }
}

#[test]
fn rules_that_others_put_first_open_no_internal_network() {
    for driver in DRIVERS {
        with_internal(driver, |w, a, _| {
            w.host().sh("for c in iptables ip6tables; do
                $c -I INPUT -j ACCEPT; $c -I FORWARD -j ACCEPT; $c -t nat -I PREROUTING -p tcp --dport 7009 -j REDIRECT --to-ports 7000
                done
                nft 'table inet other { chain i { type filter hook input priority -10; accept; }; chain f { type filter hook forward priority -10; accept; }; }'");
            nothing_else_is_reached(w, a);
            a.place().does_not_reach("172.30.0.1:7009");
            a.place().does_not_reach("[fd00:30::1]:7009");
            own_network_works(w, a);
            w.host().sh("nft delete table inet other");
        });
    }
}

#[test]
fn two_containers_cannot_make_up_a_connection_of_the_host_s() {
    for driver in DRIVERS {
        with_internal(driver, |w, a, b| {
            w.host().sh("echo 1 | tee /proc/sys/net/bridge/bridge-nf-call-ip*tables");
            let (ear4, ear6) =
                (Ear::new(&w.host(), "0.0.0.0:7001"), Ear::new(&w.host(), "[::]:7003"));
            let address = |place: &Place| {
                place.sh("ip -o link show eth0 | sed 's/.*ether //; s/ .*//'").trim().to_owned()
            };
            let (first, second) = (a.place(), b.place());
            let mut play = Forger::new(w, &second, "rt-inner");
            // The second one says to the first what a service of the host would ask.
            play.mac = address(&first);
            play.send("192.0.2.1", 7001, "172.30.0.2", 9999);
            play.send("172.30.0.1", 7001, "172.30.0.2", 9999);
            play.send("2001:db8::1", 7003, "fd00:30::2", 9999);
            play.send("fd00:30::1", 7003, "fd00:30::2", 9999);
            let answer = Forger::new(w, &first, "rt-inner");
            answer.send("172.30.0.2", 9999, "192.0.2.1", 7001);
            answer.send("172.30.0.2", 9999, "172.30.0.1", 7001);
            answer.send("fd00:30::2", 9999, "2001:db8::1", 7003);
            answer.send("fd00:30::2", 9999, "fd00:30::1", 7003);
            first.sh("dig +short +time=5 +tries=2 @172.30.0.1 -q b.");
            assert_eq!((ear4.heard(), ear6.heard()), (vec![], vec![]));
            own_network_works(w, a);
        });
    }
}

#[test]
fn an_internal_network_cannot_answer_for_somebody_whom_the_host_has_asked() {
    for driver in DRIVERS {
        with_internal(driver, |w, a, _| {
            let server = w.internet.place().run(|| UdpSocket::bind("[::]:5353").unwrap());
            let ask = |own: &str, whom: &str| {
                let socket = w.host().run(|| UdpSocket::bind(own).unwrap());
                socket.send_to(b"?", whom).unwrap();
                socket.set_nonblocking(true).unwrap();
                let (_, from) = server.recv_from(&mut [0; 10]).unwrap();
                (Ear(socket), from)
            };
            let place = a.place();
            let forger = Forger::new(w, &place, "rt-inner");
            let (ear4, from4) = ask("192.0.2.1:0", "192.0.2.2:5353");
            let (ear6, from6) = ask("[2001:db8::1]:0", "[2001:db8::2]:5353");
            forger.send("192.0.2.2", 5353, "192.0.2.1", from4.port());
            forger.send("2001:db8::2", 5353, "2001:db8::1", from6.port());
            place.sh("dig +short +time=5 +tries=2 @172.30.0.1 -q b.");
            assert_eq!((ear4.heard(), ear6.heard()), (vec![], vec![]));
            server.send_to(b"!", from4).unwrap();
            crate::harness::until("the answer is there", || ear4.heard() == ["192.0.2.2:5353"]);
        });
    }
}

/// CVE-2020-8558's class.
#[test]
fn no_packet_of_a_container_comes_from_a_loopback_address() {
    for driver in ["nftables", "iptables", "none"] {
        world(|w| {
            believe_every_source(w);
            w.create(
                "six",
                &format!("--subnet 172.21.0.0/16 --subnet6 fd00:6::/64 --driver {driver}"),
            );
            let a = w.add("a", "--network six");
            let (ear4, ear6) =
                (Ear::new(&w.host(), "0.0.0.0:7001"), Ear::new(&w.host(), "[::]:7003"));
            let local = Ear::new(&w.host(), "127.0.0.1:7004");
            let place = a.place();
            let forger = Forger::new(w, &place, "rt-six");
            let sources = ["127.0.0.1", "127.0.0.2", "127.200.1.9"];
            for port in [7001, 7004] {
                let to = ["172.21.0.1", "192.0.2.1", "127.0.0.1", "127.0.0.2", "172.21.255.255"];
                forger.send_all(&sources, 53, &to, port);
            }
            forger.send_all(&["::1"], 53, &["fd00:6::1", "2001:db8::1", "::1"], 7003);
            forger.send("172.21.0.2", 53, "127.0.0.1", 7004);
            // A packet that may come shows that the others have been there, and were lost.
            forger.send("172.21.0.2", 77, "172.21.0.1", 7001);
            forger.send("fd00:6::2", 77, "fd00:6::1", 7003);
            crate::harness::until("the last packet is there", || {
                ear6.heard() == ["[fd00:6::2]:77"]
            });
            assert_eq!(ear4.heard(), ["172.21.0.2:77"], "{driver}");
            assert_eq!(local.heard(), [""; 0], "{driver}");
        });
    }
}

/// A neighbour in the same network trusts what comes from its own host.
#[test]
fn no_bridged_packet_comes_from_a_loopback_address() {
    world(|w| {
        let (a, b) = (w.add("a", ""), w.add("b", ""));
        let there = b.place();
        there.sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done
            sysctl -qw net.ipv4.conf.eth0.route_localnet=1");
        let ear = Ear::new(&there, "0.0.0.0:7001");
        let place = a.place();
        let mut forger = Forger::new(w, &place, "rtbr0");
        forger.mac = "02:42:ac:14:00:03".to_owned();
        forger.send("127.0.0.2", 53, "172.20.0.3", 7001);
        forger.send("172.20.0.2", 77, "172.20.0.3", 7001);
        let mut heard = Vec::new();
        crate::harness::until("the last packet is there", || {
            heard.extend(ear.heard());
            heard.contains(&"172.20.0.2:77".to_owned())
        });
        assert_eq!(heard.len(), 1, "{heard:?}");
    });
}

#[test]
fn a_resolver_hears_only_its_own_network() {
    for driver in DRIVERS {
        with_internal(driver, |w, a, _| {
            let outer = Place::of_pid(w.inspect("outer")["pid"].as_i64().unwrap() as i32);
            let answers = |place: &Place, at: &str, how: &str| {
                let name = if at.contains("30") { "b." } else { "outer." };
                place.try_sh(&format!("dig {how} +time=1 +tries=1 @{at} -q {name}"))
            };
            a.place()
                .sh("ip route add default via 172.30.0.1; ip -6 route add default via fd00:30::1");
            for how in ["+notcp", "+tcp"] {
                for at in ["172.30.0.1", "fd00:30::1"] {
                    assert!(answers(&a.place(), at, how), "{driver}: {at} {how}");
                    assert!(!answers(&outer, at, how), "{driver}: {at} {how}");
                }
                for at in ["172.29.0.1", "fd00:29::1"] {
                    assert!(answers(&outer, at, how), "{driver}: {at} {how}");
                    assert!(!answers(&a.place(), at, how), "{driver}: {at} {how}");
                }
            }
            assert!(answers(&w.host(), "172.30.0.1", "+notcp"), "the host may ask");
        });
    }
}

#[test]
fn tables_of_an_earlier_version_are_replaced() {
    with_internal("nftables", |w, a, _| {
        // The rules of a version that let an internal network reach the host.
        w.host().sh("nft flush chain inet rtnet input; nft flush chain inet rtnet internal
            nft delete chain inet rtnet internal; nft delete chain bridge rtnet input
            for f in 4 6; do nft flush chain inet rtnet own_gateway; nft delete set inet rtnet own_gateways$f; done
            nft delete set bridge rtnet internal_ports");
        let _c = w.add("c", "--network outer");
        nothing_else_is_reached(w, a);
        own_network_works(w, a);
        w.rt(["check"]).success();
    });
}

#[test]
fn a_promise_that_no_driver_keeps_is_refused() {
    world(|w| {
        for promise in ["--internal true", "--icc false", "--isolated true", "--localhost kernel"] {
            let words = ["create", "bad", "--driver", "none"].into_iter().chain(promise.split(' '));
            w.rt(words).says(&["driver"]).one_line();
        }
        std::fs::create_dir_all(w.networks()).unwrap();
        std::fs::write(
            w.networks().join("bad.json"),
            r#"{"subnet":"10.9.0.0/24","internal":true,"driver":"none"}"#,
        )
        .unwrap();
        let a = Guest::new();
        w.try_add("a", &a, "--network bad").says(&["internal", "none"]).one_line();
    });
}
