//! Mounts of the container whose source is not in the container. CRIU does not dump them; at the
//! restore it is told which files of this host take their place.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag};

use super::external::{ExternalSource, MASK, external_sources, sources};
use super::program::CriuProgram;
use super::rpc::ExternalMount;
use super::seen::{self, HostMounts};
use crate::plan::{MountKind, RootfsPlan};
use crate::sys::rootfd::{Missing, RootFd, file_type};
use crate::sys::{self, mount_table};

/// Returns, for a dump, the external mounts that process `pid` has, by the places where they really
/// are.
///
/// # Errors
/// A mount shows something else than its source, or gives more rights than the configuration: it
/// has been moved or mounted again. It would be restored as something else, or be refused at the
/// restore.
pub fn dumped(root: &RootfsPlan, pid: i32) -> Result<Vec<ExternalMount>> {
    let inside = seen::root_of(pid)?;
    let host = HostMounts::of(root, pid, false)?;
    let mounted = mount_table::of_process(&pid.to_string())?;
    mounted.iter().try_for_each(|mount| host.check(mount))?;
    let mut all: Vec<ExternalMount> = Vec::new();
    for ExternalSource {
        destination,
        name,
        source,
        recursive,
        locked,
        ..
    } in external_sources(root)
    {
        ensure!(
            !(recursive && locked && host.has_mounts_below(&source)),
            "{}: in a user namespace criu does not bring back what is mounted below {}",
            destination.display(),
            source.display()
        );
        let found = match inside.open(&destination, OFlag::O_PATH) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            result => result.with_context(|| destination.display().to_string())?,
        };
        if name == MASK && file_type(&found)? == SFlag::S_IFDIR {
            continue;
        }
        let Some(mount) = seen::mount_at(&mounted, &found)? else {
            continue;
        };
        let point = mount_table::point_of(mount);
        // CRIU knows mounts by their mount points alone, so every mount at this point must show the
        // source.
        for other in mounted
            .iter()
            .filter(|other| mount_table::point_of(other) == point)
        {
            ensure!(
                host.is_all_of(&source, other)?,
                "{}: shows something else there than what is {} now, or both",
                destination.display(),
                source.display()
            );
        }
        let key = point.to_string_lossy().into_owned();
        if !all.iter().any(|other| other.key == key) {
            all.push(ExternalMount { key, value: name });
        }
    }
    Ok(all)
}

/// Returns the places of those mounts that hide a file.
pub fn masked(mounts: &[ExternalMount]) -> Vec<PathBuf> {
    mounts
        .iter()
        .filter(|mount| mount.value == MASK)
        .map(|mount| mount.key.clone().into())
        .collect()
}

/// Returns, for a restore, the source on this host for each name in the images.
pub fn restored(root: &RootfsPlan) -> Vec<ExternalMount> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    external_sources(root)
        .iter()
        .map(|e| ExternalMount {
            key: e.name.clone(),
            value: text(&e.source),
        })
        .collect()
}

/// Prepares the root for CRIU. Runs in the worker, in a mount namespace of its own. Makes the root
/// a mount, as CRIU requires, and makes the missing places for mounts in it. `masked` are the files
/// that were masked at the checkpoint; if that is not known, all masked paths of the configuration
/// count. The path of `program` stays visible.
pub fn prepare(root: &RootfsPlan, masked: Option<&[PathBuf]>, program: &CriuProgram) -> Result<()> {
    sys::set_propagation(c"/", true, libc::MS_SLAVE).context("the mount namespace")?;
    let context = || format!("root.path {}", root.path.display());
    let directory = || {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(&root.path, flags, Mode::empty())
    };
    let below = directory().with_context(context)?;
    let tree = sys::clone_mount(below.as_fd(), true).with_context(context)?;
    sys::move_mount(tree.as_fd(), below.as_fd()).with_context(context)?;
    let inside = RootFd::new(directory().with_context(context)?);
    if root.readonly {
        // CRIU puts the old root there. It would make a missing directory itself, which fails in a
        // read-only root.
        inside
            .open_or_create(Path::new("/tmp"), Missing::Directory)
            .with_context(context)?;
    }
    make_places(&inside, root, masked.unwrap_or(&root.masked))?;
    // CRIU makes a directory in /tmp that is open to everybody, and leaves it there if it is
    // killed. A tmpfs of its own keeps it off the host's /tmp.
    let temporary = &fs::canonicalize("/tmp").context("/tmp")?;
    let is_source = |external: &ExternalSource<'_>| external.source.starts_with(temporary);
    if !program.is_below(temporary) && !sources(root).iter().any(is_source) {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(
            Some("tmpfs"),
            temporary,
            Some("tmpfs"),
            flags,
            Some("mode=1777"),
        )
        .context("/tmp")?;
    }
    Ok(())
}

fn make_places(inside: &RootFd, root: &RootfsPlan, masked: &[PathBuf]) -> Result<()> {
    // A mount may contain the place for another one, so binds are mounted until all places exist.
    let mut mounts = Vec::new();
    for mount in &root.mounts {
        // The contents of a tmpfs were dumped with it, and other file systems have contents of
        // their own.
        if is_within(root, &mount.destination) {
            continue;
        }
        let context = || mount.origin.clone();
        match &mount.what {
            MountKind::Bind { source, .. } => {
                mounts.push(bind(inside, &mount.destination, source).with_context(context)?);
            }
            MountKind::FileSystem(_) => {
                inside
                    .open_or_create(&mount.destination, Missing::Directory)
                    .with_context(context)?;
            }
            MountKind::Cgroup | MountKind::Remount { .. } => {}
        }
    }
    for path in masked.iter().filter(|path| !is_within(root, path)) {
        // The file to hide may have gone since, and CRIU needs one that it can hide.
        inside
            .open_or_create(path, Missing::File)
            .with_context(|| path.display().to_string())?;
    }
    for mount in mounts.iter().rev() {
        let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
        umount2(path.as_str(), MntFlags::MNT_DETACH).context("umount")?;
    }
    Ok(())
}

/// Whether `path` is below the mount point of a file system of the container's own.
fn is_within(root: &RootfsPlan, path: &Path) -> bool {
    root.mounts.iter().any(|mount| {
        let own = matches!(mount.what, MountKind::FileSystem(_) | MountKind::Cgroup);
        own && path != mount.destination && path.starts_with(&mount.destination)
    })
}

fn bind(root: &RootFd, destination: &Path, source: &Path) -> Result<OwnedFd> {
    let context = || format!("source {}", source.display());
    let fd = open(source, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).with_context(context)?;
    let tree = sys::clone_mount(fd.as_fd(), true).with_context(context)?;
    let missing = match file_type(&tree)? {
        SFlag::S_IFDIR => Missing::Directory,
        _ => Missing::File,
    };
    let target = root.open_or_create(destination, missing)?;
    sys::move_mount(tree.as_fd(), target.as_fd())?;
    Ok(tree)
}
