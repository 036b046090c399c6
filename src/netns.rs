//! The network of a container. So far: the loopback interface of a fresh network namespace.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::namespace::Namespaces;
use crate::sys;

/// Brings `lo` up where the network namespace is new; podman's pods and `--network none` count
/// on it.
pub(crate) fn bring_loopback_up(namespaces: &Namespaces) -> Result<()> {
    if !namespaces.has_new_network() {
        return Ok(());
    }
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None).context("lo")?;
    sys::bring_interface_up(socket.as_fd(), "lo").context("lo")?;
    sys::close_later([socket]);
    Ok(())
}
