//! The driver for nf_tables: the tables `inet rtnet` and `bridge rtnet`, which belong to `rt`.
//!
//! The rules never change. Containers and networks that come and go change only elements of sets
//! and maps, all in one transaction, so that one more costs the same however many there are. The
//! tables are not called `rt`, since that is a keyword of nft(8): a saved ruleset could not be
//! loaded.
//!
//! The translation has a priority right after that of iptables and other tables, so that the rules
//! of others apply first.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::super::description::{Driver, Localhost};
use super::super::network::Network;
use super::super::publish::Publish;
use super::super::record::{Endpoint, NetworkRecord};
use super::super::store::Store;
use super::encode::{
    BRIDGE, DELRULE, DELSETELEM, DELTABLE, GETRULE, INET, NEWSETELEM, NEWTABLE, NftElement,
    NftFamily, NftSet, chain, concat, interface, message, table,
};
use super::rules::{CHAINS, SETS, USER, rules};
use crate::netlink::address::octets;
use crate::netlink::{DUMP, NetlinkMessage, NetlinkSocket, attribute, text};

/// The name of both tables.
pub(super) const TABLE: &str = "rtnet";
/// How many elements one message has: the length of an attribute has 16 bits, and an element takes
/// less than 100 bytes.
const ELEMENTS_MAX: usize = 500;

fn find_set(family: NftFamily, name: &str) -> Option<&'static NftSet> {
    SETS.iter()
        .find(|set| set.family == family && set.name == name)
}

fn element(set: &'static str, key: &[&[u8]]) -> NftElement {
    NftElement {
        set,
        key: concat(key),
        value: vec![],
    }
}

/// Returns the elements of a network.
fn of_network(network: &Network) -> Vec<NftElement> {
    let bridge = interface(&network.bridge);
    let mut all = vec![
        element("bridges", &[&bridge]),
        element("pairs", &[&bridge, &bridge]),
    ];
    let when = [
        (network.masquerade, "masq_bridges"),
        (!network.isolated, "open_bridges"),
        (network.internal, "internal_bridges"),
    ];
    all.extend(
        when.into_iter()
            .filter(|(on, _)| *on)
            .map(|(_, set)| element(set, &[&bridge])),
    );
    for gateway in network.gateways() {
        let address = octets(gateway.address);
        let (set, own) = match gateway.address {
            IpAddr::V4(_) => ("gateways4", "own_gateways4"),
            IpAddr::V6(_) => ("gateways6", "own_gateways6"),
        };
        all.push(element(set, &[&address]));
        all.push(element(own, &[&bridge, &address]));
    }
    all
}

