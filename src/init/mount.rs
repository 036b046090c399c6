//! Mounts one entry of `mounts`. A mount is made detached and given its attributes; only then is it
//! moved onto its target, which was resolved once, to a descriptor below the root.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::sys::statfs::{DEVPTS_SUPER_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};
use nix::unistd::{chdir, read, symlinkat};
use rustix::mount::OpenTreeFlags;

use super::copy;
use crate::config::mount_options::{self, LinkMode, MountOptions, Propagation};
use crate::container::protocol;
use crate::plan::{FileSystem, MountKind, MountPoint, RootfsPlan};
use crate::sys;
use crate::sys::procfd::PID_NAMESPACE;
use crate::sys::rootfd::{Missing, RootFd, file_type};

/// Attributes that the tmpfs with the version 1 hierarchies always has, whatever the hierarchies
/// have.
const PLAIN: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// What all mounts of a root file system share.
pub(super) struct MountContext<'a> {
    pub(super) plan: &'a RootfsPlan,
    /// The pid namespace that a procfs shows, if it is not that of the process that mounts it.
    pub(super) pid_namespace: Option<BorrowedFd<'a>>,
    pub(super) caller: &'a protocol::InitEnd,
}

/// Mounts `entry` below `root`.
pub(super) fn mount(root: &RootFd, entry: &MountPoint, context: &MountContext<'_>) -> Result<()> {
    let MountContext { plan, caller, .. } = *context;
    let mounted = match &entry.what {
        MountKind::Bind { source, ids } => {
            let found = match ids {
                None => open_source(source, entry, caller)?,
                Some(_) => caller.borrow(entry.index)?,
            };
            if entry.options.source_link == LinkMode::Copied && file_type(&found)? == SFlag::S_IFLNK
            {
                return copy_link(root, &entry.destination, &found);
            }
            let tree = match ids {
                None => copy_of(&found, entry).with_context(|| source_of(source))?,
                Some(_) => found,
            };
            bind(root, entry, tree)?
        }
        MountKind::Cgroup => return cgroup(root, entry, plan),
        MountKind::FileSystem(what) => file_system(root, entry, what, context)?,
        MountKind::Remount { file_system } => remount(root, entry, *file_system)?,
    };
    propagate(mounted.as_fd(), &entry.options)?;
    Ok(())
}

/// Makes the mount at `path` read-only.
pub(super) fn make_read_only(root: &RootFd, path: &Path) -> Result<()> {
    let fd = root.open(path, OFlag::O_PATH)?;
    sys::mount_setattr(fd.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0, 0)?;
    Ok(())
}

fn source_of(path: &Path) -> String {
    format!("source {}", path.display())
}

/// Opens the source of a bind mount. Borrows it from the parent if the root of a user namespace may
/// not reach it.
fn open_source(source: &Path, entry: &MountPoint, caller: &protocol::InitEnd) -> Result<OwnedFd> {
    match nix::fcntl::open(source, entry.options.source_flags(), Mode::empty()) {
        Err(Errno::EACCES) => caller.borrow(entry.index),
        result => result.with_context(|| source_of(source)),
    }
}

/// Makes a detached bind mount of `found`, with the mounts below it if the entry says so.
fn copy_of(found: &OwnedFd, entry: &MountPoint) -> nix::Result<OwnedFd> {
    let recursive = entry.options.bind == mount_options::Bind::Recursive;
    sys::clone_mount(found.as_fd(), recursive)
}

/// Makes a symbolic link at `path` that leads where the link `found` leads. If the same link is
/// there already, it stays.
fn copy_link(root: &RootFd, path: &Path, found: &OwnedFd) -> Result<()> {
    let leads_to = readlinkat(found, "")?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("names no link");
    };
    let parent = root.open_or_create(parent, Missing::Directory)?;
    match symlinkat(&*leads_to, &parent, name) {
        Err(Errno::EEXIST) => {
            let same = readlinkat(&parent, name).is_ok_and(|there| there == leads_to);
            ensure!(
                same,
                "copy-symlink: there is something else than a link to {leads_to:?}"
            );
            Ok(())
        }
        result => Ok(result?),
    }
}

