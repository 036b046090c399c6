//! Point-to-point links: a veth pair between two containers, or a container and the host, with an
//! address and a route of one host each.

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::address::Cidr;
use super::link::{Links, New};
use super::network::hash;
use super::request::PointToPoint;
use super::store::{Point, Record, Store};
use super::target::Target;

/// The links decided: names of both ends. The peer must be there.
pub(super) fn plan(store: &Store, id: &str, wanted: &[PointToPoint]) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for (at, link) in wanted.iter().enumerate() {
        if link.peer != "host" {
            peer(store, &link.peer)?;
        }
        let name =
            format!("rtp{:012x}", hash(&format!("{}/{id}/{at}", link.peer)) & 0xffff_ffff_ffff);
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

pub(super) fn make(store: &Store, target: &Target, record: &Record) -> Result<()> {
    for point in &record.points {
        let context = || format!("point-to-point: {}", point.peer);
        let pair = || {
            let outer = New { name: &point.peer_interface, mtu: 0, mac: None };
            let inner = New { name: &point.interface, mtu: 0, mac: None };
            let mut here = Links::here()?;
            match here.add_pair(outer, inner, target.fd().as_fd(), 0) {
                Err(Errno::EEXIST) => bail!("{} or {}: exists", outer.name, inner.name),
                result => result?,
            }
            end(&mut here, &point.peer_interface, point.its, point.own)
        };
        match point.peer.as_str() {
            "host" => pair(),
            id => peer(store, id)?.inside(pair),
        }
        .with_context(context)?;
        target
            .inside(|| end(&mut Links::here()?, &point.interface, point.own, point.its))
            .with_context(context)?;
    }
    Ok(())
}

/// One end: its own address alone, and the other one's beyond the link.
fn end(
    links: &mut Links,
    name: &str,
    own: std::net::IpAddr,
    other: std::net::IpAddr,
) -> Result<()> {
    let link = links.find(name)?.with_context(|| name.to_owned())?;
    links.add_address(link.index, Cidr::host(own)).context("address")?;
    links.up(link.index).context("up")?;
    links.add_route(Cidr::host(other), link.index, None, Some(own)).context("route")
}

/// One end is enough: the other one goes with it. A container that is gone has taken its ends along.
pub(super) fn remove(record: &Record, point: &Point, here: &mut Links) -> Result<()> {
    if point.peer == "host" {
        return here.remove(&point.peer_interface);
    }
    match Target::of_record(record)? {
        Some(target) => target.inside(|| {
            let mut links = Links::here()?;
            // Another interface may have had the name before.
            let ours = links.find(&point.interface)?.is_some_and(|link| link.kind == "veth");
            if ours { links.remove(&point.interface) } else { Ok(()) }
        }),
        None => Ok(()),
    }
}
