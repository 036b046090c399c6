//! The helper's one loop: everything that it waits for is a [`Source`] with a number.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{MsgFlags, send};

use super::super::network::Network;
use super::super::request::Protocol;
use super::super::store::{read_active, read_record};
use super::cgroup;
use super::dns::{self, Names, Next, Pending};
use super::relay::{self, Flow};
use crate::sys;

/// As long as something may become late, it is looked for that often, in milliseconds.
const TICK_MS: u16 = 1000;
/// How many queries, connections or datagrams' clients there may be at once.
const SOURCES_MAX: usize = 4096;
const MESSAGE_MAX: usize = 32 * 1024;

enum Source {
    Listener(OwnedFd),
    Commander(OwnedFd),
    Udp(UdpSocket, SocketAddr),
    Tcp(TcpListener, SocketAddr),
    /// A port that is only held.
    Held(#[allow(dead_code, reason = "to be open is its use")] OwnedFd),
    Relay(relay::Stream),
    Flow(Flow),
    Resolver(UdpSocket),
    ResolverTcp(TcpListener),
    Pending(Pending),
    Query(dns::Stream),
}

impl Source {
    fn is_timed(&self) -> bool {
        matches!(self, Self::Flow(_) | Self::Pending(_) | Self::Query(_))
    }
}

struct Server {
    state: PathBuf,
    epoll: Epoll,
    sources: BTreeMap<u64, Source>,
    next: u64,
    /// By container.
    held: BTreeMap<String, Vec<u64>>,
    flows: BTreeMap<(u64, SocketAddr), u64>,
    names: Names,
    ready: bool,
    /// Whether anything may become late, and when that was looked for.
    timed: bool,
    looked: Instant,
}

/// Serves until it is told to end. Standard input is the socket to listen at.
pub(in super::super) fn serve(state: &Path, name: &str) -> Result<()> {
    cgroup::enter();
    let Some(active) = read_active(state, name)? else { bail!("network {name}: not in use") };
    let network = Network::decide(name, active.config)?;
    // A range of ports is as many descriptors.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let mut server = Server {
        state: state.to_owned(),
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll")?,
        sources: BTreeMap::new(),
        next: 0,
        held: BTreeMap::new(),
        flows: BTreeMap::new(),
        names: Names { network, members: BTreeMap::new() },
        ready: false,
        timed: false,
        looked: Instant::now(),
    };
    let listener = sys::stdio(0).try_clone_to_owned().context("standard input")?;
    server.watch(Source::Listener(listener), EpollFlags::EPOLLIN)?;
    server.run()
}