fn bind(root: &RootFd, entry: &MountPoint, tree: OwnedFd) -> Result<OwnedFd> {
    set_attributes(&tree, &entry.options)?;
    let missing = match file_type(&tree)? {
        SFlag::S_IFDIR => Missing::Directory,
        _ => Missing::File,
    };
    let target = match entry.options.covers_link {
        true => link_or_create(root, &entry.destination, missing)?,
        false => root.open_or_create(&entry.destination, missing)?,
    };
    put(&tree, &target)?;
    Ok(tree)
}

/// Opens the object at `path` without following a link there, or creates it. File systems of the
/// kernel are refused: their links are magic (proc(5) `/proc/PID/exe`), and what covers one would
/// be taken for the kernel's own answer.
fn link_or_create(root: &RootFd, path: &Path, missing: Missing) -> Result<OwnedFd> {
    let found = match root.open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(root.create(path, missing)?),
        result => result?,
    };
    let kind = fstatfs(&found)?.filesystem_type();
    let kernels = [PROC_SUPER_MAGIC, SYSFS_MAGIC, DEVPTS_SUPER_MAGIC].contains(&kind);
    ensure!(
        !kernels,
        "dest-nofollow: not on a file system of the kernel's"
    );
    Ok(found)
}

/// Moves `tree` onto `target`. If only one of them is a directory, the error is ENOTDIR, as it was
/// with mount(2), since dockerd looks for it; move_mount(2) returns EINVAL.
fn put(tree: &OwnedFd, target: &OwnedFd) -> Result<()> {
    let is_directory = |fd| anyhow::Ok(file_type(fd)? == SFlag::S_IFDIR);
    match sys::move_mount(tree.as_fd(), target.as_fd()) {
        Err(Errno::EINVAL) => {
            let cause = match (is_directory(tree)?, is_directory(target)?) {
                (true, false) => "a directory cannot be mounted on a file",
                (false, true) => "a file cannot be mounted on a directory",
                _ => return Err(Errno::EINVAL.into()),
            };
            Err(Errno::ENOTDIR).context(cause)
        }
        result => Ok(result?),
    }
}

/// Sets the attributes of a mount that has some already, as `mount -o bind` and `mount -o
/// remount,bind` do.
fn set_attributes(tree: &OwnedFd, options: &MountOptions) -> Result<()> {
    if let Some((set, clear)) = options.bind_attr() {
        match sys::mount_setattr(tree.as_fd(), false, set, clear, 0) {
            // In a user namespace the attributes that the host has set are locked and stay as they
            // are.
            Err(Errno::EPERM) => {
                let source = mount_options::statfs_attr(fstatfs(tree)?.flags().bits());
                let (set, clear) = options.bind_attr_locked(source)?;
                sys::mount_setattr(tree.as_fd(), false, set, clear, 0)?;
            }
            result => result?,
        }
    }
    set_recursive_attributes(tree.as_fd(), options)
}

fn set_recursive_attributes(tree: BorrowedFd<'_>, options: &MountOptions) -> Result<()> {
    if options.rec_attr_set | options.rec_attr_clr != 0 {
        sys::mount_setattr(tree, true, options.rec_attr_set, options.rec_attr_clr, 0)?;
    }
    Ok(())
}

fn propagate(mounted: BorrowedFd<'_>, options: &MountOptions) -> Result<()> {
    for Propagation { flag, recursive } in &options.propagation {
        sys::mount_setattr(mounted, *recursive, 0, 0, *flag)?;
    }
    Ok(())
}

/// Changes an existing mount as `mount -o remount` does: attributes that are not named stay.
fn remount(root: &RootFd, entry: &MountPoint, file_system: bool) -> Result<OwnedFd> {
    let mounted = root.open(&entry.destination, OFlag::O_PATH)?;
    match change(&mounted, &now(entry), file_system) {
        Err(error) if error.downcast_ref() == Some(&Errno::EINVAL) => {
            bail!("remount: no mount point, or not such a change")
        }
        result => result.map(|()| mounted),
    }
}

fn change(mounted: &OwnedFd, options: &MountOptions, file_system: bool) -> Result<()> {
    if file_system && !(options.sb_flags.is_empty() && options.data.is_empty()) {
        let fs = sys::fspick(mounted.as_fd())?;
        configure_all(&fs, options)?;
        sys::reconfigure(fs.as_fd()).map_err(|errno| explain(&fs, errno))?;
    }
    set_attributes(mounted, options)
}

