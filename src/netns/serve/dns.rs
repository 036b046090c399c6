//! The resolver: it answers for names, aliases and addresses of the network's containers.
//! Everything else is passed on to other servers and never answered from memory. An internal
//! network passes nothing on (CVE-2024-29018).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::hosts;
use super::super::network::Network;
use super::super::record::NetworkRecord;
use super::super::resolv_conf::host_servers;
use super::inbox::Asker;
use super::message::{self, FoundName, NAME_ERROR, Question, SERVER_FAILURE};

/// How long one server may take to answer.
const SERVER_LIMIT: Duration = Duration::from_millis(2500);
/// In a network with more members than this, `/etc/hosts` lists only linked containers; the
/// resolver answers for the other names.
const HOSTS_MAX: usize = 32;

/// The network and the containers for which the resolver answers.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) network: Network,
    members: BTreeMap<String, NetworkRecord>,
    /// The members' addresses in this network.
    holders: BTreeMap<IpAddr, Rc<str>>,
}

/// What to do with a query.
pub(super) enum Next {
    Answer(Vec<u8>),
    /// Another server has to be asked.
    Forward,
    Ignore,
}

impl Names {
    pub(super) fn new(network: Network) -> Self {
        Self {
            network,
            members: BTreeMap::new(),
            holders: BTreeMap::new(),
        }
    }

    pub(super) fn insert(&mut self, record: NetworkRecord) {
        self.remove(&record.id);
        let id: Rc<str> = record.id.as_str().into();
        let addresses = self
            .addresses(&record)
            .map(|address| (address, Rc::clone(&id)));
        let addresses: Vec<_> = addresses.collect();
        self.holders.extend(addresses);
        self.members.insert(record.id.clone(), record);
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.holders.retain(|_, holder| **holder != *id);
        self.members.remove(id);
    }

    /// Returns the container of this network that has the address.
    pub(super) fn member(&self, address: IpAddr) -> Asker {
        self.holders.get(&address.to_canonical()).cloned()
    }

    fn addresses<'a>(&self, record: &'a NetworkRecord) -> impl Iterator<Item = IpAddr> + use<'a> {
        let name = self.network.name.clone();
        let here = record
            .endpoints
            .iter()
            .filter(move |endpoint| endpoint.network == name);
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
            let holds = |record: &&NetworkRecord| self.addresses(record).any(|own| own == address);
            if let Some(record) = self.members.values().find(holds) {
                let name = record.names.first().map_or("", String::as_str);
                return Next::Answer(message::answer(query, question, &[FoundName::Name(name)]));
            }
        }
        let qualified = question
            .name
            .strip_suffix(&self.network.name.to_ascii_lowercase());
        let short = qualified.and_then(|name| name.strip_suffix('.'));
        let known = |record: &&NetworkRecord| {
            let same = |name: &String| {
                name.eq_ignore_ascii_case(&question.name)
                    || short.is_some_and(|short| name.eq_ignore_ascii_case(short))
            };
            record.names.iter().any(same)
        };
        let mut records = self.members.values().filter(known).peekable();
        if records.peek().is_some() {
            let addresses = records.flat_map(|record| self.addresses(record));
            let found: Vec<_> = addresses.map(FoundName::Address).collect();
            return Next::Answer(message::answer(query, question, &found));
        }
        match self.network.internal {
            true => Next::Answer(message::empty(query, NAME_ERROR)),
            false => Next::Forward,
        }
    }

    /// Returns the servers to ask: the network's, or else the host's.
    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        let servers = match &self.network.config.dns {
            Some(servers) => servers.clone(),
            None => host_servers(),
        };
        let own = |server: &IpAddr| self.network.gateways().any(|own| own.address == *server);
        servers
            .into_iter()
            .filter(|server| !own(server))
            .map(|ip| (ip, 53).into())
            .collect()
    }

    /// Updates the containers' `/etc/hosts` after container `id` has come or gone.
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

    fn hosts_of(&self, record: &NetworkRecord, all: bool) -> String {
        let mut text = String::new();
        let mut lines = |record: &NetworkRecord, names: &[String]| {
            text.extend(
                self.addresses(record)
                    .map(|address| hosts::line(address, names)),
            );
        };
        lines(record, &record.names);
        for link in &record.links {
            if let Some(peer) = self.members.get(&link.id) {
                lines(peer, std::slice::from_ref(&link.name));
            }
        }
        for (id, peer) in self
            .members
            .iter()
            .filter(|(id, _)| all && **id != record.id)
        {
            if !record
                .links
                .iter()
                .any(|link| link.id == *id && link.name == *id)
            {
                lines(peer, &peer.names);
            }
        }
        text
    }
}

/// A query that has been passed on to another server over UDP.
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
    /// Asks the first server that can be asked; `None` if there is none.
    pub(super) fn new(names: &Names, query: &[u8], client: SocketAddr, via: u64) -> Option<Self> {
        let mut servers = names.servers();
        servers.reverse();
        let socket = Self::ask(&mut servers, query)?;
        let query = query.to_vec();
        Some(Self {
            socket,
            query,
            client,
            via,
            servers,
            since: Instant::now(),
        })
    }

    /// Asks the next server, the last of `servers`. Each query has a socket of its own: its port is
    /// one more thing that a forger has to guess.
    pub(super) fn ask(servers: &mut Vec<SocketAddr>, query: &[u8]) -> Option<UdpSocket> {
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

    /// Returns the answer for the client, if it has come.
    pub(super) fn answer(&self) -> Option<Vec<u8>> {
        answer_to(&self.query, &self.socket).ok()?
    }

    pub(super) fn is_late(&self) -> bool {
        self.since.elapsed() > SERVER_LIMIT
    }

    /// Asks the next server; `Err` if there is none.
    pub(super) fn next(mut self) -> Result<Self, Self> {
        match Self::ask(&mut self.servers, &self.query) {
            Some(socket) => Ok(Self {
                socket,
                since: Instant::now(),
                ..self
            }),
            None => Err(self),
        }
    }

    /// Returns the answer for the client if no server answers.
    pub(super) fn failure(&self) -> Vec<u8> {
        message::empty(&self.query, SERVER_FAILURE)
    }
}

/// Receives an answer over UDP; `None` for a datagram that is no answer to the query.
pub(super) fn answer_to(query: &[u8], socket: &UdpSocket) -> std::io::Result<Option<Vec<u8>>> {
    let mut buffer = [0; 65_535];
    let length = socket.recv(&mut buffer)?;
    let same = length >= 12 && buffer[..2] == query[..2] && buffer[2] & 0x80 != 0;
    Ok(same.then(|| buffer[..length].to_vec()))
}
