//! What `rt netns` stores of networks and containers below `/run/rt-netns`, which a reboot empties.
//!
//! | file | what it is |
//! |---|---|
//! | `lock` | flock(2) on it serialises everything that changes something |
//! | `containers/ID.json` | all that `del` needs, written before anything is made (`record.rs`) |
//! | `networks/NAME/network.json` | [`Active`]: the network as it was made |
//! | `networks/NAME/leases/ADDRESS` | a symbolic link whose target is the id of the holder |
//! | `networks/NAME/last` | the address given last |
//! | `networks/NAME/serve.sock` | where the network's helper process listens |
//!
//! A record whose container is gone reserves nothing: its address is free, and `prune` removes it.
//! `entry.rs`, `in_use.rs` and `remains.rs` deal with files that cannot be read.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::description::Config;
use super::file::{gone, make_directory, names, read_entry, write};
use super::host::Host;
use super::network::check_name;
use crate::sys;

const ACTIVE: &str = "network.json";
/// How long a command waits for the lock.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

/// A network in use.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Active {
    pub(super) config: Config,
    /// Whether `rt` has made the bridge, and is to remove it.
    pub(super) made_bridge: bool,
}

/// The directory, with its lock held.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    /// The directory in which networks are described.
    networks: PathBuf,
    /// Held until this is dropped.
    _lock: File,
}

impl Store {
    /// Locks the directory. Waits, up to a limit, until no other command works on the networks.
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

    /// Returns the directory in which networks are described.
    pub(super) fn networks(&self) -> &Path {
        &self.networks
    }

    pub(super) fn network(&self, name: &str) -> PathBuf {
        network(&self.directory, name)
    }

    /// Returns the network's file, or why it cannot be read.
    pub(super) fn active(&self, network: &str) -> Result<Option<Result<Active>>> {
        let path = self.network(network).join(ACTIVE);
        let read = read_entry(&path)?;
        Ok(read.map(|active| active.with_context(|| path.display().to_string())))
    }

    /// Returns the names of the networks that are in use.
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

fn network(directory: &Path, name: &str) -> PathBuf {
    directory.join("networks").join(name)
}

/// Returns the network as it was made, read without the lock.
pub(super) fn read_active(directory: &Path, name: &str) -> Result<Option<Active>> {
    let path = network(directory, name).join(ACTIVE);
    read_entry(&path)?
        .transpose()
        .with_context(|| path.display().to_string())
}
