//! A directory of a test's own, which is gone after it.

use std::fs::{self, DirBuilder};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MntFlags, umount2};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A fresh directory with mode 0755, so that ids mapped into a user namespace can pass through it.
#[derive(Debug)]
pub(crate) struct TempDir {
    path: PathBuf,
    mark: String,
}

impl TempDir {
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "the integration tests make namespaces, mounts and cgroups: run them as root"
        );
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("rt-test-{}-{number}.", std::process::id());
        let path = Path::new("/var/tmp").join(&mark);
        DirBuilder::new().mode(0o755).create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path, mark }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A name that nothing else on this machine contains: it is part of every container id.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }
}

/// Copies a program in a process of its own: a child that another test's thread forks meanwhile would
/// hold a descriptor of ours for writing, and the kernel does not execute what is open for writing.
#[track_caller]
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let done = Command::new("cp").arg(from).arg(to).output().unwrap();
    assert!(done.status.success(), "{} to {}: {done:?}", from.display(), to.display());
}

/// Writes a program, or what may be taken for one, in a process of its own as well.
#[track_caller]
pub(crate) fn write_program(path: &Path, contents: &[u8]) {
    let mut tee = Command::new("tee");
    tee.arg(path).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut tee = tee.spawn().unwrap();
    tee.stdin.take().unwrap().write_all(contents).unwrap();
    assert!(tee.wait().unwrap().success(), "{}", path.display());
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A mount that a broken runtime left here must not have its contents removed.
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let below = |line: &&str| line.contains(&*self.mark);
        for line in table.lines().rev().filter(below) {
            if let Some(target) = line.split(' ').nth(4).filter(|at| at.contains(&*self.mark)) {
                let _ = umount2(target, MntFlags::MNT_DETACH);
            }
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}
