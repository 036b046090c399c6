//! The interfaces of the host that `rt` has made. Those that lead to containers have hashes for
//! names, and somebody who chooses the id of a container, or the name of an interface, may aim at
//! one. So each has an alias with the names from which the hash is made, and is removed only for
//! its own container.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::interface::{POINTS_MAX, host_interface, is_hash, peer_interface};
use super::network::Network;
use super::store::Store;
use super::target::Target;
use crate::netlink::address::Mac;
use crate::netlink::link::{NetworkLink, RouteNetlink};
use crate::sys;

/// IFALIASZ of `<linux/if.h>` without the final zero.
const ALIAS_MAX: usize = 255;
const PREFIX: &str = "rt netns ";

/// Returns the alias of the interface that leads to `id` from `network`, or from the peer `network`
/// of a point-to-point link.
pub(super) fn alias(network: &str, id: &str) -> String {
    let mut alias = format!("{PREFIX}{network} {id}");
    // Ids have ASCII characters only, so this cuts none in two.
    alias.truncate(ALIAS_MAX);
    alias
}

/// Returns the network and the id in an alias of `rt`; of a long id, its beginning.
fn parse_alias(alias: &str) -> Option<(&str, &str)> {
    alias.strip_prefix(PREFIX)?.split_once(' ')
}

/// Whether the interface of this name belongs to a container other than `id`.
fn is_of_another(store: &Store, name: &str, id: &str) -> Result<bool> {
    let others = store.records_and_remains(id)?;
    Ok(others.iter().any(|record| {
        record
            .endpoints
            .iter()
            .any(|endpoint| endpoint.host_interface == name)
            || record
                .points
                .iter()
                .any(|point| point.peer_interface == name)
    }))
}

/// Removes the interface `name` if it is the one that leads from `network` to `id`.
pub(super) fn remove(
    store: &Store,
    here: &mut RouteNetlink,
    name: &str,
    (network, id): (&str, &str),
) -> Result<()> {
    let Some(link) = here.find(name)? else {
        return Ok(());
    };
    let is_ours = match link.alias.as_str() {
        // An `add` that did not finish, or an earlier version of `rt`, has made it.
        "" => link.peer_namespace.is_some() && !is_of_another(store, name, id)?,
        other => other == alias(network, id),
    };
    if link.kind != "veth" || !is_ours {
        return Ok(());
    }
    here.remove(name)
}

/// Removes every interface of the host whose alias says that it leads to `id`.
pub(super) fn remove_all(store: &Store, here: &mut RouteNetlink, id: &str) -> Result<()> {
    for link in here.all()?.iter().filter(|link| link.kind == "veth") {
        if let Some((network, _)) = parse_alias(&link.alias)
            && link.alias == alias(network, id)
        {
            here.remove(&link.name)?;
        }
    }
    // The interfaces of an earlier version have no alias.
    for network in store.active_names()? {
        remove(store, here, &host_interface(id, &network), (&network, id))?;
    }
    (0..POINTS_MAX).try_for_each(|at| {
        let name = peer_interface("host", id, at);
        remove(store, here, &name, ("host", id))
    })
}

/// Makes room for an interface of container `id`: removes one of that name which a crash has left.
///
/// # Errors
/// The interface belongs to another container, leads to a namespace with a process, or is no such
/// interface at all.
pub(super) fn make_room(
    store: &Store,
    here: &mut RouteNetlink,
    name: &str,
    (network, id): (&str, &str),
    target: &Target,
) -> Result<()> {
    let Some(link) = here.find(name)? else {
        return Ok(());
    };
    let is_foreign = !link.alias.is_empty() && link.alias != alias(network, id);
    if link.kind != "veth" || is_foreign || is_of_another(store, name, id)? {
        bail!("{name}: the host has an interface of that name, which is not {id}'s");
    }
    let Some(peer) = link.peer_namespace else {
        bail!("{name}: both ends of this pair of interfaces are the host's");
    };
    if here.number_of(target.fd())? != Some(peer) && has_process(here, peer)? {
        bail!("{name}: leads to a network namespace with processes, which is not {id}'s");
    }
    here.remove(name)
}

/// Whether a process is in the network namespace that has this number here.
fn has_process(here: &mut RouteNetlink, number: u32) -> Result<bool> {
    let mut seen = HashSet::new();
    for process in sys::list_directory("/proc")? {
        if !process
            .name
            .as_encoded_bytes()
            .first()
            .is_some_and(u8::is_ascii_digit)
        {
            continue;
        }
        let tasks = Path::new("/proc").join(process.name).join("task");
        let threads = match sys::list_directory(&tasks) {
            // The process has ended by now.
            Err(Errno::ENOENT | Errno::ESRCH) => continue,
            result => result.with_context(|| tasks.display().to_string())?,
        };
        // A thread may have a namespace of its own. It may also have ended by now.
        for thread in threads {
            let path = tasks.join(thread.name).join("ns/net");
            let Ok(meta) = fs::metadata(&path) else {
                continue;
            };
            if !seen.insert((meta.dev(), meta.ino())) {
                continue;
            }
            let Ok(namespace) = File::open(&path) else {
                continue;
            };
            if here.number_of(namespace.as_fd())? == Some(number) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Returns the names of the interfaces made by `rt` that lead to containers of which no record
/// exists and which have no process.
pub(super) fn orphans(store: &Store, here: &mut RouteNetlink) -> Result<Vec<String>> {
    let mut known = HashSet::new();
    for record in store.records_and_remains("")? {
        known.extend(
            record
                .endpoints
                .into_iter()
                .map(|endpoint| endpoint.host_interface),
        );
        known.extend(record.points.into_iter().map(|point| point.peer_interface));
    }
    let mut bridges = Vec::new();
    for in_use in store.all_in_use()? {
        bridges.extend(here.find(&in_use.network.bridge)?.map(|link| link.index));
    }
    let is_ours = |link: &NetworkLink| match parse_alias(&link.alias) {
        Some(_) => true,
        None => link.alias.is_empty() && bridges.contains(&link.master) && is_hash(&link.name),
    };
    let mut orphans = Vec::new();
    for link in here.all()? {
        if link.kind == "veth" && is_ours(&link) && !known.contains(&link.name) {
            match link.peer_namespace {
                Some(peer) if !has_process(here, peer)? => orphans.push(link.name),
                _ => {}
            }
        }
    }
    Ok(orphans)
}

/// Whether `rt` has made the bridge: then its hardware address follows from the gateway's.
pub(super) fn is_bridge(link: &NetworkLink, network: &Network) -> bool {
    let own = match network.gateway.address {
        IpAddr::V4(address) => Some(Mac::from_ipv4(address)),
        IpAddr::V6(_) => None,
    };
    link.kind == "bridge" && link.mac == own
}

/// Removes the bridge of a network if `rt` has made it.
pub(super) fn remove_bridge(here: &mut RouteNetlink, network: &Network) -> Result<()> {
    match here.find(&network.bridge)? {
        Some(link) if is_bridge(&link, network) => here.remove(&network.bridge),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_names_the_network_and_the_container() {
        let alias = alias("web", "a.b");
        assert_eq!(parse_alias(&alias), Some(("web", "a.b")));
        assert_eq!(parse_alias("rt netns web"), None);
        assert_eq!(parse_alias("somebody's"), None);
        assert_eq!(super::alias("web", &"x".repeat(1024)).len(), ALIAS_MAX);
    }
}
