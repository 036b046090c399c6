//! Published ports are held by sockets, so that two that want the same one meet an error, and so
//! that what the kernel's way does not serve arrives at the helper process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, getsockname,
    listen, setsockopt, socket, sockopt,
};

use super::request::{Protocol, Publish};

/// A socket on a port of the host, and where in the container its traffic goes.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) socket: OwnedFd,
    pub(super) protocol: Protocol,
    pub(super) to: SocketAddr,
}

/// Binds everything that `publish` asks for; a host port 0 becomes the one that is given.
pub(super) fn hold(publish: &mut Publish, to: IpAddr, to6: Option<IpAddr>) -> Result<Vec<Held>> {
    let mut held = Vec::new();
    for n in 0..publish.to.count {
        let port = publish.to.first + n;
        for address in addresses(publish.bind) {
            let target = if address.is_ipv6() { to6.unwrap_or(to) } else { to };
            let host = match publish.host {
                0 => 0,
                host => host + n,
            };
            let at = SocketAddr::new(address, host);
            let socket = match open(at, publish.to.protocol) {
                // No IPv6, no SCTP: then nobody else can have the port either.
                Err(Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT)
                    if address.is_ipv6() || publish.to.protocol == Protocol::Sctp =>
                {
                    continue;
                }
                Err(Errno::EADDRNOTAVAIL) if publish.bind.is_none() => continue,
                result => result.with_context(|| name(at, publish.to.protocol))?,
            };
            if publish.host == 0 {
                publish.host = number(&socket)?;
            }
            held.push(Held {
                socket,
                protocol: publish.to.protocol,
                to: SocketAddr::new(target, port),
            });
        }
    }
    Ok(held)
}

fn name(at: SocketAddr, protocol: Protocol) -> String {
    format!("publish: {at}/{}", protocol.name())
}

/// Both families' wildcards if nothing is said.
fn addresses(bind: Option<IpAddr>) -> Vec<IpAddr> {
    match bind {
        Some(bind) => vec![bind],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

fn open(at: SocketAddr, protocol: Protocol) -> nix::Result<OwnedFd> {
    let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, Some(SockProtocol::Tcp)),
        Protocol::Udp => (SockType::Datagram, Some(SockProtocol::Udp)),
        Protocol::Sctp => (SockType::Stream, Some(SockProtocol::Sctp)),
    };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, number)?;
    if at.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    if protocol != Protocol::Udp {
        // Connections that ended a moment ago do not keep the port; a listener still does.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(at))?;
    if protocol != Protocol::Udp {
        listen(&fd, Backlog::new(128)?)?;
    }
    Ok(fd)
}

fn number(socket: &OwnedFd) -> Result<u16> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd()).context("getsockname")?;
    let v4 = address.as_sockaddr_in().map(|address| address.port());
    v4.or(address.as_sockaddr_in6().map(|address| address.port()))
        .ok_or_else(|| anyhow!("getsockname: not an address"))
}

/// Whether the address is one of this host's.
pub(super) fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}
