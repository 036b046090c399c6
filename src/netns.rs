//! `rt netns` gives a container interfaces, addresses, ports and names. It is an OCI hook and a
//! command for people. No other command of `rt` runs it, and it serves the containers of any
//! runtime.
//!
//! The files from top to bottom; no file imports one above it:
//!
//! | file | what it is |
//! |---|---|
//! | `command.rs` `show.rs` | the verbs; what `list` and `inspect` print |
//! | `config.rs` | what `rt spec` writes for a container with a network |
//! | `attach.rs` `allocator.rs` `detach.rs` | `add`; which address is free; `del` |
//! | `firewall.rs` `firewall/` | which packets pass |
//! | `serve.rs` `serve/` | the helper process: names and relays |
//! | `bridge.rs` `point.rs` | the host's bridge; point-to-point links |
//! | `ours.rs` `target.rs` | the host's interfaces that `rt` has made; a container's namespace |
//! | `remains.rs` `in_use.rs` | containers with unreadable records; the networks in use |
//! | `entry.rs` `lease.rs` | all network records; which container has which address |
//! | `store.rs` `file.rs` | the directory of all records, under a lock; its files |
//! | `record.rs` | the network record of one container |
//! | `ports.rs` `conntrack.rs` | sockets that hold published ports; forgetting old connections |
//! | `network.rs` `description.rs` | networks; the contents of their files |
//! | `request.rs` `publish.rs` | what containers ask for (pure) |
//! | `hosts.rs` `resolv_conf.rs` | a container's files |
//! | `host.rs` `interface.rs` `sysctl.rs` | directories; names of interfaces; kernel settings |

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

pub use command::{NETWORK_OPTIONS, NamespacePlace, Verb, run};
pub use config::{NamespaceChoice, SpecParts, make_files, parts};
pub use host::{DEFAULT_NETWORKS, DEFAULT_STATE, Host};
#[cfg(any(test, fuzzing))]
pub use request::NetworkRequest;
pub use request::{ANNOTATION, OPTIONS, Options};

/// Parses arbitrary bytes, for [`crate::fuzz`], as input from containers or from the kernel. The
/// first byte chooses the parser.
#[cfg(any(test, fuzzing))]
pub fn read_anything(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, query)) => serve::read_anything(query),
        Some((1, message)) => crate::netlink::link::read_anything(message),
        Some((_, json)) => network::read_anything(json),
        None => {}
    }
}
