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

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::address::{Cidr, Mac};
use super::network::Config;
use super::request::{LinkTo, Publish, Range};
use crate::process::Process;
use crate::state::check_id;
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
        let Some(path) = &self.namespace.path else { return Ok(false) };
        Ok(fs::metadata(path).is_ok_and(|meta| {
            (meta.dev(), meta.ino()) == (self.namespace.device, self.namespace.inode)
        }))
    }

    /// The ports that the container serves, as far as it is known.
    pub(super) fn ports(&self) -> Vec<Range> {
        let published =
            self.endpoints.iter().flat_map(|endpoint| &endpoint.publish).map(|port| port.to);
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
    /// Held until this is dropped.
    _lock: File,
}

impl Store {
    /// Waits, up to a limit, until no other command works on the networks.
    pub(super) fn lock(directory: &Path) -> Result<Self> {
        let context = || directory.display().to_string();
        make_directory(&directory.join("containers")).with_context(context)?;
        make_directory(&directory.join("networks")).with_context(context)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(directory.join("lock")).with_context(context)?;
        let deadline = Instant::now() + LOCK_LIMIT;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { directory: directory.to_owned(), _lock: lock }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {}
                Err(TryLockError::WouldBlock) => {
                    bail!("{}: another command works on the networks", directory.display())
                }
                Err(TryLockError::Error(error)) => return Err(error).with_context(context),
            }
            sys::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn container(&self, id: &str) -> PathBuf {
        container(&self.directory, id)
    }

    pub(super) fn network(&self, name: &str) -> PathBuf {
        network(&self.directory, name)
    }

    fn lease(&self, network: &str, address: IpAddr) -> PathBuf {
        self.network(network).join("leases").join(address.to_string())
    }

    pub(super) fn record(&self, id: &str) -> Result<Option<Record>> {
        read_record(&self.directory, id)
    }

    pub(super) fn save(&self, record: &Record) -> Result<()> {
        write(&self.container(&record.id), record)
    }

    pub(super) fn forget(&self, id: &str) -> Result<()> {
        let path = self.container(id);
        let new = new_name(&path);
        gone(fs::remove_file(&new), &new)?;
        gone(fs::remove_file(&path), &path)
    }

    /// The ids of all containers with a record.
    pub(super) fn ids(&self) -> Result<Vec<String>> {
        let names = names(&self.directory.join("containers"))?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")).map(Into::into).collect())
    }

    pub(super) fn records(&self) -> Result<Vec<Record>> {
        let ids = self.ids()?;
        ids.iter().filter_map(|id| self.record(id).transpose()).collect()
    }

    pub(super) fn active(&self, network: &str) -> Result<Option<Active>> {
        read_active(&self.directory, network)
    }

    /// The names of the networks that are in use.
    pub(super) fn active_names(&self) -> Result<Vec<String>> {
        names(&self.directory.join("networks"))
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
            result => result.with_context(|| directory.display().to_string()),
        }
    }

    /// Who holds the address.
    pub(super) fn holder(&self, network: &str, address: IpAddr) -> Result<Option<String>> {
        let path = self.lease(network, address);
        match fs::read_link(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            result => {
                let holder = result.with_context(|| path.display().to_string())?;
                Ok(Some(holder.to_string_lossy().into_owned()))
            }
        }
    }

    pub(super) fn take(&self, network: &str, address: IpAddr, id: &str) -> Result<()> {
        let path = self.lease(network, address);
        symlink(id, &path).with_context(|| path.display().to_string())
    }

    /// Gives the address back if it is this container's.
    pub(super) fn release(&self, network: &str, address: IpAddr, id: &str) -> Result<()> {
        if self.holder(network, address)?.as_deref() != Some(id) {
            return Ok(());
        }
        let path = self.lease(network, address);
        gone(fs::remove_file(&path), &path)
    }

    /// Every address given in the network, with its holder.
    pub(super) fn leases(&self, network: &str) -> Result<Vec<(IpAddr, String)>> {
        let mut leases = Vec::new();
        for name in names(&self.network(network).join("leases"))? {
            if let Ok(address) = name.parse()
                && let Some(holder) = self.holder(network, address)?
            {
                leases.push((address, holder));
            }
        }
        Ok(leases)
    }

    /// Whether nobody has an address in the network.
    pub(super) fn is_empty(&self, network: &str) -> Result<bool> {
        match fs::read_dir(self.network(network).join("leases")) {
            Ok(mut entries) => match entries.next().transpose() {
                Ok(entry) => Ok(entry.is_none()),
                Err(error) => {
                    Err(error).with_context(|| self.network(network).display().to_string())
                }
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error).with_context(|| self.network(network).display().to_string()),
        }
    }

    pub(super) fn last(&self, network: &str) -> Option<IpAddr> {
        fs::read_to_string(self.network(network).join("last")).ok()?.parse().ok()
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
    read(&container(directory, id))
}

fn network(directory: &Path, name: &str) -> PathBuf {
    directory.join("networks").join(name)
}

/// The network as it was made, read without the lock.
pub(super) fn read_active(directory: &Path, name: &str) -> Result<Option<Active>> {
    read(&network(directory, name).join(ACTIVE))
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(_) => DirBuilder::new().recursive(true).mode(0o700).create(path),
    }
}

/// The file's JSON, if it is there.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => {
            let context = || path.display().to_string();
            serde_json::from_slice(&result.with_context(context)?).map(Some).with_context(context)
        }
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

fn gone(result: io::Result<()>, path: &Path) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| path.display().to_string()),
    }
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    match fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                names.extend(entry?.file_name().into_string().ok());
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| directory.display().to_string()),
    }
    names.sort();
    Ok(names)
}
