//! Hides paths, makes paths read-only, and writes sysctls: `linux.maskedPaths`,
//! `linux.readonlyPaths` and `linux.sysctl`.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{SFlag, fstat, makedev};
use rustix::mount::OpenTreeFlags;

use crate::plan::{Plan, RootfsPlan};
use crate::sys;
use crate::sys::procfd::ProcFd;
use crate::sys::rootfd::{RootFd, file_type, kind};

/// Mounts each path over itself, read-only. A path that does not exist is skipped.
pub(super) fn make_read_only(root: &RootFd, paths: &[PathBuf]) -> Result<()> {
    for (i, path) in paths.iter().enumerate() {
        let context = || format!("linux.readonlyPaths[{i}] {}", path.display());
        let Some(target) = existing(root, path).with_context(context)? else {
            continue;
        };
        cover_with_read_only_copy(target.as_fd()).with_context(context)?;
    }
    Ok(())
}

fn cover_with_read_only_copy(target: BorrowedFd<'_>) -> nix::Result<()> {
    let tree = sys::clone_mount(target, true)?;
    sys::mount_setattr(tree.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0, 0)?;
    sys::move_mount(tree.as_fd(), target)
}

/// Covers each path: a file with the host's `/dev/null`, a directory with an empty read-only tmpfs.
/// All directories share one tmpfs.
pub(super) fn mask(root: &RootFd, plan: &RootfsPlan) -> Result<()> {
    let (mut null, mut empty) = (None, None);
    let tmpfs = || empty_tmpfs(plan.label.as_deref());
    for (i, path) in plan.masked.iter().enumerate() {
        let context = || format!("linux.maskedPaths[{i}] {}", path.display());
        let Some(target) = existing(root, path).with_context(context)? else {
            continue;
        };
        let covered = match file_type(&target)? {
            SFlag::S_IFDIR => cover_with(&mut empty, tmpfs, &target),
            _ => cover_with(&mut null, host_null, &target),
        };
        covered.with_context(context)?;
    }
    Ok(())
}

/// Covers a directory of the host's root with an empty tmpfs, in init's mount namespace.
pub(super) fn cover(target: &OwnedFd) -> Result<()> {
    Ok(sys::move_mount(empty_tmpfs(None)?.as_fd(), target.as_fd())?)
}

/// Covers `target`. The first cover is made; each further one is a copy of the first, which is
/// attached by then.
fn cover_with(
    first: &mut Option<OwnedFd>,
    make: impl Fn() -> Result<OwnedFd>,
    target: &OwnedFd,
) -> Result<()> {
    if let Some(first) = first {
        let copy = sys::clone_mount(first.as_fd(), false)?;
        sys::move_mount(copy.as_fd(), target.as_fd())?;
        return Ok(());
    }
    let made = make()?;
    sys::move_mount(made.as_fd(), target.as_fd())?;
    *first = Some(made);
    Ok(())
}

/// Makes a detached mount of the host's `/dev/null`, since the image's could be anything
/// (CVE-2025-31133). The root of init is still the host's.
fn host_null() -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let tree = sys::open_tree(AT_FDCWD, c"/dev/null", flags).context("the host's /dev/null")?;
    let stat = fstat(&tree)?;
    if kind(&stat) != SFlag::S_IFCHR || stat.st_rdev != makedev(1, 3) {
        bail!("the host's /dev/null is not the null device");
    }
    Ok(tree)
}

fn empty_tmpfs(label: Option<&CStr>) -> Result<OwnedFd> {
    let fs = sys::fsopen(c"tmpfs")?;
    if let Some(label) = label {
        sys::fsconfig(fs.as_fd(), c"context", Some(label)).context("linux.mountLabel")?;
    }
    sys::fsconfig(fs.as_fd(), c"source", Some(c"tmpfs"))?;
    sys::fsconfig(fs.as_fd(), c"ro", None)?;
    let tmpfs = sys::fsmount(fs.as_fd(), libc::MOUNT_ATTR_RDONLY)?;
    Ok(tmpfs)
}

fn existing(root: &RootFd, path: &Path) -> nix::Result<Option<OwnedFd>> {
    match root.open(path, OFlag::O_PATH) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        result => result.map(Some),
    }
}

/// Writes `linux.sysctl` through the private procfs, so that nothing mounted at `/proc` gets to see
/// it.
pub(super) fn set_sysctls(plan: &Plan, proc: Option<&ProcFd>) -> Result<()> {
    let Some(proc) = proc else { return Ok(()) };
    for (path, value) in &plan.sysctls {
        proc.write(path, value.as_bytes())
            .with_context(|| format!("linux.sysctl {}", path.display()))?;
    }
    Ok(())
}
