//! An attacker who swaps two names as fast as the kernel lets him.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat2};

/// Two names in a directory change places in a loop until this is dropped.
#[derive(Debug)]
pub(crate) struct Exchange {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exchange {
    pub(crate) fn start(directory: &Path, one: &str, other: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let at = File::open(directory).unwrap();
        let (one, other, ended) = (one.to_owned(), other.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let done = renameat2(&at, &*one, &at, &*other, RenameFlags::RENAME_EXCHANGE);
                // The runtime may just be replacing a name that is not to its liking.
                assert!(matches!(done, Ok(()) | Err(Errno::ENOENT)), "{done:?}");
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(!matches!(ended, Some(Err(_))), "the racing thread has failed");
    }
}
