//! The helper's one loop: everything that it waits for is a [`Source`] with a number.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{MsgFlags, send};

use super::super::entry::read_record;
use super::super::network::Network;
use super::super::request::Protocol;
use super::super::store::read_active;
use super::budget::{Budgets, Client, Kind, Room};
use super::dns::{Names, Pending};
use super::inbox::Inbox;
use super::relay::{self, Flow, Pipe};
use super::{bind_to_bridge, cgroup, stream};
use crate::sys;

/// How often it is looked for what is late: where that is soon, and where it is not.
const TICK: Duration = Duration::from_secs(1);
const SLOW_TICK: Duration = Duration::from_secs(60);
/// A UDP client that is silent for so long is forgotten.
const FLOW_LIMIT: Duration = Duration::from_secs(90);
/// A connection that carries nothing for so long ends (RFC 5382, REQ-5).
const RELAY_LIMIT: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
/// So many waits in a row may fail, with a pause after each.
const FAILURES_MAX: u32 = 100;
const FAILURE_PAUSE: Duration = Duration::from_millis(10);
const MESSAGE_MAX: usize = 32 * 1024;
/// How many connections or datagrams of one socket are taken before it is another one's turn.
pub(super) const TURN: usize = 64;
/// What is watched for every change, once.
pub(super) const EDGES: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLET);

pub(super) enum Source {
    Listener(OwnedFd),
    Commander(OwnedFd),
    Udp(UdpSocket, Published),
    Tcp(TcpListener, Published),
    /// A port that is only held.
    Held(#[allow(dead_code, reason = "to be open is its use")] OwnedFd),
    Relay(relay::Stream),
    Flow(Flow),
    Resolver(UdpSocket),
    ResolverTcp(TcpListener),
    Pending(Pending),
    Query(stream::Stream),
}

/// Where what arrives at a port goes.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) container: Rc<str>,
    to: SocketAddr,
    /// From clients with an IPv6 address, if that is another one.
    to6: Option<SocketAddr>,
}

impl Published {
    pub(super) fn target(&self, client: SocketAddr) -> SocketAddr {
        let is_v6 = client.ip().to_canonical().is_ipv6();
        self.to6.filter(|_| is_v6).unwrap_or(self.to)
    }
}

pub(super) struct Server {
    state: PathBuf,
    pub(super) epoll: Epoll,
    pub(super) sources: BTreeMap<u64, Source>,
    next: u64,
    /// By container.
    held: BTreeMap<String, Vec<u64>>,
    pub(super) flows: BTreeMap<(u64, SocketAddr), u64>,
    pub(super) names: Names,
    pub(super) inbox: Inbox,
    pub(super) budgets: Budgets,
    pub(super) pipe: Pipe,
    /// The sources that have more to do than they had time for.
    pub(super) again: BTreeSet<u64>,
    ready: bool,
    /// When it was last looked for what is late.
    looked: Instant,
}

/// Serves until it is told to end. Standard input is the socket to listen at.
pub(in super::super) fn serve(state: &Path, name: &str) -> Result<()> {
    cgroup::enter();
    let Some(active) = read_active(state, name)? else {
        bail!("network {name}: not in use")
    };
    let network = Network::decide(name, active.config)?;
    let mut server = Server {
        state: state.to_owned(),
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll")?,
        sources: BTreeMap::new(),
        next: 0,
        held: BTreeMap::new(),
        flows: BTreeMap::new(),
        names: Names::new(network),
        inbox: Inbox::default(),
        budgets: Budgets::new(descriptors()),
        pipe: Pipe::new().context("pipe")?,
        again: BTreeSet::new(),
        ready: false,
        looked: Instant::now(),
    };
    let listener = sys::stdio(0)
        .try_clone_to_owned()
        .context("standard input")?;
    server.watch(Source::Listener(listener), EpollFlags::EPOLLIN)?;
    server.run()
}

/// How many descriptors this process may have: as many as it can be allowed.
fn descriptors() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 1024;
    };
    let allowed = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard);
    usize::try_from(allowed).unwrap_or(usize::MAX)
}

/// How long what is charged to somebody may be quiet.
fn limit(kind: Kind) -> Option<Duration> {
    match kind {
        // A question has a limit for each server that is asked.
        Kind::UdpQuery => None,
        Kind::TcpQuery => Some(stream::STREAM_LIMIT),
        Kind::FirstDatagrams | Kind::UdpFlow => Some(FLOW_LIMIT),
        Kind::Relay => Some(RELAY_LIMIT),
    }
}

