//! The controllers of version 2, which are enabled cgroup by cgroup from the root down.

use std::path::Path;

use anyhow::{Context, Result};

use super::setting::Setting;
use super::{file, hierarchy};

/// Makes every controller of the host available in the cgroup `directory`, as far as the cgroups
/// above allow it. A controller that stays missing is an error only later, when a limit needs it.
pub(super) fn enable_all(directory: &Path) -> Result<()> {
    let root = Path::new(hierarchy::ROOT);
    let path = root.join("cgroup.controllers");
    let available = file::read(&path).with_context(|| path.display().to_string())?;
    // A controller is enabled from the root down, so if the cgroup above has all, every cgroup on
    // the way has. Checking this first avoids needless writes, which may wait for cgroups that are
    // being removed.
    let above = directory.parent().unwrap_or(root);
    let available: Vec<&str> = available.split_ascii_whitespace().collect();
    if missing(above, &available)?.is_empty() {
        return Ok(());
    }
    enable(root, above, &available)
}

/// Enables the controllers that `settings` need in the cgroup `directory` of a hybrid host, where
/// few containers need anything of version 2.
pub(super) fn enable_for(directory: &Path, settings: &[Setting]) -> Result<()> {
    let root = Path::new(hierarchy::ROOT).join(hierarchy::UNIFIED);
    let mut needed: Vec<&str> = settings
        .iter()
        .map(|setting| &*setting.controller)
        .collect();
    needed.retain(|controller| *controller != "cgroup");
    needed.dedup();
    match directory.parent() {
        Some(above) if !needed.is_empty() => enable(&root, above, &needed),
        _ => Ok(()),
    }
}

/// Enables `controllers` from `root` down to the cgroups below `above`.
fn enable(root: &Path, above: &Path, controllers: &[&str]) -> Result<()> {
    let chain: Vec<&Path> = above
        .ancestors()
        .take_while(|cgroup| cgroup.starts_with(root))
        .collect();
    for cgroup in chain.into_iter().rev() {
        let missing = missing(cgroup, controllers)?;
        let path = cgroup.join("cgroup.subtree_control");
        if !missing.is_empty() && file::write(&path, &missing.join(" ")).is_err() {
            // The kernel enables all controllers of one write or none, so after an error each is
            // tried alone.
            for controller in &missing {
                let _ = file::write(&path, controller);
            }
        }
    }
    Ok(())
}

/// Returns those of `controllers` that the cgroups below `cgroup` do not have, each as `+name`.
fn missing(cgroup: &Path, controllers: &[&str]) -> Result<Vec<String>> {
    let path = cgroup.join("cgroup.subtree_control");
    let enabled = file::read(&path).with_context(|| path.display().to_string())?;
    let missing = controllers.iter().filter(|name| {
        !enabled
            .split_ascii_whitespace()
            .any(|enabled| enabled == **name)
    });
    Ok(missing.map(|name| format!("+{name}")).collect())
}
