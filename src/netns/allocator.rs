//! Chooses the address of a container: one that is free, or that a container which is gone has
//! left.

use std::net::IpAddr;

use anyhow::{Result, bail};

use super::detach::detach;
use super::entry::RecordEntry;
use super::lease::Lease;
use super::network::Network;
use super::store::Store;
use crate::netlink::address::Cidr;

/// Returns an IPv4 address in the network: `wanted`, or the next free one after the one given last,
/// so that an address is not used again at once.
pub(super) fn choose(store: &Store, network: &Network, wanted: Option<IpAddr>) -> Result<Cidr> {
    let prefix = network.gateway.prefix;
    if let Some(address) = wanted {
        check_address(network, network.gateway, address)?;
        return match holder(store, network, address)? {
            None => Ok(Cidr { address, prefix }),
            Some(holder) => bail!("ip: {address}: {holder} has it"),
        };
    }
    let range = network.range;
    let last = store
        .last(&network.name)
        .filter(|last| range.contains(*last));
    let start = last.map_or(0, |last| range.position(last) + 1);
    for n in 0..=range.size() {
        let address = range.nth(start + n);
        if usable(network, address) && holder(store, network, address)?.is_none() {
            store_last(store, network, address)?;
            return Ok(Cidr { address, prefix });
        }
    }
    bail!(
        "network {}: all addresses of {range} are in use",
        network.name
    )
}

/// Returns an IPv6 address: `wanted`, or the one with the same place in its subnet as the IPv4
/// address has.
pub(super) fn choose6(
    store: &Store,
    network: &Network,
    address: IpAddr,
    wanted: Option<IpAddr>,
) -> Result<Option<Cidr>> {
    let Some(gateway) = network.gateway6 else {
        return match wanted {
            Some(address) => bail!("ip6: {address}: network {} has no IPv6", network.name),
            None => Ok(None),
        };
    };
    let prefix = gateway.prefix;
    let mut position = network.gateway.position(address);
    let address = match wanted {
        Some(address) => address,
        None => loop {
            let address = gateway.nth(position);
            // Another container may have asked for this address.
            if address != gateway.address && holder(store, network, address)?.is_none() {
                break address;
            }
            position += network.gateway.size() + 1;
            if position > gateway.size() {
                bail!(
                    "network {}: all addresses of {gateway} are in use",
                    network.name
                );
            }
        },
    };
    check_address(network, gateway, address)?;
    match holder(store, network, address)? {
        None => Ok(Some(Cidr { address, prefix })),
        Some(holder) => bail!("ip6: {address}: {holder} has it"),
    }
}

fn store_last(store: &Store, network: &Network, address: IpAddr) -> Result<()> {
    // The directory exists from the first container on.
    match store.active(&network.name)? {
        Some(_) => store.set_last(&network.name, address),
        None => Ok(()),
    }
}

fn usable(network: &Network, address: IpAddr) -> bool {
    let subnet = network.gateway;
    let edge = address == subnet.network() || address == subnet.last();
    !edge && address != subnet.address
}

fn check_address(network: &Network, subnet: Cidr, address: IpAddr) -> Result<()> {
    if !subnet.contains(address) {
        bail!(
            "ip: {address}: not in {}/{} of {}",
            subnet.network(),
            subnet.prefix,
            network.name
        );
    }
    let edge = address == subnet.network() || (address.is_ipv4() && address == subnet.last());
    if edge || address == subnet.address {
        bail!("ip: {address}: the address of the network, of its gateway, or for broadcasts");
    }
    Ok(())
}

/// Returns which container has the address. A container that is gone has none: it is removed here.
fn holder(store: &Store, network: &Network, address: IpAddr) -> Result<Option<String>> {
    let id = match store.holder(&network.name, address)? {
        Lease::Free => return Ok(None),
        Lease::Held(id) => id,
        // The container that has it may be alive.
        Lease::Bad => return Ok(Some("a lease that cannot be read".to_owned())),
    };
    match store.entry(&id)? {
        Some(RecordEntry::Whole(record)) if record.is_alive()? => Ok(Some(id)),
        Some(RecordEntry::Whole(record)) => {
            detach(store, &record)?;
            // Its record may not name the address, if the file was edited.
            store.release(&network.name, address, &id).map(|()| None)
        }
        // It is not known whether the container is alive.
        Some(RecordEntry::Unreadable(_)) => Ok(Some(id)),
        None => store.release(&network.name, address, &id).map(|()| None),
    }
}
