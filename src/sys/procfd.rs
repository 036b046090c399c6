//! The host's procfs as a type, through which a write cannot be redirected by a mount on `/proc` or
//! by a link in it. It is a new instance of procfs that is mounted nowhere. If the kernel refuses
//! that, it is `/proc`, checked to be the root of a procfs, and each look-up has to stay below it,
//! on the same mount and without magic links.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::write;

use crate::sys;

/// The inode number of the root of every procfs (`PROC_ROOT_INO`, <linux/proc_ns.h>).
const PROC_ROOT_INO: u64 = 1;

/// The mount option of procfs that selects a pid namespace, by its descriptor.
pub const PID_NAMESPACE: &CStr = c"pidns";

/// A procfs of the pid namespace in which it was opened. Its `self` is correct for every process
/// that is visible in this namespace, and so for init as well.
#[derive(Debug)]
pub struct ProcFd(OwnedFd);

impl AsRawFd for ProcFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl ProcFd {
    /// Opens a new instance of procfs, or the checked `/proc` where the kernel refuses a new
    /// instance (in a container whose `/proc` is masked).
    pub fn new() -> anyhow::Result<Self> {
        match Self::private() {
            Ok(fd) => Ok(Self(fd)),
            Err(Errno::EPERM | Errno::EACCES | Errno::ENOSYS) => Self::checked(),
            Err(errno) => Err(errno).context("a procfs of our own"),
        }
    }

    /// Whether this kernel can mount a procfs of another pid namespace than that of the calling
    /// process (since Linux 6.18).
    pub fn shows_other_namespaces(namespace: BorrowedFd<'_>) -> bool {
        sys::fsopen(c"proc")
            .and_then(|fs| sys::fsconfig_fd(fs.as_fd(), PID_NAMESPACE, namespace))
            .is_ok()
    }

    fn private() -> nix::Result<OwnedFd> {
        let fs = sys::fsopen(c"proc")?;
        sys::fsmount(
            fs.as_fd(),
            libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
        )
    }

    fn checked() -> anyhow::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = open("/proc", flags, Mode::empty()).context("/proc")?;
        if fstatfs(&fd).context("/proc")?.filesystem_type() != PROC_SUPER_MAGIC
            || fstat(&fd).context("/proc")?.st_ino != PROC_ROOT_INO
        {
            bail!("/proc: is not the root of a procfs");
        }
        Ok(Self(fd))
    }

    /// Opens `path`, relative to the root of the procfs.
    pub fn open(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_XDEV
            | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(resolve);
        openat2(&self.0, path, how)
    }

    /// Writes `value` to `path` in one write(2), as the files of procfs require.
    pub fn write(&self, path: impl AsRef<Path>, value: &[u8]) -> nix::Result<()> {
        let fd = self.open(path.as_ref(), OFlag::O_WRONLY)?;
        match write(&fd, value)? {
            written if written == value.len() => Ok(()),
            _ => Err(Errno::EIO),
        }
    }
}
