//! The controllers of version 2, which are enabled group by group from the root.

use std::path::Path;

use anyhow::{Context, Result};

use super::setting::Setting;
use super::{file, hierarchy};

/// Makes every controller of the host available in the group `directory`, as far as the groups
/// above allow it. What is missing in the end is an error only when a limit needs it.
pub(super) fn enable_all(directory: &Path) -> Result<()> {
    let root = Path::new(hierarchy::ROOT);
    let path = root.join("cgroup.controllers");
    let available = file::read(&path).with_context(|| path.display().to_string())?;
    // A controller is enabled from the root down: if the group above has them all, all have. Only
    // then is nothing written, and a write may wait for groups that are just being removed.
    let above = directory.parent().unwrap_or(root);
    let available: Vec<&str> = available.split_ascii_whitespace().collect();
    if missing(above, &available)?.is_empty() {
        return Ok(());
    }
    enable(root, above, &available)
}

/// As [`enable_all`], on a hybrid host, where few containers need anything of version 2.
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

/// Enables `controllers` from `root` down to the groups below `above`.
fn enable(root: &Path, above: &Path, controllers: &[&str]) -> Result<()> {
    let chain: Vec<&Path> = above
        .ancestors()
        .take_while(|group| group.starts_with(root))
        .collect();
    for group in chain.into_iter().rev() {
        let missing = missing(group, controllers)?;
        let path = group.join("cgroup.subtree_control");
        if !missing.is_empty() && file::write(&path, &missing.join(" ")).is_err() {
            // All or nothing is the kernel's rule for one write: take what can be had.
            for controller in &missing {
                let _ = file::write(&path, controller);
            }
        }
    }
    Ok(())
}

/// Those of `controllers` that the groups below `group` do not have, each as `+name`.
fn missing(group: &Path, controllers: &[&str]) -> Result<Vec<String>> {
    let path = group.join("cgroup.subtree_control");
    let enabled = file::read(&path).with_context(|| path.display().to_string())?;
    let missing = controllers.iter().filter(|name| {
        !enabled
            .split_ascii_whitespace()
            .any(|enabled| enabled == **name)
    });
    Ok(missing.map(|name| format!("+{name}")).collect())
}
