//! Control files: each access is one open, one read or write, and one close, without stat(2).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::Result;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use crate::sys;

/// Opens `path` below the directory `dir`, close-on-exec.
pub(super) fn open_at(
    dir: impl AsFd,
    path: &(impl AsRef<Path> + ?Sized),
    flags: OFlag,
) -> Result<OwnedFd> {
    openat(dir, path.as_ref(), flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens `path`, close-on-exec.
pub(super) fn open(path: &Path, flags: OFlag) -> Result<OwnedFd> {
    open_at(AT_FDCWD, path, flags)
}

/// Writes `value` with one write(2): the kernel handles each write to a control file separately.
pub(super) fn write(path: &Path, value: &str) -> Result<()> {
    write_to(open(path, OFlag::O_WRONLY)?, value)
}

/// Writes `value` with one write(2) to a file that is open already.
pub(super) fn write_to(file: impl AsFd, value: &str) -> Result<()> {
    // A write of zero bytes never reaches the kernel's handler; an empty line clears the file.
    let value = if value.is_empty() { "\n" } else { value };
    nix::unistd::write(file, value.as_bytes()).map(drop)
}

/// Reads a control file of one value, without the last newline.
pub(super) fn read(path: &Path) -> Result<String> {
    Ok(read_all(open(path, OFlag::O_RDONLY)?)?
        .trim_end()
        .to_owned())
}

/// Reads all of an open control file.
pub(super) fn read_all(file: impl AsFd) -> Result<String> {
    Ok(String::from_utf8_lossy(&sys::read_all(file)?).into_owned())
}
