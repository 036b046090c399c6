//! Questions over TCP: the connection of a client, and the server that is asked for the client.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::dns::{Names, Next, Pending, answer_to};
use super::message::{self, SERVER_FAILURE};
use super::relay;

/// How long a TCP connection may stay, whatever it does (CVE-2026-35406).
pub(super) const STREAM_LIMIT: Duration = Duration::from_secs(10);
/// How many questions of one TCP connection are answered before it is another one's turn.
const TURN: usize = 8;
/// As long as more bytes of answers than this wait for a client to read them, no more of its
/// questions are answered.
const OUTPUT_MAX: usize = 64 * 1024;
/// The longest input that may wait without a whole query in it, in bytes; a query is longer only by
/// mistake.
const QUERY_MAX: usize = 4096;

/// A client over TCP, and the server that is asked for it at the moment.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) client: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Whether the client has closed its direction of the connection.
    ended: bool,
    server: Option<Server>,
}

/// A question that other servers are asked for a client over TCP. They are asked over TCP first,
/// since the answer may be long, then over UDP, since a server may not speak TCP.
#[derive(Debug)]
struct Server {
    query: Vec<u8>,
    asked: Asked,
    /// The servers that can still be asked; the next one is the last.
    others: Vec<(Over, SocketAddr)>,
}

#[derive(Clone, Copy, Debug)]
enum Over {
    Tcp,
    Udp,
}

#[derive(Debug)]
enum Asked {
    Tcp {
        socket: TcpStream,
        output: Vec<u8>,
        input: Vec<u8>,
    },
    Udp(UdpSocket),
}

/// How reading from a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    Ended,
    Waits,
}

/// How far a client over TCP has come.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// It waits for the client or for the server.
    Waits,
    /// There is more to do, after the other sources' turns.
    Again,
    /// It waits for a server that has just been asked, on this descriptor.
    Asks(BorrowedFd<'a>),
}

impl Stream {
    pub(super) fn new(client: TcpStream) -> std::io::Result<Self> {
        client.set_nonblocking(true)?;
        Ok(Self {
            client,
            input: vec![],
            output: vec![],
            ended: false,
            server: None,
        })
    }

    /// Answers questions as far as one turn allows. `None` when the connection is to end.
    pub(super) fn pump(&mut self, names: &Names) -> Option<Step<'_>> {
        for _ in 0..TURN {
            flush(&mut self.client, &mut self.output)?;
            if self.output.len() > OUTPUT_MAX {
                return Some(Step::Waits);
            }
            if let Some(mut server) = self.server.take() {
                match server.pump() {
                    Some(Some(answer)) => put(&mut self.output, &answer),
                    Some(None) => {
                        self.server = Some(server);
                        return Some(Step::Waits);
                    }
                    None => match server.next() {
                        Ok(next) => return Some(Step::Asks(self.server.insert(next).fd())),
                        Err(query) => {
                            put(&mut self.output, &message::empty(&query, SERVER_FAILURE));
                        }
                    },
                }
                continue;
            }
            let filled = fill(&mut self.client, &mut self.input, QUERY_MAX)?;
            self.ended |= filled == Moved::Ended;
            let Some(query) = take_message(&mut self.input) else {
                let done = self.ended && self.output.is_empty();
                let too_long = self.input.len() >= QUERY_MAX;
                return if done || too_long {
                    None
                } else {
                    Some(Step::Waits)
                };
            };
            match names.query(&query) {
                Next::Answer(answer) => put(&mut self.output, &answer),
                Next::Ignore => return None,
                Next::Forward => match Server::ask(names, &query) {
                    Some(server) => return Some(Step::Asks(self.server.insert(server).fd())),
                    None => put(&mut self.output, &message::empty(&query, SERVER_FAILURE)),
                },
            }
        }
        Some(Step::Again)
    }
}

impl Server {
    /// Asks the first server that can be reached.
    fn ask(names: &Names, query: &[u8]) -> Option<Self> {
        let mut servers = names.servers();
        servers.reverse();
        let over = |over| servers.iter().map(move |to| (over, *to));
        Self::ask_one_of(
            over(Over::Udp).chain(over(Over::Tcp)).collect(),
            query.to_vec(),
        )
        .ok()
    }

    /// Asks the next server; `Err` with the question if there is none.
    fn next(self) -> Result<Self, Vec<u8>> {
        Self::ask_one_of(self.others, self.query)
    }

    fn ask_one_of(mut others: Vec<(Over, SocketAddr)>, query: Vec<u8>) -> Result<Self, Vec<u8>> {
        while let Some((over, server)) = others.pop() {
            let asked = match over {
                Over::Tcp => relay::connecting(server).ok().map(|fd: OwnedFd| {
                    let mut output = Vec::new();
                    put(&mut output, &query);
                    Asked::Tcp {
                        socket: fd.into(),
                        output,
                        input: vec![],
                    }
                }),
                Over::Udp => Pending::ask(&mut vec![server], &query).map(Asked::Udp),
            };
            if let Some(asked) = asked {
                return Ok(Self {
                    query,
                    asked,
                    others,
                });
            }
        }
        Err(query)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.asked {
            Asked::Tcp { socket, .. } => socket.as_fd(),
            Asked::Udp(socket) => socket.as_fd(),
        }
    }

    /// Returns the answer if it has come. The outer `None` means that no answer can come.
    fn pump(&mut self) -> Option<Option<Vec<u8>>> {
        match &mut self.asked {
            Asked::Tcp {
                socket,
                output,
                input,
            } => {
                flush(socket, output)?;
                let moved = fill(socket, input, 65_537)?;
                match take_message(input) {
                    None if moved == Moved::Ended => None,
                    answer => Some(answer),
                }
            }
            Asked::Udp(socket) => loop {
                match answer_to(&self.query, socket) {
                    Ok(None) => {}
                    Ok(answer) => return Some(answer),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(None),
                    Err(_) => return None,
                }
            },
        }
    }
}

/// Takes the first whole message out of `input`. Over TCP a message begins with its length.
fn take_message(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(input.get(..2)?.try_into().ok()?));
    let message = input.get(2..2 + length)?.to_vec();
    input.drain(..2 + length);
    Some(message)
}

fn put(output: &mut Vec<u8>, message: &[u8]) {
    output.extend_from_slice(&(message.len() as u16).to_be_bytes());
    output.extend_from_slice(message);
}

/// Reads the bytes that are there, up to `limit`. `None` for a broken connection.
fn fill(socket: &mut TcpStream, input: &mut Vec<u8>, limit: usize) -> Option<Moved> {
    let mut buffer = [0; 4096];
    while input.len() < limit {
        match socket.read(&mut buffer) {
            Ok(0) => return Some(Moved::Ended),
            Ok(length) => input.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(Moved::Waits),
            Err(error) if error.kind() == ErrorKind::NotConnected => return Some(Moved::Waits),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(Moved::Waits)
}

fn flush(socket: &mut TcpStream, output: &mut Vec<u8>) -> Option<()> {
    while !output.is_empty() {
        match socket.write(output) {
            Ok(length) => drop(output.drain(..length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(())
}
