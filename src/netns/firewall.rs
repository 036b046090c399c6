//! Which packets pass, and with which addresses. The driver is chosen by the network; rules that
//! other programs made are met in `foreign.rs`.

mod encode;
mod foreign;
mod iptables;
mod matches;
mod nft;
mod rules;

use anyhow::Result;

use super::network::{Driver, Network};
use super::store::{Endpoint, Record, Store};

/// A container's part in a network, everything in one step. Idempotent.
pub(super) fn add(store: &Store, network: &Network, record: &Record) -> Result<()> {
    match network.driver {
        Driver::Nftables => nft::add(store, network, record)?,
        Driver::Iptables => iptables::rebuild(store, "")?,
        Driver::None => return Ok(()),
    }
    foreign::open(&network.bridge, network.driver)
}

/// Takes it away again, as far as it is there.
pub(super) fn remove(
    store: &Store,
    network: &Network,
    endpoint: &Endpoint,
    record: &Record,
) -> Result<()> {
    match network.driver {
        Driver::Nftables => nft::remove(store, network, endpoint, record),
        Driver::Iptables => iptables::rebuild(store, &record.id),
        Driver::None => Ok(()),
    }
}

/// The end of a network; `last` says that no other one of this driver is in use.
pub(super) fn end(store: &Store, network: &Network, last: bool) -> Result<()> {
    match network.driver {
        Driver::Nftables => nft::end(network, last)?,
        Driver::Iptables if last => iptables::end()?,
        Driver::Iptables => iptables::retire(store, &network.name)?,
        Driver::None => return Ok(()),
    }
    foreign::close(&network.bridge)
}

/// What is wrong with the driver's tables.
pub(super) fn check(store: &Store, network: &Network) -> Result<Option<String>> {
    match network.driver {
        Driver::Nftables => nft::check(store),
        Driver::Iptables | Driver::None => Ok(None),
    }
}

/// Makes everything again from the records.
pub(super) fn repair(store: &Store, network: &Network) -> Result<()> {
    match network.driver {
        Driver::Nftables => nft::rebuild(store)?,
        Driver::Iptables => iptables::rebuild(store, "")?,
        Driver::None => return Ok(()),
    }
    foreign::open(&network.bridge, network.driver)
}
