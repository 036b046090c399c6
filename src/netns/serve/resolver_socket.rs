//! The sockets at which questions arrive. A command opens them, and the helper answers on them.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};

use super::super::network::Network;

/// The size of the buffer in which questions wait in the kernel, in bytes: some thousand questions.
const RESOLVER_BUFFER: usize = 4 << 20;
/// How many TCP connections may wait in the kernel.
const RESOLVER_BACKLOG: i32 = 1024;

/// Opens a UDP and a TCP socket on each of the network's gateway addresses.
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

/// Opens one socket, which receives only what comes in through the bridge of the network. Through
/// another interface somebody could ask with the address of a member.
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
        // A smaller buffer will do: it only has to be enough for a shorter flood.
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
    // Without a bridge nobody can ask, so an error does not matter.
    let _ = setsockopt(
        &socket.as_fd(),
        sockopt::BindToDevice,
        &network.bridge.clone().into(),
    );
}