/// Returns the elements of a container in a network.
fn of_endpoint(network: &Network, endpoint: &Endpoint) -> Vec<NftElement> {
    let own = interface(&endpoint.host_interface);
    let mut all = vec![element("ports", &[&own]), element("host_ends", &[&own])];
    if network.internal {
        all.push(element("internal_ports", &[&own]));
    }
    for address in endpoint.addresses() {
        let set = if address.is_ipv4() {
            "members4"
        } else {
            "members6"
        };
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
            all.push(element(
                if ports.is_empty() {
                    "linked_all"
                } else {
                    "linked"
                },
                &pair,
            ));
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

/// Adds the elements for the `n`-th port of a published range. The helper process serves the
/// addresses that have no element here.
fn published(
    all: &mut Vec<NftElement>,
    network: &Network,
    endpoint: &Endpoint,
    publish: &Publish,
    n: u16,
) {
    let protocol = [publish.to.protocol.number()];
    let (host, port) = (
        (publish.host + n).to_be_bytes(),
        (publish.to.first + n).to_be_bytes(),
    );
    let mut push = |set: &'static str, bind: Option<IpAddr>, to: IpAddr| {
        let bind = bind.map(octets);
        let key = match &bind {
            Some(bind) => concat(&[bind, &protocol, &host]),
            None => concat(&[&protocol, &host]),
        };
        all.push(NftElement {
            set,
            key,
            value: concat(&[&octets(to), &port]),
        });
    };
    let (v4, v6) = (
        endpoint.address.address,
        endpoint.address6.map(|cidr| cidr.address),
    );
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

fn family_of(name: &str) -> NftFamily {
    if find_set(INET, name).is_some() {
        INET
    } else {
        BRIDGE
    }
}

/// Returns messages that add or delete the elements, set by set.
fn messages(kind: u8, elements: &[NftElement]) -> Vec<NetlinkMessage> {
    let mut messages = Vec::new();
    for set in &SETS {
        let own: Vec<_> = elements
            .iter()
            .filter(|element| element.set == set.name && family_of(element.set) == set.family)
            .collect();
        messages.extend(
            own.chunks(ELEMENTS_MAX)
                .map(|part| set.elements(kind, TABLE, part)),
        );
    }
    messages
}

fn commit(messages: Vec<NetlinkMessage>) -> Result<(), Errno> {
    NetlinkSocket::netfilter()?
        .batch(messages)
        .map_err(|(_, errno)| errno)
}

/// Calls `work`, which removes something, with a socket that stays open to the end of the process.
/// Closing such a socket waits until the kernel has freed what was removed, 10 ms and more, in
/// which the interface can be removed as well.
fn with_socket<T>(work: impl FnOnce(&mut NetlinkSocket) -> Result<T>) -> Result<T> {
    let mut socket = NetlinkSocket::netfilter().context("nf_tables")?;
    let result = work(&mut socket);
    std::mem::forget(socket);
    result
}

/// Sends messages that delete something. Returns whether it was there.
fn take_away(socket: &mut NetlinkSocket, messages: Vec<NetlinkMessage>) -> Result<bool> {
    match socket.batch(messages) {
        Ok(()) => Ok(true),
        Err((_, Errno::ENOENT)) => Ok(false),
        Err((_, errno)) => Err(errno).context("nf_tables"),
    }
}

pub(super) fn add(store: &Store, network: &Network, record: &NetworkRecord) -> Result<()> {
    let mut elements = of_network(network);
    for endpoint in record
        .endpoints
        .iter()
        .filter(|one| one.network == network.name)
    {
        elements.extend(of_endpoint(network, endpoint));
    }
    match commit(messages(NEWSETELEM, &elements)) {
        Ok(()) => Ok(()),
        // The tables do not exist, or a port still belongs to another container.
        Err(Errno::ENOENT | Errno::EBUSY | Errno::EEXIST) => rebuild(store, ""),
        Err(errno) => Err(errno).context("nf_tables"),
    }
}

/// Makes the tables match the records, except that of the container `without`, in one step and
/// whatever has happened to the tables.
pub(super) fn rebuild(store: &Store, without: &str) -> Result<()> {
    make_elements(&wanted(store, without, "")?)
}

/// Makes the tables match the records, except for `network`, which ends.
pub(super) fn retire(store: &Store, network: &str) -> Result<()> {
    make_elements(&wanted(store, "", network)?)
}

fn make_elements(elements: &[NftElement]) -> Result<()> {
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
    all.extend(
        rules()
            .iter()
            .map(|(family, name, rule)| rule.create(*family, TABLE, name, None)),
    );
    all.extend(SETS.iter().map(|set| set.elements(DELSETELEM, TABLE, &[])));
    all.extend(messages(NEWSETELEM, elements));
    commit(all).context("nf_tables")
}

/// Returns the elements of all networks and containers of this driver, except those of `container`
/// and of `network`.
///
/// # Errors
/// Two containers publish the same port.
fn wanted(store: &Store, container: &str, network: &str) -> Result<Vec<NftElement>> {
    let mut networks = store.all_in_use()?;
    networks.retain(|one| one.is_of(Driver::Nftables) && one.network.name != network);
    let networks: Vec<_> = networks.into_iter().map(|one| one.network).collect();
    let mut elements: Vec<_> = networks.iter().flat_map(of_network).collect();
    let mut ports: Vec<(NftElement, String)> = Vec::new();
    for record in store.records_and_remains(container)? {
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
    record: &NetworkRecord,
) -> Result<()> {
    delete(&of_endpoint(network, endpoint))?;
    // A record that never completed may have claimed a port of another container: restore the
    // others' elements.
    if record.complete || store.ids()?.len() < 2 {
        return Ok(());
    }
    restore(store, &record.id)
}

/// Puts the elements of all containers but `id` back, if the tables exist.
fn restore(store: &Store, id: &str) -> Result<()> {
    match commit(messages(NEWSETELEM, &wanted(store, id, "")?)) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno).context("nf_tables"),
    }
}

fn delete(elements: &[NftElement]) -> Result<()> {
    with_socket(|socket| {
        if !take_away(socket, messages(DELSETELEM, elements))? {
            // Some are gone already, so the others are deleted one by one.
            for element in elements {
                take_away(socket, messages(DELSETELEM, std::slice::from_ref(element)))?;
            }
        }
        Ok(())
    })
}

pub(super) fn end(network: &Network, last: bool) -> Result<()> {
    if !last || has_user_rules()? {
        return delete(&of_network(network));
    }
    with_socket(|socket| {
        [INET, BRIDGE].into_iter().try_for_each(|family| {
            take_away(socket, vec![table(DELTABLE, family, TABLE)]).map(drop)
        })
    })
}

/// Whether the user's chain has rules: then the tables stay.
fn has_user_rules() -> Result<bool> {
    let mut request = message(GETRULE, DUMP, INET);
    request.string(1, TABLE).string(2, USER);
    let mut any = false;
    match NetlinkSocket::netfilter()?.query(request, |_, _| any = true) {
        Ok(()) | Err(Errno::ENOENT) => Ok(any),
        Err(errno) => Err(errno).context("nf_tables"),
    }
}

/// Returns what is wrong with the tables: a missing rule or element. Deleting every wanted element
/// is tried and taken back: the batch ends with a message that the kernel refuses.
pub(super) fn check(store: &Store) -> Result<Option<String>> {
    let mut socket = NetlinkSocket::netfilter().context("nf_tables")?;
    let all = rules();
    for (family, name, _) in CHAINS {
        let expected = all
            .iter()
            .filter(|(f, n, _)| (*f, *n) == (family, name))
            .count();
        let mut request = message(GETRULE, DUMP, family);
        request.string(1, TABLE).string(2, name);
        let mut found = 0;
        match socket.query(request, |_, payload| {
            let same = payload
                .get(4..)
                .and_then(|bytes| attribute(bytes, 2))
                .map(text);
            found += usize::from(same == Some(name));
        }) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).context("nf_tables"),
        }
        if found != expected {
            return Ok(Some(format!(
                "chain {name} of {TABLE} has {found} rules, not {expected}"
            )));
        }
    }
    let mut trial = messages(DELSETELEM, &wanted(store, "", "")?);
    let count = trial.len();
    trial.push(table(DELTABLE, INET, "rtnet-of-nobody"));
    Ok(match socket.batch(trial) {
        Err((at, Errno::ENOENT)) if at == count => None,
        _ => Some(format!("an element of {TABLE} is missing")),
    })
}