fn file_system(
    root: &RootFd,
    entry: &MountPoint,
    what: &FileSystem,
    context: &MountContext<'_>,
) -> Result<OwnedFd> {
    let options = &now(entry);
    let (target, mode) = target(root, entry, &what.kind)?;
    if let Some(directory) = &what.directory {
        chdir(directory).with_context(|| directory.display().to_string())?;
    }
    let fs = context_of(&what.kind, what.source.as_deref())?;
    if let Some(mode) = mode {
        configure(&fs, c"mode", Some(&mode))?;
    }
    if what.kind.as_c_str() == c"proc"
        && let Some(namespace) = context.pid_namespace
    {
        sys::fsconfig_fd(fs.as_fd(), PID_NAMESPACE, namespace)
            .context("the joined pid namespace")?;
    }
    configure_all(&fs, options)?;
    let mounted = sys::fsmount(fs.as_fd(), options.attr_set);
    let mounted = mounted.map_err(|errno| explain(&fs, errno))?;
    if what.kind.as_c_str() == c"mqueue"
        && let Some(label) = &context.plan.label
    {
        label_root(&mounted, label).context("linux.mountLabel")?;
    }
    if options.tmpcopyup {
        copy::contents(&target, &mounted).context("tmpcopyup")?;
    }
    set_recursive_attributes(mounted.as_fd(), options)?;
    put(&mounted, &target)?;
    Ok(mounted)
}

/// Labels the root directory of a file system that takes no `context` option.
fn label_root(mounted: &OwnedFd, label: &CStr) -> nix::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = openat(mounted, ".", flags, Mode::empty())?;
    sys::set_attribute(root.as_fd(), c"security.selinux", label.to_bytes())
}

/// Opens or makes the mount point of a file system. Returns it, and for a tmpfs the mode that it
/// takes from there.
fn target(root: &RootFd, entry: &MountPoint, kind: &CStr) -> Result<(OwnedFd, Option<CString>)> {
    let path = &entry.destination;
    if kind == c"proc" || kind == c"sysfs" {
        return Ok((plain_directory(root, path)?, None));
    }
    match root.open(path, OFlag::O_PATH) {
        Err(Errno::ENOENT) => Ok((root.create(path, Missing::Directory)?, None)),
        result => {
            let below = result?;
            let mode = if kind == c"tmpfs" {
                mode_of(&below, &entry.options)?
            } else {
                None
            };
            Ok((below, mode))
        }
    }
}

/// Returns the options of the entry without those that are set only when the root is complete.
fn now(entry: &MountPoint) -> MountOptions {
    let mut options = entry.options.clone();
    if entry.is_late_read_only() {
        options.attr_set &= !libc::MOUNT_ATTR_RDONLY;
        options.sb_flags.retain(|flag| *flag != "ro");
    }
    options
}

/// Configures the flags of the superblock and the file system's own options.
fn configure_all(fs: &OwnedFd, options: &MountOptions) -> Result<()> {
    for flag in &options.sb_flags {
        configure(fs, &CString::new(*flag)?, None)?;
    }
    for (key, value) in &options.data {
        let value = value.as_deref().map(CString::new).transpose()?;
        configure(fs, &CString::new(key.as_str())?, value.as_deref())?;
    }
    Ok(())
}

/// Opens or makes a mount point that must be a real directory, reached without links. Through a
/// link of the image procfs and sysfs could end up elsewhere, and `/proc` itself could be anything
/// (CVE-2019-19921).
fn plain_directory(root: &RootFd, path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    match root.open_without_links(path, flags) {
        Err(Errno::ENOENT) => Ok(root.open_or_create(path, Missing::Directory)?),
        Err(Errno::ELOOP | Errno::ENOTDIR) => {
            bail!("must be a directory in the root file system, without symbolic links")
        }
        result => Ok(result?),
    }
}

/// Returns the mode for a tmpfs that is configured without one: that of the directory that it
/// covers, as in runc.
fn mode_of(below: &OwnedFd, options: &MountOptions) -> Result<Option<CString>> {
    if options.data.iter().any(|(key, _)| key == "mode") {
        return Ok(None);
    }
    Ok(Some(CString::new(format!(
        "{:o}",
        fstat(below)?.st_mode & 0o7777
    ))?))
}

