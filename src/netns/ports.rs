//! Sockets that hold published ports, so that a second container that wants the same port gets an
//! error, and so that packets which the kernel's translation does not serve arrive at the helper
//! process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Once;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, getsockname,
    listen, setsockopt, socket, sockopt,
};

use super::publish::{Protocol, Publish};

/// A socket on a port of the host, and where in the container its traffic goes.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) socket: OwnedFd,
    pub(super) protocol: Protocol,
    pub(super) to: SocketAddr,
    /// The target for clients with an IPv6 address, if one socket serves both families and this
    /// target is another one.
    pub(super) to6: Option<SocketAddr>,
}

/// Binds all ports that `publish` asks for. Host port 0 is replaced by the port that the kernel
/// chooses.
pub(super) fn hold(publish: &mut Publish, to: IpAddr, to6: Option<IpAddr>) -> Result<Vec<Held>> {
    allow_many();
    let protocol = publish.to.protocol;
    let mut held = Vec::new();
    for n in 0..publish.to.count {
        let port = publish.to.first + n;
        let host = match publish.host {
            0 => 0,
            host => host + n,
        };
        let socket = match open_at(publish.bind, host, protocol) {
            // Without SCTP in the kernel nobody else can have the port either.
            Err((_, Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT))
                if protocol == Protocol::Sctp =>
            {
                continue;
            }
            // Without IPv6 in the kernel nobody else can have the port either.
            Err((at, Errno::EAFNOSUPPORT)) if at.is_ipv6() => continue,
            Err((at, errno)) => return Err(errno).with_context(|| name(at, protocol)),
            Ok(socket) => socket,
        };
        if publish.host == 0 {
            publish.host = number(&socket)?;
        }
        let is_v6 = publish.bind.is_some_and(|bind| bind.is_ipv6());
        let first = if is_v6 { to6.unwrap_or(to) } else { to };
        let second = to6.filter(|_| publish.bind.is_none());
        held.push(Held {
            socket,
            protocol,
            to: SocketAddr::new(first, port),
            to6: second.map(|second| SocketAddr::new(second, port)),
        });
    }
    Ok(held)
}

/// Raises the limit of open files, since each port takes a descriptor and a shell allows few.
fn allow_many() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
            && soft < hard
        {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
    });
}

fn name(at: SocketAddr, protocol: Protocol) -> String {
    format!("publish: {at}/{}", protocol.name())
}

/// Opens a socket on the address, or on every address of both families. One socket serves both,
/// since there may be as many ports as descriptors.
///
/// # Errors
/// The error of the socket, with the address that it was meant for.
fn open_at(
    bind: Option<IpAddr>,
    port: u16,
    protocol: Protocol,
) -> std::result::Result<OwnedFd, (SocketAddr, Errno)> {
    let at = |address: IpAddr| SocketAddr::new(address, port);
    if let Some(bind) = bind {
        return open_socket(at(bind), true, protocol).map_err(|errno| (at(bind), errno));
    }
    let v4 = at(Ipv4Addr::UNSPECIFIED.into());
    match open_socket(at(Ipv6Addr::UNSPECIFIED.into()), false, protocol) {
        // A host without IPv6.
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => open_socket(v4, true, protocol),
        result => result,
    }
    .map_err(|errno| (v4, errno))
}

fn open_socket(at: SocketAddr, v6_only: bool, protocol: Protocol) -> nix::Result<OwnedFd> {
    let family = if at.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, Some(SockProtocol::Tcp)),
        Protocol::Udp => (SockType::Datagram, Some(SockProtocol::Udp)),
        Protocol::Sctp => (SockType::Stream, Some(SockProtocol::Sctp)),
    };
    let fd = socket(
        family,
        kind,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        number,
    )?;
    if at.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &v6_only)?;
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

/// Whether the address belongs to this host.
pub(super) fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}
