//! Tells whether this process is root of the host or only of a user namespace.

use nix::sys::stat::stat;
use nix::unistd::geteuid;

/// The inode number of the initial user namespace (`PROC_USER_INIT_INO`, <linux/proc_ns.h>).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Whether this process is root in the initial user namespace.
pub fn is_root_of_host() -> bool {
    let namespace = stat("/proc/self/ns/user");
    geteuid().is_root() && namespace.is_ok_and(|file| file.st_ino == FIRST_USER_NAMESPACE)
}
