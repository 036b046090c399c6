//! The rules of `rt`'s tables for nf_tables, which never change, and the sets that they look up.

use super::encode::{
    BRIDGE, IIFNAME, INET, IPV4, IPV6, NftFamily, NftField, NftHook, NftRule, NftSet, NftVerdict,
    OIFNAME, R1, interface,
};

/// The user's chain: packets come to it first, and `rt` never changes it.
pub(super) const USER: &str = "user";

use NftField::{Interface, Ip, Ip6, Port, Protocol};

const fn set(family: NftFamily, name: &'static str, key: &'static [NftField]) -> NftSet {
    NftSet {
        family,
        name,
        key,
        value: &[],
    }
}

const fn map(name: &'static str, key: &'static [NftField], value: &'static [NftField]) -> NftSet {
    NftSet {
        family: INET,
        name,
        key,
        value,
    }
}

pub(super) const SETS: [NftSet; 24] = [
    // Networks, by their bridges.
    set(INET, "bridges", &[Interface]),
    set(INET, "pairs", &[Interface, Interface]),
    set(INET, "masq_bridges", &[Interface]),
    set(INET, "open_bridges", &[Interface]),
    set(INET, "internal_bridges", &[Interface]),
    set(INET, "gateways4", &[Ip]),
    set(INET, "gateways6", &[Ip6]),
    set(INET, "own_gateways4", &[Interface, Ip]),
    set(INET, "own_gateways6", &[Interface, Ip6]),
    // Containers.
    set(INET, "members4", &[Ip]),
    set(INET, "members6", &[Ip6]),
    set(INET, "host_ends", &[Interface]),
    // Ports published on every address, on those that 127.0.0.1 stands for, on one address.
    map("any4", &[Protocol, Port], &[Ip, Port]),
    map("any6", &[Protocol, Port], &[Ip6, Port]),
    map("local4", &[Protocol, Port], &[Ip, Port]),
    map("at4", &[Ip, Protocol, Port], &[Ip, Port]),
    map("at6", &[Ip6, Protocol, Port], &[Ip6, Port]),
    // Ports of bridges: all; those of internal networks; those of networks without icc; which of
    // those may reach which.
    set(BRIDGE, "ports", &[Interface]),
    set(BRIDGE, "internal_ports", &[Interface]),
    set(BRIDGE, "apart", &[Interface]),
    set(BRIDGE, "linked", &[Interface, Interface]),
    set(BRIDGE, "linked_all", &[Interface, Interface]),
    set(
        BRIDGE,
        "linked_ports",
        &[Interface, Interface, Protocol, Port],
    ),
    set(
        BRIDGE,
        "linked_back",
        &[Interface, Interface, Protocol, Port],
    ),
];

/// Every chain of `rt` except the user's: family, name, hook. The hooks are numbered as in
/// `<linux/netfilter.h>` and `<linux/netfilter_bridge.h>`.
pub(super) const CHAINS: [(NftFamily, &str, Option<NftHook>); 12] = [
    (INET, "published", None),
    (INET, "loopback", None),
    (INET, "internal", None),
    (INET, "own_gateway", None),
    (INET, "raw", Some(NftHook("filter", 0, -300))),
    (INET, "prerouting", Some(NftHook("nat", 0, -99))),
    (INET, "output", Some(NftHook("nat", 3, -99))),
    (INET, "postrouting", Some(NftHook("nat", 4, 101))),
    (INET, "input", Some(NftHook("filter", 1, 0))),
    (INET, "forward", Some(NftHook("filter", 2, 0))),
    (BRIDGE, "input", Some(NftHook("filter", 1, 0))),
    (BRIDGE, "forward", Some(NftHook("filter", 2, 0))),
];

/// Returns all rules, in their order: family, chain, rule.
pub(super) fn rules() -> Vec<(NftFamily, &'static str, NftRule)> {
    let mut rules = published_rules();
    rules.extend(source_rules().into_iter().map(|rule| inet("raw", rule)));
    // The host's addresses on the bridges are for containers and the host itself; packets of
    // neighbours to them are dropped.
    for (family, set) in [(IPV4, "gateways4"), (IPV6, "gateways6")] {
        let outside = NftRule::default().not_interface(IIFNAME, "bridges");
        let outside = outside.meta(IIFNAME, R1).cmp(R1, false, &interface("lo"));
        rules.push(inet(
            "raw",
            outside.destination(family, set).verdict(NftVerdict::Drop),
        ));
    }
    rules.extend(nat_rules());
    rules.extend(input_rules());
    rules.extend(
        forward_rules()
            .into_iter()
            .map(|rule| inet("forward", rule)),
    );
    let foreign = NftRule::default()
        .interface(IIFNAME, "internal_ports")
        .other_ether_type();
    rules.push((BRIDGE, "input", foreign.verdict(NftVerdict::Drop)));
    rules.extend(
        bridge_rules()
            .into_iter()
            .map(|rule| (BRIDGE, "forward", rule)),
    );
    rules
}

