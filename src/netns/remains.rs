//! What is assumed of a container whose record cannot be read: an empty, cut or foreign file. It
//! opens nothing in the firewall. For its removal it is found by other traces: the name of the
//! file, the leases, the interfaces.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use super::entry::RecordEntry;
use super::interface::host_interface;
use super::record::{Endpoint, NamespaceIdentity, NetworkRecord};
use super::store::Store;
use crate::netlink::address::{Cidr, Mac};

impl Store {
    /// Returns the record that is assumed for a container whose record cannot be read: it may be in
    /// every network, and nothing is published or linked.
    fn remains(&self, id: &str) -> Result<NetworkRecord> {
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
                mac: Mac::from_ipv4(Ipv4Addr::UNSPECIFIED),
                address: Cidr::host(v4),
                address6: v6,
                publish: vec![],
                links: vec![],
            });
        }
        Ok(NetworkRecord {
            id: id.to_owned(),
            complete: true,
            process: None,
            namespace: NamespaceIdentity {
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

    /// Returns the records of all containers but `without`, as the firewall needs them.
    pub(super) fn records_and_remains(&self, without: &str) -> Result<Vec<NetworkRecord>> {
        let mut all = Vec::new();
        for id in self.ids()?.into_iter().filter(|id| id != without) {
            match self.entry(&id)? {
                Some(RecordEntry::Whole(record)) => all.push(*record),
                Some(RecordEntry::Unreadable(_)) => all.push(self.remains(&id)?),
                None => {}
            }
        }
        Ok(all)
    }
}
