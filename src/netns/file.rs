//! The files below `/run/rt-netns`. They are read without trust in their content, and replaced in
//! one step.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow};
use nix::errno::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys;

/// The largest file that is read, in bytes; no file that `rt` writes is larger.
const SIZE_MAX: u64 = 64 << 20;

/// Reads the JSON of a file: `None` if there is no file, and an inner error if it is no such file.
///
/// # Errors
/// The file could not be read this time, and another try may succeed.
pub(super) fn read_entry<T: DeserializeOwned>(path: &Path) -> Result<Option<Result<T>>> {
    let context = || path.display().to_string();
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK, opening a FIFO in its place would wait.
    options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return match error.raw_os_error() {
                Some(libc::ELOOP | libc::ENXIO | libc::ENOTDIR) => Ok(Some(Err(error.into()))),
                _ => Err(error).with_context(context),
            };
        }
    };
    if !file.metadata().with_context(context)?.is_file() {
        return Ok(Some(Err(anyhow!("not a regular file"))));
    }
    let mut bytes = Vec::new();
    file.take(SIZE_MAX + 1)
        .read_to_end(&mut bytes)
        .with_context(context)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Ok(Some(Err(anyhow!("larger than {SIZE_MAX} bytes"))));
    }
    Ok(Some(serde_json::from_slice(&bytes).map_err(Error::from)))
}

/// Makes a directory if it is missing, for root only.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(_) => DirBuilder::new().recursive(true).mode(0o700).create(path),
    }
}

/// Returns the path at which a file is written before it is renamed.
pub(super) fn new_name(path: &Path) -> PathBuf {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    new.into()
}

/// Replaces the file in one step.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let new = new_name(path);
    let bytes = serde_json::to_vec(value)?;
    fs::write(&new, bytes)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| path.display().to_string())
}

/// Returns the result of a removal; it is no error if the file is gone already.
pub(super) fn gone(result: io::Result<()>, path: &Path) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| path.display().to_string()),
    }
}

/// Returns the names of a directory's entries, sorted.
pub(super) fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match sys::list_directory(directory) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => vec![],
        result => result.with_context(|| directory.display().to_string())?,
    };
    let mut names: Vec<_> = entries
        .into_iter()
        .filter_map(|entry| entry.name.into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}
