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
//! Whoever sends packets decides how much work they make, so all of it is budgeted: [`budget`] says
//! how much one client and one container may have, [`inbox`] lets questions wait for their turn, and
//! no source is served for longer than a turn.

mod budget;
mod carry;
mod cgroup;
mod dns;
mod inbox;
mod message;
mod relay;
mod resolve;
mod server;
mod stream;

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, SockaddrStorage,
    UnixAddr, bind, connect, listen, recv, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::stat::Mode;
use nix::sys::time::TimeVal;
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, setpgid};

use super::network::Network;
use super::ports::{Held, hold};
use super::record::{Endpoint, Record};
use super::store::Store;
use crate::log;
use crate::sys::{self, Fork};

pub(super) use server::serve;

const SOCKET: &str = "serve.sock";
/// How long the helper may take for an answer, in seconds.
const ANSWER_LIMIT: i64 = 10;
/// SCM_MAX_FD of the kernel is 253.
const SOCKETS_MAX: usize = 200;
/// What may wait in the kernel for the resolver, in bytes: some thousand questions.
const RESOLVER_BUFFER: usize = 4 << 20;
/// How often it is tried to open what a helper that was killed has not closed yet, and how long
/// it is waited in between.
const CLOSE_TRIES: usize = 80;
const CLOSE_PAUSE: Duration = Duration::from_millis(25);
/// How many connections may wait there.
const RESOLVER_BACKLOG: i32 = 1024;

/// For [`crate::fuzz`]: a query, and what is answered to it.
#[cfg(any(test, fuzzing))]
pub(super) fn read_anything(query: &[u8]) {
    match message::question(query) {
        None => {}
        Some(Err(code)) => drop(message::empty(query, code)),
        Some(Ok(question)) => {
            let address = message::reverse(&question.name);
            let found = address.map(message::Found::Address);
            let name = message::Found::Name(&question.name);
            message::answer(query, &question, &[found.unwrap_or(name), name]);
        }
    }
}

/// A connection to a helper.
struct Connection(OwnedFd);

impl Connection {
    fn open(directory: &Path) -> Result<Option<Self>> {
        let fd = seqpacket()?;
        match at(directory, |address| connect(fd.as_raw_fd(), address))? {
            Ok(()) => {}
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(errno).context(SOCKET),
        }
        let limit = TimeVal::new(ANSWER_LIMIT, 0);
        setsockopt(&fd, sockopt::ReceiveTimeout, &limit)?;
        setsockopt(&fd, sockopt::SendTimeout, &limit)?;
        Ok(Some(Self(fd)))
    }

    /// Sends a message with sockets and gives the answer; empty if the helper has ended.
    fn ask(&self, text: &str, sockets: &[RawFd]) -> Result<String> {
        let part = [std::io::IoSlice::new(text.as_bytes())];
        let rights = [ControlMessage::ScmRights(sockets)];
        let control = if sockets.is_empty() {
            &[][..]
        } else {
            &rights[..]
        };
        let fd = self.0.as_raw_fd();
        match sendmsg::<()>(fd, &part, control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(String::new()),
            result => result.context("helper process")?,
        };
        let mut answer = [0; 256];
        match recv(fd, &mut answer, MsgFlags::empty()) {
            Ok(length) => Ok(String::from_utf8_lossy(&answer[..length]).into_owned()),
            Err(Errno::ECONNRESET) => Ok(String::new()),
            Err(Errno::EAGAIN) => bail!("helper process: no answer in {ANSWER_LIMIT} s"),
            Err(errno) => Err(errno).context("helper process"),
        }
    }

    fn tell(&self, text: &str, sockets: &[RawFd]) -> Result<()> {
        match self.ask(text, sockets)?.as_str() {
            "ok" => Ok(()),
            "" => bail!("helper process: has ended"),
            other => bail!("helper process: {other}"),
        }
    }

    fn add(&self, id: &str, held: &[Held]) -> Result<()> {
        let mut first = true;
        for part in held.chunks(SOCKETS_MAX) {
            self.add_part(if first { "add" } else { "more" }, id, part)?;
            first = false;
        }
        if first {
            self.add_part("add", id, &[])
        } else {
            Ok(())
        }
    }

