//! The resolver's part of the event loop: questions arrive, and are answered in turn or passed on.

use std::net::{TcpListener, UdpSocket};
use std::rc::Rc;

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::client::{ClientAddress, WorkKind};
use super::dns::{Next, Pending};
use super::inbox::InboxQuestion;
use super::message::{self, REFUSED, SERVER_FAILURE};
use super::server::HelperServer;
use super::source::{EDGES, Source, TURN};
use super::stream::{self, Step};

/// How many questions are taken from a socket before it is another source's turn. To take one is
/// little work, and all containers share the socket: it has to be emptied faster than one container
/// can fill it.
const TAKEN_MAX: usize = 512;

impl HelperServer {
    pub(super) fn take_questions(&mut self, via: u64, socket: &UdpSocket) {
        let mut buffer = [0; 4096];
        for _ in 0..TAKEN_MAX {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                return;
            };
            let asker = self.names.member(from.ip());
            let query = &buffer[..length];
            self.inbox.push(&asker, || InboxQuestion {
                query: query.to_vec(),
                from,
                via,
            });
        }
    }

    /// Answers some of the questions that wait, each asker's in turn.
    pub(super) fn answer_some(&mut self) {
        for _ in 0..TURN {
            let Some((asker, asked)) = self.inbox.pop() else {
                return;
            };
            if let Some(answer) = self.answer(asker, &asked) {
                self.reply(asked.via, &answer, asked.from);
            }
        }
    }

    fn answer(&mut self, asker: Option<Rc<str>>, asked: &InboxQuestion) -> Option<Vec<u8>> {
        let Some(member) = asker else {
            // Only members of this network may ask for its names.
            let is_question = message::question(&asked.query).is_some();
            return is_question.then(|| message::empty(&asked.query, REFUSED));
        };
        match self.names.query(&asked.query) {
            Next::Answer(answer) => Some(answer),
            Next::Ignore => None,
            Next::Forward => match self.forward(ClientAddress::Member(member), asked) {
                Some(_) => None,
                None => Some(message::empty(&asked.query, SERVER_FAILURE)),
            },
        }
    }

    fn forward(&mut self, client: ClientAddress, asked: &InboxQuestion) -> Option<u64> {
        if !self.make_room(WorkKind::UdpQuery, &client, None) {
            return None;
        }
        let pending = Pending::new(&self.names, &asked.query, asked.from, asked.via)?;
        let whose = (WorkKind::UdpQuery, client);
        self.watch_for(whose, None, Source::Pending(pending), EpollFlags::EPOLLIN)
    }

    pub(super) fn answered(&mut self, pending: Pending) -> Option<Source> {
        let Some(answer) = pending.answer() else {
            return Some(Source::Pending(pending));
        };
        self.reply(pending.via, &answer, pending.client);
        None
    }

    /// Asks the next server where one has not answered in time.
    pub(super) fn ask_next_servers(&mut self) {
        let is_late = |source: &Source| matches!(source, Source::Pending(one) if one.is_late());
        let late = self.sources.iter().filter(|(_, source)| is_late(source));
        for number in late.map(|(number, _)| *number).collect::<Vec<_>>() {
            let Some(Source::Pending(pending)) = self.sources.remove(&number) else {
                continue;
            };
            match pending.next() {
                Ok(pending) => {
                    // If it cannot be watched it gets late, and the next server is asked.
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, number);
                    let _ = self.epoll.add(&pending.socket, event);
                    self.sources.insert(number, Source::Pending(pending));
                }
                Err(pending) => {
                    self.budgets.release(number);
                    self.reply(pending.via, &pending.failure(), pending.client);
                }
            }
        }
    }

    pub(super) fn accept_query(&mut self, listener: &TcpListener) {
        for _ in 0..TURN {
            let Ok((stream, from)) = listener.accept() else {
                return;
            };
            let Some(member) = self.names.member(from.ip()) else {
                continue;
            };
            let client = ClientAddress::Member(member);
            if self.make_room(WorkKind::TcpQuery, &client, None)
                && let Ok(stream) = stream::Stream::new(stream)
            {
                self.watch_for(
                    (WorkKind::TcpQuery, client),
                    None,
                    Source::Query(stream),
                    EDGES,
                );
            }
        }
    }

    pub(super) fn query(&mut self, number: u64, mut stream: stream::Stream) -> Option<Source> {
        match stream.pump(&self.names)? {
            Step::Waits => {}
            Step::Again => drop(self.again.insert(number)),
            Step::Asks(server) => self
                .epoll
                .add(server, EpollEvent::new(EDGES, number))
                .ok()?,
        }
        Some(Source::Query(stream))
    }
}
