//! The bridge of a network on the host.

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::description::Localhost;
use super::network::Network;
use super::{ours, sysctl};
use crate::log;
use crate::netlink::address::Mac;
use crate::netlink::link::{NetworkLink, NewLink, RouteNetlink};

/// Returns the index of the network's bridge. The bridge is made, given its addresses and brought
/// up, as far as that has not been done.
pub(super) fn ensure(network: &Network, here: &mut RouteNetlink) -> Result<u32> {
    let link = match here.find(&network.bridge)? {
        Some(link) if link.kind == "bridge" => link,
        Some(_) => bail!("{}: not a bridge", network.bridge),
        None => make_bridge(network, here)?,
    };
    addresses(network, &link, here)?;
    if !link.up {
        here.up(link.index)
            .with_context(|| network.bridge.clone())?;
    }
    let name = format!("ipv4/conf/{}/route_localnet", network.bridge);
    if network.localhost == Localhost::Kernel {
        sysctl::set(&name, "1").with_context(|| {
            format!("{name} (\"localhost\": \"proxy\" in the network's file does without)")
        })?;
    } else if ours::is_bridge(&link, network) {
        // An earlier version may have set it where nobody needs it.
        sysctl::set(&name, "0").context(name)?;
    }
    Ok(link.index)
}

fn make_bridge(network: &Network, here: &mut RouteNetlink) -> Result<NetworkLink> {
    for route in here.routes()? {
        if let Some(own) = network.gateways().find(|own| own.overlaps(route)) {
            bail!(
                "{}/{}: the host has a route to {route}",
                own.network(),
                own.prefix
            );
        }
    }
    // The hardware address is fixed, or it would change with each port.
    let mac = match network.gateway.address {
        std::net::IpAddr::V4(address) => Some(Mac::from_ipv4(address)),
        std::net::IpAddr::V6(_) => None,
    };
    let new = NewLink {
        name: &network.bridge,
        mtu: network.mtu,
        mac,
    };
    here.add_bridge(new)
        .with_context(|| network.bridge.clone())?;
    let link = here
        .find(&network.bridge)?
        .with_context(|| network.bridge.clone())?;
    // CVE-2020-13401: a container's router advertisement must not change the host's routes.
    let _ = sysctl::set(&format!("ipv6/conf/{}/accept_ra", network.bridge), "0");
    Ok(link)
}

fn addresses(network: &Network, link: &NetworkLink, here: &mut RouteNetlink) -> Result<()> {
    let present = here.addresses(link.index)?;
    if network.gateway6.is_some() {
        let name = format!("ipv6/conf/{}/disable_ipv6", network.bridge);
        sysctl::set(&name, "0").context(name)?;
    }
    for gateway in network.gateways() {
        let same = |other: &&crate::netlink::address::Cidr| {
            other.address.is_ipv4() == gateway.address.is_ipv4()
                && !matches!(other.address, std::net::IpAddr::V6(a) if a.is_unicast_link_local())
        };
        let others: Vec<_> = present.iter().filter(same).collect();
        if others.contains(&&gateway) {
            continue;
        }
        if let [other, ..] = others[..] {
            bail!(
                "bridge {}: has the address {other} and not {gateway}",
                network.bridge
            );
        }
        match here.add_address(link.index, gateway) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => {
                return Err(errno).with_context(|| format!("{} on {}", gateway, network.bridge));
            }
        }
    }
    Ok(())
}

/// Turns on forwarding, without which no packet leaves the bridge for another network. This is
/// logged, and stays on.
pub(super) fn forward(network: &Network) -> Result<()> {
    if network.internal {
        return Ok(());
    }
    let switch = |name: &str| -> Result<()> {
        if sysctl::read_sysctl(name).as_deref() == Some("0") {
            sysctl::set(name, "1").with_context(|| name.to_owned())?;
            log::warn(format_args!(
                "net/{name} is 1 now: this host forwards packets"
            ));
        }
        Ok(())
    };
    switch("ipv4/ip_forward")?;
    if network.gateway6.is_none() {
        return Ok(());
    }
    // A host that forwards ignores router advertisements, by which its own route may have come,
    // unless accept_ra is 2.
    if sysctl::read_sysctl("ipv6/conf/all/forwarding").as_deref() == Some("0") {
        for name in RouteNetlink::here()?.names()? {
            let accept = format!("ipv6/conf/{name}/accept_ra");
            if name != network.bridge && sysctl::read_sysctl(&accept).as_deref() == Some("1") {
                let _ = sysctl::set(&accept, "2");
            }
        }
    }
    switch("ipv6/conf/all/forwarding")
}

/// Brings up the host's end of a container's pair, which is a port of the bridge and nothing else.
/// It is up before the container starts, so that there is a carrier.
pub(super) fn raise_port(name: &str, alias: &str, here: &mut RouteNetlink) -> Result<()> {
    let link = here.find(name)?.with_context(|| name.to_owned())?;
    // It gets no address of its own and ignores router advertisements. Errors are ignored, since
    // the kernel may have no IPv6.
    let _ = sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "1");
    let _ = sysctl::set(&format!("ipv6/conf/{name}/accept_ra"), "0");
    let filtered = [
        "bridge/bridge-nf-call-iptables",
        "bridge/bridge-nf-call-ip6tables",
    ];
    if filtered
        .iter()
        .any(|name| sysctl::read_sysctl(name).as_deref() == Some("1"))
    {
        here.hairpin(link.index).with_context(|| name.to_owned())?;
    }
    here.up_with_alias(link.index, alias)
        .with_context(|| name.to_owned())
}