fn inet(chain: &'static str, rule: NftRule) -> (NftFamily, &'static str, NftRule) {
    (INET, chain, rule)
}

/// Returns the rules that give packets to published ports the containers' addresses.
fn published_rules() -> Vec<(NftFamily, &'static str, NftRule)> {
    let rule = NftRule::default;
    vec![
        inet("published", rule().translate(IPV4, "at4", true)),
        inet("published", rule().translate(IPV4, "any4", false)),
        inet("published", rule().translate(IPV6, "at6", true)),
        inet("published", rule().translate(IPV6, "any6", false)),
        inet("loopback", rule().translate(IPV4, "at4", true)),
        inet("loopback", rule().translate(IPV4, "local4", false)),
    ]
}

/// Returns the rules that say which packets look for a published port, and which ones leave with
/// another source address.
fn nat_rules() -> Vec<(NftFamily, &'static str, NftRule)> {
    let rule = NftRule::default;
    let published = || {
        rule()
            .for_this_host()
            .verdict(NftVerdict::Jump("published"))
    };
    let mut rules = vec![
        // A port that is published on 127.0.0.1 must not be reached by neighbours (moby#45610).
        inet(
            "prerouting",
            rule().for_loopback4().verdict(NftVerdict::Return),
        ),
        inet("prerouting", published()),
        inet(
            "output",
            rule().for_loopback4().verdict(NftVerdict::Goto("loopback")),
        ),
        // No route leads from ::1 to a container: the helper process serves it.
        inet("output", rule().for_loopback6().verdict(NftVerdict::Return)),
        inet("output", published()),
        inet(
            "postrouting",
            rule()
                .interface(IIFNAME, "masq_bridges")
                .not_interface(OIFNAME, "bridges")
                .masquerade(),
        ),
        inet(
            "postrouting",
            rule()
                .loopback4_source()
                .interface(OIFNAME, "bridges")
                .masquerade(),
        ),
    ];
    // The packets of a container to a published port get the host's address, since the answer has
    // to come back through the host.
    for (family, set) in [(IPV4, "members4"), (IPV6, "members6")] {
        let back = rule()
            .translated()
            .source(family, set)
            .interface(OIFNAME, "bridges");
        rules.push(inet("postrouting", back.masquerade()));
    }
    rules
}

/// Matches IPv6 router advertisements, by which a container could tell the host, or another
/// container, where to route (CVE-2020-13401).
fn advertisement() -> NftRule {
    NftRule::default().icmp_type(134)
}

/// Returns the rules that drop packets with sources or destinations that no packet of a container
/// has.
fn source_rules() -> Vec<NftRule> {
    let bridges = || NftRule::default().interface(IIFNAME, "bridges");
    let internal = || NftRule::default().interface(IIFNAME, "internal_bridges");
    // With route_localnet on, packets to or from 127.0.0.0/8 may come from this host only
    // (CVE-2020-8558).
    let rules = [
        // A bridge delivers frames to addresses of its own kind (01:80:C2:00:00:0E) on the port at
        // which they arrive, where no rule that names the bridge matches.
        NftRule::default().interface(IIFNAME, "host_ends"),
        bridges().for_loopback4(),
        bridges().loopback4_source(),
        bridges().loopback6_source(),
        // Dropped before connection tracking: where that sees bridged packets, two containers that
        // pose as the host would make a connection that the input hook takes for one of the host's.
        internal().ipv4().source_is_local(),
        internal().ipv6().not_link_local().source_is_local(),
        internal().ipv6().source_is_of_interface(),
    ];
    rules
        .into_iter()
        .map(|rule| rule.verdict(NftVerdict::Drop))
        .collect()
}

/// Returns the rules for packets to the host itself. From an internal network only these get
/// through: questions to the network's own resolver, ICMP to its gateway, and answers to what the
/// host has begun.
fn input_rules() -> Vec<(NftFamily, &'static str, NftRule)> {
    let rule = NftRule::default;
    let mut rules = vec![
        (
            "input",
            advertisement()
                .interface(IIFNAME, "bridges")
                .verdict(NftVerdict::Drop),
        ),
        (
            "input",
            rule()
                .interface(IIFNAME, "internal_bridges")
                .verdict(NftVerdict::Goto("internal")),
        ),
    ];
    // Only the members of a network may ask its resolver.
    for (family, gateways, own) in [
        (IPV4, "gateways4", "own_gateways4"),
        (IPV6, "gateways6", "own_gateways6"),
    ] {
        for protocol in [6, 17] {
            let question = rule().interface(IIFNAME, "bridges").protocol(protocol);
            let question = question.destination_port(53).destination(family, gateways);
            rules.push((
                "input",
                question
                    .at_interface(family, own, true)
                    .verdict(NftVerdict::Drop),
            ));
        }
    }
    rules.extend(internal_rules());
    rules
        .into_iter()
        .map(|(chain, rule)| (INET, chain, rule))
        .collect()
}

