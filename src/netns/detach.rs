//! `del` removes what a record names, as far as it exists, whatever became of the container and
//! however far `add` had come.

use anyhow::{Context, Error, Result};

use super::lease::Lease;
use super::record::{Endpoint, NetworkRecord};
use super::store::Store;
use super::{conntrack, firewall, hosts, ours, point, serve};
use crate::log;
use crate::netlink::link::RouteNetlink;

/// Removes everything of a container. It continues after an error. The record then stays, so that
/// another try can find the rest.
pub(super) fn detach(store: &Store, record: &NetworkRecord) -> Result<()> {
    let mut first = None;
    let mut note = |result: Result<()>| {
        if let Err(error) = result {
            first.get_or_insert(error);
        }
    };
    let mut here = RouteNetlink::here()?;
    for point in &record.points {
        note(point::remove(store, record, point, &mut here));
    }
    for endpoint in &record.endpoints {
        note(firewall_remove(store, record, endpoint));
        note(serve::del(store, &endpoint.network, &record.id));
        clear_files(record, &endpoint.network);
        let whose = (endpoint.network.as_str(), record.id.as_str());
        note(ours::remove(
            store,
            &mut here,
            &endpoint.host_interface,
            whose,
        ));
        for address in endpoint.addresses() {
            note(store.release(&endpoint.network, address, &record.id));
        }
        note(retire(store, &endpoint.network, &mut here));
    }
    clear_files(record, hosts::BASE);
    match first {
        Some(error) => Err::<(), Error>(error),
        None => store.forget(&record.id),
    }
}

/// Removes the lines of `label` from the container's files, and keeps all others. The bundle may be
/// gone. A container that has made something else of its files must not prevent the removal of its
/// network, so errors are only logged.
fn clear_files(record: &NetworkRecord, label: &str) {
    let Some(files) = record.files.as_ref().filter(|files| files.is_dir()) else {
        return;
    };
    for name in ["hosts", "resolv.conf"] {
        // If an `add` is taken back, it has reported itself what is wrong with the files.
        if let Err(error) = hosts::update(files, name, label, "")
            && record.complete
        {
            log::warn(crate::error::line(&error));
        }
    }
}

fn firewall_remove(store: &Store, record: &NetworkRecord, endpoint: &Endpoint) -> Result<()> {
    let Some(in_use) = store.in_use(&endpoint.network)? else {
        return Ok(());
    };
    match in_use.error {
        // It is not known which elements the container had.
        Some(_) => firewall::forget(store, &record.id)?,
        None => firewall::remove(store, &in_use.network, endpoint, record)?,
    }
    let addresses: Vec<_> = endpoint.addresses().collect();
    conntrack::flush(&endpoint.publish, &addresses).context("conntrack")
}

/// Removes a network in which no container is left.
pub(super) fn retire(store: &Store, name: &str, here: &mut RouteNetlink) -> Result<()> {
    if !store.is_empty(name)? {
        return Ok(());
    }
    let Some(in_use) = store.in_use(name)? else {
        return store.deactivate(name);
    };
    serve::end(store, name)?;
    firewall::end(store, &in_use)?;
    if in_use.made_bridge {
        ours::remove_bridge(here, &in_use.network)?;
    }
    store.deactivate(name)
}

/// Removes everything that names the id: this is `del` without a record that can be read. If there
/// is no record at all, that is what `add` may have left before it wrote one.
pub(super) fn sweep(store: &Store, id: &str, had_record: bool) -> Result<()> {
    let mut here = RouteNetlink::here()?;
    let before = here.all()?.len();
    ours::remove_all(store, &mut here, id)?;
    // It is not known which elements the container had: those of all others are added anew.
    let was_known = had_record || here.all()?.len() != before;
    if was_known {
        firewall::forget(store, id)?;
    }
    for network in store.active_names()? {
        if was_known {
            serve::del(store, &network, id)?;
        }
        for (address, holder) in store.leases(&network)? {
            if holder == id {
                store.release(&network, address, id)?;
            }
        }
    }
    // The record is removed before the networks, which end only if no container is left.
    store.forget(id)?;
    for network in store.active_names()? {
        retire(store, &network, &mut here)?;
    }
    Ok(())
}

/// Removes files that are not `rt`'s, and interfaces and leases of containers of which no record
/// exists; puts missing leases back. `prune` and `check --repair` do this.
pub(super) fn tidy(store: &Store) -> Result<()> {
    let mut here = RouteNetlink::here()?;
    let orphans = ours::orphans(store, &mut here)?;
    for name in &orphans {
        here.remove(name)?;
    }
    if !orphans.is_empty() {
        firewall::forget(store, "")?;
    }
    let records = store.records()?;
    for network in store.active_names()? {
        store.remove_bad_leases(&network)?;
        for record in &records {
            for endpoint in record.endpoints.iter().filter(|one| one.network == network) {
                for address in endpoint.addresses() {
                    if store.holder(&network, address)? == Lease::Free {
                        store.take(&network, address, &record.id)?;
                    }
                }
            }
        }
        for (address, holder) in store.leases(&network)? {
            let is_held = match store.record(&holder)? {
                Some(record) => {
                    let own = record.endpoints.iter().filter(|one| one.network == network);
                    own.flat_map(Endpoint::addresses).any(|one| one == address)
                }
                None => false,
            };
            if !is_held {
                store.release(&network, address, &holder)?;
            }
        }
        retire(store, &network, &mut here)?;
    }
    Ok(())
}
