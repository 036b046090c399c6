//! Builds the root file system in init's own mount namespace, by descriptors only, and moves in.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, chroot, fchdir, pivot_root};
use procfs::process::MountInfo;

use super::mount::MountContext;
use super::{devices, mount, paths};
use crate::config::mount_options::Propagation;
use crate::container::{protocol, service};
use crate::plan::{ProgramPlan, RootfsPlan};
use crate::sys::rootfd::{Missing, RootFd};
use crate::sys::{self, mount_table};

/// Opens the root directory of this process. For a process that joins a container, it is the root
/// that everything works on.
pub(super) fn current() -> Result<RootFd> {
    Ok(RootFd::new(open_root().context("/")?))
}

/// Makes the root that everything below works on: a fresh mount of `root.path`, attached there so
/// that hooks find it.
pub(super) fn open(plan: &RootfsPlan, caller: &protocol::InitEnd) -> Result<RootFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    part_from_host(plan).context("linux.rootfsPropagation")?;
    let context = || format!("root.path {}", plan.path.display());
    let target = match openat(AT_FDCWD, &plan.path, flags, Mode::empty()) {
        Err(Errno::EACCES) => caller.borrow(protocol::ROOT)?,
        result => result.with_context(context)?,
    };
    let tree = sys::clone_mount(target.as_fd(), true).with_context(context)?;
    sys::move_mount(tree.as_fd(), target.as_fd()).with_context(context)?;
    Ok(RootFd::new(tree))
}

/// Sets the propagation of the host's mounts, so that no mount of init reaches the host, whatever
/// is shared there and whatever propagation the root is to have in the end. Only with `shared` do
/// bind mounts stay in their peer groups; in that case the mount that the root is attached to
/// becomes private.
fn part_from_host(plan: &RootfsPlan) -> Result<()> {
    let root = Path::new("/");
    match plan.propagation {
        Some(Propagation {
            flag: libc::MS_SHARED,
            recursive,
        }) => {
            set_propagation(root, libc::MS_SHARED, recursive)?;
            make_parent_private(&plan.path)
        }
        Some(Propagation {
            flag: libc::MS_PRIVATE | libc::MS_UNBINDABLE,
            ..
        }) => Ok(set_propagation(root, libc::MS_PRIVATE, true)?),
        _ => Ok(set_propagation(root, libc::MS_SLAVE, true)?),
    }
}

/// Makes the mounts and the devices.
pub(super) fn furnish(
    root: &RootFd,
    plan: &RootfsPlan,
    pid_namespace: Option<BorrowedFd<'_>>,
    caller: &protocol::InitEnd,
) -> Result<()> {
    let context = MountContext {
        plan,
        pid_namespace,
        caller,
    };
    // The modes below are exact: the umask must not change them.
    umask(Mode::empty());
    for mount_point in &plan.mounts {
        mount::mount(root, mount_point, &context).with_context(|| mount_point.origin.clone())?;
    }
    if let Some(list) = &plan.devices {
        devices::create(root, list, plan)?;
    }
    umask(Mode::from_bits_truncate(0o022));
    Ok(())
}

/// Attaches `notify`, the mount with the socket of the service manager, where the program finds it.
pub(super) fn attach_notify(root: &RootFd, notify: BorrowedFd<'_>) -> Result<()> {
    let target = root.open_or_create(Path::new(service::DIRECTORY_INSIDE), Missing::Directory);
    target
        .and_then(|target| sys::move_mount(notify, target.as_fd()))
        .context("NOTIFY_SOCKET: /run/notify")
}

/// Completes the root file system: hides paths, makes paths read-only, and makes the root `/`. The
/// process's directory is made while the root can still be written.
pub(super) fn seal(root: &RootFd, plan: &RootfsPlan, program: Option<&ProgramPlan>) -> Result<()> {
    paths::make_read_only(root, &plan.read_only)?;
    paths::mask(root, plan)?;
    if let Some(program) = program.filter(|program| program.cwd != Path::new("/")) {
        root.open_or_create(&program.cwd, Missing::Directory)
            .with_context(|| format!("process.cwd {}", program.cwd.display()))?;
    }
    for mount_point in plan.mounts.iter().filter(|m| m.is_late_read_only()) {
        mount::make_read_only(root, &mount_point.destination)
            .with_context(|| mount_point.origin.clone())?;
    }
    if plan.readonly {
        sys::mount_setattr(root.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0, 0)
            .context("root.readonly")?;
    }
    let moved = if plan.no_pivot {
        move_root(root)
    } else {
        pivot(root, plan)
    };
    moved.with_context(|| format!("root.path {}", plan.path.display()))?;
    if let Some(Propagation { flag, recursive }) = plan.propagation {
        sys::mount_setattr(root.as_fd(), recursive, 0, 0, flag)
            .context("linux.rootfsPropagation")?;
    }
    Ok(())
}

