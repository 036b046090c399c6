//! Our rules beside those of others.

use super::world::{World, world};

/// Everything that has to work whatever else is on the host.
#[track_caller]
fn all_works(w: &World) {
    all_works_with(w, "nftables");
}

#[track_caller]
fn all_works_with(w: &World, driver: &str) {
    w.create("six", &format!("--subnet6 fd00:6::/64 --driver {driver}"));
    let a = w.add("a", "--network six --publish 8080:80");
    let b = w.add("b", "--network six");
    let (_inner, _outer) = (a.place().serve("[::]:80"), w.internet.place().serve("0.0.0.0:80"));
    assert_eq!(a.place().reaches("192.0.2.2:80"), "192.0.2.1");
    assert_eq!(w.internet.place().reaches("192.0.2.1:8080"), "192.0.2.2");
    w.host().reaches("127.0.0.1:8080");
    w.host().reaches("192.0.2.1:8080");
    let own = w.address("a");
    w.host().reaches(&format!("{own}:80"));
    b.place().reaches(&format!("{own}:80"));
    b.place().reaches("192.0.2.1:8080");
    b.place().reaches("[fd00:6::2]:80");
    let names = b.place().sh("dig +short +time=5 +tries=2 @172.21.0.1 -q a -t A");
    assert_eq!(names.trim(), own);
    assert!(w.host().sh("iptables-nft -S").contains("-P FORWARD"), "iptables shows its table");
    w.host().sh("nft list ruleset | nft -c -f -");
}

fn beside(rules: &'static str) {
    world(|w| {
        w.host().sh(rules);
        let show = "nft -s list ruleset; iptables-legacy -S";
        let before = w.host().sh(show);
        all_works(w);
        w.del("a");
        w.del("b");
        assert_eq!(w.host().sh(show), before, "others' rules are as they were");
    });
}

#[test]
fn policies_that_drop_are_met_with_rules_of_ours() {
    beside(
        "iptables-nft -P FORWARD DROP; iptables-nft -P INPUT DROP
         ip6tables-nft -P FORWARD DROP; ip6tables-nft -P INPUT DROP",
    );
}

#[test]
fn docker_s_chain_for_users_takes_our_rules() {
    world(|w| {
        w.host().sh("iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER
             iptables-nft -A DOCKER-USER -j RETURN; iptables-nft -A FORWARD -j DOCKER-USER");
        all_works(w);
        let chain = w.host().sh("iptables-nft -S DOCKER-USER");
        assert!(chain.contains("-i rt-six") && chain.contains("-o rt-six"), "{chain}");
        w.del("a");
        w.del("b");
        let rules = w.host().sh("iptables-nft -S");
        assert!(!rules.contains("rt-six") && rules.contains("-A DOCKER-USER -j RETURN"), "{rules}");
    });
}

#[test]
fn legacy_tables_that_drop_are_met_too() {
    beside("iptables-legacy -P FORWARD DROP; iptables-legacy -P INPUT DROP");
}

#[test]
fn a_chain_that_ends_with_a_reject_is_like_a_policy() {
    beside(
        "nft 'table inet firewalld {
           chain forward { type filter hook forward priority 10; ct state established,related accept; ct status dnat accept; reject with icmpx admin-prohibited; }
           chain input { type filter hook input priority 10; ct state established,related accept; iif lo accept; reject; }
         }'",
    );
}

#[test]
fn the_user_s_chain_goes_first() {
    world(|w| {
        let a = w.add("a", "--publish 8080:80");
        let _server = a.place().serve("0.0.0.0:80");
        w.internet.place().reaches("192.0.2.1:8080");
        w.host().sh("nft add rule inet rtnet user ip saddr 192.0.2.2 drop");
        w.internet.place().does_not_reach("192.0.2.1:8080");
        // What is repaired is ours alone.
        w.rt(["check", "--repair"]).success();
        w.internet.place().does_not_reach("192.0.2.1:8080");
        w.neighbour.place().reaches("192.0.2.1:8080");
        w.host().sh("nft flush chain inet rtnet user");
    });
}

#[test]
fn check_finds_what_is_broken_and_repairs_it() {
    world(|w| {
        let mut a = w.add("a", "--publish 8080:80");
        let b = w.add("b", "--publish 8081:80");
        let _server = b.place().serve("[::]:80");
        let breaks: [&dyn Fn(); 3] = [
            &|| drop(w.host().sh("nft delete table inet rtnet")),
            &|| drop(w.host().sh("nft delete element inet rtnet any4 '{ tcp . 8081 }'")),
            &|| {
                for pid in w.helpers() {
                    nix::sys::signal::kill(
                        nix::unistd::Pid::from_raw(pid),
                        nix::sys::signal::Signal::SIGKILL,
                    )
                    .unwrap();
                    crate::harness::reap(pid, std::time::Duration::from_secs(5));
                }
            },
        ];
        w.rt(["check"]).success();
        for (n, damage) in breaks.into_iter().enumerate() {
            damage();
            w.rt(["check"]).failure().one_line();
            w.rt(["check", "--repair"]).success();
            let done = w.rt(["check"]);
            assert_eq!(done.status, 0, "damage {n}: {done}");
            w.internet.place().reaches("192.0.2.1:8081");
            w.host().reaches("[::1]:8081");
        }
        a.end();
        w.rt(["check"]).says(&["a: "]).one_line();
        let done = w.rt(["prune"]).success();
        assert_eq!(done.stdout, "a\n");
        w.rt(["check"]).success();
    });
}

#[test]
fn the_driver_of_iptables_does_the_same_and_reads_like_docker() {
    world(|w| {
        w.host().sh("iptables -P FORWARD DROP; iptables -P INPUT DROP");
        let show =
            "iptables-save | grep -v '^#' | sed 's/ \\[.*//'; ip6tables-save | grep -c RT || true";
        let before = w.host().sh(show);
        all_works_with(w, "iptables");
        let rows = w.host().sh("iptables -t nat -L -n");
        assert!(rows.contains("MASQUERADE") && rows.contains("to:172.21.0.2:80"), "{rows}");
        w.create("other", "--driver iptables");
        let other = w.add("other", "--network other --publish 127.0.0.1:7000:80");
        let _server = other.place().serve("0.0.0.0:80");
        w.host().reaches("127.0.0.1:7000");
        w.neighbour.place().does_not_reach("192.0.2.1:7000");
        w.neighbour.place().sh("ip route add 172.20.0.0/14 via 192.0.2.1");
        w.neighbour.place().does_not_reach(&format!("{}:80", w.address("other")));
        for id in ["a", "b", "other"] {
            w.del(id);
        }
        let builtin = |text: &str| {
            let lines =
                text.lines().filter(|line| !line.starts_with(':') && !line.starts_with('*'));
            lines.filter(|line| *line != "COMMIT").map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(builtin(&w.host().sh(show)), builtin(&before));
        w.rt(["create", "apart", "--driver", "iptables", "--icc", "false"])
            .says(&["icc"])
            .one_line();
    });
}
