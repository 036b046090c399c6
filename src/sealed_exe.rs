//! The sealed executable: the write-protected image of `rt` that a command runs from when it forks
//! into a container. The executable of a process that enters a container can be reached there
//! through `/proc/PID/exe`: by the process itself, and by another one with `CAP_SYS_PTRACE`. If
//! that were the host's `rt`, a container could overwrite it (CVE-2019-5736). Therefore such a
//! command first runs again from an image that cannot be written: an overlay without an upper
//! layer, or else a sealed memfd. A read-only bind mount is not enough: a process that holds it can
//! make it writable again.

#[cfg(all(feature = "early-start", target_arch = "x86_64", target_env = "gnu"))]
mod entry;

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, SealFlag, fcntl, openat, readlink};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{FileStat, Mode, fstat, stat};
use nix::sys::statfs::{FsType, statfs};
use nix::unistd::execveat;

use crate::sys;

pub const SELF: &CStr = c"/proc/self/exe";
/// The environment variable that tells the second run that it is the second one. Its value is the
/// pid, which only execve(2) keeps: a process that `rt` has started, and an `rt` whose engine
/// passes its own environment on, have another pid and ignore the variable.
pub const MARK: &str = "_RT_PROTECTED_PID";
/// The second layer: a read-only overlay needs two. Any directory outside of the first layer will
/// do.
pub const SECOND_LAYER: &str = "/sys/fs";

/// Returns if the image of this process is write-protected; otherwise executes this program again
/// from one that is, and does not return.
///
/// # Errors
/// If there is neither an overlay nor a sealed copy, or the image cannot be executed.
pub fn protect() -> Result<()> {
    if sys::has_verity(SELF) || statfs(SELF).is_ok_and(|fs| is_never_written(fs.filesystem_type()))
    {
        return Ok(());
    }
    match overlay() {
        Ok((image, _rest)) => run_again(&image),
        Err(_) => run_again(&sealed_copy().context("a sealed copy of the executable")?),
    }
}

/// Whether the kernel cannot write to a file system of this type, however it is mounted: EROFS,
/// squashfs, cramfs and ISO 9660 (<linux/magic.h>).
pub const fn is_never_written(kind: FsType) -> bool {
    matches!(kind.0, 0xe0f5_e1e2 | 0x7371_7368 | 0x28cd_3d45 | 0x9660)
}

/// Whether this is the second run, from the sealed executable.
pub fn runs_again() -> bool {
    std::env::var(MARK).is_ok_and(|pid| pid == std::process::id().to_string())
}

/// Opens the executable through a new overlay that is mounted nowhere. Also returns two descriptors
/// that have to stay open until execve(2), which closes them.
fn overlay() -> Result<(OwnedFd, [OwnedFd; 2])> {
    let path = PathBuf::from(readlink(SELF)?);
    let (directory, name) = path.parent().zip(path.file_name()).context("no path")?;
    let layers = [
        escape(directory.as_os_str()),
        SECOND_LAYER.as_bytes().to_vec(),
    ]
    .join(&b':');
    let fs = sys::fsopen(c"overlay")?;
    sys::fsconfig(fs.as_fd(), c"lowerdir", Some(&CString::new(layers)?))?;
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID;
    let mount = sys::fsmount(fs.as_fd(), attributes)?;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let image = openat(&mount, name, flags, Mode::empty())?;
    // A layer shows no mounts: if another file is mounted on the executable's path, this is the
    // file below the mount.
    ensure!(
        identity(&fstat(&image)?) == identity(&stat(SELF)?),
        "another file"
    );
    Ok((image, [mount, fs]))
}

/// Returns what identifies a file also through an overlay: the time of its last status change, and
/// its size.
fn identity(file: &FileStat) -> (i64, i64, i64) {
    (file.st_ctime, file.st_ctime_nsec, file.st_size)
}

/// Escapes a path for the list of layers, in which `:` separates and `\` escapes.
fn escape(path: &OsStr) -> Vec<u8> {
    let escaped = |byte: &u8| match byte {
        b':' | b'\\' => vec![b'\\', *byte],
        byte => vec![*byte],
    };
    path.as_bytes().iter().flat_map(escaped).collect()
}

fn sealed_copy() -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let mut exe = File::from(openat(AT_FDCWD, SELF, flags, Mode::empty())?);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // With the sysctl vm.memfd_noexec only a memfd created with MFD_EXEC can be executed; kernels
    // before Linux 6.3 refuse the flag.
    let copy = memfd_create(c"rt", flags | MFdFlags::from_bits_retain(libc::MFD_EXEC))
        .or_else(|_| memfd_create(c"rt", flags))?;
    let mut copy = File::from(copy);
    io::copy(&mut exe, &mut copy)?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    // A file cannot be executed while it is open for writing (ETXTBSY).
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&copy));
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    Ok(openat(AT_FDCWD, path.as_str(), flags, Mode::empty())?)
}

fn run_again(image: &OwnedFd) -> Result<()> {
    let args: Vec<CString> = c_strings(std::env::args_os().map(OsStringExt::into_vec));
    let mark = format!("{MARK}={}", std::process::id()).into_bytes();
    let others = std::env::vars_os().filter(|(name, _)| name != MARK);
    let entry = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        [name.as_bytes(), b"=", value.as_bytes()].concat()
    };
    let env = c_strings(others.map(entry).chain([mark]));
    execveat(image, c"" as &CStr, &args, &env, AtFlags::AT_EMPTY_PATH)
        .context("running again from a write-protected image")?;
    Ok(())
}

fn c_strings(list: impl Iterator<Item = Vec<u8>>) -> Vec<CString> {
    list.filter_map(|bytes| CString::new(bytes).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_never_be_written_needs_no_other_image() {
        use nix::sys::statfs::{EXT4_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC};
        assert!(is_never_written(FsType(0xe0f5_e1e2)) && is_never_written(FsType(0x7371_7368)));
        // An overlay or ext4 that is read-only now may be mounted otherwise.
        let others = [EXT4_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC];
        assert!(!others.into_iter().any(is_never_written));
    }

    #[test]
    fn a_colon_in_the_path_does_not_end_the_layer() {
        assert_eq!(escape(OsStr::new("/a:b\\c")), b"/a\\:b\\\\c");
    }
}