    fn add_part(&self, verb: &str, id: &str, held: &[Held]) -> Result<()> {
        let mut text = format!("{verb} {id}");
        for one in held {
            text += &format!("\n{} {}", one.protocol.name(), one.to);
            text.extend(one.to6.map(|to6| format!(" {to6}")));
        }
        let sockets: Vec<_> = held.iter().map(|one| one.socket.as_raw_fd()).collect();
        self.tell(&text, &sockets)
    }
}

fn seqpacket() -> Result<OwnedFd> {
    socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context(SOCKET)
}

/// The socket's address by way of a descriptor: a path may be too long for one.
fn at<T>(directory: &Path, work: impl FnOnce(&UnixAddr) -> T) -> Result<T> {
    let open = fs::File::open(directory).with_context(|| directory.display().to_string())?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd());
    Ok(work(&UnixAddr::new(path.as_str()).context(SOCKET)?))
}

/// Tells the network's helper of a container, and starts the helper if there is none.
pub(super) fn add(store: &Store, network: &Network, record: &Record, held: &[Held]) -> Result<()> {
    ensure(store, network, Some(&record.id))?.add(&record.id, held)
}

/// Starts the network's helper if it does not run.
pub(super) fn repair(store: &Store, network: &Network) -> Result<()> {
    ensure(store, network, None).map(drop)
}

/// The network's helper, started if need be: with everything that it should know, but for the
/// container `except`.
fn ensure(store: &Store, network: &Network, except: Option<&str>) -> Result<Connection> {
    let directory = store.network(&network.name);
    if let Some(connection) = Connection::open(&directory)? {
        match connection.ask("hello", &[])?.as_str() {
            "ok" => return Ok(connection),
            // Somebody was killed while introducing it. What it has got of its sockets would be in
            // the way of the same ones again.
            "new" => finish(&connection)?,
            // It ends, or is not ours.
            _ => {}
        }
    }
    let was_there = directory.join(SOCKET).try_exists().context(SOCKET)?;
    start(store, network)?;
    let connection = Connection::open(&directory)?.context("helper process: not there")?;
    introduce(store, network, connection, except, was_there)
}

/// Ends a helper; its sockets are closed when this returns.
fn finish(connection: &Connection) -> Result<()> {
    match connection.ask("end", &[])?.as_str() {
        "" => Ok(()),
        other => bail!("helper process: {other}"),
    }
}

fn start(store: &Store, network: &Network) -> Result<()> {
    let directory = store.network(&network.name);
    match fs::remove_file(directory.join(SOCKET)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context(SOCKET);
        }
        _ => {}
    }
    let listener = seqpacket()?;
    at(&directory, |address| bind(listener.as_raw_fd(), address))?.context(SOCKET)?;
    listen(&listener, Backlog::new(8)?).context(SOCKET)?;
    let args = [
        c"rt".to_owned(),
        c"netns".to_owned(),
        c"--state".to_owned(),
        CString::new(store.directory().as_os_str().as_bytes())?,
        c"serve".to_owned(),
        CString::new(network.name.as_str())?,
    ];
    let null =
        open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).context("/dev/null")?;
    match sys::clone3(0, None).context("helper process")? {
        Fork::Child => {
            let _ = become_helper(&listener, &null, &args);
            sys::exit_now(127)
        }
        // It goes on when this command ends. One that could not be executed has closed the
        // listener, which whoever connects is told.
        Fork::Parent { .. } => Ok(()),
    }
}

/// Executes this program again, in the child, with the listener as its standard input. What the
/// command has open, blocks or ignores is none of its business.
fn become_helper(listener: &OwnedFd, null: &OwnedFd, args: &[CString]) -> nix::Result<Infallible> {
    dup2_stdin(listener)?;
    dup2_stdout(null)?;
    dup2_stderr(null)?;
    sys::close_all_but(vec![], 3)?;
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    chdir("/")?;
    sys::set_signal_disposition(Signal::SIGPIPE, false)?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    execve(c"/proc/self/exe", args, &[] as &[CString])
}

