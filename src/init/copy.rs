//! `tmpcopyup`: copies into a new tmpfs what it will cover. The image, or a container that writes
//! to a shared volume at this moment, may be hostile. So everything is read through a copy of the
//! mount where no link is followed and no device can be opened, and the type of a file is taken
//! from its descriptor, not from its name.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, Whence, fchown, fchownat, ftruncate, lseek, read, symlinkat, write};

use crate::sys;
use crate::sys::rootfd::kind;

/// How deep directories may be nested: no deeper than the stack and a limit of 1024 open files
/// allow.
const DEPTH_MAX: usize = 128;
/// How many bytes are read at a time.
const CHUNK: usize = 64 * 1024;
/// Attributes of the copy of the mount, which is only read from.
const READING: u64 = libc::MOUNT_ATTR_RDONLY
    | libc::MOUNT_ATTR_NODEV
    | libc::MOUNT_ATTR_NOSYMFOLLOW
    | libc::MOUNT_ATTR_NOSUID
    | libc::MOUNT_ATTR_NOEXEC;

/// Copies the content of the directory `from` into `to`, with modes, owners and extended
/// attributes. Where something is mounted on a directory, the content of that mount is copied.
pub(super) fn contents(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let from = sys::clone_mount(from.as_fd(), true)?;
    sys::mount_setattr(from.as_fd(), true, READING, 0, 0)?;
    let from = open_entry(from.as_fd(), c".", OFlag::O_DIRECTORY)?;
    directory(&from, to.as_fd(), 0)
}

fn directory(from: &OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<()> {
    ensure!(
        depth < DEPTH_MAX,
        "more than {DEPTH_MAX} directories in each other"
    );
    for entry in Dir::from_fd(from.try_clone()?)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            let copied = copy(from, to, name, depth);
            copied.with_context(|| name.to_string_lossy().into_owned())?;
        }
    }
    Ok(())
}

fn copy(from: &OwnedFd, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    match kind(&stat) {
        SFlag::S_IFDIR => {
            let source = open_entry(from.as_fd(), name, OFlag::O_DIRECTORY)?;
            mkdirat(to, name, Mode::S_IRWXU)?;
            let target = open_entry(to, name, OFlag::O_DIRECTORY)?;
            directory(&source, target.as_fd(), depth + 1)?;
            make_alike(&source, &target, &fstat(&source)?)
        }
        SFlag::S_IFREG => file(from, to, name),
        SFlag::S_IFLNK => {
            symlinkat(&*readlinkat(from, name)?, to, name)?;
            own(to, name, &stat)
        }
        other => {
            mknodat(to, name, other, mode(&stat), stat.st_rdev)?;
            own(to, name, &stat)
        }
    }
}

fn file(from: &OwnedFd, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // O_NONBLOCK, because the file may have become a fifo.
    let source = open_entry(from.as_fd(), name, OFlag::O_NONBLOCK)?;
    let stat = fstat(&source)?;
    ensure!(kind(&stat) == SFlag::S_IFREG, "changed while it was copied");
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let target = openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    data(&source, &target, stat.st_size)?;
    ftruncate(&target, stat.st_size)?;
    make_alike(&source, &target, &stat)
}

/// Copies the bytes before `size`, without the holes, which may be of any length.
fn data(source: &OwnedFd, target: &OwnedFd, size: i64) -> Result<()> {
    let mut offset = 0;
    while offset < size {
        offset = match lseek(source, offset, Whence::SeekData) {
            // There is only a hole up to the end.
            Err(Errno::ENXIO) => return Ok(()),
            result => result?,
        };
        let end = lseek(source, offset, Whence::SeekHole)?.min(size);
        lseek(source, offset, Whence::SeekSet)?;
        lseek(target, offset, Whence::SeekSet)?;
        while offset < end {
            let length = chunk(source, target, end - offset)?;
            if length == 0 {
                // The file is shorter than it was.
                return Ok(());
            }
            offset += length;
        }
    }
    Ok(())
}

/// Copies at most `length` bytes from the current offset of one file to that of the other. Returns
/// how many there were.
fn chunk(source: &OwnedFd, target: &OwnedFd, length: i64) -> Result<i64> {
    let mut buffer = [0u8; CHUNK];
    let length = usize::try_from(length)?.min(CHUNK);
    let length = read(source, &mut buffer[..length])?;
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        rest = &rest[write(target, rest)?..];
    }
    Ok(i64::try_from(length)?)
}

/// Copies owner, extended attributes and mode, in this order: a change of owner removes the
/// capabilities of a file and its set-id bits.
fn make_alike(source: &OwnedFd, target: &OwnedFd, stat: &FileStat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchown(target, Some(uid), Some(gid))?;
    sys::copy_attributes(source.as_fd(), target.as_fd())?;
    Ok(fchmod(target, mode(stat))?)
}

fn own(to: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    Ok(fchownat(
        to,
        name,
        Some(uid),
        Some(gid),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?)
}

fn open_entry(directory: BorrowedFd<'_>, name: &CStr, more: OFlag) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    openat(directory, name, flags | more, Mode::empty())
}

fn mode(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode & 0o7777)
}
