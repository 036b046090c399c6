//! The network record of one container: its namespace, its ends, its names.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::interface::{check_interface, host_interface, peer_interface};
use super::network::check_name;
use super::publish::{Publish, Range};
use super::request::LinkTo;
use crate::id::check_id;
use crate::netlink::address::{Cidr, Mac};
use crate::process::Process;

/// The network namespace of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamespaceIdentity {
    /// The path at which it is bound; `None` if only a process keeps it alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<PathBuf>,
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// A container in one network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) network: String,
    pub(super) host_interface: String,
    pub(super) interface: String,
    pub(super) mac: Mac,
    pub(super) address: Cidr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address6: Option<Cidr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) publish: Vec<Publish>,
    /// The linked containers in this network: host interface, and ports (all if none).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) links: Vec<(String, Vec<Range>)>,
}

impl Endpoint {
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.address.address).chain(self.address6.map(|cidr| cidr.address))
    }
}

/// A point-to-point link of the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) peer: String,
    pub(super) interface: String,
    pub(super) own: IpAddr,
    pub(super) its: IpAddr,
    /// The name of the other end, which is in the host's namespace if the peer is the host.
    pub(super) peer_interface: String,
}

/// The network record of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NetworkRecord {
    pub(super) id: String,
    /// Whether `add` has completed.
    pub(super) complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) process: Option<Process>,
    pub(super) namespace: NamespaceIdentity,
    /// Host name, id and aliases, the first one first.
    pub(super) names: Vec<String>,
    pub(super) endpoints: Vec<Endpoint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) points: Vec<Point>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) expose: Vec<Range>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) links: Vec<LinkTo>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) hosts: Vec<(String, Option<IpAddr>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) files: Option<PathBuf>,
}

impl NetworkRecord {
    /// Whether the container's process is alive or, if the record names none, its namespace is
    /// still at its path.
    pub(super) fn is_alive(&self) -> Result<bool> {
        if let Some(process) = self.process {
            return Ok(process.open()?.is_some());
        }
        let Some(path) = &self.namespace.path else {
            return Ok(false);
        };
        match fs::metadata(path) {
            Ok(meta) => {
                Ok((meta.dev(), meta.ino()) == (self.namespace.device, self.namespace.inode))
            }
            Err(error)
                if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) =>
            {
                Ok(false)
            }
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Returns the ports that the container serves, as far as they are known.
    pub(super) fn ports(&self) -> Vec<Range> {
        let published = self
            .endpoints
            .iter()
            .flat_map(|endpoint| &endpoint.publish)
            .map(|port| port.to);
        self.expose.iter().copied().chain(published).collect()
    }
}

/// Refuses a record that cannot be that of container `id`: what it names would be removed from
/// another container.
pub(super) fn check_record(id: &str, record: &NetworkRecord) -> Result<()> {
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
