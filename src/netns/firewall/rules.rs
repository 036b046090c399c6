//! The rules of our tables for nf_tables, which never change, and the sets that they look into.

use super::encode::{
    BRIDGE, Family, Field, Hook, IIFNAME, INET, IPV4, IPV6, OIFNAME, R1, Rule, Set, Verdict,
    interface,
};

/// The chain that is the user's: it is looked at first and never touched.
pub(super) const USER: &str = "user";

use Field::{Interface, Ip, Ip6, Port, Protocol};

const fn set(family: Family, name: &'static str, key: &'static [Field]) -> Set {
    Set { family, name, key, value: &[] }
}

const fn map(name: &'static str, key: &'static [Field], value: &'static [Field]) -> Set {
    Set { family: INET, name, key, value }
}

pub(super) const SETS: [Set; 20] = [
    // Of networks, by their bridges.
    set(INET, "bridges", &[Interface]),
    set(INET, "pairs", &[Interface, Interface]),
    set(INET, "masq_bridges", &[Interface]),
    set(INET, "open_bridges", &[Interface]),
    set(INET, "internal_bridges", &[Interface]),
    set(INET, "gateways4", &[Ip]),
    set(INET, "gateways6", &[Ip6]),
    // Of containers.
    set(INET, "members4", &[Ip]),
    set(INET, "members6", &[Ip6]),
    // Published on every address, on those that 127.0.0.1 stands for, on one address.
    map("any4", &[Protocol, Port], &[Ip, Port]),
    map("any6", &[Protocol, Port], &[Ip6, Port]),
    map("local4", &[Protocol, Port], &[Ip, Port]),
    map("at4", &[Ip, Protocol, Port], &[Ip, Port]),
    map("at6", &[Ip6, Protocol, Port], &[Ip6, Port]),
    // Ports of bridges: all; those of networks without icc; who may reach whom there.
    set(BRIDGE, "ports", &[Interface]),
    set(BRIDGE, "apart", &[Interface]),
    set(BRIDGE, "linked", &[Interface, Interface]),
    set(BRIDGE, "linked_all", &[Interface, Interface]),
    set(BRIDGE, "linked_ports", &[Interface, Interface, Protocol, Port]),
    set(BRIDGE, "linked_back", &[Interface, Interface, Protocol, Port]),
];

/// Every chain of ours but the user's: family, name, hook. The hooks are numbered as in
/// `<linux/netfilter.h>` and `<linux/netfilter_bridge.h>`.
pub(super) const CHAINS: [(Family, &str, Option<Hook>); 9] = [
    (INET, "published", None),
    (INET, "loopback", None),
    (INET, "raw", Some(Hook("filter", 0, -300))),
    (INET, "prerouting", Some(Hook("nat", 0, -99))),
    (INET, "output", Some(Hook("nat", 3, -99))),
    (INET, "postrouting", Some(Hook("nat", 4, 101))),
    (INET, "input", Some(Hook("filter", 1, 0))),
    (INET, "forward", Some(Hook("filter", 2, 0))),
    (BRIDGE, "forward", Some(Hook("filter", 2, 0))),
];

