//! `del`: takes away what stands in a record, as far as it is there, whatever became of the
//! container and however far `add` had come.

use anyhow::{Context, Error, Result};

use super::attach::BASE;
use super::link::Links;
use super::network::Network;
use super::point;
use super::store::{Endpoint, Record, Store};
use super::{conntrack, firewall, hosts, serve};

/// Removes everything of a container. It goes on after an error; the record stays then, so that
/// another try can find the rest.
pub(super) fn detach(store: &Store, record: &Record) -> Result<()> {
    let mut first = None;
    let mut note = |result: Result<()>| {
        if let Err(error) = result {
            first.get_or_insert(error);
        }
    };
    let mut here = Links::here()?;
    for point in &record.points {
        note(point::remove(record, point, &mut here));
    }
    for endpoint in &record.endpoints {
        note(firewall_remove(store, record, endpoint));
        note(serve::del(store, &endpoint.network, &record.id));
        note(clear_files(record, &endpoint.network));
        note(here.remove(&endpoint.host_interface));
        for address in endpoint.addresses() {
            note(store.release(&endpoint.network, address, &record.id));
        }
        note(retire(store, &endpoint.network, &mut here));
    }
    note(clear_files(record, BASE));
    match first {
        Some(error) => Err::<(), Error>(error),
        None => store.forget(&record.id),
    }
}

/// The container's files keep what is not ours. The bundle may be gone.
fn clear_files(record: &Record, label: &str) -> Result<()> {
    let Some(files) = record.files.as_ref().filter(|files| files.is_dir()) else { return Ok(()) };
    hosts::update(files, "hosts", label, "")?;
    hosts::update(files, "resolv.conf", label, "")
}

fn firewall_remove(store: &Store, record: &Record, endpoint: &Endpoint) -> Result<()> {
    let Some(active) = store.active(&endpoint.network)? else { return Ok(()) };
    let network = Network::decide(&endpoint.network, active.config)?;
    firewall::remove(store, &network, endpoint, record)?;
    let addresses: Vec<_> = endpoint.addresses().collect();
    conntrack::flush(&endpoint.publish, &addresses).context("conntrack")
}

/// The end of a network that nobody is in any more.
pub(super) fn retire(store: &Store, name: &str, here: &mut Links) -> Result<()> {
    if !store.is_empty(name)? {
        return Ok(());
    }
    let Some(active) = store.active(name)? else { return store.deactivate(name) };
    let network = Network::decide(name, active.config)?;
    serve::end(store, name)?;
    let mut last = true;
    for other in store.active_names()? {
        if other != name
            && let Some(active) = store.active(&other)?
        {
            last &= active.config.driver.unwrap_or_default() != network.driver;
        }
    }
    firewall::end(store, &network, last)?;
    if active.made_bridge {
        here.remove(&network.bridge)?;
    }
    store.deactivate(name)
}

/// `del` of an id without a record: what `add` can have left before it wrote one.
pub(super) fn sweep(store: &Store, id: &str) -> Result<()> {
    let mut here = Links::here()?;
    for network in store.active_names()? {
        for (address, holder) in store.leases(&network)? {
            if holder == id {
                store.release(&network, address, id)?;
            }
        }
        retire(store, &network, &mut here)?;
    }
    store.forget(id)
}
