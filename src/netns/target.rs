//! The network namespace of a container, entered for a moment by a thread of its own.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::Builder;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use super::record::{NamespaceIdentity, NetworkRecord};
use crate::process::Process;

/// The network namespace of the calling thread, since tests give each thread its own.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace that is not the calling thread's.
#[derive(Debug)]
pub(super) struct Target {
    namespace: File,
    pub(super) process: Option<Process>,
    path: Option<PathBuf>,
}

impl Target {
    /// Opens the network namespace of a process.
    pub(super) fn of_process(pid: i32) -> Result<Self> {
        let process = Process::now(pid)?;
        let path = format!("/proc/{pid}/ns/net");
        let namespace = File::open(&path).with_context(|| path.clone())?;
        if process.open()?.is_none() {
            bail!("process {pid} has ended");
        }
        Self {
            namespace,
            process: Some(process),
            path: None,
        }
        .foreign(&path)
    }

    /// Opens the network namespace that is bound to a path.
    pub(super) fn at(path: &Path) -> Result<Self> {
        // Without O_NONBLOCK, opening a FIFO of that name would wait.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let namespace = options
            .open(path)
            .with_context(|| path.display().to_string())?;
        let name = path.display().to_string();
        Self {
            namespace,
            process: None,
            path: Some(path.to_owned()),
        }
        .foreign(&name)
    }

    /// Opens the network namespace of a container with a record, if it is alive.
    pub(super) fn of_record(record: &NetworkRecord) -> Result<Option<Self>> {
        if !record.is_alive()? {
            return Ok(None);
        }
        let target = match (record.process, &record.namespace.path) {
            (Some(process), _) => Self::of_process(process.pid)?,
            (None, Some(path)) => Self::at(path)?,
            (None, None) => return Ok(None),
        };
        Ok((target.identity()? == record.namespace).then_some(target))
    }

    /// Refuses the host's own namespace, whose interfaces must never be taken for a container's.
    fn foreign(self, name: &str) -> Result<Self> {
        let own = fs::metadata(OWN).context(OWN)?;
        let namespace = self.identity()?;
        if (own.dev(), own.ino()) == (namespace.device, namespace.inode) {
            bail!("{name}: the container has the host's network namespace and none of its own");
        }
        Ok(self)
    }

    pub(super) fn identity(&self) -> Result<NamespaceIdentity> {
        let meta = self.namespace.metadata().context("the network namespace")?;
        Ok(NamespaceIdentity {
            path: self.path.clone(),
            device: meta.dev(),
            inode: meta.ino(),
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Runs `work` in the namespace, on a thread of its own. The calling thread never leaves the
    /// host's namespace, so that there is no way back that could fail.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let work = || {
            setns(&self.namespace, CloneFlags::CLONE_NEWNET).context("setns")?;
            work()
        };
        std::thread::scope(|scope| {
            let thread = Builder::new().spawn_scoped(scope, work).context("thread")?;
            thread.join().unwrap_or_else(|_| bail!("thread: ended"))
        })
    }
}
