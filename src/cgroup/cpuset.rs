//! The processors and the memory of a new group of version 1, without which no process can enter.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::file;

/// Gives a cpuset group the values of the group above: while one of its lists is empty, as in a
/// new one, no process can enter. Groups above are treated in the same way.
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
    // The root of the hierarchy is never empty; above it there is no such file.
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
        "{}: no group above has a value",
        directory.join(name).display()
    )
}
