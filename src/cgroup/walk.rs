//! Walks through the cgroups below a cgroup. A container that may make cgroups can nest them deeper
//! than the length of a path or the number of open files allows, so one descriptor moves through
//! the tree, and no paths are used.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{AccessFlags, UnlinkatFlags, faccessat, unlinkat};

use super::file;
use crate::sys;

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW);

/// Whether an error means that a cgroup has been removed meanwhile, perhaps with its whole
/// hierarchy.
pub(super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENODEV | Errno::ENOTDIR)
}

fn sub_groups(cgroup: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    // A directory has a link from above, one from its `.`, and one from the `..` of each directory
    // below.
    if fstat(cgroup)?.st_nlink == 2 {
        return Ok(vec![]);
    }
    let entries = sys::list_open_directory(cgroup)?.into_iter();
    Ok(entries
        .filter(|entry| entry.is_directory)
        .map(|entry| entry.name)
        .collect())
}

fn parent(cgroup: &OwnedFd) -> Result<OwnedFd> {
    file::open_at(cgroup, "..", DIRECTORY)
}

fn child(cgroup: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    nix::fcntl::openat(cgroup, name, DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Calls `visit` with `top` and every cgroup below it, each after the one above it. A missing
/// cgroup, also one that disappears meanwhile, is passed over.
pub(super) fn visit(top: &Path, mut visit: impl FnMut(BorrowedFd<'_>) -> Result<()>) -> Result<()> {
    let mut here = match file::open(top, DIRECTORY) {
        Err(errno) if is_gone(errno) => return Ok(()),
        opened => opened?,
    };
    let mut depth = 0;
    // Cgroups still to visit: the depth of the cgroup above, and the name.
    let mut waiting = Vec::new();
    loop {
        let names = visit(here.as_fd()).and_then(|()| sub_groups(here.as_fd()));
        match names {
            Ok(names) => waiting.extend(names.into_iter().map(|name| (depth, name))),
            Err(errno) if is_gone(errno) => {}
            Err(errno) => return Err(errno),
        }
        loop {
            let Some((above, name)) = waiting.pop() else {
                return Ok(());
            };
            while depth > above {
                here = parent(&here)?;
                depth -= 1;
            }
            match child(&here, &name) {
                Ok(cgroup) => {
                    here = cgroup;
                    depth += 1;
                    break;
                }
                Err(errno) if is_gone(errno) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Removes a directory with rmdir(2); a missing directory is no error.
pub(super) fn rmdir(directory: &Path) -> Result<()> {
    match unlinkat(AT_FDCWD, directory, UnlinkatFlags::RemoveDir) {
        Err(errno) if is_gone(errno) => Ok(()),
        // On a read-only file system, or without write permission, the kernel reports that before
        // it checks whether the directory exists.
        Err(errno @ (Errno::EROFS | Errno::EACCES | Errno::EPERM)) => {
            match faccessat(
                AT_FDCWD,
                directory,
                AccessFlags::F_OK,
                AtFlags::AT_SYMLINK_NOFOLLOW,
            ) {
                Err(missing) if is_gone(missing) => Ok(()),
                _ => Err(errno),
            }
        }
        result => result,
    }
}

/// Removes `top`, and all cgroups below it if `recursive`. While one of them is busy, it tries
/// again until `deadline`.
pub(super) fn remove(top: &Path, recursive: bool, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_millis(1);
    loop {
        match rmdir(top) {
            Err(Errno::EBUSY | Errno::ENOTEMPTY) => {}
            result => return result,
        }
        let below = if recursive {
            remove_below(top)
        } else {
            Err(Errno::EBUSY)
        };
        if below.is_ok() && rmdir(top).is_ok() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(below.err().unwrap_or(Errno::EBUSY));
        }
        sys::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Tries once to remove each cgroup below `top`, deepest first; busy ones stay.
fn remove_below(top: &Path) -> Result<()> {
    let mut here = match file::open(top, DIRECTORY) {
        Err(errno) if is_gone(errno) => return Ok(()),
        opened => opened?,
    };
    let mut busy = Ok(());
    // For every level: the name of the cgroup that was entered, and its siblings that are still to
    // be done.
    let mut levels = vec![(OsString::new(), sub_groups(here.as_fd())?)];
    while let Some((_, waiting)) = levels.last_mut() {
        let Some(name) = waiting.pop() else {
            // This level is done: go up, and remove the cgroup that was just left.
            let Some((name, _)) = levels.pop().filter(|_| !levels.is_empty()) else {
                break;
            };
            here = parent(&here)?;
            match unlinkat(&here, name.as_os_str(), UnlinkatFlags::RemoveDir) {
                Err(errno) if !is_gone(errno) => busy = Err(errno),
                _ => {}
            }
            continue;
        };
        match unlinkat(&here, name.as_os_str(), UnlinkatFlags::RemoveDir) {
            Err(Errno::EBUSY | Errno::ENOTEMPTY) => match child(&here, &name) {
                Ok(cgroup) => {
                    here = cgroup;
                    levels.push((name, sub_groups(here.as_fd()).unwrap_or_default()));
                }
                Err(errno) if is_gone(errno) => {}
                Err(errno) => return Err(errno),
            },
            Err(errno) if !is_gone(errno) => busy = Err(errno),
            _ => {}
        }
    }
    busy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_a_path_is_walked_and_removed() {
        let top = std::env::temp_dir().join(format!("rt-walk-{}", std::process::id()));
        std::fs::create_dir(&top).unwrap();
        let mut here = file::open(&top, DIRECTORY).unwrap();
        let mode = Mode::S_IRWXU;
        for _ in 0..2500 {
            nix::sys::stat::mkdirat(&here, "beside", mode).unwrap();
            nix::sys::stat::mkdirat(&here, "deep", mode).unwrap();
            here = file::open_at(&here, "deep", DIRECTORY).unwrap();
        }
        drop(here);
        let mut count = 0;
        visit(&top, |_| {
            count += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(count, 5001);
        assert!(remove(&top, false, Instant::now()).is_err());
        remove(&top, true, Instant::now()).unwrap();
        assert!(!top.exists());
        remove(&top, true, Instant::now()).unwrap();
        visit(&top, |_| panic!("visited a missing cgroup")).unwrap();
    }
}
