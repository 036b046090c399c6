//! The resolver: names, aliases and addresses of the network's containers; everything else is
//! passed on to other servers and never answered from memory. An internal network passes nothing
//! on (CVE-2024-29018).

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::hosts;
use super::super::network::Network;
use super::super::store::Record;
use super::inbox::Asker;
use super::message::{self, Found, NAME_ERROR, Question, SERVER_FAILURE};
use super::{host_servers, relay};

/// How long one server may take.
const SERVER_LIMIT: Duration = Duration::from_millis(2500);
/// How long a TCP connection may stay, whatever it does (CVE-2026-35406).
pub(super) const STREAM_LIMIT: Duration = Duration::from_secs(10);
/// How many questions of one TCP connection are answered before it is another one's turn.
const TURN: usize = 8;
/// A client that does not read its answers is asked for no more questions.
const OUTPUT_MAX: usize = 64 * 1024;
/// A query is longer only by mistake.
const QUERY_MAX: usize = 4096;
/// Above this many members of a network `/etc/hosts` lists links only: names are the resolver's.
const HOSTS_MAX: usize = 32;

/// What the resolver knows.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) network: Network,
    members: BTreeMap<String, Record>,
    /// The members' addresses in this network.
    holders: BTreeMap<IpAddr, Rc<str>>,
}

/// What becomes of a query.
pub(super) enum Next {
    Answer(Vec<u8>),
    /// To be asked elsewhere.
    Forward,
    Ignore,
}

impl Names {
    pub(super) fn new(network: Network) -> Self {
        Self { network, members: BTreeMap::new(), holders: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, record: Record) {
        self.remove(&record.id);
        let id: Rc<str> = record.id.as_str().into();
        let addresses = self.addresses(&record).map(|address| (address, Rc::clone(&id)));
        let addresses: Vec<_> = addresses.collect();
        self.holders.extend(addresses);
        self.members.insert(record.id.clone(), record);
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.holders.retain(|_, holder| **holder != *id);
        self.members.remove(id);
    }

    /// The container of this network that has the address.
    pub(super) fn member(&self, address: IpAddr) -> Asker {
        self.holders.get(&address.to_canonical()).cloned()
    }

    fn addresses<'a>(&self, record: &'a Record) -> impl Iterator<Item = IpAddr> + use<'a> {
        let name = self.network.name.clone();
        let here = record.endpoints.iter().filter(move |endpoint| endpoint.network == name);
        here.flat_map(|endpoint| [Some(endpoint.address), endpoint.address6])
            .flatten()
            .map(|cidr| cidr.address)
    }

    pub(super) fn query(&self, query: &[u8]) -> Next {
        match message::question(query) {
            None => Next::Ignore,
            Some(Err(code)) => Next::Answer(message::empty(query, code)),
            Some(Ok(question)) => self.resolve(query, &question),
        }
    }

    fn resolve(&self, query: &[u8], question: &Question) -> Next {
        if let Some(address) = message::reverse(&question.name) {
            let holds = |record: &&Record| self.addresses(record).any(|own| own == address);
            if let Some(record) = self.members.values().find(holds) {
                let name = record.names.first().map_or("", String::as_str);
                return Next::Answer(message::answer(query, question, &[Found::Name(name)]));
            }
        }
        let qualified = question.name.strip_suffix(&self.network.name.to_ascii_lowercase());
        let short = qualified.and_then(|name| name.strip_suffix('.'));
        let known = |record: &&Record| {
            let same = |name: &String| {
                name.eq_ignore_ascii_case(&question.name)
                    || short.is_some_and(|short| name.eq_ignore_ascii_case(short))
            };
            record.names.iter().any(same)
        };
        let mut records = self.members.values().filter(known).peekable();
        if records.peek().is_some() {
            let addresses = records.flat_map(|record| self.addresses(record));
            let found: Vec<_> = addresses.map(Found::Address).collect();
            return Next::Answer(message::answer(query, question, &found));
        }
        match self.network.internal {
            true => Next::Answer(message::empty(query, NAME_ERROR)),
            false => Next::Forward,
        }
    }

    /// Whom to ask: the network's servers, or the host's.
    fn servers(&self) -> Vec<SocketAddr> {
        let servers = match &self.network.config.dns {
            Some(servers) => servers.clone(),
            None => host_servers(),
        };
        let own = |server: &IpAddr| self.network.gateways().any(|own| own.address == *server);
        servers.into_iter().filter(|server| !own(server)).map(|ip| (ip, 53).into()).collect()
    }

    /// Brings the containers' files up to date after `id` has come or gone.
    pub(super) fn write_hosts(&self, id: &str) {
        let few = self.members.len() <= HOSTS_MAX;
        for (own, record) in &self.members {
            let linked = record.links.iter().any(|link| link.id == id);
            let Some(files) = record.files.as_ref().filter(|_| own == id || linked || few) else {
                continue;
            };
            let block = self.hosts_of(record, few);
            if let Err(error) = hosts::update(files, "hosts", &self.network.name, &block) {
                crate::log::warn(crate::error::line(&error));
            }
        }
    }

    fn hosts_of(&self, record: &Record, all: bool) -> String {
        let mut text = String::new();
        let mut lines = |record: &Record, names: &[String]| {
            text.extend(self.addresses(record).map(|address| hosts::line(address, names)));
        };
        lines(record, &record.names);
        for link in &record.links {
            if let Some(peer) = self.members.get(&link.id) {
                lines(peer, std::slice::from_ref(&link.name));
            }
        }
        for (id, peer) in self.members.iter().filter(|(id, _)| all && **id != record.id) {
            if !record.links.iter().any(|link| link.id == *id && link.name == *id) {
                lines(peer, &peer.names);
            }
        }
        text
    }
}

