//! Which address a container gets, and who has which. Under the store's lock.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::detach::detach;
use super::network::Network;
use super::remains::Entry;
use super::store::{Store, gone, names};
use crate::id::check_id;
use crate::netlink::address::Cidr;
use crate::sys;

/// An IPv4 address in the network: `wanted`, or the next free one after the one given last, so
/// that an address is not used again at once.
pub(super) fn choose(store: &Store, network: &Network, wanted: Option<IpAddr>) -> Result<Cidr> {
    let prefix = network.gateway.prefix;
    if let Some(address) = wanted {
        check(network, network.gateway, address)?;
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

/// An IPv6 address: `wanted`, or the one with the same place in its subnet as the IPv4 address.
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
            // Somebody may have asked for this very one.
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
    check(network, gateway, address)?;
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

fn check(network: &Network, subnet: Cidr, address: IpAddr) -> Result<()> {
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

/// Who has the address. A container that is gone has none: it is cleaned up here.
fn holder(store: &Store, network: &Network, address: IpAddr) -> Result<Option<String>> {
    let id = match store.holder(&network.name, address)? {
        Lease::Free => return Ok(None),
        Lease::Held(id) => id,
        // Whoever has it may live.
        Lease::Bad => return Ok(Some("a lease that cannot be read".to_owned())),
    };
    match store.entry(&id)? {
        Some(Entry::Whole(record)) if record.is_alive()? => Ok(Some(id)),
        Some(Entry::Whole(record)) => {
            detach(store, &record)?;
            // Its address may stand in no record of its own: the file was edited.
            store.release(&network.name, address, &id).map(|()| None)
        }
        // Whether it lives is not known.
        Some(Entry::Unreadable(_)) => Ok(Some(id)),
        None => store.release(&network.name, address, &id).map(|()| None),
    }
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    Free,
    Held(String),
    /// What stands there is no lease.
    Bad,
}

impl Store {
    fn lease(&self, network: &str, address: IpAddr) -> PathBuf {
        self.network(network)
            .join("leases")
            .join(address.to_string())
    }

    /// Who holds the address.
    pub(super) fn holder(&self, network: &str, address: IpAddr) -> Result<Lease> {
        let path = self.lease(network, address);
        match fs::read_link(&path) {
            Ok(holder) => Ok(match holder.to_str().filter(|id| check_id(id).is_ok()) {
                Some(id) => Lease::Held(id.to_owned()),
                None => Lease::Bad,
            }),
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => Ok(Lease::Free),
                // It is no symbolic link.
                ErrorKind::InvalidInput => Ok(Lease::Bad),
                _ => Err(error).with_context(|| path.display().to_string()),
            },
        }
    }

    pub(super) fn take(&self, network: &str, address: IpAddr, id: &str) -> Result<()> {
        let path = self.lease(network, address);
        symlink(id, &path).with_context(|| path.display().to_string())
    }

    /// Gives the address back if it is this container's, or if what stands there is nobody's.
    pub(super) fn release(&self, network: &str, address: IpAddr, id: &str) -> Result<()> {
        match self.holder(network, address)? {
            Lease::Held(holder) if holder != id => Ok(()),
            Lease::Free => Ok(()),
            _ => self.remove_lease(network, &address.to_string()),
        }
    }

    fn remove_lease(&self, network: &str, name: &str) -> Result<()> {
        let path = self.network(network).join("leases").join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::IsADirectory => {
                fs::remove_dir_all(&path).with_context(|| path.display().to_string())
            }
            result => gone(result, &path),
        }
    }

    /// Every address given in the network, with its holder.
    pub(super) fn leases(&self, network: &str) -> Result<Vec<(IpAddr, String)>> {
        let mut leases = Vec::new();
        for name in self.lease_names(network)? {
            if let Ok(address) = name.parse()
                && let Lease::Held(holder) = self.holder(network, address)?
            {
                leases.push((address, holder));
            }
        }
        Ok(leases)
    }

    fn lease_names(&self, network: &str) -> Result<Vec<String>> {
        names(&self.network(network).join("leases"))
    }

    /// Removes what stands among the leases of a network and is none.
    pub(super) fn remove_bad_leases(&self, network: &str) -> Result<()> {
        for name in self.lease_names(network)? {
            let good = match name.parse::<IpAddr>() {
                // A second spelling of an address would be a second lease.
                Ok(address) if address.to_string() == name => {
                    self.holder(network, address)? != Lease::Bad
                }
                _ => false,
            };
            if !good {
                self.remove_lease(network, &name)?;
            }
        }
        Ok(())
    }

    /// Whether nobody has an address in the network. Mostly the first file that is looked at says
    /// that somebody has.
    pub(super) fn is_empty(&self, network: &str) -> Result<bool> {
        let path = self.network(network).join("leases");
        let entries = match sys::list_directory(&path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(true),
            result => result.with_context(|| path.display().to_string())?,
        };
        for entry in entries {
            if let Some(address) = entry.name.to_str().and_then(|name| name.parse().ok())
                && matches!(self.holder(network, address)?, Lease::Held(_))
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
