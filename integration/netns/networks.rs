//! Networks, addresses, and what a network lets through.

use super::world::{Guest, world};

#[test]
fn an_interface_is_ready_when_the_container_starts() {
    world(|w| {
        let a = w.add("a", "");
        let links = a.place().sh("ip -br link show eth0; ip -4 -br addr show eth0; ip route");
        assert!(links.contains("LOWER_UP") && links.contains("02:42:ac:14:00:02"), "{links}");
        assert!(links.contains("172.20.0.2/16"), "{links}");
        assert!(links.contains("default via 172.20.0.1"), "{links}");
        assert!(a.place().sh("ip -br link show lo").contains("LOWER_UP"));
        let b = w.add("b", "--ip 172.20.9.9 --mac 02:00:00:00:00:07 --interface lan0");
        let links = b.place().sh("ip addr show lan0");
        assert!(links.contains("172.20.9.9/16") && links.contains("02:00:00:00:00:07"), "{links}");
    });
}

#[test]
fn none_is_loopback_alone() {
    world(|w| {
        let a = w.add("a", "--network none");
        assert_eq!(a.place().sh("ip -br link | wc -l").trim(), "1");
        assert!(a.place().sh("ip -br link").contains("UP"));
    });
}

#[test]
fn an_address_is_nobody_else_s_until_its_container_is_gone() {
    world(|w| {
        w.create("small", "--subnet 10.5.0.0/29");
        let mut all: Vec<_> = (0..5).map(|n| w.add(&format!("c{n}"), "--network small")).collect();
        let last = Guest::new();
        w.try_add("last", &last, "--network small").says(&["10.5.0.0/29", "in use"]).one_line();
        w.try_add("last", &last, "--network small --ip 10.5.0.3").says(&["c1"]).one_line();
        // Nobody says `del`.
        all[1].end();
        w.try_add("last", &last, "--network small").success();
        assert_eq!(w.address("last"), "10.5.0.3");
    });
}

#[test]
fn addresses_are_refused_that_are_none_of_a_host_in_the_network() {
    world(|w| {
        let a = Guest::new();
        for ip in ["10.0.0.1", "172.20.0.0", "172.20.0.1", "172.20.255.255"] {
            w.try_add("a", &a, &format!("--ip {ip}")).says(&[ip]).one_line();
        }
        w.try_add("a", &a, "--ip6 fd00::2").says(&["IPv6"]).one_line();
        w.rt(["create", "bad", "--gateway", "192.168.1.0/24"]).says(&["192.168.1.1/24"]).one_line();
        w.rt(["create", "bad", "--subnet", "172.20.5.0/24"]).says(&["default"]).one_line();
        w.try_add("a", &a, "--network nobody").says(&["nobody"]).one_line();
    });
}

#[test]
fn options_that_mean_nothing_are_refused() {
    world(|w| {
        w.rt(["create", "bad", "--icc", "yes"]).says(&["--icc", "true or false"]).one_line();
        w.rt(["--publish", "80:80", "list"]).says(&["--publish", "add"]).one_line();
    });
}

#[test]
fn a_subnet_that_the_host_uses_is_refused() {
    world(|w| {
        w.create("lan", "--subnet 192.0.2.128/25");
        let a = Guest::new();
        w.try_add("a", &a, "--network lan").says(&["192.0.2.0/24"]).one_line();
    });
}

#[test]
fn the_host_s_own_namespace_is_refused() {
    world(|w| {
        let before = w.host().sh("ip addr");
        let pid = std::process::id().to_string();
        // The test's thread has a namespace of its own: a path names it.
        let own = format!("/proc/{pid}/task/{}/ns/net", nix::unistd::gettid());
        w.rt(["add", "a", "--netns", &own]).says(&["namespace"]).one_line();
        assert_eq!(w.host().sh("ip addr"), before);
    });
}

#[test]
fn networks_are_isolated_unless_they_say_otherwise() {
    world(|w| {
        for (name, options) in [
            ("one", "--subnet6 fd00:1::/64"),
            ("two", ""),
            ("three", "--isolated false"),
            ("four", "--isolated false"),
        ] {
            w.create(name, options);
        }
        let [one, two, three, four] =
            ["one", "two", "three", "four"].map(|name| w.add(name, &format!("--network {name}")));
        let _servers = [&one, &two, &three, &four].map(|guest| guest.place().serve("0.0.0.0:80"));
        let at = |name: &str| format!("{}:80", w.address(name));
        two.place().does_not_reach(&at("one"));
        one.place().does_not_reach(&at("three"));
        three.place().does_not_reach(&at("one"));
        assert_eq!(three.place().reaches(&at("four")), w.address("three"));
    });
}

