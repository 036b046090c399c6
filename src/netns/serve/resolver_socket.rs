//! The sockets that questions arrive at: a command opens them, and the helper answers on them.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};

use super::super::network::Network;

/// What may wait in the kernel for the resolver, in bytes: some thousand questions.
const RESOLVER_BUFFER: usize = 4 << 20;
/// How many connections may wait there.
const RESOLVER_BACKLOG: i32 = 1024;

/// UDP and TCP on each of the gateway's addresses.
pub(super) fn resolver_sockets(network: &Network) -> Result<Vec<OwnedFd>> {
    const PORT: u16 = 53;
    let mut sockets = Vec::new();
    for gateway in network.gateways() {
        let address = SocketAddr::new(gateway.address, PORT);
        for kind in [SockType::Datagram, SockType::Stream] {
            let socket = resolver_socket(network, address, kind);
            sockets.push(socket.with_context(|| {
                format!(
                    "resolver {address} (\"resolver\": false in the network's file does without)"
                )
            })?);
        }
    }
    Ok(sockets)
}

/// One that hears nothing but what comes by the network's bridge: from other interfaces somebody
/// could ask with a member's address.
fn resolver_socket(network: &Network, address: SocketAddr, kind: SockType) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, kind, flags, None)?;
    setsockopt(&fd, sockopt::BindToDevice, &network.bridge.clone().into())?;
    let is_stream = kind == SockType::Stream;
    if is_stream {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    } else if setsockopt(&fd, sockopt::RcvBufForce, &RESOLVER_BUFFER).is_err() {
        // Less will do: it is a matter of how long a flood may last.
        let _ = setsockopt(&fd, sockopt::RcvBuf, &RESOLVER_BUFFER);
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    if is_stream {
        listen(&fd, Backlog::new(RESOLVER_BACKLOG)?)?;
    }
    Ok(fd)
}

/// Binds a resolver's socket to the bridge again, which may have been removed and made anew.
pub(super) fn bind_to_bridge(socket: &impl AsFd, network: &Network) {
    // Without a bridge there is nobody to be heard.
    let _ = setsockopt(
        &socket.as_fd(),
        sockopt::BindToDevice,
        &network.bridge.clone().into(),
    );
}
