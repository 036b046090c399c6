//! Point-to-point links: a veth pair between two containers, or between a container and the host.
//! Each end has an address, and a route to the one address of the other end.

use std::net::IpAddr;
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::interface::peer_interface;
use super::ours;
use super::record::{NetworkRecord, Point};
use super::request::PointToPoint;
use super::store::Store;
use super::target::Target;
use crate::netlink::address::Cidr;
use crate::netlink::link::{NewLink, RouteNetlink};

/// Decides the links and the names of their ends. The peer must exist.
pub(super) fn plan(store: &Store, id: &str, wanted: &[PointToPoint]) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for (at, link) in wanted.iter().enumerate() {
        let name = peer_interface(&link.peer, id, at);
        let context = || format!("point-to-point: {}", link.peer);
        match link.peer.as_str() {
            "host" => check_routes(store, link).with_context(context)?,
            other => {
                peer(store, other)?
                    .inside(|| check_routes(store, link))
                    .with_context(context)?;
            }
        }
        points.push(Point {
            peer: link.peer.clone(),
            interface: link.interface.clone().unwrap_or_else(|| format!("p2p{at}")),
            own: link.own,
            its: link.its,
            peer_interface: name,
        });
    }
    Ok(points)
}

/// Refuses addresses that the peer's namespace, in which this runs, has itself or reaches
/// elsewhere: the container that asks for the link would get packets that are for others. The
/// peer's own end may have the same address in several links.
fn check_routes(store: &Store, link: &PointToPoint) -> Result<()> {
    let mut here = RouteNetlink::here()?;
    let mut ends = Vec::new();
    for record in store.records()? {
        for point in record.points.iter().filter(|point| point.peer == link.peer) {
            if point.its == link.its {
                ends.extend(here.find(&point.peer_interface)?.map(|end| end.index));
            }
        }
    }
    for route in here.all_routes()? {
        // Some programs write a default route as two routes to one half of all addresses each.
        if route.to.prefix <= 1 {
            continue;
        }
        if route.to.contains(link.own) {
            bail!(
                "{}: is reached elsewhere, by the route to {}",
                link.own,
                route.to
            );
        }
        if route.to.contains(link.its) && !ends.contains(&route.index) {
            bail!(
                "{}: is reached elsewhere, by the route to {}",
                link.its,
                route.to
            );
        }
    }
    [link.own, link.its].into_iter().try_for_each(check_unicast)
}

/// Refuses an address that is not the address of one host.
fn check_unicast(address: IpAddr) -> Result<()> {
    let special = match address {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.octets()[0] == 0,
        IpAddr::V6(_) => false,
    };
    if special || address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        bail!("{address}: not an address of one host");
    }
    Ok(())
}

fn peer(store: &Store, id: &str) -> Result<Target> {
    let context = || format!("point-to-point: {id}");
    let record = store.record(id).with_context(context)?;
    let target = match record {
        Some(record) => Target::of_record(&record).with_context(context)?,
        None => None,
    };
    match target {
        Some(target) => Ok(target),
        None => bail!("point-to-point: {id}: no such container with a network of rt's"),
    }
}

pub(super) fn make(store: &Store, target: &Target, record: &NetworkRecord) -> Result<()> {
    for point in &record.points {
        let context = || format!("point-to-point: {}", point.peer);
        let pair = || {
            let outer = NewLink {
                name: &point.peer_interface,
                mtu: 0,
                mac: None,
            };
            let inner = NewLink {
                name: &point.interface,
                mtu: 0,
                mac: None,
            };
            let mut here = RouteNetlink::here()?;
            match here.add_pair(outer, inner, target.fd().as_fd(), 0) {
                Err(Errno::EEXIST) => bail!("{} or {}: exists", outer.name, inner.name),
                result => result?,
            }
            let alias = ours::alias(&point.peer, &record.id);
            end(
                &mut here,
                &point.peer_interface,
                (point.its, point.own),
                Some(&alias),
            )
        };
        match point.peer.as_str() {
            "host" => pair(),
            id => peer(store, id)?.inside(pair),
        }
        .with_context(context)?;
        target
            .inside(|| {
                end(
                    &mut RouteNetlink::here()?,
                    &point.interface,
                    (point.own, point.its),
                    None,
                )
            })
            .with_context(context)?;
    }
    Ok(())
}

/// Configures one end: its own address alone, and a route to the other end's address over the link.
fn end(
    links: &mut RouteNetlink,
    name: &str,
    (own, other): (IpAddr, IpAddr),
    alias: Option<&str>,
) -> Result<()> {
    let link = links.find(name)?.with_context(|| name.to_owned())?;
    match alias {
        Some(alias) => links.up_with_alias(link.index, alias).context("up")?,
        None => links.up(link.index).context("up")?,
    }
    links
        .add_address(link.index, Cidr::host(own))
        .context("address")?;
    links
        .add_route(Cidr::host(other), link.index, None, Some(own))
        .context("route")
}

/// Removes one end, and the other one with it. If a container has gone, so have its ends.
pub(super) fn remove(
    store: &Store,
    record: &NetworkRecord,
    point: &Point,
    here: &mut RouteNetlink,
) -> Result<()> {
    let whose = (point.peer.as_str(), record.id.as_str());
    if point.peer == "host" {
        return ours::remove(store, here, &point.peer_interface, whose);
    }
    // The name of the peer's end is unique. The name of the container's own end is not: it may
    // belong to another interface.
    let peer = match store.record(&point.peer)? {
        Some(peer) => Target::of_record(&peer)?,
        None => None,
    };
    match peer {
        Some(peer) => peer.inside(|| remove_veth(&point.peer_interface)),
        None => Ok(()),
    }?;
    let others = store.records()?;
    let mut others = others.iter().filter(|other| other.id != record.id);
    if others.any(|other| other.namespace == record.namespace) {
        return Ok(());
    }
    match Target::of_record(record)? {
        Some(target) => target.inside(|| remove_veth(&point.interface)),
        None => Ok(()),
    }
}

fn remove_veth(name: &str) -> Result<()> {
    let mut links = RouteNetlink::here()?;
    // The name may belong to another interface that was there before.
    let is_veth = links.find(name)?.is_some_and(|link| link.kind == "veth");
    if is_veth { links.remove(name) } else { Ok(()) }
}
