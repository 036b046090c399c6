//! The interfaces that `create` gives to a new network namespace: loopback, and those of
//! `linux.netDevices`.

pub mod devices;

use std::fs::File;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::namespace::Namespaces;
use crate::sys;

/// Brings `lo` up if the network namespace is new; podman's pods and `--network none` count on it.
pub fn bring_loopback_up(namespaces: &Namespaces) -> Result<()> {
    if !namespaces.has_new(CloneFlags::CLONE_NEWNET) {
        return Ok(());
    }
    bring_up().context("lo")
}

/// Brings `lo` up in the network namespace of process `pid`, and calls `more` there.
pub fn bring_loopback_up_of(pid: i32, more: impl FnOnce() -> Result<()>) -> Result<()> {
    let open = |path: &str| File::open(path).context(path.to_owned());
    let (home, target) = (
        open("/proc/self/ns/net")?,
        open(&format!("/proc/{pid}/ns/net"))?,
    );
    setns(target, CloneFlags::CLONE_NEWNET).context("the container's network")?;
    let up = bring_up().context("lo").and_then(|()| more());
    setns(home, CloneFlags::CLONE_NEWNET).context("back to the own network")?;
    up
}

fn bring_up() -> Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    sys::bring_interface_up(socket.as_fd(), "lo")?;
    Ok(())
}
