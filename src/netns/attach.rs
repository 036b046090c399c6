//! `add` gives a container its interfaces. Everything that `del` will need is recorded before
//! anything is made. After an error everything is taken back.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::detach::detach;
use super::entry::RecordEntry;
use super::host::Host;
use super::in_use::load;
use super::interface::host_interface;
use super::network::{DEFAULT, Network};
use super::ports::{self, Held};
use super::publish::{Publish, Range};
use super::record::{Endpoint, NetworkRecord};
use super::request::NetworkRequest;
use super::store::{Active, Store};
use super::target::Target;
use super::{
    allocator, bridge, conntrack, firewall, hosts, ours, point, resolv_conf, serve, sysctl,
};
use crate::netlink::address::{Cidr, Mac};
use crate::netlink::link::{NewLink, RouteNetlink};

/// Gives the container `id`, whose namespace is `target`, the network that `request` asks for.
pub(super) fn attach(
    host: &Host,
    id: &str,
    target: &Target,
    request: &NetworkRequest,
) -> Result<NetworkRecord> {
    let store = Store::lock(host)?;
    match store.entry(id)? {
        Some(RecordEntry::Whole(old)) if old.complete && old.is_alive()? => {
            bail!("{id}: has its network already (rt netns del {id} takes it away)");
        }
        Some(RecordEntry::Whole(old)) => detach(&store, &old)?,
        Some(RecordEntry::Unreadable(error)) => {
            return Err(error.context(format!("{id}: rt netns del {id} removes it")));
        }
        None => {}
    }
    let mut work = Attach {
        store: &store,
        target,
        request,
        networks: vec![],
    };
    for name in work.wanted()? {
        work.networks.push(load(&store, host, name)?);
    }
    let mut record = work.plan(id)?;
    let held = work.publish(&mut record)?;
    let result = store
        .save(&record)
        .and_then(|()| work.make(&mut record, &held));
    if let Err(error) = result {
        // The first error is the one to report. What cannot be taken back here is left to `del`.
        let _ = detach(&store, &record);
        return Err(error);
    }
    Ok(record)
}

struct Attach<'a> {
    store: &'a Store,
    target: &'a Target,
    request: &'a NetworkRequest,
    /// The networks, in the order of the interfaces.
    networks: Vec<Network>,
}

