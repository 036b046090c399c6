//! The driver for nf_tables: two tables of our own, `inet rtnet` and `bridge rtnet`.
//!
//! The rules never change. What containers and networks come and go with are elements of sets and
//! maps, so that one more costs the same whatever is there already, and all of it is one
//! transaction. `rt` would be a word of nft's, and a saved ruleset could not be loaded.
//!
//! Translation has a priority right after that of iptables and other tables, so that rules
//! that somebody else made go first.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::super::address::octets;
use super::super::netlink::{DUMP, Message, Socket, attribute, text};
use super::super::network::{Driver, Localhost, Network};
use super::super::request::Publish;
use super::super::store::{Endpoint, Record, Store};
use super::encode::{
    BRIDGE, DELRULE, DELSETELEM, DELTABLE, Element, Family, Field, GETRULE, Hook, IIFNAME, INET,
    IPV4, IPV6, NEWSETELEM, NEWTABLE, OIFNAME, R1, Rule, Set, Verdict, chain, concat, interface,
    message, table,
};

/// The name of both tables.
pub(super) const TABLE: &str = "rtnet";
/// The chain that is the user's: it is looked at first and never touched.
const USER: &str = "user";
/// An attribute's length has 16 bits, and an element takes less than 100 bytes.
const ELEMENTS_MAX: usize = 500;

use Field::{Interface, Ip, Ip6, Port, Protocol};

const fn set(family: Family, name: &'static str, key: &'static [Field]) -> Set {
    Set { family, name, key, value: &[] }
}

const fn map(name: &'static str, key: &'static [Field], value: &'static [Field]) -> Set {
    Set { family: INET, name, key, value }
}

