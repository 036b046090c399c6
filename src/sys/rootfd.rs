//! A container's root file system as a type. No file in it is opened by a path string that is
//! joined to the path of the root. A look-up uses openat2(2): with `RESOLVE_IN_ROOT`, so that a
//! symbolic link of the image cannot lead to the host, and with `RESOLVE_NO_MAGICLINKS`, so that a
//! magic link of a mounted procfs cannot either. Only where something may have to be created on the
//! way, each component is opened with `O_NOFOLLOW`, and links are resolved here (`RootFd::walk`).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat, mknodat};

/// How many symbolic links are followed: 40, as in the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// How often a look-up is tried: openat2(2) fails with EAGAIN when a rename races with `..`, which
/// an attacker may cause for ever.
const RACES_MAX: usize = 128;

/// The root directory of a container, as an `O_PATH` descriptor.
#[derive(Debug)]
pub struct RootFd(OwnedFd);

impl AsFd for RootFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What to create at the end of a path that does not exist yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Directory,
    File,
}

impl RootFd {
    /// Makes the directory `fd` the root.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Opens `path` below the root.
    pub fn open(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlag::empty())
    }

    /// Opens `path` below the root; a symbolic link in any component is an error (`ELOOP`).
    pub fn open_without_links(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    fn resolve(&self, path: &Path, flags: OFlag, more: ResolveFlag) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | more;
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(resolve);
        let path = if path.as_os_str().is_empty() {
            Path::new("/")
        } else {
            path
        };
        for _ in 0..RACES_MAX {
            match openat2(&self.0, path, how) {
                Err(Errno::EAGAIN) => {}
                result => return result,
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Opens the object at `path` with `O_PATH`. Missing directories on the way are created with
    /// mode 0755, and a missing last component as an empty file or a directory.
    pub fn open_or_create(&self, path: &Path, missing: Missing) -> nix::Result<OwnedFd> {
        match self.open(path, OFlag::O_PATH) {
            Err(Errno::ENOENT) => self.create(path, missing),
            result => result,
        }
    }

    /// Creates the missing components of `path` and opens it. In most cases only the last component
    /// is missing. If something exists there after all, it is a dangling link, which [`Self::walk`]
    /// follows.
    pub fn create(&self, path: &Path, missing: Missing) -> nix::Result<OwnedFd> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return self.walk(path, missing);
        };
        match self.open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Ok(parent) => match create_one(parent.as_fd(), name, missing) {
                Err(Errno::EEXIST) => self.walk(path, missing),
                result => result,
            },
            Err(Errno::ENOENT) => self.walk(path, missing),
            Err(errno) => Err(errno),
        }
    }

    /// Walks `path` component by component, each step from the descriptor of the last one, and
    /// creates what is missing. The target of a dangling link is created as well, below the root
    /// like everything else: `..` stops at the root, and an absolute link starts there again.
    fn walk(&self, path: &Path, missing: Missing) -> nix::Result<OwnedFd> {
        let mut open: Vec<OwnedFd> = Vec::new();
        let mut todo: Vec<OsString> = components(path);
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                open.pop();
                continue;
            }
            let parent = open.last().map_or(self.0.as_fd(), |fd| fd.as_fd());
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let next = match openat(parent, &*name, flags, Mode::empty()) {
                Err(Errno::ENOENT) => {
                    let missing = if todo.is_empty() {
                        missing
                    } else {
                        Missing::Directory
                    };
                    match create_one(parent, &name, missing) {
                        // Another process was faster: what exists now is checked like any
                        // component.
                        Err(Errno::EEXIST) => openat(parent, &*name, flags, Mode::empty())?,
                        result => result?,
                    }
                }
                result => result?,
            };
            if file_type(&next)? == SFlag::S_IFLNK {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::ELOOP);
                }
                let target = readlinkat(&next, "")?;
                if target.as_bytes().first() == Some(&b'/') {
                    open.clear();
                }
                todo.extend(components(Path::new(&target)));
                continue;
            }
            open.push(next);
        }
        // Here `..` and a slash may have followed a file, which the kernel refuses.
        self.open(path, OFlag::O_PATH)
    }
}

/// Returns the components of `path`, the last one first.
fn components(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

/// Creates `name` in `parent` and opens it.
///
/// # Errors
/// `EEXIST` if `name` exists already, or if another process has put a link in its place between the
/// two calls.
fn create_one(parent: BorrowedFd<'_>, name: &OsStr, missing: Missing) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_PATH | OFlag::O_CLOEXEC;
    match missing {
        Missing::Directory => {
            mkdirat(parent, name, Mode::from_bits_truncate(0o755))?;
            openat(parent, name, flags | OFlag::O_DIRECTORY, Mode::empty()).map_err(|errno| {
                if errno == Errno::ENOTDIR {
                    Errno::EEXIST
                } else {
                    errno
                }
            })
        }
        Missing::File => {
            mknodat(
                parent,
                name,
                SFlag::S_IFREG,
                Mode::from_bits_truncate(0o644),
                0,
            )?;
            let fd = openat(parent, name, flags, Mode::empty())?;
            match file_type(&fd)? {
                SFlag::S_IFLNK => Err(Errno::EEXIST),
                _ => Ok(fd),
            }
        }
    }
}

/// Returns the type of the file behind `fd` (the `S_IFMT` part of its mode).
pub fn file_type(fd: impl AsFd) -> nix::Result<SFlag> {
    Ok(kind(&fstat(fd)?))
}

/// Returns the type of file in `stat` (the `S_IFMT` part of its mode).
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}
