//! Ordinary users, and root of a user namespace, who is one: what they may not have of the host.

use anyhow::{Result, bail};
use nix::sys::stat::stat;
use nix::unistd::geteuid;

use crate::namespace::Namespaces;

/// The inode of the first user namespace (`PROC_USER_INIT_INO`, <linux/proc_ns.h>).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Whether this process is root of the whole machine.
pub(crate) fn is_root_of_host() -> bool {
    let namespace = stat("/proc/self/ns/user");
    geteuid().is_root() && namespace.is_ok_and(|file| file.st_ino == FIRST_USER_NAMESPACE)
}

/// Refuses what an ordinary user cannot have at all.
pub(crate) fn check(namespaces: &Namespaces) -> Result<()> {
    if !geteuid().is_root() && !namespaces.has_user() {
        bail!("linux.namespaces: an ordinary user needs a user namespace (see rt spec --rootless)");
    }
    Ok(())
}
