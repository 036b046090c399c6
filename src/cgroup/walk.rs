//! The groups below a group. A container that may make groups can nest them deeper than a path
//! or the table of open files allows: one descriptor moves through the tree, never a path.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::Result;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{AccessFlags, UnlinkatFlags, faccessat, unlinkat};

use super::file;
use crate::sys;

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW);

/// Whether an error means that a group has been removed meanwhile, perhaps with all of its
/// hierarchy.
pub(super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENODEV | Errno::ENOTDIR)
}

fn sub_groups(group: BorrowedFd<'_>) -> Result<Vec<CString>> {
    // A directory is linked from above, from its `.`, and from the `..` of each one below.
    if fstat(group)?.st_nlink == 2 {
        return Ok(vec![]);
    }
    // Of its own, since reading moves the position.
    let mut dir = Dir::from_fd(file::open_at(group, ".", DIRECTORY)?)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == Some(Type::Directory) && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn parent(group: &OwnedFd) -> Result<OwnedFd> {
    file::open_at(group, "..", DIRECTORY)
}

fn child(group: &OwnedFd, name: &CString) -> Result<OwnedFd> {
    nix::fcntl::openat(
        group,
        name.as_c_str(),
        DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

/// Calls `visit` with `top` and then every group below, each after the one above it. A missing
/// group, also one that disappears, is passed over.
pub(super) fn visit(top: &Path, mut visit: impl FnMut(BorrowedFd<'_>) -> Result<()>) -> Result<()> {
    let mut here = match file::open(top, DIRECTORY) {
        Err(errno) if is_gone(errno) => return Ok(()),
        opened => opened?,
    };
    let mut depth = 0;
    // Groups still to visit: how deep the group above is, and the name.
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
                Ok(group) => {
                    here = group;
                    depth += 1;
                    break;
                }
                Err(errno) if is_gone(errno) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// rmdir(2) for which a missing directory is success.
pub(super) fn rmdir(directory: &Path) -> Result<()> {
    match unlinkat(AT_FDCWD, directory, UnlinkatFlags::RemoveDir) {
        Err(errno) if is_gone(errno) => Ok(()),
        // On a read-only file system, or without the right to write, the kernel says so before it
        // looks whether there is anything to remove.
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

/// Removes `top`, with all groups below it if `recursive`; as long as one is busy, tries again
/// until `deadline`.
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

/// Removes the groups below `top` once, deepest first; those that are busy stay.
fn remove_below(top: &Path) -> Result<()> {
    let mut here = match file::open(top, DIRECTORY) {
        Err(errno) if is_gone(errno) => return Ok(()),
        opened => opened?,
    };
    let mut busy = Ok(());
    // For every level: the name of the group that was entered, and its siblings still to do.
    let mut levels = vec![(CString::default(), sub_groups(here.as_fd())?)];
    while let Some((_, waiting)) = levels.last_mut() {
        let Some(name) = waiting.pop() else {
            // This level is done: up, and remove what was just left.
            let Some((name, _)) = levels.pop().filter(|_| !levels.is_empty()) else {
                break;
            };
            here = parent(&here)?;
            match unlinkat(&here, name.as_c_str(), UnlinkatFlags::RemoveDir) {
                Err(errno) if !is_gone(errno) => busy = Err(errno),
                _ => {}
            }
            continue;
        };
        match unlinkat(&here, name.as_c_str(), UnlinkatFlags::RemoveDir) {
            Err(Errno::EBUSY | Errno::ENOTEMPTY) => match child(&here, &name) {
                Ok(group) => {
                    here = group;
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
        visit(&top, |_| panic!("visited a missing group")).unwrap();
    }
}