/// Makes the root `/` with pivot_root(2), as `pivot_root(".", ".")`: the old root lies on top of
/// the new one for a moment, and is then unmounted.
fn pivot(root: &RootFd, plan: &RootfsPlan) -> Result<()> {
    let shared = plan
        .propagation
        .as_ref()
        .is_some_and(|p| p.flag == libc::MS_SHARED);
    let old = shared.then(open_root).transpose()?;
    fchdir(root)?;
    pivot_root(".", ".").context("pivot_root")?;
    if let Some(old) = old {
        // The unmount must not propagate to the host: `part_from_host` has left its mounts shared.
        sys::mount_setattr(old.as_fd(), true, 0, 0, libc::MS_SLAVE).context("the old root")?;
    }
    umount2(".", MntFlags::MNT_DETACH).context("the old root")?;
    chdir("/").context("/")
}

/// Makes the root `/` without pivot_root(2) (`--no-pivot`), for a host whose root is a ramfs, which
/// cannot be pivoted away from. The old root stays in the namespace, but nothing that is mounted on
/// it does: a whole procfs or sysfs, wherever it is, would let a container with a user namespace
/// mount another one without the masks.
fn move_root(root: &RootFd) -> Result<()> {
    let path = "/proc/self/mountinfo";
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let table = openat(AT_FDCWD, path, flags, Mode::empty()).context(path)?;
    let old = open_root()?;
    let own = sys::id_of_mount(root.as_fd())?;
    sys::move_mount(root.as_fd(), old.as_fd()).context("--no-pivot")?;
    // Relative paths lead to the old root from here on, all others to the new one.
    fchdir(&old).context("the old root")?;
    unmount_all_but(own, &table, &old).context("--no-pivot")?;
    fchdir(root)?;
    chroot(".").context("chroot")?;
    chdir("/").context("/")
}

/// Unmounts everything that is mounted on the `old` root, except the mount `own`. The old root must
/// be the working directory.
fn unmount_all_but(own: u64, table: &OwnedFd, old: &OwnedFd) -> Result<()> {
    let below = sys::id_of_mount(old.as_fd())?;
    loop {
        let mounts = mount_table::parse(&sys::read_range(table, 0, usize::MAX)?)?;
        let last = mounts.iter().rev().find(|mount| {
            u64::try_from(mount.pid) == Ok(below) && u64::try_from(mount.mnt_id) != Ok(own)
        });
        let Some(last) = last else { return Ok(()) };
        let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        match umount2(&relative(&mount_table::point_of(last)), flags) {
            Ok(()) => {}
            // In a user namespace the host's mounts are locked together and cannot be unmounted.
            Err(Errno::EINVAL) => return cover_kernels_views(&mounts, own),
            Err(errno) => {
                return Err(errno).with_context(|| last.mount_point.display().to_string());
            }
        }
    }
}

/// Covers every procfs and sysfs of the host. The host's root must be the working directory. In a
/// user namespace below the container's, the covers are locked as well.
///
/// # Errors
/// A procfs or sysfs cannot be reached, because something else is mounted over it.
fn cover_kernels_views(mounts: &[MountInfo], own: u64) -> Result<()> {
    let is_view = |mount: &&MountInfo| {
        // A mount of only a part of one does not count.
        matches!(&*mount.fs_type, "proc" | "sysfs") && mount_table::root_of(mount) == Path::new("/")
    };
    for mount in mounts
        .iter()
        .filter(is_view)
        .filter(|mount| !is_below(mount, own, mounts))
    {
        let place = mount_table::point_of(mount);
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let context = || format!("{}: a {} of the host's", place.display(), mount.fs_type);
        let target =
            openat(AT_FDCWD, &relative(&place), flags, Mode::empty()).with_context(context)?;
        if sys::id_of_mount(target.as_fd()).map(i32::try_from) != Ok(Ok(mount.mnt_id)) {
            bail!("{}, which is hidden and cannot be covered", context());
        }
        paths::cover(&target).with_context(context)?;
    }
    Ok(())
}

/// Whether `mount` is the mount `own` or somewhere below it.
fn is_below(mount: &MountInfo, own: u64, mounts: &[MountInfo]) -> bool {
    let mut at = Some(mount);
    while let Some(mount) = at {
        if u64::try_from(mount.mnt_id) == Ok(own) {
            return true;
        }
        at = mounts
            .iter()
            .find(|other| other.mnt_id == mount.pid && other.mnt_id != mount.mnt_id);
    }
    false
}

/// Returns the path of a mount relative to the root, which is the working directory.
fn relative(place: &Path) -> PathBuf {
    Path::new(".").join(place.strip_prefix("/").unwrap_or(place))
}

fn open_root() -> nix::Result<OwnedFd> {
    openat(
        AT_FDCWD,
        "/",
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

fn set_propagation(path: &Path, flag: u64, recursive: bool) -> nix::Result<()> {
    sys::set_propagation(&path_string(path)?, recursive, flag)
}

/// Makes the mount that `path` lies in private: what is attached there does not propagate.
fn make_parent_private(path: &Path) -> Result<()> {
    for ancestor in path.ancestors() {
        match set_propagation(ancestor, libc::MS_PRIVATE, false) {
            // The path is not the root of a mount: look further up.
            Err(Errno::EINVAL) => {}
            result => return result.with_context(|| ancestor.display().to_string()),
        }
    }
    Ok(())
}

fn path_string(path: &Path) -> nix::Result<std::ffi::CString> {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}
