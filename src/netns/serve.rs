//! The helper process of a network, `rt netns serve`: it answers for the containers' names, holds
//! their published ports, and relays the connections and datagrams that the rules of the kernel do
//! not serve. It starts with the first container and ends with the last. If it is killed, the
//! kernel goes on forwarding packets, and the next `add` or `check --repair` starts it again.
//!
//! ```text
//!  add, del (under the lock)                    helper
//!     connect serve.sock ───────────────────────▶ accept
//!     "hello"            ───────────────────────▶
//!              ◀──────────────────── "ok" or "new" (knows nothing yet)
//!     "add ID\ntcp A:P…" + sockets ─────────────▶ reads the record, holds the sockets
//!     "more ID\ntcp …" + sockets ───────────────▶ holds these, too
//!     "dns" + sockets    ───────────────────────▶ answers on them
//!     "ready"            ───────────────────────▶ knows all that it should
//!     "del ID"           ───────────────────────▶ forgets both
//!     "end"              ───────────────────────▶ ends, which closes the connection
//! ```
//!
//! The helper answers every message but "end" by one word, or by the line of an error. The socket
//! is the standard input of a new helper, so that no command has to wait until it is ready.
//!
//! Clients decide how much work they make, so all of it is budgeted: `budget.rs` says how much one
//! client and one container may have, `inbox.rs` lets questions wait for their turn, and no source
//! is served for longer than a turn.
//!
//! | file | what it is |
//! |---|---|
//! | `helper.rs` `start.rs` `connection.rs` | the commands' side: starting a helper, messages |
//! | `event_loop.rs` `control.rs` | the helper's loop; what it does for a message of a command |
//! | `server.rs` `source.rs` | the helper's state; what it waits for |
//! | `resolve.rs` `carry.rs` | the loop's parts for questions and for published ports |
//! | `dns.rs` `stream.rs` `message.rs` `resolver_socket.rs` | names: answers, TCP, bytes, sockets |
//! | `relay.rs` | connections and datagrams that are relayed |
//! | `client.rs` `budget.rs` `inbox.rs` | what counts as a client, how much it may have, its turn |
//! | `cgroup.rs` | the helper's cgroup |

mod budget;
mod carry;
mod cgroup;
mod client;
mod connection;
mod control;
mod dns;
mod event_loop;
mod helper;
mod inbox;
mod message;
mod relay;
mod resolve;
mod resolver_socket;
mod server;
mod source;
mod start;
mod stream;

pub(super) use event_loop::serve;
pub(super) use helper::{add, del, end, is_up, repair};
#[cfg(any(test, fuzzing))]
pub(super) use message::read_anything;
