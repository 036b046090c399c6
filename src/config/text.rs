//! Checks of strings and paths in the configuration, by their text alone.

use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, ensure};

/// Refuses NUL bytes, because every string becomes a C string.
pub(super) fn text(path: impl Display, text: &str) -> Result<()> {
    ensure!(!text.contains('\0'), "{path}: contains a NUL byte");
    Ok(())
}

pub(super) fn path_text(path: impl Display, text: &Path) -> Result<()> {
    ensure!(
        !text.as_os_str().as_bytes().contains(&0),
        "{path}: contains a NUL byte"
    );
    Ok(())
}

pub(super) fn absolute(path: impl Display, value: &Path) -> Result<()> {
    path_text(&path, value)?;
    ensure!(
        value.is_absolute(),
        "{path}: {} is not an absolute path",
        value.display()
    );
    Ok(())
}

/// Returns the path below the root that a path stands for by its text alone, without `.` and `..`.
pub fn clean(path: &Path) -> PathBuf {
    path.components()
        .fold(PathBuf::from("/"), |mut clean, part| {
            match part {
                Component::Normal(name) => clean.push(name),
                Component::ParentDir => {
                    clean.pop();
                }
                _ => {}
            }
            clean
        })
}

/// Whether a path stands for the root by its text alone.
pub fn is_root(path: &Path) -> bool {
    clean(path) == Path::new("/")
}
