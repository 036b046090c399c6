//! The network of a container: loopback for every new namespace, and `rt netns`, which gives a
//! container interfaces, addresses, ports and names. It is a hook of the OCI's and a command for
//! people; nothing else of `rt` calls it, and it serves the containers of any runtime.
//!
//! | file | what it is |
//! |---|---|
//! | `command.rs` `show.rs` | the verbs; what `list` and `inspect` print |
//! | `network.rs` `request.rs` `address.rs` | files of networks, wishes of containers (pure) |
//! | `store.rs` `lease.rs` | what is remembered under a lock; which address is free |
//! | `remains.rs` `ours.rs` | what cannot be read; which interfaces of the host are ours |
//! | `attach.rs` `detach.rs` | `add` and `del` |
//! | `config.rs` | what `rt spec` writes for a container with a network |
//! | `bridge.rs` `point.rs` `target.rs` `sysctl.rs` | the host's end, links of two, a namespace |
//! | `firewall.rs` `firewall/` `ports.rs` `conntrack.rs` | which packets pass; published ports |
//! | `serve.rs` `serve/` `hosts.rs` | the helper process: names and relays; a container's files |
//! | `devices.rs` | `linux.netDevices`, which is no affair of `rt netns` |
//! | `link.rs` `netlink.rs` | interfaces, addresses and routes by netlink(7) |

mod address;
mod attach;
mod bridge;
mod command;
mod config;
mod conntrack;
mod detach;
mod devices;
mod firewall;
mod hosts;
mod lease;
mod link;
mod netlink;
mod network;
mod ours;
mod point;
mod ports;
mod remains;
mod request;
mod serve;
mod show;
mod store;
mod sysctl;
mod target;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::namespace::Namespaces;
use crate::sys;

pub(crate) use command::{NETWORK_OPTIONS, Place, Verb, run};
pub(crate) use config::{Namespace, Parts, make_files, parts};
pub(crate) use devices::{Device, Moved};
#[cfg(any(test, fuzzing))]
pub(crate) use request::Request;
pub(crate) use request::{ANNOTATION, OPTIONS};

/// Where networks are described, unless an option says something else.
pub(crate) const DEFAULT_NETWORKS: &str = "/etc/rt/networks";
/// Where they are remembered.
pub(crate) const DEFAULT_STATE: &str = "/run/rt-netns";

/// For [`crate::fuzz`]: what comes from containers and from the kernel. The first byte says which.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_anything(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, query)) => serve::read_anything(query),
        Some((1, message)) => link::read_anything(message),
        Some((_, json)) => network::read_anything(json),
        None => {}
    }
}

/// Options given: name and value.
pub(crate) type Options = Vec<(String, String)>;

/// Where networks are described and remembered.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) networks: PathBuf,
    pub(crate) state: PathBuf,
}

/// Brings `lo` up where the network namespace is new; podman's pods and `--network none` count
/// on it.
pub(crate) fn bring_loopback_up(namespaces: &Namespaces) -> Result<()> {
    if !namespaces.has_new(CloneFlags::CLONE_NEWNET) {
        return Ok(());
    }
    bring_up().context("lo")
}

/// Brings `lo` up in the network namespace of process `pid`, and does `more` there.
pub(crate) fn bring_loopback_up_of(pid: i32, more: impl FnOnce() -> Result<()>) -> Result<()> {
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
    sys::close_later([socket]);
    Ok(())
}