/// Returns the rules for packets from an internal network to the host.
fn internal_rules() -> Vec<(&'static str, NftRule)> {
    let rule = NftRule::default;
    let mut rules = Vec::new();
    // Neighbour discovery, which IPv6 uses instead of ARP, begins before there is a source address.
    for kind in [135, 136] {
        rules.push((
            "internal",
            rule().icmp_type(kind).verdict(NftVerdict::Accept),
        ));
    }
    rules.push((
        "internal",
        rule().source_is_elsewhere().verdict(NftVerdict::Drop),
    ));
    rules.push(("internal", rule().answer().verdict(NftVerdict::Accept)));
    for (family, own) in [(IPV4, "own_gateways4"), (IPV6, "own_gateways6")] {
        let own = rule().at_interface(family, own, false);
        rules.push(("internal", own.verdict(NftVerdict::Goto("own_gateway"))));
    }
    rules.push(("internal", rule().verdict(NftVerdict::Drop)));
    for protocol in [6, 17] {
        let names = rule().protocol(protocol).destination_port(53);
        rules.push(("own_gateway", names.verdict(NftVerdict::Accept)));
    }
    rules.push((
        "own_gateway",
        rule().ipv4().protocol(1).verdict(NftVerdict::Accept),
    ));
    rules.push((
        "own_gateway",
        rule().ipv6().protocol(58).verdict(NftVerdict::Accept),
    ));
    rules.push(("own_gateway", rule().verdict(NftVerdict::Drop)));
    rules
}

fn forward_rules() -> Vec<NftRule> {
    let rule = NftRule::default;
    vec![
        rule().verdict(NftVerdict::Jump(USER)),
        // Bridged packets pass this chain if bridge-nf-call-iptables is 1.
        rule().pair("pairs").verdict(NftVerdict::Accept),
        rule()
            .interface(IIFNAME, "internal_bridges")
            .verdict(NftVerdict::Drop),
        rule()
            .interface(OIFNAME, "internal_bridges")
            .verdict(NftVerdict::Drop),
        rule().established().verdict(NftVerdict::Accept),
        rule().translated().verdict(NftVerdict::Accept),
        rule()
            .interface(IIFNAME, "open_bridges")
            .interface(OIFNAME, "open_bridges")
            .verdict(NftVerdict::Accept),
        // The rest comes from other networks, or from neighbours with a route to the subnet.
        rule()
            .interface(OIFNAME, "bridges")
            .verdict(NftVerdict::Drop),
    ]
}

/// Returns the rules for bridged packets. They use no connection tracking, since the kernel may
/// have none for bridges.
fn bridge_rules() -> Vec<NftRule> {
    let rule = NftRule::default;
    let port = || rule().interface(IIFNAME, "ports");
    vec![
        port()
            .bridged_loopback_source(IPV4)
            .verdict(NftVerdict::Drop),
        port()
            .bridged_loopback_source(IPV6)
            .verdict(NftVerdict::Drop),
        advertisement()
            .interface(IIFNAME, "ports")
            .verdict(NftVerdict::Drop),
        rule().pair("linked_all").verdict(NftVerdict::Accept),
        rule()
            .ether_type(0x0806)
            .pair("linked")
            .verdict(NftVerdict::Accept),
        // Neighbour solicitation and advertisement: IPv6 has no ARP.
        rule()
            .icmp_type(135)
            .pair("linked")
            .verdict(NftVerdict::Accept),
        rule()
            .icmp_type(136)
            .pair("linked")
            .verdict(NftVerdict::Accept),
        rule()
            .pair_port("linked_ports", false)
            .verdict(NftVerdict::Accept),
        rule()
            .tcp_reply()
            .pair_port("linked_back", true)
            .verdict(NftVerdict::Accept),
        rule()
            .protocol(17)
            .pair_port("linked_back", true)
            .verdict(NftVerdict::Accept),
        rule()
            .interface(IIFNAME, "apart")
            .interface(OIFNAME, "apart")
            .verdict(NftVerdict::Drop),
    ]
}
