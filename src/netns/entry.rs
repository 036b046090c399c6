//! The network records of containers, as their files are. A record that cannot be read or believed
//! stops no other container.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow};

use super::file::{gone, names, new_name, read_entry, write};
use super::lease::Lease;
use super::record::{NetworkRecord, check_record};
use super::store::Store;
use crate::id::check_id;

/// The content of a record's file.
#[derive(Debug)]
pub(super) enum RecordEntry {
    Whole(Box<NetworkRecord>),
    /// Why it cannot be read or believed.
    Unreadable(Error),
}

impl Store {
    fn container(&self, id: &str) -> PathBuf {
        container(self.directory(), id)
    }

    /// Returns the container's record, if there is one that can be read and believed.
    pub(super) fn record(&self, id: &str) -> Result<Option<NetworkRecord>> {
        match self.entry(id)? {
            Some(RecordEntry::Whole(record)) => Ok(Some(*record)),
            _ => Ok(None),
        }
    }

    /// Returns the content of the container's file.
    ///
    /// # Errors
    /// The file could not be read this time, and another try may succeed.
    pub(super) fn entry(&self, id: &str) -> Result<Option<RecordEntry>> {
        let path = self.container(id);
        let Some(read) = read_entry::<NetworkRecord>(&path)? else {
            return Ok(None);
        };
        let checked = read.and_then(|record| check_record(id, &record).map(|()| record));
        let record = match checked.with_context(|| path.display().to_string()) {
            Ok(record) => record,
            Err(error) => return Ok(Some(RecordEntry::Unreadable(error))),
        };
        Ok(Some(match self.foreign_lease(&record)? {
            None => RecordEntry::Whole(Box::new(record)),
            Some((address, holder)) => RecordEntry::Unreadable(anyhow!(
                "{}: {address}: is an address of {holder}",
                path.display()
            )),
        }))
    }

    /// Returns an address of the record that another container holds, and that container: believing
    /// the record would take the address from it.
    fn foreign_lease(&self, record: &NetworkRecord) -> Result<Option<(IpAddr, String)>> {
        for endpoint in &record.endpoints {
            for address in endpoint.addresses() {
                if let Lease::Held(holder) = self.holder(&endpoint.network, address)?
                    && holder != record.id
                {
                    return Ok(Some((address, holder)));
                }
            }
        }
        Ok(None)
    }

    pub(super) fn save(&self, record: &NetworkRecord) -> Result<()> {
        write(&self.container(&record.id), record)
    }

    pub(super) fn forget(&self, id: &str) -> Result<()> {
        let path = self.container(id);
        let new = new_name(&path);
        gone(fs::remove_file(&new), &new)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::IsADirectory => {
                fs::remove_dir_all(&path).with_context(|| path.display().to_string())
            }
            result => gone(result, &path),
        }
    }

    /// Returns the ids of all containers with a record.
    pub(super) fn ids(&self) -> Result<Vec<String>> {
        let names = names(&self.directory().join("containers"))?;
        Ok(names
            .iter()
            .filter_map(|name| name.strip_suffix(".json"))
            .map(Into::into)
            .collect())
    }

    /// Returns all records that can be read.
    pub(super) fn records(&self) -> Result<Vec<NetworkRecord>> {
        let ids = self.ids()?;
        ids.iter()
            .filter_map(|id| self.record(id).transpose())
            .collect()
    }

    /// Returns the records that cannot be read: id and reason.
    pub(super) fn unreadable(&self) -> Result<Vec<(String, Error)>> {
        let mut all = Vec::new();
        for id in self.ids()? {
            if let Some(RecordEntry::Unreadable(error)) = self.entry(&id)? {
                all.push((id, error));
            }
        }
        Ok(all)
    }
}

fn container(directory: &Path, id: &str) -> PathBuf {
    directory.join("containers").join(format!("{id}.json"))
}

/// Returns the record of a container. Without the lock it may be about to change.
pub(super) fn read_record(directory: &Path, id: &str) -> Result<Option<NetworkRecord>> {
    check_id(id)?;
    let path = container(directory, id);
    let Some(read) = read_entry::<NetworkRecord>(&path)? else {
        return Ok(None);
    };
    let record = read.with_context(|| path.display().to_string())?;
    check_record(id, &record).with_context(|| path.display().to_string())?;
    Ok(Some(record))
}