impl Server {
    /// Adds a source and gives its number.
    pub(super) fn watch(&mut self, source: Source, flags: EpollFlags) -> Result<u64> {
        self.next += 1;
        let event = EpollEvent::new(flags, self.next);
        let result = match &source {
            Source::Listener(fd) | Source::Commander(fd) | Source::Held(fd) => {
                self.epoll.add(fd, event)
            }
            Source::Udp(socket, _) | Source::Resolver(socket) => self.epoll.add(socket, event),
            Source::Tcp(listener, _) | Source::ResolverTcp(listener) => {
                self.epoll.add(listener, event)
            }
            Source::Relay(stream) => self
                .epoll
                .add(&stream.client, event)
                .and(self.epoll.add(&stream.target, event)),
            Source::Flow(flow) => self.epoll.add(&flow.socket, event),
            Source::Pending(pending) => self.epoll.add(&pending.socket, event),
            Source::Query(stream) => self.epoll.add(&stream.client, event),
        };
        result.context("epoll")?;
        self.sources.insert(self.next, source);
        Ok(self.next)
    }

    /// Adds a source that is charged to the client, and to the container that it is for; what it
    /// takes the place of ends.
    pub(super) fn watch_for(
        &mut self,
        (kind, client): (Kind, Client),
        container: Option<&Rc<str>>,
        source: Source,
        flags: EpollFlags,
    ) -> Option<u64> {
        let number = self.watch(source, flags).ok()?;
        self.budgets
            .charge(number, kind, client, container.cloned());
        Some(number)
    }

    /// Makes room for one more of the kind. `false` if there is none.
    pub(super) fn make_room(
        &mut self,
        kind: Kind,
        client: &Client,
        container: Option<&Rc<str>>,
    ) -> bool {
        match self.budgets.room(kind, client, container) {
            Room::Free => true,
            Room::None => false,
            Room::Instead(other) => {
                self.end(other);
                true
            }
        }
    }

    /// Ends a source. A question that it was is answered.
    pub(super) fn end(&mut self, number: u64) {
        self.budgets.release(number);
        match self.sources.remove(&number) {
            Some(Source::Flow(flow)) => drop(self.flows.remove(&(flow.held, flow.client))),
            Some(Source::Pending(pending)) => {
                self.reply(pending.via, &pending.failure(), pending.client);
            }
            _ => {}
        }
    }

