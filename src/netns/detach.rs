//! `del`: takes away what stands in a record, as far as it is there, whatever became of the
//! container and however far `add` had come.

use anyhow::{Context, Error, Result};

use super::lease::Lease;
use super::record::{Endpoint, NetworkRecord};
use super::store::Store;
use super::{conntrack, firewall, hosts, ours, point, serve};
use crate::log;
use crate::netlink::link::RouteNetlink;

/// Removes everything of a container. It goes on after an error; the record stays then, so that
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

/// The container's files keep what is not ours. The bundle may be gone, and a container that has
/// made something else of its files keeps nobody from removing its network.
fn clear_files(record: &NetworkRecord, label: &str) {
    let Some(files) = record.files.as_ref().filter(|files| files.is_dir()) else {
        return;
    };
    for name in ["hosts", "resolv.conf"] {
        // An `add` that is taken back has said itself what is wrong with them.
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
        // What the elements were is not known.
        Some(_) => firewall::forget(store, &record.id)?,
        None => firewall::remove(store, &in_use.network, endpoint, record)?,
    }
    let addresses: Vec<_> = endpoint.addresses().collect();
    conntrack::flush(&endpoint.publish, &addresses).context("conntrack")
}

/// The end of a network that nobody is in any more.
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

/// `del` of an id without a record that can be read: everything that names the id is removed. If
/// there is no record at all, that is what `add` can have left before it wrote one.
pub(super) fn sweep(store: &Store, id: &str, had_record: bool) -> Result<()> {
    let mut here = RouteNetlink::here()?;
    let before = here.all()?.len();
    ours::remove_all(store, &mut here, id)?;
    // Its elements are not known: all others are put in anew.
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
    // The record goes before the networks, whose end asks who is left.
    store.forget(id)?;
    for network in store.active_names()? {
        retire(store, &network, &mut here)?;
    }
    Ok(())
}

/// What `prune` and `check --repair` do about files that are none of ours, and about interfaces
/// and leases of containers of which nothing is remembered.
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