const SETS: [Set; 20] = [
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
const CHAINS: [(Family, &str, Option<Hook>); 9] = [
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

fn rules() -> Vec<(Family, &'static str, Rule)> {
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

fn find(family: Family, name: &str) -> Option<&'static Set> {
    SETS.iter().find(|set| set.family == family && set.name == name)
}

fn element(set: &'static str, key: &[&[u8]]) -> Element {
    Element { set, key: concat(key), value: vec![] }
}

/// A network's elements.
fn of_network(network: &Network) -> Vec<Element> {
    let bridge = interface(&network.bridge);
    let mut all = vec![element("bridges", &[&bridge]), element("pairs", &[&bridge, &bridge])];
    let when = [
        (network.masquerade, "masq_bridges"),
        (!network.isolated, "open_bridges"),
        (network.internal, "internal_bridges"),
    ];
    all.extend(when.into_iter().filter(|(on, _)| *on).map(|(_, set)| element(set, &[&bridge])));
    for gateway in network.gateways() {
        let set = if gateway.address.is_ipv4() { "gateways4" } else { "gateways6" };
        all.push(element(set, &[&octets(gateway.address)]));
    }
    all
}

/// A container's elements in a network.
fn of_endpoint(network: &Network, endpoint: &Endpoint) -> Vec<Element> {
    let own = interface(&endpoint.host_interface);
    let mut all = vec![element("ports", &[&own])];
    for address in endpoint.addresses() {
        let set = if address.is_ipv4() { "members4" } else { "members6" };
        all.push(element(set, &[&octets(address)]));
    }
    for publish in &endpoint.publish {
        for n in 0..publish.to.count {
            published(&mut all, network, endpoint, publish, n);
        }
    }
    if network.icc {
        return all;
    }
    all.push(element("apart", &[&own]));
    for (peer, ports) in &endpoint.links {
        let peer = interface(peer);
        for pair in [[&own[..], &peer], [&peer, &own]] {
            all.push(element(if ports.is_empty() { "linked_all" } else { "linked" }, &pair));
        }
        for range in ports {
            let protocol = [range.protocol.number()];
            for port in range.ports().map(u16::to_be_bytes) {
                all.push(element("linked_ports", &[&own, &peer, &protocol, &port]));
                all.push(element("linked_back", &[&peer, &own, &protocol, &port]));
            }
        }
    }
    all
}

/// The `n`-th port of a published range. What is missing here the helper process serves.
fn published(
    all: &mut Vec<Element>,
    network: &Network,
    endpoint: &Endpoint,
    publish: &Publish,
    n: u16,
) {
    let protocol = [publish.to.protocol.number()];
    let (host, port) = ((publish.host + n).to_be_bytes(), (publish.to.first + n).to_be_bytes());
    let mut push = |set: &'static str, bind: Option<IpAddr>, to: IpAddr| {
        let bind = bind.map(octets);
        let key = match &bind {
            Some(bind) => concat(&[bind, &protocol, &host]),
            None => concat(&[&protocol, &host]),
        };
        all.push(Element { set, key, value: concat(&[&octets(to), &port]) });
    };
    let (v4, v6) = (endpoint.address.address, endpoint.address6.map(|cidr| cidr.address));
    let kernel = network.localhost == Localhost::Kernel;
    let bind = publish.bind;
    if bind.is_none_or(|bind| bind.is_ipv4() && bind.is_unspecified()) {
        push("any4", None, v4);
        if kernel {
            push("local4", None, v4);
        }
    }
    if let Some(v6) = v6
        && bind.is_none_or(|bind| bind.is_ipv6() && bind.is_unspecified())
    {
        push("any6", None, v6);
    }
    match (bind.filter(|bind| !bind.is_unspecified()), v6) {
        (Some(bind @ IpAddr::V4(_)), _) if kernel || !bind.is_loopback() => {
            push("at4", Some(bind), v4);
        }
        (Some(bind @ IpAddr::V6(_)), Some(v6)) if !bind.is_loopback() => {
            push("at6", Some(bind), v6);
        }
        _ => {}
    }
}

fn family_of(name: &str) -> Family {
    if find(INET, name).is_some() { INET } else { BRIDGE }
}

/// Messages that add or delete the elements, set by set.
fn messages(kind: u8, elements: &[Element]) -> Vec<Message> {
    let mut messages = Vec::new();
    for set in &SETS {
        let own: Vec<_> = elements
            .iter()
            .filter(|element| element.set == set.name && family_of(element.set) == set.family)
            .collect();
        messages.extend(own.chunks(ELEMENTS_MAX).map(|part| set.elements(kind, TABLE, part)));
    }
    messages
}

fn commit(messages: Vec<Message>) -> Result<(), Errno> {
    Socket::netfilter()?.batch(messages).map_err(|(_, errno)| errno)
}

pub(super) fn add(store: &Store, network: &Network, record: &Record) -> Result<()> {
    let mut elements = of_network(network);
    for endpoint in record.endpoints.iter().filter(|one| one.network == network.name) {
        elements.extend(of_endpoint(network, endpoint));
    }
    match commit(messages(NEWSETELEM, &elements)) {
        Ok(()) => Ok(()),
        // The tables are not there, or a port is still somebody else's.
        Err(Errno::ENOENT | Errno::EBUSY | Errno::EEXIST) => rebuild(store),
        Err(errno) => Err(errno).context("nf_tables"),
    }
}

/// Makes the tables what the records say, whatever has happened to them, in one step.
pub(super) fn rebuild(store: &Store) -> Result<()> {
    let mut all = vec![table(NEWTABLE, INET, TABLE), table(NEWTABLE, BRIDGE, TABLE)];
    all.extend(SETS.iter().zip(1..).map(|(set, id)| set.create(TABLE, id)));
    all.push(chain(INET, TABLE, USER, None));
    for (family, name, hook) in CHAINS {
        all.push(chain(family, TABLE, name, hook));
    }
    for (family, name, _) in CHAINS {
        let mut flush = message(DELRULE, 0, family);
        flush.string(1, TABLE).string(2, name);
        all.push(flush);
    }
    all.extend(rules().iter().map(|(family, name, rule)| rule.create(*family, TABLE, name, None)));
    all.extend(SETS.iter().map(|set| set.elements(DELSETELEM, TABLE, &[])));
    all.extend(messages(NEWSETELEM, &wanted(store)?));
    commit(all).context("nf_tables")
}

/// The elements of all networks and containers of this driver.
fn wanted(store: &Store) -> Result<Vec<Element>> {
    let mut elements = Vec::new();
    let mut networks = Vec::new();
    for name in store.active_names()? {
        if let Some(active) = store.active(&name)? {
            let network = Network::decide(&name, active.config)?;
            if network.driver == Driver::Nftables {
                elements.extend(of_network(&network));
                networks.push(network);
            }
        }
    }
    let mut ports: Vec<(Element, String)> = Vec::new();
    for record in store.records()? {
        for endpoint in &record.endpoints {
            let Some(network) = networks.iter().find(|one| one.name == endpoint.network) else {
                continue;
            };
            for element in of_endpoint(network, endpoint) {
                ports.push((element, record.id.clone()));
            }
        }
    }
    ports.sort_by(|a, b| (a.0.set, &a.0.key).cmp(&(b.0.set, &b.0.key)));
    for pair in ports.windows(2) {
        let (one, other) = (&pair[0], &pair[1]);
        if (one.0.set, &one.0.key) == (other.0.set, &other.0.key) && one.0.value != other.0.value {
            bail!("publish: {} and {} want the same port", one.1, other.1);
        }
    }
    elements.extend(ports.into_iter().map(|(element, _)| element));
    elements.sort_by(|a, b| (a.set, &a.key).cmp(&(b.set, &b.key)));
    elements.dedup();
    Ok(elements)
}

pub(super) fn remove(
    store: &Store,
    network: &Network,
    endpoint: &Endpoint,
    record: &Record,
) -> Result<()> {
    delete(&of_endpoint(network, endpoint))?;
    // One that was never finished may have had a key of somebody else's.
    if record.complete || store.records()?.len() < 2 {
        return Ok(());
    }
    restore(store, &record.id)
}

/// Puts the elements of everybody but `id` back where the tables are there.
fn restore(store: &Store, id: &str) -> Result<()> {
    let mut elements = Vec::new();
    for record in store.records()?.iter().filter(|record| record.id != id) {
        for endpoint in &record.endpoints {
            if let Some(active) = store.active(&endpoint.network)? {
                let network = Network::decide(&endpoint.network, active.config)?;
                if network.driver == Driver::Nftables {
                    elements.extend(of_endpoint(&network, endpoint));
                }
            }
        }
    }
    match commit(messages(NEWSETELEM, &elements)) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno).context("nf_tables"),
    }
}

