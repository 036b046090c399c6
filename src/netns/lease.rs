//! The leases: which container has which address. All of this happens under the store's lock.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::file::{gone, names};
use super::store::Store;
use crate::id::check_id;
use crate::sys;

/// What is known of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    Free,
    Held(String),
    /// The file in its place is no lease.
    Bad,
}

impl Store {
    fn lease(&self, network: &str, address: IpAddr) -> PathBuf {
        self.network(network)
            .join("leases")
            .join(address.to_string())
    }

    /// Returns which container holds the address.
    pub(super) fn holder(&self, network: &str, address: IpAddr) -> Result<Lease> {
        let path = self.lease(network, address);
        match fs::read_link(&path) {
            Ok(holder) => Ok(match holder.to_str().filter(|id| check_id(id).is_ok()) {
                Some(id) => Lease::Held(id.to_owned()),
                None => Lease::Bad,
            }),
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => Ok(Lease::Free),
                // It is no symbolic link.
                ErrorKind::InvalidInput => Ok(Lease::Bad),
                _ => Err(error).with_context(|| path.display().to_string()),
            },
        }
    }

    pub(super) fn take(&self, network: &str, address: IpAddr, id: &str) -> Result<()> {
        let path = self.lease(network, address);
        symlink(id, &path).with_context(|| path.display().to_string())
    }

    /// Gives the address back if this container holds it, or if the file in its place is no lease.
    pub(super) fn release(&self, network: &str, address: IpAddr, id: &str) -> Result<()> {
        match self.holder(network, address)? {
            Lease::Held(holder) if holder != id => Ok(()),
            Lease::Free => Ok(()),
            _ => self.remove_lease(network, &address.to_string()),
        }
    }

    fn remove_lease(&self, network: &str, name: &str) -> Result<()> {
        let path = self.network(network).join("leases").join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::IsADirectory => {
                fs::remove_dir_all(&path).with_context(|| path.display().to_string())
            }
            result => gone(result, &path),
        }
    }

    /// Returns every address that a container holds in the network, with its holder.
    pub(super) fn leases(&self, network: &str) -> Result<Vec<(IpAddr, String)>> {
        let mut leases = Vec::new();
        for name in self.lease_names(network)? {
            if let Ok(address) = name.parse()
                && let Lease::Held(holder) = self.holder(network, address)?
            {
                leases.push((address, holder));
            }
        }
        Ok(leases)
    }

    fn lease_names(&self, network: &str) -> Result<Vec<String>> {
        names(&self.network(network).join("leases"))
    }

    /// Removes every file among the leases of a network that is no lease.
    pub(super) fn remove_bad_leases(&self, network: &str) -> Result<()> {
        for name in self.lease_names(network)? {
            let good = match name.parse::<IpAddr>() {
                // A second spelling of an address would be a second lease.
                Ok(address) if address.to_string() == name => {
                    self.holder(network, address)? != Lease::Bad
                }
                _ => false,
            };
            if !good {
                self.remove_lease(network, &name)?;
            }
        }
        Ok(())
    }

    /// Whether no container has an address in the network. Usually the first file shows that one
    /// has.
    pub(super) fn is_empty(&self, network: &str) -> Result<bool> {
        let path = self.network(network).join("leases");
        let entries = match sys::list_directory(&path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(true),
            result => result.with_context(|| path.display().to_string())?,
        };
        for entry in entries {
            if let Some(address) = entry.name.to_str().and_then(|name| name.parse().ok())
                && matches!(self.holder(network, address)?, Lease::Held(_))
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