/// Opens a file system context (fsopen(2)), with the source that mountinfo will show.
fn context_of(kind: &CStr, source: Option<&CStr>) -> Result<OwnedFd> {
    let fs = match sys::fsopen(kind) {
        Err(Errno::ENODEV) => bail!("unknown file system type {:?}", kind.to_string_lossy()),
        result => result?,
    };
    if let Some(source) = source.filter(|source| !source.is_empty()) {
        configure(&fs, c"source", Some(source))?;
    }
    Ok(fs)
}

fn configure(fs: &OwnedFd, key: &CStr, value: Option<&CStr>) -> Result<()> {
    sys::fsconfig(fs.as_fd(), key, value)
        .map_err(|errno| explain(fs, errno))
        .with_context(|| format!("option {}", key.to_string_lossy()))
}

/// Adds the kernel's message to an errno, which the file system context returns, for example "e
/// tmpfs: Bad value for 'size'".
fn explain(fs: &OwnedFd, errno: Errno) -> anyhow::Error {
    let mut buffer = [0u8; 256];
    match read(fs, &mut buffer) {
        Ok(length) if length > 2 && buffer[0] == b'e' => {
            let text = String::from_utf8_lossy(&buffer[2..length]);
            anyhow!(errno).context(text.trim_end().to_string())
        }
        _ => errno.into(),
    }
}

/// Mounts the container's own cgroups: on version 2 the directory of its cgroup, on version 1 and
/// hybrid hosts a tmpfs with a directory for each version 1 hierarchy. A bind mount of the cgroup
/// shows the same as a mount of the hierarchy from inside a cgroup namespace, and no more than that
/// where there is no such namespace. As in runc, `ro` applies to the hierarchies and not to the
/// tmpfs.
fn cgroup(root: &RootFd, entry: &MountPoint, plan: &RootfsPlan) -> Result<()> {
    let cgroups = &plan.cgroups;
    let target = plain_directory(root, &entry.destination)?;
    let options = &entry.options;
    // A container without cgroups of its own sees those of `rt`, and must not change them
    // (CVE-2023-25809).
    let attributes = options.attr_set
        | if cgroups.borrowed {
            libc::MOUNT_ATTR_RDONLY
        } else {
            0
        };
    if cgroups.unified {
        let Some((_, directory)) = cgroups.directories.first() else {
            return Ok(());
        };
        let tree = clone_group(directory)?;
        sys::mount_setattr(tree.as_fd(), false, attributes, 0, 0)?;
        set_recursive_attributes(tree.as_fd(), options)?;
        sys::move_mount(tree.as_fd(), target.as_fd())?;
        return propagate(tree.as_fd(), options);
    }
    let fs = context_of(c"tmpfs", Some(c"tmpfs"))?;
    configure(&fs, c"mode", Some(c"755"))?;
    if let Some(label) = &plan.label {
        configure(&fs, c"context", Some(label)).context("linux.mountLabel")?;
    }
    let tmpfs = sys::fsmount(fs.as_fd(), PLAIN)?;
    sys::move_mount(tmpfs.as_fd(), target.as_fd())?;
    for (name, directory) in &cgroups.directories {
        mount_group(&tmpfs, name, directory).with_context(|| name.clone())?;
    }
    sys::mount_setattr(tmpfs.as_fd(), true, attributes, 0, 0)?;
    sys::mount_setattr(tmpfs.as_fd(), false, 0, libc::MOUNT_ATTR_RDONLY, 0)?;
    set_recursive_attributes(tmpfs.as_fd(), options)?;
    propagate(tmpfs.as_fd(), options)?;
    Ok(())
}

fn mount_group(tmpfs: &OwnedFd, name: &str, directory: &Path) -> Result<()> {
    let tree = clone_group(directory)?;
    mkdirat(tmpfs, name, Mode::from_bits_truncate(0o755))?;
    // Each name of a co-mounted controller is a link to the hierarchy: cpu -> cpu,cpuacct.
    for controller in name.split(',').filter(|controller| *controller != name) {
        symlinkat(name, tmpfs, controller)?;
    }
    // A path is safe here: this tmpfs is new, and no other process is in this mount namespace.
    sys::move_mount_at(tree.as_fd(), tmpfs.as_fd(), &CString::new(name)?)?;
    Ok(())
}

fn clone_group(directory: &Path) -> Result<OwnedFd> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    sys::open_tree(AT_FDCWD, &path, OpenTreeFlags::OPEN_TREE_CLONE)
        .with_context(|| directory.display().to_string())
}
