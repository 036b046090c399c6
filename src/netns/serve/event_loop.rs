//! The event loop of the helper, the only one that it has.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};

use super::super::network::Network;
use super::super::store::read_active;
use super::client::WorkKind;
use super::server::HelperServer;
use super::source::Source;
use super::{cgroup, stream};
use crate::sys;

/// How often the helper looks for sources that are late: with short limits, and with only relays,
/// whose limit is long.
const TICK: Duration = Duration::from_secs(1);
const SLOW_TICK: Duration = Duration::from_secs(60);
/// A UDP client that sends and gets nothing for so long is forgotten.
const FLOW_LIMIT: Duration = Duration::from_secs(90);
/// A connection that carries nothing for so long ends (RFC 5382, REQ-5).
const RELAY_LIMIT: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
/// So many calls of epoll_wait(2) in a row may fail, with a pause after each.
const FAILURES_MAX: u32 = 100;
const FAILURE_PAUSE: Duration = Duration::from_millis(10);

/// Serves until a command tells it to end. Standard input is the socket to listen at.
pub fn serve(state: &Path, name: &str) -> Result<()> {
    cgroup::enter();
    let Some(active) = read_active(state, name)? else {
        bail!("network {name}: not in use")
    };
    let network = Network::decide(name, active.config)?;
    let mut server = HelperServer::new(state, network)?;
    let listener = sys::stdin()
        .try_clone_to_owned()
        .context("standard input")?;
    server.watch(Source::Listener(listener), EpollFlags::EPOLLIN)?;
    server.run()
}

/// Returns how long a source of this kind may be quiet.
fn limit(kind: WorkKind) -> Option<Duration> {
    match kind {
        // A question has a limit for each server that is asked.
        WorkKind::UdpQuery => None,
        WorkKind::TcpQuery => Some(stream::STREAM_LIMIT),
        WorkKind::FirstDatagrams | WorkKind::UdpFlow => Some(FLOW_LIMIT),
        WorkKind::Relay => Some(RELAY_LIMIT),
    }
}

impl HelperServer {
    fn run(mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        let mut failures = 0;
        loop {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Err(Errno::EINTR) => 0,
                // A single failure must not end names and relays; a lasting one ends the process.
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

    /// Returns how often the helper has to look for late sources; `None` if there can be none.
    fn tick(&self) -> Option<Duration> {
        if self.budgets.has(|kind| kind != WorkKind::Relay) {
            return Some(TICK);
        }
        self.budgets.has(|_| true).then_some(SLOW_TICK)
    }

    /// Does what the source is ready for, and puts it back unless it has ended. Returns `false` if
    /// the helper is to end.
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

    /// Ends the sources that are late, and asks the next server where one has not answered.
    fn expire(&mut self) {
        self.looked = Instant::now();
        for number in self.budgets.late(limit) {
            self.end(number);
        }
        self.ask_next_servers();
    }
}
