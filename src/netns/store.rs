//! What is remembered of networks and containers, below `/run/rt-netns`, which a reboot empties.
//!
//! | file | what it is |
//! |---|---|
//! | `lock` | flock(2) on it serialises everything that changes something |
//! | `containers/ID.json` | [`Record`]: all that `del` needs, written before anything is made |
//! | `networks/NAME/network.json` | [`Active`]: the network as it was made |
//! | `networks/NAME/leases/ADDRESS` | a symbolic link whose target is the id of the holder |
//! | `networks/NAME/last` | the address given last |
//! | `networks/NAME/serve.sock` | where the network's helper process listens |
//!
//! A record whose container is gone binds nothing: its address is free, and `prune` removes it.
//! What cannot be read is met in `remains.rs`.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::host::Host;
use super::lease::Lease;
use super::network::{Config, check_name};
use super::remains::{Entry, check_record, read_entry};
use super::request::{LinkTo, Publish, Range};
use crate::id::check_id;
use crate::netlink::address::{Cidr, Mac};
use crate::process::Process;
use crate::sys;

const ACTIVE: &str = "network.json";
/// How long a command waits for another one.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

/// The network namespace of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Namespace {
    /// Where it is bound, unless it lives by its process alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<PathBuf>,
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// A container in one network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) network: String,
    pub(super) host_interface: String,
    pub(super) interface: String,
    pub(super) mac: Mac,
    pub(super) address: Cidr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address6: Option<Cidr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) publish: Vec<Publish>,
    /// Of the linked containers in this network: host interface, and ports (all if none).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) links: Vec<(String, Vec<Range>)>,
}

impl Endpoint {
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.address.address).chain(self.address6.map(|cidr| cidr.address))
    }
}

/// One end of a point-to-point link.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) peer: String,
    pub(super) interface: String,
    pub(super) own: IpAddr,
    pub(super) its: IpAddr,
    /// The other end's name, in the host's namespace if the peer is the host.
    pub(super) peer_interface: String,
}

/// Everything about a container's network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) id: String,
    /// Whether `add` has come to its end.
    pub(super) complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) process: Option<Process>,
    pub(super) namespace: Namespace,
    /// Host name, id and aliases, the first one first.
    pub(super) names: Vec<String>,
    pub(super) endpoints: Vec<Endpoint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) points: Vec<Point>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) expose: Vec<Range>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) links: Vec<LinkTo>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) hosts: Vec<(String, Option<IpAddr>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) files: Option<PathBuf>,
}

impl Record {
    /// Whether the container's process lives, or its namespace is still where it was.
    pub(super) fn is_alive(&self) -> Result<bool> {
        if let Some(process) = self.process {
            return Ok(process.open()?.is_some());
        }
        let Some(path) = &self.namespace.path else {
            return Ok(false);
        };
        match fs::metadata(path) {
            Ok(meta) => {
                Ok((meta.dev(), meta.ino()) == (self.namespace.device, self.namespace.inode))
            }
            Err(error)
                if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) =>
            {
                Ok(false)
            }
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// The ports that the container serves, as far as it is known.
    pub(super) fn ports(&self) -> Vec<Range> {
        let published = self
            .endpoints
            .iter()
            .flat_map(|endpoint| &endpoint.publish)
            .map(|port| port.to);
        self.expose.iter().copied().chain(published).collect()
    }
}

/// A network in use.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Active {
    pub(super) config: Config,
    /// Whether the bridge is ours to remove.
    pub(super) made_bridge: bool,
}

/// The directory, locked.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    /// Where networks are described.
    networks: PathBuf,
    /// Held until this is dropped.
    _lock: File,
}

