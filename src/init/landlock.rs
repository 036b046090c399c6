//! Landlock: the rules are made as soon as the program's root can be seen, and applied just before
//! the filter.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;

use crate::security::landlock::{LandlockRules, origin, rights_of};
use crate::sys;
use crate::sys::rootfd::{RootFd, file_type};

/// Makes the ruleset. execve closes its descriptor.
pub(super) fn rules(landlock: &LandlockRules, root: &RootFd) -> Result<OwnedFd> {
    let ruleset = sys::landlock_ruleset(&landlock.handled).with_context(origin)?;
    for (path, rights) in &landlock.paths {
        let context = || format!("{}: {}", origin(), path.display());
        let file = root.open(path, OFlag::O_PATH).with_context(context)?;
        let is_directory = file_type(&file).with_context(context)? == SFlag::S_IFDIR;
        let rights = rights_of(is_directory, *rights);
        sys::landlock_allow_path(ruleset.as_fd(), file.as_fd(), rights).with_context(context)?;
    }
    for (port, rights) in &landlock.ports {
        sys::landlock_allow_port(ruleset.as_fd(), *port, *rights)
            .with_context(|| format!("{}: port {port}", origin()))?;
    }
    Ok(ruleset)
}

/// Puts this process under the ruleset. No path is looked up between this and execve.
pub(super) fn restrict(ruleset: &OwnedFd) -> Result<()> {
    sys::landlock_restrict(ruleset.as_fd()).with_context(origin)
}
