//! `rt netns` gives a container interfaces, addresses, ports and names. It is a hook of the OCI's and a
//! command for people; nothing else of `rt` calls it, and it serves the containers of any runtime.
//!
//! From the top, and no file imports one above it:
//!
//! | file | what it is |
//! |---|---|
//! | `command.rs` `show.rs` | the verbs; what `list` and `inspect` print |
//! | `config.rs` | what `rt spec` writes for a container with a network |
//! | `attach.rs` `allocator.rs` `detach.rs` | `add`; which address is free; `del` |
//! | `firewall.rs` `firewall/` | which packets pass |
//! | `serve.rs` `serve/` | the helper process: names and relays |
//! | `bridge.rs` `point.rs` | the host's end, links of two |
//! | `ours.rs` `target.rs` | which interfaces of the host are ours; a container's namespace |
//! | `remains.rs` `in_use.rs` | what cannot be read; the networks in use |
//! | `entry.rs` `lease.rs` | the records that there are; who has which address |
//! | `store.rs` `file.rs` | what is remembered under a lock; its files |
//! | `record.rs` | what is remembered of one container |
//! | `ports.rs` `conntrack.rs` | published ports, held; connections that are forgotten |
//! | `network.rs` `description.rs` | networks, and what stands in their files |
//! | `request.rs` `publish.rs` | wishes of containers (pure) |
//! | `hosts.rs` `resolv_conf.rs` | a container's files |
//! | `host.rs` `interface.rs` `sysctl.rs` | directories, names of interfaces, settings of the kernel |

mod allocator;
mod attach;
mod bridge;
mod command;
mod config;
mod conntrack;
mod description;
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
mod publish;
mod record;
mod remains;
mod request;
mod resolv_conf;
mod serve;
mod show;
mod store;
mod sysctl;
mod target;

pub(crate) use command::{NETWORK_OPTIONS, NamespacePlace, Verb, run};
pub(crate) use config::{NamespaceChoice, Parts, make_files, parts};
pub(crate) use host::{DEFAULT_NETWORKS, DEFAULT_STATE, Host};
#[cfg(any(test, fuzzing))]
pub(crate) use request::NetworkRequest;
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