/// All rules, in their order: family, chain, rule.
pub(super) fn rules() -> Vec<(Family, &'static str, Rule)> {
    let rule = Rule::default;
    let inet = |chain: &'static str, rule: Rule| (INET, chain, rule);
    let mut rules = vec![
        inet("published", rule().translate(IPV4, "at4", true)),
        inet("published", rule().translate(IPV4, "any4", false)),
        inet("published", rule().translate(IPV6, "at6", true)),
        inet("published", rule().translate(IPV6, "any6", false)),
        inet("loopback", rule().translate(IPV4, "at4", true)),
        inet("loopback", rule().translate(IPV4, "local4", false)),
        // route_localnet is on: what says that it is for 127.0.0.1 comes from this host only.
        inet("raw", rule().interface(IIFNAME, "bridges").for_loopback4().verdict(Verdict::Drop)),
    ];
    // The host's addresses on the bridges are the containers', not the neighbours'.
    for (family, set) in [(IPV4, "gateways4"), (IPV6, "gateways6")] {
        let outside = rule().not_interface(IIFNAME, "bridges");
        let outside = outside.meta(IIFNAME, R1).cmp(R1, false, &interface("lo"));
        rules.push(inet("raw", outside.destination(family, set).verdict(Verdict::Drop)));
    }
    let published = || rule().for_this_host().verdict(Verdict::Jump("published"));
    rules.extend([
        // A port published on 127.0.0.1 is no neighbour's (moby#45610).
        inet("prerouting", rule().for_loopback4().verdict(Verdict::Return)),
        inet("prerouting", published()),
        inet("output", rule().for_loopback4().verdict(Verdict::Goto("loopback"))),
        // No route leads from ::1 to a container: the helper process serves it.
        inet("output", rule().for_loopback6().verdict(Verdict::Return)),
        inet("output", published()),
        inet(
            "postrouting",
            rule()
                .interface(IIFNAME, "masq_bridges")
                .not_interface(OIFNAME, "bridges")
                .masquerade(),
        ),
        inet("postrouting", rule().loopback4_source().interface(OIFNAME, "bridges").masquerade()),
    ]);
    // A container's packets to a published port: the answer has to come back this way.
    for (family, set) in [(IPV4, "members4"), (IPV6, "members6")] {
        let back = rule().translated().source(family, set).interface(OIFNAME, "bridges");
        rules.push(inet("postrouting", back.masquerade()));
    }
    // CVE-2020-13401: nobody in a container tells the host where to route.
    let advertisement = || rule().icmp_type(134);
    rules.push(inet("input", advertisement().interface(IIFNAME, "bridges").verdict(Verdict::Drop)));
    rules.extend(forward_rules().into_iter().map(|rule| inet("forward", rule)));
    let bridge = bridge_rules(advertisement());
    rules.extend(bridge.into_iter().map(|rule| (BRIDGE, "forward", rule)));
    rules
}

fn forward_rules() -> Vec<Rule> {
    let rule = Rule::default;
    vec![
        rule().verdict(Verdict::Jump(USER)),
        // Bridged packets come by where bridge-nf-call-iptables is 1.
        rule().pair("pairs").verdict(Verdict::Accept),
        rule().interface(IIFNAME, "internal_bridges").verdict(Verdict::Drop),
        rule().interface(OIFNAME, "internal_bridges").verdict(Verdict::Drop),
        rule().established().verdict(Verdict::Accept),
        rule().translated().verdict(Verdict::Accept),
        rule()
            .interface(IIFNAME, "open_bridges")
            .interface(OIFNAME, "open_bridges")
            .verdict(Verdict::Accept),
        // Other networks, and neighbours with a route to the subnet.
        rule().interface(OIFNAME, "bridges").verdict(Verdict::Drop),
    ]
}

/// Without connection tracking, which bridges need not have.
fn bridge_rules(advertisement: Rule) -> Vec<Rule> {
    let rule = Rule::default;
    vec![
        advertisement.interface(IIFNAME, "ports").verdict(Verdict::Drop),
        rule().pair("linked_all").verdict(Verdict::Accept),
        rule().ether_type(0x0806).pair("linked").verdict(Verdict::Accept),
        // Neighbour solicitation and advertisement: IPv6 has no ARP.
        rule().icmp_type(135).pair("linked").verdict(Verdict::Accept),
        rule().icmp_type(136).pair("linked").verdict(Verdict::Accept),
        rule().pair_port("linked_ports", false).verdict(Verdict::Accept),
        rule().tcp_reply().pair_port("linked_back", true).verdict(Verdict::Accept),
        rule().protocol(17).pair_port("linked_back", true).verdict(Verdict::Accept),
        rule().interface(IIFNAME, "apart").interface(OIFNAME, "apart").verdict(Verdict::Drop),
    ]
}