/// A query that another server has been asked, over UDP.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) socket: UdpSocket,
    query: Vec<u8>,
    pub(super) client: SocketAddr,
    /// The source at which the query arrived.
    pub(super) via: u64,
    servers: Vec<SocketAddr>,
    since: Instant,
}

impl Pending {
    /// Asks the first server; `None` if there is none.
    pub(super) fn new(names: &Names, query: &[u8], client: SocketAddr, via: u64) -> Option<Self> {
        let mut servers = names.servers();
        servers.reverse();
        let socket = Self::ask(&mut servers, query)?;
        let query = query.to_vec();
        Some(Self { socket, query, client, via, servers, since: Instant::now() })
    }

    /// A socket of its own for each query: its port is one more thing that a forger has to guess.
    fn ask(servers: &mut Vec<SocketAddr>, query: &[u8]) -> Option<UdpSocket> {
        while let Some(server) = servers.pop() {
            let own: SocketAddr = match server {
                SocketAddr::V4(_) => ([0; 4], 0).into(),
                SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
            };
            let asked = UdpSocket::bind(own).and_then(|socket| {
                socket.connect(server)?;
                socket.set_nonblocking(true)?;
                socket.send(query).map(|_| socket)
            });
            if let Ok(socket) = asked {
                return Some(socket);
            }
        }
        None
    }

    /// The answer, if it has come, for the client.
    pub(super) fn answer(&self) -> Option<Vec<u8>> {
        answer_to(&self.query, &self.socket).ok()?
    }

    pub(super) fn is_late(&self) -> bool {
        self.since.elapsed() > SERVER_LIMIT
    }

    /// Asks the next server; `Err` if there is none.
    pub(super) fn next(mut self) -> Result<Self, Self> {
        match Self::ask(&mut self.servers, &self.query) {
            Some(socket) => Ok(Self { socket, since: Instant::now(), ..self }),
            None => Err(self),
        }
    }

    /// What the client gets if nobody answers.
    pub(super) fn failure(&self) -> Vec<u8> {
        message::empty(&self.query, SERVER_FAILURE)
    }
}

/// A client over TCP, and the server that it is asked for at the moment.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) client: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Whether the client has said all that it has to say.
    ended: bool,
    server: Option<Server>,
}

/// A question that other servers are asked for a client over TCP: over TCP as well, since the answer
/// may be long, and over UDP where a server does not speak it.
#[derive(Debug)]
struct Server {
    query: Vec<u8>,
    asked: Asked,
    /// Who can still be asked, the next one last.
    others: Vec<(Over, SocketAddr)>,
}

#[derive(Clone, Copy, Debug)]
enum Over {
    Tcp,
    Udp,
}

#[derive(Debug)]
enum Asked {
    Tcp { socket: TcpStream, output: Vec<u8>, input: Vec<u8> },
    Udp(UdpSocket),
}

/// What a socket's buffers did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    Ended,
    Waits,
}

/// How far a client over TCP has come.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// It waits for one of its ends.
    Waits,
    /// There is more, after the others' turn.
    Again,
    /// It waits for a server that has been asked at this moment.
    Asks(BorrowedFd<'a>),
}

impl Stream {
    pub(super) fn new(client: TcpStream) -> std::io::Result<Self> {
        client.set_nonblocking(true)?;
        Ok(Self { client, input: vec![], output: vec![], ended: false, server: None })
    }

    /// Goes on as far as it can in one turn. `None` at its end.
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
            let Some(query) = take(&mut self.input) else {
                let done = self.ended && self.output.is_empty();
                let too_long = self.input.len() >= QUERY_MAX;
                return if done || too_long { None } else { Some(Step::Waits) };
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
    /// Asks the first server that can be.
    fn ask(names: &Names, query: &[u8]) -> Option<Self> {
        let mut servers = names.servers();
        servers.reverse();
        let over = |over| servers.iter().map(move |to| (over, *to));
        Self::ask_one_of(over(Over::Udp).chain(over(Over::Tcp)).collect(), query.to_vec()).ok()
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
                    Asked::Tcp { socket: fd.into(), output, input: vec![] }
                }),
                Over::Udp => Pending::ask(&mut vec![server], &query).map(Asked::Udp),
            };
            if let Some(asked) = asked {
                return Ok(Self { query, asked, others });
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

    /// The answer if it has come; the outer `None` if none can come.
    fn pump(&mut self) -> Option<Option<Vec<u8>>> {
        match &mut self.asked {
            Asked::Tcp { socket, output, input } => {
                flush(socket, output)?;
                let moved = fill(socket, input, 65_537)?;
                match take(input) {
                    None if moved == Moved::Ended => None,
                    answer => Some(answer),
                }
            }
            Asked::Udp(socket) => match answer_to(&self.query, socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Some(None),
                Err(_) => None,
                Ok(answer) => Some(answer),
            },
        }
    }
}

/// What a server has answered over UDP; `None` for what is no answer to the query.
fn answer_to(query: &[u8], socket: &UdpSocket) -> std::io::Result<Option<Vec<u8>>> {
    let mut buffer = [0; 65_535];
    let length = socket.recv(&mut buffer)?;
    let same = length >= 12 && buffer[..2] == query[..2] && buffer[2] & 0x80 != 0;
    Ok(same.then(|| buffer[..length].to_vec()))
}

/// Messages over TCP begin with their length.
fn take(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(input.get(..2)?.try_into().ok()?));
    let message = input.get(2..2 + length)?.to_vec();
    input.drain(..2 + length);
    Some(message)
}

fn put(output: &mut Vec<u8>, message: &[u8]) {
    output.extend_from_slice(&(message.len() as u16).to_be_bytes());
    output.extend_from_slice(message);
}

/// Reads what is there, up to `limit`; `None` for a broken connection.
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
