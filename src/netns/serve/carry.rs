//! Published ports: relays the connections and datagrams that arrive at the helper process.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use nix::sys::epoll::EpollFlags;

use super::client::{ClientAddress, WorkKind};
use super::relay::{self, Flow, Pumped};
use super::server::HelperServer;
use super::source::{EDGES, Published, Source, TURN};

impl HelperServer {
    /// Returns the client that has the address: a container of this network, or another address.
    fn client(&self, from: SocketAddr) -> ClientAddress {
        let member = self.names.member(from.ip()).map(ClientAddress::Member);
        member.unwrap_or_else(|| ClientAddress::at(from.ip()))
    }

    pub(super) fn accept(&mut self, listener: &TcpListener, published: &Published) {
        for _ in 0..TURN {
            let Ok((stream, from)) = listener.accept() else {
                return;
            };
            let client = self.client(from);
            // Without room the connection is closed at once.
            if self.make_room(WorkKind::Relay, &client, Some(&published.container))
                && let Ok(stream) = relay::RelayStream::new(stream, published.target(from))
            {
                let whose = (WorkKind::Relay, client);
                self.watch_for(
                    whose,
                    Some(&published.container),
                    Source::Relay(stream),
                    EDGES,
                );
            }
        }
    }

    pub(super) fn relay(&mut self, number: u64, mut stream: relay::RelayStream) -> Option<Source> {
        self.budgets.touch(number);
        match stream.pump(&mut self.pipe) {
            Pumped::Ended => return None,
            Pumped::Again => drop(self.again.insert(number)),
            Pumped::Waits => {}
        }
        Some(Source::Relay(stream))
    }

    pub(super) fn datagrams(&mut self, number: u64, socket: &UdpSocket, published: &Published) {
        let mut buffer = [0; 65_535];
        for _ in 0..TURN {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                return;
            };
            let known = self.flows.get(&(number, from)).copied();
            let Some(flow) = known.or_else(|| self.new_flow(number, from, published)) else {
                continue;
            };
            self.send_on(flow, &buffer[..length]);
        }
    }

    fn new_flow(&mut self, held: u64, from: SocketAddr, published: &Published) -> Option<u64> {
        let client = self.client(from);
        let container = Some(&published.container);
        if !self.make_room(WorkKind::FirstDatagrams, &client, container) {
            return None;
        }
        let source = Source::Flow(Flow::new(from, held, published.target(from)).ok()?);
        let whose = (WorkKind::FirstDatagrams, client);
        let number = self.watch_for(whose, container, source, EpollFlags::EPOLLIN)?;
        self.flows.insert((held, from), number);
        Some(number)
    }

    /// Sends a client's datagram on. A client that sends something after an answer really has its
    /// address, and no longer counts among those that may be forged.
    fn send_on(&mut self, number: u64, datagram: &[u8]) {
        let Some(Source::Flow(flow)) = self.sources.get(&number) else {
            return;
        };
        // A datagram that cannot be sent is lost, which clients of UDP have to expect.
        let _ = flow.socket.send(datagram);
        let answered = flow.answered;
        self.budgets.touch(number);
        if !answered {
            return;
        }
        if let Some((WorkKind::FirstDatagrams, client, container)) = self.budgets.charged(number)
            && self.make_room(WorkKind::UdpFlow, &client, container.as_ref())
        {
            self.budgets.change(number, WorkKind::UdpFlow);
        }
    }

    pub(super) fn flow_back(&mut self, number: u64, flow: &mut Flow) {
        let mut buffer = [0; 65_535];
        for _ in 0..TURN {
            let Ok(length) = flow.socket.recv(&mut buffer) else {
                return;
            };
            // If the port is no longer held, the flow ends with it.
            if let Some(Source::Udp(held, _)) = self.sources.get(&flow.held) {
                let _ = held.send_to(&buffer[..length], flow.client);
            }
            flow.answered = true;
            self.budgets.touch(number);
        }
    }
}
