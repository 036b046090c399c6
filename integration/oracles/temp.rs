//! A directory of a test's own, which is gone after it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A fresh directory, and a name that nothing else on this machine has.
#[derive(Debug)]
pub(crate) struct OracleDir {
    path: PathBuf,
    mark: String,
}

impl OracleDir {
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "the oracles make mounts and cgroups: run as root"
        );
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // As in the integration tests: `integration/run.sh` looks for cgroups of this name.
        let mark = format!("rt-test-{}-{number}", std::process::id());
        let path = Path::new("/var/tmp").join(&mark);
        fs::create_dir(&path).unwrap();
        Self { path, mark }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }
}

impl Drop for OracleDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
