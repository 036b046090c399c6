//! What is remembered but cannot be read, or tells lies: an empty, cut or foreign file. It stops
//! nobody else, opens nothing, and is found for its removal by what does not stand in it: the
//! name of the file, the leases, the interfaces.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Error, Result, anyhow, bail};
use serde::de::DeserializeOwned;

use super::interface::{check_interface, host_interface, peer_interface};
use super::network::{Driver, Network, check_name, default_bridge};
use super::request::Range;
use super::store::{Endpoint, Namespace, Record, Store};
use crate::id::check_id;
use crate::netlink::address::{Cidr, Mac};
use crate::netlink::link::Links;

/// No file of ours is larger, in bytes.
const SIZE_MAX: u64 = 64 << 20;

/// What stands in the place of a record.
#[derive(Debug)]
pub(super) enum Entry {
    Whole(Box<Record>),
    /// Why it cannot be read or believed.
    Unreadable(Error),
}

/// Reads a file's JSON: nothing if there is no file, and an error within if what is there is no
/// such file.
///
/// # Errors
/// Where another try may find out.
pub(super) fn read_entry<T: DeserializeOwned>(path: &Path) -> Result<Option<Result<T>>> {
    let context = || path.display().to_string();
    let mut options = OpenOptions::new();
    // A pipe in its place would be waited for.
    options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return match error.raw_os_error() {
                Some(libc::ELOOP | libc::ENXIO | libc::ENOTDIR) => Ok(Some(Err(error.into()))),
                _ => Err(error).with_context(context),
            };
        }
    };
    if !file.metadata().with_context(context)?.is_file() {
        return Ok(Some(Err(anyhow!("not a regular file"))));
    }
    let mut bytes = Vec::new();
    file.take(SIZE_MAX + 1)
        .read_to_end(&mut bytes)
        .with_context(context)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Ok(Some(Err(anyhow!("larger than {SIZE_MAX} bytes"))));
    }
    Ok(Some(serde_json::from_slice(&bytes).map_err(Error::from)))
}

/// Refuses a record that is not the one of container `id`: what it names would be taken from
/// somebody else.
pub(super) fn check_record(id: &str, record: &Record) -> Result<()> {
    check_id(id)?;
    if record.id != id {
        bail!("it is that of {:.64?}", record.id);
    }
    for endpoint in &record.endpoints {
        check_name(&endpoint.network)?;
        check_interface(&endpoint.interface)?;
        if endpoint.host_interface != host_interface(id, &endpoint.network) {
            bail!("{:.64?}: is no interface of {id}", endpoint.host_interface);
        }
        let v6 = endpoint.address6.map(|cidr| cidr.address);
        if !endpoint.address.address.is_ipv4() || v6.is_some_and(|address| address.is_ipv4()) {
            bail!("{}: an address of another family", endpoint.address);
        }
        for publish in &endpoint.publish {
            check_range(publish.to)?;
            check_range(Range {
                first: publish.host,
                ..publish.to
            })?;
        }
        for (peer, ports) in &endpoint.links {
            check_interface(peer)?;
            ports.iter().try_for_each(|range| check_range(*range))?;
        }
    }
    for (at, point) in record.points.iter().enumerate() {
        check_id(&point.peer)?;
        check_interface(&point.interface)?;
        if point.peer_interface != peer_interface(&point.peer, id, at) {
            bail!("{:.64?}: is no interface of {id}", point.peer_interface);
        }
    }
    record
        .expose
        .iter()
        .try_for_each(|range| check_range(*range))
}

fn check_range(range: Range) -> Result<()> {
    let end = u32::from(range.first) + u32::from(range.count);
    match range.first == 0 || range.count == 0 || end > 65_536 {
        true => bail!("{} and {} on: not ports", range.first, range.count),
        false => Ok(()),
    }
}

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
    /// Whether this driver has to do with the network.
    pub(super) fn is_of(&self, driver: Driver) -> bool {
        self.network.driver == driver || self.is_closed
    }
}

impl Store {
    /// The network, if it is in use.
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
        // Whether the bridge is ours is seen by its address when it is removed.
        Ok(Some(InUse {
            network,
            made_bridge: true,
            error: Some(error),
            is_closed,
        }))
    }

    /// All networks in use.
    pub(super) fn all_in_use(&self) -> Result<Vec<InUse>> {
        let names = self.active_names()?;
        names
            .iter()
            .filter_map(|name| self.in_use(name).transpose())
            .collect()
    }

    /// A network of which nothing is known but what the kernel has: it has no way out.
    fn closed(&self, name: &str) -> Result<Network> {
        let mut here = Links::here()?;
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

    /// What has to be thought of a container whose record cannot be read: it may be in every
    /// network, and nothing is published or linked.
    fn remains(&self, id: &str) -> Result<Record> {
        let mut endpoints = Vec::new();
        for network in self.active_names()? {
            let leases = self.leases(&network)?;
            let mut own = leases.into_iter().filter(|(_, holder)| holder == id);
            let (mut v4, mut v6) = (Ipv4Addr::UNSPECIFIED.into(), None);
            own.by_ref().for_each(|(address, _)| match address {
                IpAddr::V4(_) => v4 = address,
                IpAddr::V6(_) => v6 = Some(Cidr::host(address)),
            });
            endpoints.push(Endpoint {
                host_interface: host_interface(id, &network),
                network,
                interface: "eth0".to_owned(),
                mac: Mac::of(Ipv4Addr::UNSPECIFIED),
                address: Cidr::host(v4),
                address6: v6,
                publish: vec![],
                links: vec![],
            });
        }
        Ok(Record {
            id: id.to_owned(),
            complete: true,
            process: None,
            namespace: Namespace {
                path: None,
                device: 0,
                inode: 0,
            },
            names: vec![],
            endpoints,
            points: vec![],
            expose: vec![],
            links: vec![],
            hosts: vec![],
            files: None,
        })
    }

    /// Every container's part in the firewall but that of `without`.
    pub(super) fn records_and_remains(&self, without: &str) -> Result<Vec<Record>> {
        let mut all = Vec::new();
        for id in self.ids()?.into_iter().filter(|id| id != without) {
            match self.entry(&id)? {
                Some(Entry::Whole(record)) => all.push(*record),
                Some(Entry::Unreadable(_)) => all.push(self.remains(&id)?),
                None => {}
            }
        }
        Ok(all)
    }
}