impl<'a> Attach<'a> {
    /// Returns the networks to attach the container to; none for the mode `none`.
    fn wanted(&self) -> Result<Vec<&'a str>> {
        let mut names = Vec::new();
        for name in &self.request.networks {
            match name.as_str() {
                "none" => return Ok(vec![]),
                "bridge" => names.push(DEFAULT),
                name if name == "host" || name.starts_with("container:") => {
                    bail!(
                        "network: {name}: the container has a network namespace of its own already (see rt spec --network)"
                    )
                }
                name => names.push(name),
            }
        }
        if names.is_empty() && self.request.point_to_point.is_empty() {
            names.push(DEFAULT);
        }
        Ok(names)
    }

    /// Decides everything, before anything is made.
    fn plan(&self, id: &str) -> Result<NetworkRecord> {
        let request = self.request;
        let mut names = Vec::new();
        let all = request
            .hostname
            .iter()
            .cloned()
            .chain([id.to_owned()])
            .chain(short(id));
        for name in all.chain(request.aliases.iter().cloned()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut record = NetworkRecord {
            id: id.to_owned(),
            complete: false,
            process: self.target.process,
            namespace: self.target.identity()?,
            names,
            endpoints: vec![],
            points: point::plan(self.store, id, &request.point_to_point)?,
            expose: request.expose.clone(),
            links: request.links.clone(),
            hosts: request.hosts.clone(),
            files: request.files.clone(),
        };
        let mut here = RouteNetlink::here()?;
        for point in record.points.iter().filter(|point| point.peer == "host") {
            let name = &point.peer_interface;
            ours::make_room(self.store, &mut here, name, ("host", id), self.target)?;
        }
        for (at, network) in self.networks.iter().enumerate() {
            let endpoint = self.endpoint(id, at)?;
            let name = &endpoint.host_interface;
            ours::make_room(
                self.store,
                &mut here,
                name,
                (&network.name, id),
                self.target,
            )?;
            record.endpoints.push(endpoint);
        }
        Ok(record)
    }

    fn endpoint(&self, id: &str, at: usize) -> Result<Endpoint> {
        let network = &self.networks[at];
        // Options for a single interface apply to that of the first network.
        let first = self.request;
        let ip = first.ip.filter(|_| at == 0).map(IpAddr::V4);
        let ip6 = first.ip6.filter(|_| at == 0).map(IpAddr::V6);
        let address = allocator::choose(self.store, network, ip)?;
        let address6 = allocator::choose6(self.store, network, address.address, ip6)?;
        let IpAddr::V4(v4) = address.address else {
            bail!("{address}: not IPv4")
        };
        Ok(Endpoint {
            network: network.name.clone(),
            host_interface: host_interface(id, &network.name),
            interface: match &first.interface {
                Some(name) if at == 0 => name.clone(),
                _ => format!("eth{at}"),
            },
            mac: first.mac.filter(|_| at == 0).unwrap_or(Mac::from_ipv4(v4)),
            address,
            address6,
            publish: vec![],
            links: self.links(&network.name)?,
        })
    }

    /// Returns the linked containers that are in the network: their host interfaces and ports.
    fn links(&self, network: &str) -> Result<Vec<(String, Vec<Range>)>> {
        let mut links = Vec::new();
        for link in &self.request.links {
            let Some(peer) = self.store.record(&link.id)? else {
                bail!("link: {}: no such container with a network", link.id)
            };
            if peer
                .endpoints
                .iter()
                .any(|endpoint| endpoint.network == network)
            {
                links.push((host_interface(&link.id, network), peer.ports()));
            }
        }
        Ok(links)
    }

    /// Returns the place of the network that publishes ports: the first one that is not internal.
    fn publishing(&self) -> Option<usize> {
        self.networks.iter().position(|network| !network.internal)
    }

    /// Writes those lines of the container's files that do not depend on other containers.
    fn files(&self, record: &NetworkRecord) -> Result<()> {
        let Some(files) = &record.files else {
            return Ok(());
        };
        hosts::make_directory(files)?;
        let request = self.request;
        let gateway = self.networks.first().map(|network| network.gateway.address);
        let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n");
        for (name, address) in &record.hosts {
            if let Some(address) = address.or(gateway) {
                text += &hosts::line(address, std::slice::from_ref(name));
            }
        }
        for point in &record.points {
            text += &hosts::line(point.its, std::slice::from_ref(&point.peer));
        }
        hosts::update(files, "hosts", hosts::BASE, &text)?;
        hosts::set(files, "hostname", &format!("{}\n", record.names[0]))?;
        let mut servers = request.dns.clone();
        if servers.is_empty() {
            let resolvers = self.networks.iter().filter(|network| network.resolver);
            servers.extend(
                resolvers
                    .flat_map(Network::gateways)
                    .map(|gateway| gateway.address),
            );
        }
        if servers.is_empty() && !self.networks.iter().all(|network| network.internal) {
            servers = resolv_conf::host_servers();
        }
        let text = resolv_conf::text(&servers, &request.dns_search, &request.dns_options);
        hosts::update(files, "resolv.conf", hosts::BASE, &text)
    }

    /// Decides the ports to publish, all in one network, and holds them.
    fn publish(&self, record: &mut NetworkRecord) -> Result<Vec<Held>> {
        let mut wanted = self.request.publish.clone();
        if self.request.publish_all {
            for range in &self.request.expose {
                let one = |first| Range {
                    first,
                    count: 1,
                    ..*range
                };
                wanted.extend(range.ports().map(|port| Publish {
                    bind: None,
                    host: 0,
                    to: one(port),
                }));
            }
        }
        if wanted.is_empty() {
            return Ok(vec![]);
        }
        let Some(at) = self.publishing() else {
            bail!("publish: the container is in no network with a way out")
        };
        let endpoint = &mut record.endpoints[at];
        let (v4, v6) = (
            endpoint.address.address,
            endpoint.address6.map(|cidr| cidr.address),
        );
        let mut held = Vec::new();
        for mut publish in wanted {
            publish.bind = publish.bind.or(self.networks[at].config.bind);
            held.extend(self.hold(&mut publish, v4, v6)?);
            endpoint.publish.push(publish);
        }
        Ok(held)
    }

    /// Holds the ports. If one is taken, the containers that are gone are removed, which closes the
    /// ports that they still hold, and `rt` tries once more.
    fn hold(&self, publish: &mut Publish, v4: IpAddr, v6: Option<IpAddr>) -> Result<Vec<Held>> {
        let wanted = *publish;
        let error = match ports::hold(publish, v4, v6) {
            Err(error) => error,
            held => return held,
        };
        let mut gone = false;
        for record in self.store.records()? {
            if !record.is_alive()? {
                detach(self.store, &record)?;
                gone = true;
            }
        }
        *publish = wanted;
        if gone {
            ports::hold(publish, v4, v6)
        } else {
            Err(error)
        }
    }

    fn make(&self, record: &mut NetworkRecord, held: &[Held]) -> Result<()> {
        let mut here = RouteNetlink::here()?;
        for (network, endpoint) in self.networks.iter().zip(&record.endpoints) {
            let context = || format!("network {}", network.name);
            let bridge = self.bridge(network, &mut here).with_context(context)?;
            for address in endpoint.addresses() {
                self.store.take(&network.name, address, &record.id)?;
            }
            self.pair((network, &record.id), endpoint, bridge, &mut here)
                .with_context(context)?;
        }
        self.inside(record)?;
        for network in &self.networks {
            firewall::add(self.store, network, record)?;
        }
        for endpoint in &record.endpoints {
            let addresses: Vec<_> = endpoint.addresses().collect();
            conntrack::flush(&endpoint.publish, &addresses).context("conntrack")?;
        }
        point::make(self.store, self.target, record)?;
        self.files(record)?;
        for (at, network) in self.networks.iter().enumerate() {
            let held = if Some(at) == self.publishing() {
                held
            } else {
                &[]
            };
            serve::add(self.store, network, record, held)
                .with_context(|| format!("network {}", network.name))?;
        }
        for network in &self.networks {
            bridge::forward(network)?;
        }
        record.complete = true;
        self.store.save(record)
    }

    /// Returns the index of the bridge, which is made with the first container.
    fn bridge(&self, network: &Network, here: &mut RouteNetlink) -> Result<u32> {
        if self.store.active(&network.name)?.is_none() {
            let made_bridge = here.find(&network.bridge)?.is_none();
            let active = Active {
                config: network.config.clone(),
                made_bridge,
            };
            self.store.activate(&network.name, &active)?;
        }
        bridge::ensure(network, here)
    }

    fn pair(
        &self,
        (network, id): (&Network, &str),
        endpoint: &Endpoint,
        bridge: u32,
        here: &mut RouteNetlink,
    ) -> Result<()> {
        let outer = NewLink {
            name: &endpoint.host_interface,
            mtu: network.mtu,
            mac: None,
        };
        let inner = NewLink {
            name: &endpoint.interface,
            mtu: network.mtu,
            mac: Some(endpoint.mac),
        };
        let result = here.add_pair(outer, inner, self.target.fd(), bridge);
        match result {
            Err(Errno::EXFULL) => {
                bail!(
                    "bridge {}: full: a bridge takes 1023 interfaces",
                    network.bridge
                )
            }
            Err(Errno::EEXIST) => {
                bail!(
                    "{}: the container has an interface of that name already",
                    inner.name
                )
            }
            result => result.with_context(|| outer.name.to_owned())?,
        }
        bridge::raise_port(outer.name, &ours::alias(&network.name, id), here)
    }

    /// Configures the interfaces in the container's namespace.
    fn inside(&self, record: &NetworkRecord) -> Result<()> {
        self.target.inside(|| {
            let mut links = RouteNetlink::here()?;
            let lo = links.find("lo")?.context("lo: missing")?;
            links.up(lo.index).context("lo")?;
            for (at, (network, endpoint)) in self.networks.iter().zip(&record.endpoints).enumerate()
            {
                configure(&mut links, network, endpoint, at == 0)
                    .with_context(|| endpoint.interface.clone())?;
            }
            Ok(())
        })
    }
}