#[test]
fn an_internal_network_has_no_way_out() {
    world(|w| {
        w.create("inner", "--internal true");
        let a = w.add("a", "--network inner");
        let b = w.add("b", "--network inner");
        let (internet, server) =
            (w.internet.place().serve("0.0.0.0:80"), a.place().serve("0.0.0.0:80"));
        b.place().reaches(&format!("{}:80", w.address("a")));
        a.place().sh("ip route add default via 172.21.0.1");
        a.place().does_not_reach("192.0.2.2:80");
        drop((internet, server));
        let c = Guest::new();
        w.try_add("c", &c, "--network inner --publish 80:80").says(&["publish"]).one_line();
    });
}

#[test]
fn without_icc_only_linked_containers_meet() {
    for bridge_nf in ["0", "1"] {
        world(|w| {
            w.host().sh(&format!(
                "echo {bridge_nf} | tee /proc/sys/net/bridge/bridge-nf-call-ip*tables"
            ));
            w.create("apart", "--icc false");
            let db = w.add("db", "--network apart --expose 80");
            let web = w.add("web", "--network apart --link db:database");
            let other = w.add("other", "--network apart");
            let at = w.address("db");
            let _servers = (db.place().serve("0.0.0.0:80"), db.place().serve("0.0.0.0:81"));
            let _own = web.place().serve("0.0.0.0:80");
            assert_eq!(web.place().reaches(&format!("{at}:80")), w.address("web"));
            web.place().does_not_reach(&format!("{at}:81"));
            other.place().does_not_reach(&format!("{at}:80"));
            db.place().does_not_reach(&format!("{}:80", w.address("web")));
        });
    }
}

#[test]
fn two_points_are_linked_as_docker_s_old_documentation_does_it() {
    world(|w| {
        let a = w.add("a", "--network none");
        let b = w.add(
            "b",
            "--point-to-point a:10.1.1.1:10.1.1.2 --point-to-point host:10.2.1.1:10.2.1.2",
        );
        let _servers = (a.place().serve("0.0.0.0:80"), w.host().serve("10.2.1.2:80"));
        assert_eq!(b.place().reaches("10.1.1.2:80"), "10.1.1.1");
        assert_eq!(b.place().reaches("10.2.1.2:80"), "10.2.1.1");
        let routes = b.place().sh("ip route");
        assert!(routes.contains("10.1.1.2 dev p2p0"), "{routes}");
        w.del("b");
        assert_eq!(a.place().sh("ip -br link | wc -l").trim(), "1");
    });
}

#[test]
fn a_container_may_be_in_several_networks() {
    world(|w| {
        w.create("back", "");
        let a = w.add("a", "--network default --network back");
        let b = w.add("b", "--network back");
        let _server = b.place().serve("0.0.0.0:80");
        a.place().reaches(&format!("{}:80", w.address("b")));
        assert!(a.place().sh("ip route").contains("default via 172.20.0.1 dev eth0"));
    });
}

#[test]
fn a_bridge_that_was_there_stays() {
    world(|w| {
        w.host().sh("ip link add own type bridge; ip addr add 10.7.0.1/24 dev own");
        w.create("mine", "--bridge own --subnet 10.7.0.0/24");
        let a = w.add("a", "--network mine");
        let _server = w.host().serve("10.7.0.1:80");
        a.place().reaches("10.7.0.1:80");
        w.del("a");
        assert!(w.host().sh("ip -br addr show own").contains("10.7.0.1/24"));
        w.host().sh("ip link del own");
        w.rt(["rm", "mine"]).success();
    });
}

#[test]
fn del_works_twice_and_add_does_not() {
    world(|w| {
        let a = w.add("a", "");
        w.try_add("a", &a, "").says(&["already"]).one_line();
        w.rt(["rm", "default"]).says(&["in use"]).one_line();
        w.del("a");
        w.del("a");
        assert!(!a.place().sh("ip -br link").contains("eth0"));
        w.try_add("a", &a, "").success();
    });
}

#[test]
fn a_full_bridge_is_said_to_be_full() {
    world(|w| {
        let mut batch = String::new();
        w.host().sh("ip link add rtbr0 type bridge");
        for n in 0..1023 {
            batch += &format!("link add d{n} group 7 master rtbr0 type ifb\n");
        }
        let path = w.directory.path().join("batch");
        std::fs::write(&path, batch).unwrap();
        w.host().sh(&format!("ip -batch {}", path.display()));
        let a = Guest::new();
        w.try_add("a", &a, "").says(&["rtbr0", "1023"]).one_line();
        w.host().sh("ip link del group 7; ip link del rtbr0");
    });
}
