//! Landlock: the rules are made as soon as the program's root can be seen, and applied just before
//! the filter.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use landlock::{NetPort, PathBeneath, RulesetCreatedAttr};
use nix::fcntl::OFlag;

use crate::security::landlock::{LandlockRules, origin};
use crate::sys;
use crate::sys::rootfd::RootFd;

/// Makes the ruleset. execve closes its descriptor.
pub(super) fn rules(landlock: &LandlockRules, root: &RootFd) -> Result<OwnedFd> {
    let mut ruleset = landlock.ruleset().with_context(origin)?;
    for (path, rights) in &landlock.paths {
        let context = || format!("{}: {}", origin(), path.display());
        let file = root.open(path, OFlag::O_PATH).with_context(context)?;
        let rule = PathBeneath::new(file, *rights);
        ruleset = ruleset.add_rule(rule).with_context(context)?;
    }
    for (port, rights) in &landlock.ports {
        ruleset = ruleset
            .add_rule(NetPort::new(*port, *rights))
            .with_context(|| format!("{}: port {port}", origin()))?;
    }
    Option::from(ruleset).with_context(origin)
}

/// Puts this process under the ruleset. No path is looked up between this and execve.
pub(super) fn restrict(ruleset: &OwnedFd) -> Result<()> {
    sys::landlock_restrict(ruleset.as_fd()).with_context(origin)
}