/// Configures the container's end: addresses, up, routes. The default route leads to the gateway of
/// the first network.
fn configure(
    links: &mut RouteNetlink,
    network: &Network,
    endpoint: &Endpoint,
    default: bool,
) -> Result<()> {
    let name = &endpoint.interface;
    let link = links.find(name)?.context("missing")?;
    if endpoint.address6.is_some() {
        sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "0").context("disable_ipv6")?;
        // `rt` sets the routes; a neighbour's advertisement must not change them.
        let _ = sysctl::set(&format!("ipv6/conf/{name}/accept_ra"), "0");
    }
    links
        .add_address(link.index, endpoint.address)
        .context("address")?;
    if let Some(address) = endpoint.address6 {
        links
            .add_address(link.index, address)
            .context("IPv6 address")?;
    }
    links.up(link.index)?;
    if !default || network.internal {
        return Ok(());
    }
    let everything = |address: IpAddr| Cidr {
        address: if address.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        },
        prefix: 0,
    };
    for gateway in network.gateways() {
        let gateway = gateway.address;
        links
            .add_route(everything(gateway), link.index, Some(gateway), None)
            .context("default route")?;
    }
    Ok(())
}

/// Returns the first twelve digits of an id of docker's or podman's, by which it is known.
fn short(id: &str) -> Option<String> {
    let hex = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| id[..12].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ids_have_a_short_form() {
        assert_eq!(short(&"a1".repeat(32)).as_deref(), Some("a1a1a1a1a1a1"));
        assert_eq!(short("web"), None);
    }
}
