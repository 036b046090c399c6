//! Refuses what an ordinary user may not have of the host.

use anyhow::{Result, bail};
use oci_spec::runtime::Linux;

use super::mount::{MountKind, MountPoint};
use super::root::RootfsPlan;
use crate::namespace::Namespaces;

/// Refuses what an ordinary user cannot have at all. Nothing is refused to root, nor to root of a
/// user namespace.
pub fn check_rootless(namespaces: &Namespaces, root: &RootfsPlan, linux: &Linux) -> Result<()> {
    if !namespaces.is_ordinary() {
        return Ok(());
    }
    if !namespaces.has_user() {
        bail!(
            "linux.namespaces: rootless container requires user namespaces (see rt spec --rootless)"
        );
    }
    if linux
        .net_devices()
        .as_ref()
        .is_some_and(|devices| !devices.is_empty())
    {
        bail!("linux.netDevices: an ordinary user has no rights over interfaces of the host");
    }
    let mapped = |mount: &&MountPoint| matches!(mount.what, MountKind::Bind { ids: Some(_), .. });
    match root.mounts.iter().find(mapped) {
        Some(mount) => bail!("{}: an ordinary user has no id-mapped mounts", mount.origin),
        None => Ok(()),
    }
}