fn delete(elements: &[Element]) -> Result<()> {
    match commit(messages(DELSETELEM, elements)) {
        Ok(()) => return Ok(()),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno).context("nf_tables"),
    }
    // Some are gone already: the others one by one.
    for element in elements {
        match commit(messages(DELSETELEM, std::slice::from_ref(element))) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).context("nf_tables"),
        }
    }
    Ok(())
}

pub(super) fn end(network: &Network, last: bool) -> Result<()> {
    if !last || has_user_rules()? {
        return delete(&of_network(network));
    }
    for family in [INET, BRIDGE] {
        match commit(vec![table(DELTABLE, family, TABLE)]) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).context("nf_tables"),
        }
    }
    Ok(())
}

/// Whether the user's chain is in use: then the tables stay.
fn has_user_rules() -> Result<bool> {
    let mut request = message(GETRULE, DUMP, INET);
    request.string(1, TABLE).string(2, USER);
    let mut any = false;
    match Socket::netfilter()?.query(request, |_, _| any = true) {
        Ok(()) | Err(Errno::ENOENT) => Ok(any),
        Err(errno) => Err(errno).context("nf_tables"),
    }
}

/// Whether every rule and element is there. Deleting what is wanted is tried and taken back: the
/// batch ends with a message that is refused.
pub(super) fn check(store: &Store) -> Result<Option<String>> {
    let mut socket = Socket::netfilter().context("nf_tables")?;
    let all = rules();
    for (family, name, _) in CHAINS {
        let expected = all.iter().filter(|(f, n, _)| (*f, *n) == (family, name)).count();
        let mut request = message(GETRULE, DUMP, family);
        request.string(1, TABLE).string(2, name);
        let mut found = 0;
        match socket.query(request, |_, payload| {
            let same = payload.get(4..).and_then(|bytes| attribute(bytes, 2)).map(text);
            found += usize::from(same == Some(name));
        }) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).context("nf_tables"),
        }
        if found != expected {
            return Ok(Some(format!("chain {name} of {TABLE} has {found} rules, not {expected}")));
        }
    }
    let mut trial = messages(DELSETELEM, &wanted(store)?);
    let count = trial.len();
    trial.push(table(DELTABLE, INET, "rtnet-of-nobody"));
    Ok(match socket.batch(trial) {
        Err((at, Errno::ENOENT)) if at == count => None,
        _ => Some(format!("an element of {TABLE} is missing")),
    })
}
