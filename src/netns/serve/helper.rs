//! The helper of a network as the commands see it: they start it, tell it which containers come and
//! go, and end it.

use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::super::network::Network;
use super::super::ports::{Held, hold};
use super::super::record::{Endpoint, NetworkRecord};
use super::super::store::Store;
use super::connection::{Connection, SOCKET};
use super::resolver_socket::resolver_sockets;
use super::start::start;
use crate::{log, sys};

/// How often `rt` tries to open a socket that a killed helper has not closed yet, and how long it
/// waits between two tries.
const CLOSE_TRIES: usize = 80;
const CLOSE_PAUSE: Duration = Duration::from_millis(25);

/// Tells the helper of the network about a container, and starts the helper if it does not run.
pub fn add(store: &Store, network: &Network, record: &NetworkRecord, held: &[Held]) -> Result<()> {
    ensure(store, network, Some(&record.id))?.add(&record.id, held)
}

/// Starts the network's helper if it does not run.
pub fn repair(store: &Store, network: &Network) -> Result<()> {
    ensure(store, network, None).map(drop)
}

/// Returns a connection to the helper of the network. If it does not run it is started and told all
/// that it should know, except the container `except`.
fn ensure(store: &Store, network: &Network, except: Option<&str>) -> Result<Connection> {
    let directory = store.network(&network.name);
    if let Some(connection) = Connection::open(&directory)? {
        match connection.ask("hello", &[])?.as_str() {
            "ok" => return Ok(connection),
            // A command was killed while it introduced this helper. The sockets that the helper has
            // got would be in the way of opening them again, so it ends.
            "new" => connection.finish()?,
            // It is about to end, or is not a helper of `rt`.
            _ => {}
        }
    }
    let was_there = directory.join(SOCKET).try_exists().context(SOCKET)?;
    start(store, network)?;
    let connection = Connection::open(&directory)?.context("helper process: not there")?;
    introduce(store, network, connection, except, was_there)
}

/// Tells a new helper about the containers, the ports and the resolver. It knows the members before
/// it answers questions, since it refuses the questions of others. If another helper `was_there`,
/// that one may be about to close its sockets.
fn introduce(
    store: &Store,
    network: &Network,
    connection: Connection,
    except: Option<&str>,
    was_there: bool,
) -> Result<Connection> {
    let tries = if was_there { CLOSE_TRIES } else { 1 };
    let mut ids: Vec<_> = store
        .leases(&network.name)?
        .into_iter()
        .map(|(_, id)| id)
        .collect();
    ids.sort();
    ids.dedup();
    for id in ids.iter().filter(|id| Some(id.as_str()) != except) {
        if let Some(record) = living(store, id) {
            let endpoints = record
                .endpoints
                .iter()
                .filter(|one| one.network == network.name);
            let held: Vec<_> = endpoints.flat_map(|one| held_again(one, tries)).collect();
            connection.add(id, &held)?;
        }
    }
    if network.resolver {
        let sockets = while_in_use(tries, || resolver_sockets(network))?;
        let fds: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        connection.tell("dns", &fds)?;
    }
    connection.tell("ready", &[])?;
    Ok(connection)
}

/// Returns the network record of the container if it is alive. A record that cannot be read must
/// not keep the other containers from names and ports.
fn living(store: &Store, id: &str) -> Option<NetworkRecord> {
    let record = || -> Result<Option<NetworkRecord>> {
        let Some(record) = store.record(id)? else {
            return Ok(None);
        };
        Ok(record.is_alive()?.then_some(record))
    };
    record().unwrap_or_else(|error| {
        log::warn(crate::error::line(&error));
        None
    })
}

/// Opens the ports again that the helper before had held. If another program has taken one since,
/// the helper does not serve it; the kernel's translation comes before that program anyhow.
fn held_again(endpoint: &Endpoint, tries: usize) -> Vec<Held> {
    let mut all = Vec::new();
    let v6 = endpoint.address6.map(|cidr| cidr.address);
    for publish in &endpoint.publish {
        let held = || hold(&mut publish.clone(), endpoint.address.address, v6);
        match while_in_use(tries, held) {
            Ok(held) => all.extend(held),
            Err(error) => log::warn(crate::error::line(&error)),
        }
    }
    all
}

/// Calls `work` again as long as an address is in use, `tries` times at most.
fn while_in_use<T>(tries: usize, work: impl Fn() -> Result<T>) -> Result<T> {
    let in_use = |error: &anyhow::Error| error.downcast_ref() == Some(&Errno::EADDRINUSE);
    for _ in 1..tries {
        match work() {
            Err(error) if in_use(&error) => sys::sleep(CLOSE_PAUSE),
            result => return result,
        }
    }
    work()
}

/// Tells the helper, if there is one, that a container has gone.
pub fn del(store: &Store, network: &str, id: &str) -> Result<()> {
    match reach(store, network)? {
        Some(connection) => connection.ask(&format!("del {id}"), &[]).map(drop),
        None => Ok(()),
    }
}

fn reach(store: &Store, network: &str) -> Result<Option<Connection>> {
    let directory = store.network(network);
    let is_there = directory
        .try_exists()
        .with_context(|| directory.display().to_string())?;
    if is_there {
        Connection::open(&directory)
    } else {
        Ok(None)
    }
}

/// Ends the network's helper and waits for it.
pub fn end(store: &Store, network: &str) -> Result<()> {
    reach(store, network)?.map_or(Ok(()), |connection| connection.finish())
}

/// Whether the network's helper answers and knows its containers.
pub fn is_up(store: &Store, network: &str) -> Result<bool> {
    match reach(store, network)? {
        Some(connection) => Ok(connection.ask("hello", &[])? == "ok"),
        None => Ok(false),
    }
}
