//! The state of the helper: its sources, each with a number, and what is charged for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::super::network::Network;
use super::budget::{Budgets, Room};
use super::client::{ClientAddress, WorkKind};
use super::dns::Names;
use super::inbox::Inbox;
use super::relay::Pipe;
use super::source::Source;

/// The state of the helper process.
pub(super) struct HelperServer {
    pub(super) state: PathBuf,
    pub(super) epoll: Epoll,
    pub(super) sources: BTreeMap<u64, Source>,
    next: u64,
    /// The sources of held ports, by container.
    pub(super) held: BTreeMap<String, Vec<u64>>,
    pub(super) flows: BTreeMap<(u64, SocketAddr), u64>,
    pub(super) names: Names,
    pub(super) inbox: Inbox,
    pub(super) budgets: Budgets,
    pub(super) pipe: Pipe,
    /// The sources that had more to do when their turn ended.
    pub(super) again: BTreeSet<u64>,
    pub(super) ready: bool,
    /// When sources that have been quiet for too long were last looked for.
    pub(super) looked: Instant,
}

/// Raises the soft limit of open descriptors to the hard limit. Returns how many this process may
/// have.
fn descriptors() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 1024;
    };
    let allowed = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard);
    usize::try_from(allowed).unwrap_or(usize::MAX)
}

impl HelperServer {
    /// Returns the state of a helper of the network that knows no container yet.
    pub(super) fn new(state: &Path, network: Network) -> Result<Self> {
        Ok(Self {
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
        })
    }

    /// Adds a source and returns its number.
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

    /// Adds a source that is charged to the client, and to the container that it is for.
    /// `make_room` must have made room for it.
    pub(super) fn watch_for(
        &mut self,
        (kind, client): (WorkKind, ClientAddress),
        container: Option<&Rc<str>>,
        source: Source,
        flags: EpollFlags,
    ) -> Option<u64> {
        let number = self.watch(source, flags).ok()?;
        self.budgets
            .charge(number, kind, client, container.cloned());
        Some(number)
    }

    /// Makes room for one more source of the kind, if need be by ending another one. `false` if
    /// there is none.
    pub(super) fn make_room(
        &mut self,
        kind: WorkKind,
        client: &ClientAddress,
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

    /// Ends a source. If it is a question that waits for another server, the client gets a server
    /// failure as its answer.
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

    /// Sends an answer from the socket at which the question arrived, if that is still open.
    pub(super) fn reply(&self, via: u64, answer: &[u8], client: SocketAddr) {
        if let Some(Source::Resolver(socket)) = self.sources.get(&via) {
            let _ = socket.send_to(answer, client);
        }
    }
}
