//! `rt netns` gives a container interfaces, addresses, ports and names. It is a hook of the OCI's and a
//! command for people; nothing else of `rt` calls it, and it serves the containers of any runtime.
//!
//! | file | what it is |
//! |---|---|
//! | `command.rs` `show.rs` | the verbs; what `list` and `inspect` print |
//! | `network.rs` `request.rs` | files of networks, wishes of containers (pure) |
//! | `store.rs` `lease.rs` | what is remembered under a lock; which address is free |
//! | `remains.rs` `ours.rs` | what cannot be read; which interfaces of the host are ours |
//! | `attach.rs` `detach.rs` | `add` and `del` |
//! | `config.rs` | what `rt spec` writes for a container with a network |
//! | `bridge.rs` `point.rs` `target.rs` `sysctl.rs` | the host's end, links of two, a namespace |
//! | `firewall.rs` `firewall/` `ports.rs` `conntrack.rs` | which packets pass; published ports |
//! | `serve.rs` `serve/` `hosts.rs` | the helper process: names and relays; a container's files |

mod allocator;
mod attach;
mod bridge;
mod command;
mod config;
mod conntrack;
mod detach;
mod entry;
mod file;
mod firewall;
mod host;
mod hosts;
mod in_use;
mod interface;
mod lease;
mod network;
mod ours;
mod point;
mod ports;
mod record;
mod remains;
mod request;
mod resolv_conf;
mod serve;
mod show;
mod store;
mod sysctl;
mod target;

pub(crate) use command::{NETWORK_OPTIONS, Place, Verb, run};
pub(crate) use config::{Namespace, Parts, make_files, parts};
pub(crate) use host::{DEFAULT_NETWORKS, DEFAULT_STATE, Host};
#[cfg(any(test, fuzzing))]
pub(crate) use request::Request;
pub(crate) use request::{ANNOTATION, OPTIONS, Options};

/// For [`crate::fuzz`]: what comes from containers and from the kernel. The first byte says which.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_anything(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, query)) => serve::read_anything(query),
        Some((1, message)) => crate::netlink::link::read_anything(message),
        Some((_, json)) => network::read_anything(json),
        None => {}
    }
}
