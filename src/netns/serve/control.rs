//! What the helper does for the messages of `add` and `del`.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, send};

use super::super::entry::read_record;
use super::super::publish::Protocol;
use super::cgroup;
use super::resolver_socket::bind_to_bridge;
use super::server::HelperServer;
use super::source::{Published, Source};
use crate::sys;

const MESSAGE_MAX: usize = 32 * 1024;

impl HelperServer {
    /// Answers one message of a command. `None` when the command has closed the connection,
    /// `Some(false)` if the helper is to end.
    pub(super) fn command(&mut self, fd: &OwnedFd) -> Option<bool> {
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

    /// Does what the message says. Returns the answer, or `None` if the helper is to end.
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
                // The sockets are closed before the connection of the command that waits for the
                // end.
                self.sources.clear();
                return Ok(None);
            }
            other => bail!("{other:?}: not a command"),
        }
        Ok(Some("ok"))
    }

    /// Replaces the resolver's sockets. `sockets` are UDP and TCP in turn.
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

    /// Binds the resolver's sockets to the bridge again, which may have been made anew.
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
        // The kernel leaves out the descriptors beyond the limit of open files.
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

    /// Closes a container's ports, forgets its names, and ends what is relayed to it: its address
    /// may soon be another container's.
    fn forget(&mut self, id: &str) {
        for number in self.held.remove(id).into_iter().flatten() {
            self.sources.remove(&number);
        }
        for number in self.budgets.of_container(id) {
            self.end(number);
        }
        self.names.remove(id);
    }
}