impl Store {
    /// Waits, up to a limit, until no other command works on the networks.
    pub(super) fn lock(host: &Host) -> Result<Self> {
        let directory = host.state.as_path();
        let context = || directory.display().to_string();
        make_directory(&directory.join("containers")).with_context(context)?;
        make_directory(&directory.join("networks")).with_context(context)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(directory.join("lock")).with_context(context)?;
        let deadline = Instant::now() + LOCK_LIMIT;
        loop {
            match lock.try_lock() {
                Ok(()) => {
                    let networks = host.networks.clone();
                    return Ok(Self {
                        directory: directory.to_owned(),
                        networks,
                        _lock: lock,
                    });
                }
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {}
                Err(TryLockError::WouldBlock) => {
                    bail!(
                        "{}: another command works on the networks",
                        directory.display()
                    )
                }
                Err(TryLockError::Error(error)) => return Err(error).with_context(context),
            }
            sys::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where networks are described.
    pub(super) fn networks(&self) -> &Path {
        &self.networks
    }

    fn container(&self, id: &str) -> PathBuf {
        container(&self.directory, id)
    }

    pub(super) fn network(&self, name: &str) -> PathBuf {
        network(&self.directory, name)
    }

    /// The container's record, if there is one that can be read and believed.
    pub(super) fn record(&self, id: &str) -> Result<Option<Record>> {
        match self.entry(id)? {
            Some(Entry::Whole(record)) => Ok(Some(*record)),
            _ => Ok(None),
        }
    }

    /// What stands in the container's place.
    ///
    /// # Errors
    /// Where another try may find out.
    pub(super) fn entry(&self, id: &str) -> Result<Option<Entry>> {
        let path = self.container(id);
        let Some(read) = read_entry::<Record>(&path)? else {
            return Ok(None);
        };
        let checked = read.and_then(|record| check_record(id, &record).map(|()| record));
        let record = match checked.with_context(|| path.display().to_string()) {
            Ok(record) => record,
            Err(error) => return Ok(Some(Entry::Unreadable(error))),
        };
        Ok(Some(match self.foreign_lease(&record)? {
            None => Entry::Whole(Box::new(record)),
            Some((address, holder)) => Entry::Unreadable(anyhow!(
                "{}: {address}: is an address of {holder}",
                path.display()
            )),
        }))
    }

    /// An address of the record's that somebody else holds, and who: to take the record's word would
    /// take it from him.
    fn foreign_lease(&self, record: &Record) -> Result<Option<(IpAddr, String)>> {
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

    pub(super) fn save(&self, record: &Record) -> Result<()> {
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

    /// The ids of all containers with a record.
    pub(super) fn ids(&self) -> Result<Vec<String>> {
        let names = names(&self.directory.join("containers"))?;
        Ok(names
            .iter()
            .filter_map(|name| name.strip_suffix(".json"))
            .map(Into::into)
            .collect())
    }

    /// All records that can be read.
    pub(super) fn records(&self) -> Result<Vec<Record>> {
        let ids = self.ids()?;
        ids.iter()
            .filter_map(|id| self.record(id).transpose())
            .collect()
    }

    /// The records that cannot be read: id and reason.
    pub(super) fn unreadable(&self) -> Result<Vec<(String, Error)>> {
        let mut all = Vec::new();
        for id in self.ids()? {
            if let Some(Entry::Unreadable(error)) = self.entry(&id)? {
                all.push((id, error));
            }
        }
        Ok(all)
    }

    /// The network's file, or why it cannot be read.
    pub(super) fn active(&self, network: &str) -> Result<Option<Result<Active>>> {
        let path = self.network(network).join(ACTIVE);
        let read = read_entry(&path)?;
        Ok(read.map(|active| active.with_context(|| path.display().to_string())))
    }

    /// The names of the networks that are in use.
    pub(super) fn active_names(&self) -> Result<Vec<String>> {
        let mut names = names(&self.directory.join("networks"))?;
        names.retain(|name| check_name(name).is_ok());
        Ok(names)
    }

    pub(super) fn activate(&self, network: &str, active: &Active) -> Result<()> {
        let directory = self.network(network);
        make_directory(&directory.join("leases"))
            .with_context(|| directory.display().to_string())?;
        write(&directory.join(ACTIVE), active)
    }

    pub(super) fn deactivate(&self, network: &str) -> Result<()> {
        let directory = self.network(network);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                gone(fs::remove_file(&directory), &directory)
            }
            result => result.with_context(|| directory.display().to_string()),
        }
    }

    pub(super) fn last(&self, network: &str) -> Option<IpAddr> {
        fs::read_to_string(self.network(network).join("last"))
            .ok()?
            .parse()
            .ok()
    }

    pub(super) fn set_last(&self, network: &str, address: IpAddr) -> Result<()> {
        let path = self.network(network).join("last");
        fs::write(&path, address.to_string()).with_context(|| path.display().to_string())
    }
}

fn container(directory: &Path, id: &str) -> PathBuf {
    directory.join("containers").join(format!("{id}.json"))
}

/// The record of a container; without the lock it may be about to change.
pub(super) fn read_record(directory: &Path, id: &str) -> Result<Option<Record>> {
    check_id(id)?;
    let path = container(directory, id);
    let Some(read) = read_entry::<Record>(&path)? else {
        return Ok(None);
    };
    let record = read.with_context(|| path.display().to_string())?;
    check_record(id, &record).with_context(|| path.display().to_string())?;
    Ok(Some(record))
}

fn network(directory: &Path, name: &str) -> PathBuf {
    directory.join("networks").join(name)
}

/// The network as it was made, read without the lock.
pub(super) fn read_active(directory: &Path, name: &str) -> Result<Option<Active>> {
    let path = network(directory, name).join(ACTIVE);
    read_entry(&path)?
        .transpose()
        .with_context(|| path.display().to_string())
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(_) => DirBuilder::new().recursive(true).mode(0o700).create(path),
    }
}

/// Where a file is written before it takes its name.
fn new_name(path: &Path) -> PathBuf {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    new.into()
}

/// Replaces the file in one step.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let new = new_name(path);
    let bytes = serde_json::to_vec(value)?;
    fs::write(&new, bytes)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| path.display().to_string())
}

/// The result of a removal, where something that is gone already is none the worse.
pub(super) fn gone(result: io::Result<()>, path: &Path) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| path.display().to_string()),
    }
}

/// The names of a directory's entries, in order.
pub(super) fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match sys::list_directory(directory) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => vec![],
        result => result.with_context(|| directory.display().to_string())?,
    };
    let mut names: Vec<_> = entries
        .into_iter()
        .filter_map(|entry| entry.name.into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}
