//! `--pid-file`: the bare decimal number of a process, written as a whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;

/// Writes `pid` to a hidden file beside `path`, and renames that to `path`.
pub fn write(path: &Path, pid: Pid) -> Result<()> {
    let context = || format!("--pid-file {}", path.display());
    let Some(name) = path.file_name() else {
        bail!("{}: not a file name", context())
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    // An existing file is removed first, so that a link in its place is not followed.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(context)?,
        _ => {}
    }
    let mut file = File::create_new(&temporary).with_context(context)?;
    file.write_all(pid.to_string().as_bytes())
        .with_context(context)?;
    fs::rename(&temporary, path).with_context(context)
}
