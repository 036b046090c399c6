//! The CPUs and memory nodes of a new version 1 cgroup, without which no process can enter it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::file;

/// Gives a cpuset cgroup the values of the cgroup above it. No process can enter while one of its
/// two lists is empty, as in a new cgroup. Cgroups above with an empty list are filled too.
pub(super) fn fill(directory: &Path, is_new: bool) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let path = directory.join(name);
        let is_empty = || Ok::<_, Errno>(is_new || file::read(&path)?.is_empty());
        if is_empty().with_context(|| path.display().to_string())? {
            let value = inherited(directory, name)?;
            file::write(&path, &value).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn inherited(directory: &Path, name: &str) -> Result<String> {
    let mut empty: Vec<PathBuf> = Vec::new();
    // The root of the hierarchy always has values; the directory above it has no such file.
    for above in directory.ancestors().skip(1) {
        let path = above.join(name);
        let value = file::read(&path).with_context(|| path.display().to_string())?;
        if value.is_empty() {
            empty.push(path);
            continue;
        }
        for path in empty.iter().rev() {
            file::write(path, &value).with_context(|| path.display().to_string())?;
        }
        return Ok(value);
    }
    bail!(
        "{}: no cgroup above has a value",
        directory.join(name).display()
    )
}
