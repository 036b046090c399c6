//! Lists directories. The standard library's `read_dir` ends the process if close(2) fails, and
//! makes it easy to take an error for the end of the list.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::Result;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, fstatat};

const FLAGS: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirectoryEntry {
    pub name: OsString,
    /// Whether the entry is a directory itself; false for a symbolic link to one.
    pub is_directory: bool,
}

/// Lists the entries of `directory` in no particular order, without `.` and `..`.
///
/// # Errors
/// Those of open(2) and getdents64(2), and those of fstatat(2) on a file system that does not
/// store the kinds of files in its directories.
pub fn list_directory(directory: impl AsRef<Path>) -> Result<Vec<DirectoryEntry>> {
    list(Dir::open(directory.as_ref(), FLAGS, Mode::empty())?)
}

/// Lists the entries of an open directory, as [`list_directory`] does. The position of the
/// descriptor stays where it is.
pub fn list_open_directory(directory: impl AsFd) -> Result<Vec<DirectoryEntry>> {
    list(Dir::openat(directory, ".", FLAGS, Mode::empty())?)
}

fn list(mut directory: Dir) -> Result<Vec<DirectoryEntry>> {
    let mut found = Vec::new();
    for entry in directory.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            found.push((name.to_owned(), entry.file_type()));
        }
    }
    let mut entries = Vec::with_capacity(found.len());
    for (name, kind) in found {
        let is_directory = match kind {
            Some(kind) => kind == Type::Directory,
            None => match fstatat(&directory, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
                }
                // It has been removed since it was listed.
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(errno),
            },
        };
        entries.push(DirectoryEntry { name, is_directory });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_other_files_are_told_apart() {
        let top = std::env::temp_dir().join(format!("rt-list-{}", std::process::id()));
        std::fs::create_dir_all(top.join("directory")).unwrap();
        std::fs::write(top.join("file"), "").unwrap();
        std::os::unix::fs::symlink("directory", top.join("link")).unwrap();
        let mut entries = list_directory(&top).unwrap();
        entries.sort();
        let entry = |name: &str, is_directory| DirectoryEntry {
            name: name.into(),
            is_directory,
        };
        assert_eq!(
            entries,
            [
                entry("directory", true),
                entry("file", false),
                entry("link", false)
            ]
        );
        assert_eq!(list_directory(top.join("file")), Err(Errno::ENOTDIR));
        std::fs::remove_dir_all(&top).unwrap();
        assert_eq!(list_directory(&top), Err(Errno::ENOENT));
    }
}
