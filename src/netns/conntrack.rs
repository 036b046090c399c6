//! Connections that the kernel remembers. A UDP connection that began before a port was published,
//! or that outlives it, would keep sending its packets to the old target.

use std::net::IpAddr;

use nix::errno::Errno;

use super::publish::{Protocol, Publish};
use crate::netlink::{DUMP, NetlinkMessage, NetlinkSocket, attribute};

// <linux/netfilter/nfnetlink_conntrack.h>
const SUBSYSTEM: u16 = 1;
const CT_GET: u16 = 1;
const CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;

/// The family of an entry, and its original tuple as the kernel wrote it.
type Entry = (u8, Vec<u8>);

/// Makes the kernel forget the UDP and SCTP connections to published ports, on every address of the
/// host, and no others. A kernel without connection tracking has none.
pub(super) fn flush(publish: &[Publish], addresses: &[IpAddr]) -> nix::Result<()> {
    if publish
        .iter()
        .all(|publish| publish.to.protocol == Protocol::Tcp)
    {
        return Ok(());
    }
    let mut socket = match NetlinkSocket::netfilter() {
        Err(Errno::EPROTONOSUPPORT) => return Ok(()),
        result => result?,
    };
    let mut found: Vec<Entry> = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let message = NetlinkMessage::new(SUBSYSTEM << 8 | CT_GET, DUMP, &[family, 0, 0, 0]);
        let result = socket.query(message, |_, payload| {
            found.extend(stale(payload, publish, addresses));
        });
        match result {
            Err(Errno::EOPNOTSUPP | Errno::EINVAL) => return Ok(()),
            result => result?,
        }
    }
    for (family, tuple) in found {
        let mut message = NetlinkMessage::new(SUBSYSTEM << 8 | CT_DELETE, 0, &[family, 0, 0, 0]);
        message.nest(CTA_TUPLE_ORIG, |m| {
            m.raw(&tuple);
        });
        match socket.request(message) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Returns the entry if it went to one of the ports, and either to an address of the host or on to
/// one of the container's.
fn stale(payload: &[u8], publish: &[Publish], addresses: &[IpAddr]) -> Option<Entry> {
    let attributes = payload.get(4..)?;
    let tuple = attribute(attributes, CTA_TUPLE_ORIG)?;
    let (_, destination, protocol, port) = parse(tuple)?;
    let (source, ..) = parse(attribute(attributes, CTA_TUPLE_REPLY)?)?;
    let hit = publish.iter().any(|publish| {
        publish.to.protocol != Protocol::Tcp
            && publish.to.protocol.number() == protocol
            && port >= publish.host
            && port - publish.host < publish.to.count
            && publish
                .bind
                .is_none_or(|bind| bind.is_unspecified() || bind == destination)
    });
    // A connection that only passes through the host, to the same port of another machine, stays:
    // its answers come from that machine, so neither condition is true.
    let here = addresses.contains(&source) || super::ports::is_local(destination);
    (hit && here).then(|| (payload[0], tuple.to_vec()))
}

/// Returns source, destination, protocol and destination port of a tuple.
fn parse(tuple: &[u8]) -> Option<(IpAddr, IpAddr, u8, u16)> {
    let ip = attribute(tuple, CTA_TUPLE_IP)?;
    let address = |v4: u16, v6: u16| -> Option<IpAddr> {
        match attribute(ip, v4) {
            Some(bytes) => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            None => <[u8; 16]>::try_from(attribute(ip, v6)?)
                .ok()
                .map(IpAddr::from),
        }
    };
    let (source, destination) = (address(1, 3)?, address(2, 4)?);
    let protocol = attribute(tuple, CTA_TUPLE_PROTO)?;
    let number = *attribute(protocol, 1)?.first()?;
    let port = <[u8; 2]>::try_from(attribute(protocol, 3)?)
        .ok()
        .map(u16::from_be_bytes)?;
    Some((source, destination, number, port))
}