impl Server {
    /// Adds a source and gives its number.
    fn watch(&mut self, source: Source, flags: EpollFlags) -> Result<u64> {
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
            Source::Relay(stream) => {
                self.epoll.add(&stream.client, event).and(self.epoll.add(&stream.target, event))
            }
            Source::Flow(flow) => self.epoll.add(&flow.socket, event),
            Source::Pending(pending) => self.epoll.add(&pending.socket, event),
            Source::Query(stream) => self.epoll.add(&stream.client, event),
        };
        result.context("epoll")?;
        self.timed |= source.is_timed();
        self.sources.insert(self.next, source);
        Ok(self.next)
    }

    fn run(mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let timeout = match self.timed {
                true => EpollTimeout::from(TICK_MS),
                false => EpollTimeout::NONE,
            };
            let count = match self.epoll.wait(&mut events, timeout) {
                Err(Errno::EINTR) => 0,
                result => result.context("epoll")?,
            };
            for event in &events[..count] {
                // An earlier event may have ended it.
                let Some(source) = self.sources.remove(&event.data()) else { continue };
                if !self.handle(event.data(), source) {
                    return Ok(());
                }
            }
            if self.timed && self.looked.elapsed() >= Duration::from_millis(TICK_MS.into()) {
                self.expire();
            }
        }
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
            Source::Tcp(listener, to) => {
                self.accept(&listener, to);
                Some(Source::Tcp(listener, to))
            }
            Source::Udp(socket, to) => {
                self.datagrams(number, &socket, to);
                Some(Source::Udp(socket, to))
            }
            Source::Relay(mut stream) => stream.pump().then_some(Source::Relay(stream)),
            Source::Flow(flow) => {
                self.flow_back(&flow);
                Some(Source::Flow(flow))
            }
            Source::Resolver(socket) => {
                self.queries(number, &socket);
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
        if let Some(source) = back {
            self.sources.insert(number, source);
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
        send(fd.as_raw_fd(), answer, MsgFlags::MSG_NOSIGNAL).ok().map(|_| true)
    }

    /// The answer, or `None` to end.
    fn obey(&mut self, text: &str, sockets: Vec<OwnedFd>) -> Result<Option<&'static str>> {
        let mut lines = text.lines();
        let (verb, id) = match lines.next().unwrap_or_default().split_once(' ') {
            Some((verb, id)) => (verb, id),
            None => (text, ""),
        };
        match verb {
            "hello" => return Ok(Some(if self.ready { "ok" } else { "new" })),
            "ready" => self.ready = true,
            "dns" => self.resolve(sockets)?,
            "add" | "more" => {
                if verb == "add" {
                    self.forget(id);
                    if let Some(record) = read_record(&self.state, id)? {
                        self.names.members.insert(id.to_owned(), record);
                        self.names.write_hosts(id);
                    }
                }
                for (socket, line) in sockets.into_iter().zip(lines) {
                    self.hold(id, socket, line)?;
                }
            }
            "del" => {
                self.forget(id);
                self.names.write_hosts(id);
            }
            "end" => {
                cgroup::leave();
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

    fn hold(&mut self, id: &str, socket: OwnedFd, line: &str) -> Result<()> {
        let (protocol, to) = line.split_once(' ').context("a socket without a target")?;
        let to: SocketAddr = to.parse().context("a socket's target")?;
        let (source, flags) = match protocol.parse()? {
            Protocol::Tcp => (Source::Tcp(socket.into(), to), EpollFlags::EPOLLIN),
            Protocol::Udp => (Source::Udp(socket.into(), to), EpollFlags::EPOLLIN),
            Protocol::Sctp => (Source::Held(socket), EpollFlags::empty()),
        };
        let number = self.watch(source, flags)?;
        self.held.entry(id.to_owned()).or_default().push(number);
        Ok(())
    }

    /// Lets go of a container's ports and names; connections that go by here end by themselves.
    fn forget(&mut self, id: &str) {
        for number in self.held.remove(id).into_iter().flatten() {
            self.sources.remove(&number);
        }
        self.names.members.remove(id);
    }

    fn accept(&mut self, listener: &TcpListener, to: SocketAddr) {
        while let Ok((client, _)) = listener.accept() {
            if self.sources.len() < SOURCES_MAX
                && let Ok(stream) = relay::Stream::new(client, to)
            {
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                let _ = self.watch(Source::Relay(stream), flags);
            }
        }
    }

    fn datagrams(&mut self, number: u64, socket: &UdpSocket, to: SocketAddr) {
        let mut buffer = [0; 65_535];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let key = (number, client);
            if let Some(Source::Flow(flow)) =
                self.flows.get(&key).and_then(|flow| self.sources.get_mut(flow))
            {
                flow.send(&buffer[..length]);
                continue;
            }
            if self.sources.len() >= SOURCES_MAX {
                continue;
            }
            if let Ok(mut flow) = Flow::new(client, number, to) {
                flow.send(&buffer[..length]);
                if let Ok(flow) = self.watch(Source::Flow(flow), EpollFlags::EPOLLIN) {
                    self.flows.insert(key, flow);
                }
            }
        }
    }

    fn flow_back(&self, flow: &Flow) {
        let mut buffer = [0; 65_535];
        let Some(Source::Udp(held, _)) = self.sources.get(&flow.held) else {
            // The port is not held any more: the flow ends when it is late.
            let _ = flow.socket.recv(&mut buffer);
            return;
        };
        while let Ok(length) = flow.socket.recv(&mut buffer) {
            let _ = held.send_to(&buffer[..length], flow.client);
        }
    }

    fn queries(&mut self, number: u64, socket: &UdpSocket) {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let query = &buffer[..length];
            let answer = match self.names.query(query) {
                Next::Answer(answer) => answer,
                Next::Ignore => continue,
                Next::Forward => match self.forward(query, client, number) {
                    true => continue,
                    false => super::message::empty(query, super::message::SERVER_FAILURE),
                },
            };
            let _ = socket.send_to(&answer, client);
        }
    }

    fn forward(&mut self, query: &[u8], client: SocketAddr, via: u64) -> bool {
        if self.sources.len() >= SOURCES_MAX {
            return false;
        }
        let pending = Pending::new(&self.names, query, client, via);
        let watched = pending.map(|one| self.watch(Source::Pending(one), EpollFlags::EPOLLIN));
        matches!(watched, Some(Ok(_)))
    }

    fn answered(&mut self, pending: Pending) -> Option<Source> {
        let Some((answer, client)) = pending.answer() else {
            return Some(Source::Pending(pending));
        };
        self.reply(pending.via, &answer, client);
        None
    }

    fn reply(&self, via: u64, answer: &[u8], client: SocketAddr) {
        if let Some(Source::Resolver(socket)) = self.sources.get(&via) {
            let _ = socket.send_to(answer, client);
        }
    }

    fn accept_query(&mut self, listener: &TcpListener) {
        while let Ok((client, _)) = listener.accept() {
            if self.sources.len() < SOURCES_MAX
                && let Ok(stream) = dns::Stream::new(client)
            {
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                let _ = self.watch(Source::Query(stream), flags);
            }
        }
    }

    fn query(&mut self, number: u64, mut stream: dns::Stream) -> Option<Source> {
        let new = stream.pump(&self.names)?;
        if let Some(server) = new {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            self.epoll.add(server, EpollEvent::new(flags, number)).ok()?;
        }
        Some(Source::Query(stream))
    }

    /// Ends what is late.
    fn expire(&mut self) {
        self.looked = Instant::now();
        self.timed = self.sources.values().any(Source::is_timed);
        let late: Vec<u64> = self
            .sources
            .iter()
            .filter(|(_, source)| match source {
                Source::Flow(flow) => flow.is_over(),
                Source::Pending(pending) => pending.is_late(),
                Source::Query(stream) => stream.is_late(),
                _ => false,
            })
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            match self.sources.remove(&number) {
                Some(Source::Flow(flow)) => {
                    self.flows.remove(&(flow.held, flow.client));
                }
                Some(Source::Pending(pending)) => {
                    let via = pending.via;
                    match pending.next() {
                        Ok(again) => {
                            let _ = self.watch(Source::Pending(again), EpollFlags::EPOLLIN);
                        }
                        Err((answer, client)) => self.reply(via, &answer, client),
                    }
                }
                _ => {}
            }
        }
    }
}
