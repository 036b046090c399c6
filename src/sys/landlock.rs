//! Landlock (landlock(7)): creates rulesets and enforces them.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::null;

use nix::Result;

use super::call::{call, call_fd};

// <linux/landlock.h>, which libc does not have.
const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
const LANDLOCK_RULE_PATH_BENEATH: u32 = 1;
const LANDLOCK_RULE_NET_PORT: u32 = 2;

/// What is denied unless a rule allows it: `struct landlock_ruleset_attr` as it is since version 6
/// of the interface. An older kernel accepts it if the fields that it does not know are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct LandlockRuleset {
    /// `LANDLOCK_ACCESS_FS_*`.
    pub(crate) files: u64,
    /// `LANDLOCK_ACCESS_NET_*`.
    pub(crate) ports: u64,
    /// `LANDLOCK_SCOPE_*`; no rule can allow any of these.
    pub(crate) scopes: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    access: u64,
    parent: i32,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct NetPort {
    access: u64,
    port: u64,
}

/// Returns the version of the interface: 0 if the kernel has no Landlock or it is switched off.
pub(crate) fn landlock_abi() -> i32 {
    let none = null::<LandlockRuleset>();
    // SAFETY: with this flag the kernel reads nothing.
    let version = call(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            none,
            0,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    });
    version.map_or(0, |version| version as i32)
}

/// Creates a ruleset without any rule.
pub(crate) fn landlock_ruleset(handled: &LandlockRuleset) -> Result<OwnedFd> {
    // SAFETY: the kernel reads as many bytes of `handled` as it is told, which are all integers.
    call_fd(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const *handled,
            size_of::<LandlockRuleset>(),
            0,
        )
    })
}

/// Adds a rule that allows `access` to `file`; if that is a directory, also to everything below it.
pub(crate) fn landlock_allow_path(
    ruleset: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    access: u64,
) -> Result<()> {
    let rule = PathBeneath {
        access,
        parent: file.as_raw_fd(),
    };
    // SAFETY: the kernel reads a `struct landlock_path_beneath_attr` for this kind of rule.
    call(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            LANDLOCK_RULE_PATH_BENEATH,
            &raw const rule,
            0,
        )
    })
    .map(drop)
}

/// Adds a rule that allows `access` to the TCP port `port`.
pub(crate) fn landlock_allow_port(ruleset: BorrowedFd<'_>, port: u16, access: u64) -> Result<()> {
    let rule = NetPort {
        access,
        port: port.into(),
    };
    // SAFETY: the kernel reads a `struct landlock_net_port_attr` for this kind of rule.
    call(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            LANDLOCK_RULE_NET_PORT,
            &raw const rule,
            0,
        )
    })
    .map(drop)
}

/// Enforces the rules on this thread and on what it executes. The kernel requires no_new_privs or
/// CAP_SYS_ADMIN.
pub(crate) fn landlock_restrict(ruleset: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: integers only.
    call(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
        .map(drop)
}
