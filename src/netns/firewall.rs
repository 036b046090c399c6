//! Which packets pass, and with which addresses. The network chooses the driver; `foreign.rs` deals
//! with the rules of other programs.

mod encode;
mod foreign;
mod iptables;
mod matches;
mod nft;
mod rules;

use anyhow::Result;

use super::description::Driver;
use super::in_use::InUse;
use super::network::Network;
use super::record::{Endpoint, NetworkRecord};
use super::store::Store;

/// Adds the rules for a container in a network, in one step. Idempotent.
pub(super) fn add(store: &Store, network: &Network, record: &NetworkRecord) -> Result<()> {
    match network.driver {
        Driver::Nftables => nft::add(store, network, record)?,
        Driver::Iptables => iptables::rebuild(store, "")?,
        Driver::None => return Ok(()),
    }
    foreign::open(&network.bridge, network.driver)
}

/// Removes the rules for a container in a network, as far as they exist.
pub(super) fn remove(
    store: &Store,
    network: &Network,
    endpoint: &Endpoint,
    record: &NetworkRecord,
) -> Result<()> {
    match network.driver {
        Driver::Nftables => nft::remove(store, network, endpoint, record),
        Driver::Iptables => iptables::rebuild(store, &record.id),
        Driver::None => Ok(()),
    }
}

/// Removes the rules for a container of which nothing is known, by making those of all others anew.
pub(super) fn forget(store: &Store, id: &str) -> Result<()> {
    let in_use = store.all_in_use()?;
    let has = |driver| {
        in_use
            .iter()
            .any(|one: &InUse| one.network.driver == driver)
    };
    if has(Driver::Nftables) {
        nft::rebuild(store, id)?;
    }
    if has(Driver::Iptables) {
        iptables::rebuild(store, id)?;
    }
    Ok(())
}

/// Removes the rules for a network that ends.
pub(super) fn end(store: &Store, network: &InUse) -> Result<()> {
    let name = &network.network.name;
    let mut others = store.all_in_use()?;
    others.retain(|other| other.network.name != *name);
    for driver in [Driver::Nftables, Driver::Iptables] {
        if !network.is_of(driver) {
            continue;
        }
        let last = !others.iter().any(|other| other.network.driver == driver);
        match driver {
            Driver::Nftables if network.error.is_some() && !last => nft::retire(store, name)?,
            Driver::Nftables => nft::end(&network.network, last)?,
            _ if last => iptables::end()?,
            _ => iptables::retire(store, name)?,
        }
    }
    match network.network.driver {
        Driver::None => Ok(()),
        _ => foreign::close(&network.network.bridge),
    }
}

/// Returns what is wrong with the driver's tables.
pub(super) fn check(store: &Store, network: &Network) -> Result<Option<String>> {
    match network.driver {
        Driver::Nftables => nft::check(store),
        Driver::Iptables | Driver::None => Ok(None),
    }
}

/// Makes all rules of the driver anew from the records.
pub(super) fn repair(store: &Store, network: &Network) -> Result<()> {
    match network.driver {
        Driver::Nftables => nft::rebuild(store, "")?,
        Driver::Iptables => iptables::rebuild(store, "")?,
        Driver::None => return Ok(()),
    }
    foreign::open(&network.bridge, network.driver)
}