/// A new helper learns what it is there for. It knows the members before it answers their questions,
/// which it would refuse otherwise. If another one `was_there`, that one may be about to close its
/// sockets.
fn introduce(
    store: &Store,
    network: &Network,
    connection: Connection,
    except: Option<&str>,
    was_there: bool,
) -> Result<Connection> {
    let tries = if was_there { CLOSE_TRIES } else { 1 };
    let mut ids: Vec<_> = store
        .leases(&network.name)?
        .into_iter()
        .map(|(_, id)| id)
        .collect();
    ids.sort();
    ids.dedup();
    for id in ids.iter().filter(|id| Some(id.as_str()) != except) {
        if let Some(record) = living(store, id) {
            let endpoints = record
                .endpoints
                .iter()
                .filter(|one| one.network == network.name);
            let held: Vec<_> = endpoints.flat_map(|one| held_again(one, tries)).collect();
            connection.add(id, &held)?;
        }
    }
    if network.resolver {
        let sockets = while_in_use(tries, || resolver_sockets(network))?;
        let fds: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        connection.tell("dns", &fds)?;
    }
    connection.tell("ready", &[])?;
    Ok(connection)
}

/// The record of a container that lives. One that cannot be read is no reason for the others to do
/// without names and ports.
fn living(store: &Store, id: &str) -> Option<Record> {
    let record = || -> Result<Option<Record>> {
        let Some(record) = store.record(id)? else {
            return Ok(None);
        };
        Ok(record.is_alive()?.then_some(record))
    };
    record().unwrap_or_else(|error| {
        log::warn(crate::error::line(&error));
        None
    })
}

/// The ports that were held before the helper was killed. One that somebody else has taken since
/// then is lost to him on the helper's way; the kernel's way goes first anyhow.
fn held_again(endpoint: &Endpoint, tries: usize) -> Vec<Held> {
    let mut all = Vec::new();
    let v6 = endpoint.address6.map(|cidr| cidr.address);
    for publish in &endpoint.publish {
        let held = || hold(&mut publish.clone(), endpoint.address.address, v6);
        match while_in_use(tries, held) {
            Ok(held) => all.extend(held),
            Err(error) => log::warn(crate::error::line(&error)),
        }
    }
    all
}

/// Tries again as long as an address is in use.
fn while_in_use<T>(tries: usize, work: impl Fn() -> Result<T>) -> Result<T> {
    let in_use = |error: &anyhow::Error| error.downcast_ref() == Some(&Errno::EADDRINUSE);
    for _ in 1..tries {
        match work() {
            Err(error) if in_use(&error) => sys::sleep(CLOSE_PAUSE),
            result => return result,
        }
    }
    work()
}

/// UDP and TCP on each of the gateway's addresses.
fn resolver_sockets(network: &Network) -> Result<Vec<OwnedFd>> {
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
fn bind_to_bridge(socket: &impl AsFd, network: &Network) {
    // Without a bridge there is nobody to be heard.
    let _ = setsockopt(
        &socket.as_fd(),
        sockopt::BindToDevice,
        &network.bridge.clone().into(),
    );
}

/// Tells the helper, if there is one, that a container has gone.
pub(super) fn del(store: &Store, network: &str, id: &str) -> Result<()> {
    match reach(store, network)? {
        Some(connection) => connection.ask(&format!("del {id}"), &[]).map(drop),
        None => Ok(()),
    }
}

fn reach(store: &Store, network: &str) -> Result<Option<Connection>> {
    let directory = store.network(network);
    let is_there = directory
        .try_exists()
        .with_context(|| directory.display().to_string())?;
    if is_there {
        Connection::open(&directory)
    } else {
        Ok(None)
    }
}

/// Ends the network's helper and waits for it.
pub(super) fn end(store: &Store, network: &str) -> Result<()> {
    reach(store, network)?.map_or(Ok(()), |connection| finish(&connection))
}

/// Whether the network's helper answers and knows its containers.
pub(super) fn is_up(store: &Store, network: &str) -> Result<bool> {
    match reach(store, network)? {
        Some(connection) => Ok(connection.ask("hello", &[])? == "ok"),
        None => Ok(false),
    }
}
