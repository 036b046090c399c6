//! Ordinary users, and root of a user namespace, who is one: what they may not have of the host.

use anyhow::{Result, bail};
use nix::sys::stat::stat;
use nix::unistd::geteuid;
use oci_spec::runtime::Linux;

use crate::namespace::Namespaces;
use crate::plan::{MountPoint, Root, What};

/// The inode of the first user namespace (`PROC_USER_INIT_INO`, <linux/proc_ns.h>).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Whether this process is root of the whole machine.
pub(crate) fn is_root_of_host() -> bool {
    let namespace = stat("/proc/self/ns/user");
    geteuid().is_root() && namespace.is_ok_and(|file| file.st_ino == FIRST_USER_NAMESPACE)
}

/// Refuses what an ordinary user cannot have at all.
pub(crate) fn check(namespaces: &Namespaces, root: &Root, linux: &Linux) -> Result<()> {
    if geteuid().is_root() {
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
    let mapped = |mount: &&MountPoint| matches!(mount.what, What::Bind { ids: Some(_), .. });
    match root.mounts.iter().find(mapped) {
        Some(mount) => bail!("{}: an ordinary user has no id-mapped mounts", mount.origin),
        None => Ok(()),
    }
}