    fn run(mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        let mut failures = 0;
        loop {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Err(Errno::EINTR) => 0,
                // One failure takes names and relays from nobody; one that stays ends the process.
                Err(_) if failures < FAILURES_MAX => {
                    failures += 1;
                    sys::sleep(FAILURE_PAUSE);
                    0
                }
                result => result.context("epoll")?,
            };
            if count > 0 {
                failures = 0;
            }
            let mut numbers: Vec<_> = events[..count].iter().map(EpollEvent::data).collect();
            numbers.extend(std::mem::take(&mut self.again));
            for number in numbers {
                // An earlier event may have ended it.
                let Some(source) = self.sources.remove(&number) else {
                    continue;
                };
                if !self.handle(number, source) {
                    return Ok(());
                }
            }
            self.answer_some();
            if self
                .tick()
                .is_some_and(|tick| self.looked.elapsed() >= tick)
            {
                self.expire();
            }
        }
    }

    fn timeout(&self) -> EpollTimeout {
        if !self.again.is_empty() || !self.inbox.is_empty() {
            return EpollTimeout::ZERO;
        }
        let tick = self
            .tick()
            .and_then(|tick| EpollTimeout::try_from(tick).ok());
        tick.unwrap_or(EpollTimeout::NONE)
    }

    /// How often it has to be looked for what is late, if anything can be.
    fn tick(&self) -> Option<Duration> {
        if self.budgets.has(|kind| kind != Kind::Relay) {
            return Some(TICK);
        }
        self.budgets.has(|_| true).then_some(SLOW_TICK)
    }

    /// Does what the source is ready for, and puts it back if it goes on; `false` at the end of all.
    fn handle(&mut self, number: u64, source: Source) -> bool {
        let back = match source {
            Source::Listener(fd) => {
                if let Ok(commander) = sys::accept(fd.as_fd()) {
                    let _ = self.watch(Source::Commander(commander), EpollFlags::EPOLLIN);
                }
                Some(Source::Listener(fd))
            }
            Source::Commander(fd) => match self.command(&fd) {
                Some(true) => Some(Source::Commander(fd)),
                Some(false) => return false,
                None => None,
            },
            Source::Tcp(listener, published) => {
                self.accept(&listener, &published);
                Some(Source::Tcp(listener, published))
            }
            Source::Udp(socket, published) => {
                self.datagrams(number, &socket, &published);
                Some(Source::Udp(socket, published))
            }
            Source::Relay(stream) => self.relay(number, stream),
            Source::Flow(mut flow) => {
                self.flow_back(number, &mut flow);
                Some(Source::Flow(flow))
            }
            Source::Resolver(socket) => {
                self.take_questions(number, &socket);
                Some(Source::Resolver(socket))
            }
            Source::ResolverTcp(listener) => {
                self.accept_query(&listener);
                Some(Source::ResolverTcp(listener))
            }
            Source::Pending(pending) => self.answered(pending),
            Source::Query(stream) => self.query(number, stream),
            held @ Source::Held(_) => Some(held),
        };
        match back {
            Some(source) => drop(self.sources.insert(number, source)),
            None => self.budgets.release(number),
        }
        true
    }

    /// One message of `add` or `del`; `None` when it has gone, `Some(false)` to end.
    fn command(&mut self, fd: &OwnedFd) -> Option<bool> {
        let mut buffer = vec![0; MESSAGE_MAX];
        let (length, sockets) = sys::receive_many(fd.as_fd(), &mut buffer).ok()?;
        if length == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&buffer[..length]);
        let answer = match self.obey(&text, sockets) {
            Ok(Some(answer)) => answer.to_owned(),
            Ok(None) => return Some(false),
            Err(error) => crate::error::line(&error),
        };
        let answer = &answer.as_bytes()[..answer.len().min(200)];
        send(fd.as_raw_fd(), answer, MsgFlags::MSG_NOSIGNAL)
            .ok()
            .map(|_| true)
    }

    /// The answer, or `None` to end.
    fn obey(&mut self, text: &str, sockets: Vec<OwnedFd>) -> Result<Option<&'static str>> {
        let mut lines = text.lines();
        let (verb, id) = match lines.next().unwrap_or_default().split_once(' ') {
            Some((verb, id)) => (verb, id),
            None => (text, ""),
        };
        match verb {
            "hello" => {
                self.follow_bridge();
                return Ok(Some(if self.ready { "ok" } else { "new" }));
            }
            "ready" => self.ready = true,
            "dns" => self.resolve(sockets)?,
            "add" | "more" => {
                if verb == "add" {
                    self.forget(id);
                    if let Some(record) = read_record(&self.state, id)? {
                        self.names.insert(record);
                        self.names.write_hosts(id);
                    }
                }
                self.hold_all(id, sockets, lines.collect())?;
            }
            "del" => {
                self.forget(id);
                self.names.write_hosts(id);
            }
            "end" => {
                cgroup::leave();
                // Before the connection of who waits for it.
                self.sources.clear();
                return Ok(None);
            }
            other => bail!("{other:?}: not a command"),
        }
        Ok(Some("ok"))
    }

    /// UDP and TCP sockets in turn.
    fn resolve(&mut self, sockets: Vec<OwnedFd>) -> Result<()> {
        let old = |source: &Source| matches!(source, Source::Resolver(_) | Source::ResolverTcp(_));
        self.sources.retain(|_, source| !old(source));
        for (at, socket) in sockets.into_iter().enumerate() {
            let source = match at % 2 {
                0 => Source::Resolver(socket.into()),
                _ => Source::ResolverTcp(socket.into()),
            };
            self.watch(source, EpollFlags::EPOLLIN)?;
        }
        Ok(())
    }

    /// The resolver's sockets are bound to a bridge, which may have been made anew.
    fn follow_bridge(&self) {
        for source in self.sources.values() {
            match source {
                Source::Resolver(socket) => bind_to_bridge(socket, &self.names.network),
                Source::ResolverTcp(listener) => bind_to_bridge(listener, &self.names.network),
                _ => {}
            }
        }
    }

    fn hold_all(&mut self, id: &str, sockets: Vec<OwnedFd>, lines: Vec<&str>) -> Result<()> {
        let held: usize = self.held.values().map(Vec::len).sum();
        // The kernel leaves out what would be above the limit.
        if sockets.len() != lines.len() || held + sockets.len() > self.budgets.ports() {
            bail!(
                "publish: the limit of open files allows {} ports",
                self.budgets.ports()
            );
        }
        sockets
            .into_iter()
            .zip(lines)
            .try_for_each(|(socket, line)| self.hold(id, socket, line))
    }

    fn hold(&mut self, id: &str, socket: OwnedFd, line: &str) -> Result<()> {
        let mut words = line.split(' ');
        let protocol: Protocol = words.next().unwrap_or_default().parse()?;
        let mut targets = words.map(str::parse::<SocketAddr>);
        let to = targets
            .next()
            .context("a socket without a target")?
            .context("a socket's target")?;
        let to6 = targets.next().transpose().context("a socket's target")?;
        let published = Published {
            container: id.into(),
            to,
            to6,
        };
        let (source, flags) = match protocol {
            Protocol::Tcp => (Source::Tcp(socket.into(), published), EpollFlags::EPOLLIN),
            Protocol::Udp => (Source::Udp(socket.into(), published), EpollFlags::EPOLLIN),
            Protocol::Sctp => (Source::Held(socket), EpollFlags::empty()),
        };
        let number = self.watch(source, flags)?;
        self.held.entry(id.to_owned()).or_default().push(number);
        Ok(())
    }

    /// Lets go of a container's ports and names, and ends what was relayed to it: its address may
    /// soon be another's.
    fn forget(&mut self, id: &str) {
        for number in self.held.remove(id).into_iter().flatten() {
            self.sources.remove(&number);
        }
        for number in self.budgets.of_container(id) {
            self.end(number);
        }
        self.names.remove(id);
    }

    /// Ends what is late.
    fn expire(&mut self) {
        self.looked = Instant::now();
        for number in self.budgets.late(limit) {
            self.end(number);
        }
        self.ask_next_servers();
    }
}
