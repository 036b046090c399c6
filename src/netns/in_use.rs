//! The networks in use, as they were made. If the file of a network in use cannot be read, the
//! network is taken for what its description says; without a description it is closed to everybody.

use anyhow::{Context, Error, Result, anyhow};

use super::description::Driver;
use super::host::Host;
use super::interface::host_interface;
use super::network::{Network, check_name, default_bridge};
use super::store::Store;
use crate::netlink::link::RouteNetlink;

/// A network in use as it was made, or, if its file cannot be read, as it most likely was made.
#[derive(Debug)]
pub(super) struct InUse {
    pub(super) network: Network,
    pub(super) made_bridge: bool,
    /// Why its file cannot be read.
    pub(super) error: Option<Error>,
    /// Nothing is known of it: every driver has to keep it closed.
    pub(super) is_closed: bool,
}

impl InUse {
    /// Whether this driver has rules for the network.
    pub(super) fn is_of(&self, driver: Driver) -> bool {
        self.network.driver == driver || self.is_closed
    }
}

impl Store {
    /// Returns the network, if it is in use.
    pub(super) fn in_use(&self, name: &str) -> Result<Option<InUse>> {
        let directory = self.network(name);
        let context = || directory.display().to_string();
        let error = match self.active(name)? {
            None if !directory.try_exists().with_context(context)? => return Ok(None),
            None => anyhow!("{}: has no description", context()),
            Some(Err(error)) => error,
            Some(Ok(active)) => match Network::decide(name, active.config) {
                Ok(network) => {
                    let made_bridge = active.made_bridge;
                    return Ok(Some(InUse {
                        network,
                        made_bridge,
                        error: None,
                        is_closed: false,
                    }));
                }
                Err(error) => error.context(context()),
            },
        };
        let described = Network::load(self.networks(), name).ok();
        let is_closed = described.is_none();
        let network = match described {
            Some(network) => network,
            None => self.closed(name)?,
        };
        // `ours::remove_bridge` recognises a bridge that `rt` has made by its address.
        Ok(Some(InUse {
            network,
            made_bridge: true,
            error: Some(error),
            is_closed,
        }))
    }

    /// Returns all networks in use.
    pub(super) fn all_in_use(&self) -> Result<Vec<InUse>> {
        let names = self.active_names()?;
        names
            .iter()
            .filter_map(|name| self.in_use(name).transpose())
            .collect()
    }

    /// Returns a network of which nothing is known but what the kernel has: it has no way out.
    fn closed(&self, name: &str) -> Result<Network> {
        let mut here = RouteNetlink::here()?;
        let all = here.all()?;
        let ports = self
            .leases(name)?
            .into_iter()
            .map(|(_, id)| host_interface(&id, name));
        let port = ports
            .filter_map(|port| all.iter().find(|link| link.name == port))
            .next();
        let by_port = port.and_then(|port| all.iter().find(|link| link.index == port.master));
        let bridge = default_bridge(name);
        let link = by_port.or_else(|| all.iter().find(|link| link.name == bridge));
        let addresses = match link {
            Some(link) => here.addresses(link.index)?,
            None => vec![],
        };
        let bridge = link.map_or(bridge, |link| link.name.clone());
        Ok(Network::closed(name, bridge, &addresses))
    }
}

/// Returns the network as it is in use, or else as its file describes it.
pub(super) fn load(store: &Store, host: &Host, name: &str) -> Result<Network> {
    check_name(name)?;
    match store.in_use(name)? {
        Some(InUse {
            error: Some(error), ..
        }) => Err(error.context(format!("network {name}: rt netns check --repair"))),
        Some(in_use) => Ok(in_use.network),
        None => Network::load(&host.networks, name),
    }
}
