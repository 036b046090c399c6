//! The sources of events that the helper waits for.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::sys::epoll::EpollFlags;

use super::dns::Pending;
use super::relay::{self, Flow};
use super::stream;

/// How many connections or datagrams of one socket are taken before it is another one's turn.
pub(super) const TURN: usize = 64;
/// The flags of a socket that is watched edge-triggered: each change is reported once.
pub(super) const EDGES: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLET);

/// One source of events, with the data that belongs to it.
pub(super) enum Source {
    Listener(OwnedFd),
    Commander(OwnedFd),
    Udp(UdpSocket, Published),
    Tcp(TcpListener, Published),
    /// A port that is only held.
    Held(#[allow(dead_code, reason = "to be open is its use")] OwnedFd),
    Relay(relay::RelayStream),
    Flow(Flow),
    Resolver(UdpSocket),
    ResolverTcp(TcpListener),
    Pending(Pending),
    Query(stream::Stream),
}

/// The container's address to which a published port leads.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) container: Rc<str>,
    pub(super) to: SocketAddr,
    /// The target for clients with an IPv6 address, if it is another one.
    pub(super) to6: Option<SocketAddr>,
}

impl Published {
    pub(super) fn target(&self, client: SocketAddr) -> SocketAddr {
        let is_v6 = client.ip().to_canonical().is_ipv6();
        self.to6.filter(|_| is_v6).unwrap_or(self.to)
    }
}
