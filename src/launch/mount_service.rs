//! Serves the mount requests of init. It asks its parent for what it may not open or make itself: a
//! path below a directory that the root of its user namespace may not enter, and an id-mapped
//! mount, which takes rights over the file system.
//!
//! The lender, a process of the parent, does this in init's mount namespace. There, unlike in the
//! host's, the attributes of each mount are locked for a user namespace: a read-only mount of the
//! host does not become writable by way of a container (mount_namespaces(7)).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;

use crate::child::HelperAnswer;
use crate::config::mount_options::Bind;
use crate::container::protocol::{LendMounts, ROOT};
use crate::namespace::{self, hide};
use crate::plan::{MountIds, MountKind, MountPoint, Plan};
use crate::sys::{self, Fork};

impl LendMounts for Plan {
    fn lend(&self, init: i32, index: u32) -> Result<OwnedFd> {
        let root = self.root.as_ref().context("there is no root")?;
        if index == ROOT {
            let context = || format!("root.path {}", root.path.display());
            return in_mounts_of(init, || {
                open_path(&root.path, OFlag::O_PATH | OFlag::O_CLOEXEC)
            })
            .with_context(context);
        }
        let entry = root.mounts.get(index as usize).context("no such mount")?;
        let MountKind::Bind { source, ids } = &entry.what else {
            bail!("not a bind mount")
        };
        let users = match ids {
            None => None,
            Some(MountIds::OfContainer) => {
                let path = format!("/proc/{init}/ns/user");
                Some(OwnedFd::from(File::open(&path).context(path)?))
            }
            Some(MountIds::Own(uids, gids)) => Some(
                namespace::user_namespace(uids, gids)
                    .with_context(|| format!("{}: the namespace of its ids", entry.origin))?,
            ),
        };
        in_mounts_of(init, || match &users {
            None => open_path(source, entry.options.source_flags()),
            Some(users) => with_ids(entry, source, users.as_fd()),
        })
        .with_context(|| format!("{}: source {}", entry.origin, source.display()))
    }
}

fn open_path(path: &Path, flags: OFlag) -> Result<OwnedFd> {
    Ok(open(path, flags, Mode::empty())?)
}

/// Makes a detached copy of the mount, with ids mapped as in the user namespace `users`.
fn with_ids(entry: &MountPoint, source: &Path, users: BorrowedFd<'_>) -> Result<OwnedFd> {
    let source = open_path(source, entry.options.source_flags())?;
    let tree = sys::clone_mount(source.as_fd(), entry.options.bind == Bind::Recursive)?;
    let recursive = entry.options.id_map == Some(true);
    match sys::map_ids(tree.as_fd(), recursive, users) {
        Err(Errno::EINVAL) => bail!("its file system has no id-mapped mounts, or it is one"),
        Err(Errno::EPERM) => bail!("id-mapped mounts need rights over its file system"),
        result => result?,
    }
    Ok(tree)
}

/// Runs `work` in a lender, in the mount namespace of the process `init`. Returns the descriptor
/// that it makes.
fn in_mounts_of(init: i32, work: impl FnOnce() -> Result<OwnedFd>) -> Result<OwnedFd> {
    let init = sys::pidfd_open(init).context("the container's first process")?;
    let answer = HelperAnswer::new()?;
    match sys::clone3(0, None).context("clone")? {
        Fork::Parent { pidfd, .. } => Ok(answer.receive(&pidfd)?.1),
        Fork::Child => {
            let enter = || -> Result<()> {
                hide()?;
                Ok(setns(&init, CloneFlags::CLONE_NEWNS)?)
            };
            answer.send(enter().and_then(|()| work()).map(|fd| (0, fd)))
        }
    }
}
