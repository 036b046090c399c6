//! A network's helper process, `rt netns serve`: it answers for the containers' names, holds their
//! published ports, and carries what comes by where the kernel's way does not serve. It starts with
//! the first container and ends with the last; if it is killed, packets go on, and the next `add`
//! or `check --repair` starts it again.
//!
//! ```text
//!  add, del (under the lock)                    helper
//!     connect serve.sock ───────────────────────▶ accept
//!     "hello"            ───────────────────────▶
//!              ◀──────────────────── "ok" or "new" (knows nothing yet)
//!     "add ID\ntcp A:P…" + sockets ─────────────▶ reads the record, holds the sockets
//!     "more ID\ntcp …" + sockets ──────────────▶ holds these, too
//!     "dns" + sockets    ───────────────────────▶ answers on them
//!     "ready"            ───────────────────────▶ knows all that it should
//!     "del ID"           ───────────────────────▶ forgets both
//!     "end"              ───────────────────────▶ ends, which closes the connection
//! ```
//!
//! Every message but "end" is answered by one word, or by the line of an error. The socket is the standard input of a new
//! helper, so that nobody has to wait until it is ready.
//!
//! Whoever sends packets decides how much work they make, so all of it is budgeted: `budget.rs` says
//! how much one client and one container may have, `inbox.rs` lets questions wait for their turn, and
//! no source is served for longer than a turn.
//!
//! | file | what it is |
//! |---|---|
//! | `helper.rs` `start.rs` `connection.rs` | the commands' side: a helper is started and told |
//! | `event_loop.rs` `control.rs` | the helper's loop; what it does at a command's word |
//! | `server.rs` `source.rs` | what the helper has; what it waits for |
//! | `resolve.rs` `carry.rs` | the loop's parts for questions and for published ports |
//! | `dns.rs` `stream.rs` `message.rs` `resolver_socket.rs` | names: answers, over TCP, as bytes |
//! | `relay.rs` | connections and datagrams that are carried over |
//! | `client.rs` `budget.rs` `inbox.rs` | who counts as one, may have how much, and waits how long |
//! | `cgroup.rs` | the helper's control group |

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
