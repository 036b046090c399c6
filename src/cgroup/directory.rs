//! Making and removing the directory of a cgroup, with the missing ones above it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, faccessat};

use super::cgroup_dir::{CgroupDir, trial};
use super::hierarchy::{self, Membership, Version};
use super::walk;

impl CgroupDir {
    /// Whether this process may make the directory and move a child of its own there. Version 2
    /// asks for write access to the closest cgroup above both (cgroups(7) "Delegation").
    pub(super) fn may_be_made(&self, own: &[Membership]) -> bool {
        let may_write =
            |path: &Path| faccessat(AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok();
        if !may_write(&self.existing) {
            return false;
        }
        let own = own.iter().find(|own| own.controllers == self.controllers);
        match own.filter(|_| self.is_v2()) {
            None => true,
            Some(own) => hierarchy::common(&self.directory, &own.path)
                .is_some_and(|common| may_write(&common.join("cgroup.procs"))),
        }
    }

    /// Makes the directory and the missing ones above it. Refuses a directory that somebody else
    /// has just made, and an existing one with processes.
    pub(super) fn make(&self, made: &mut Made) -> Result<()> {
        match self.make_missing(made)? {
            true => Ok(()),
            false if self.existing == self.directory => self.refuse_processes(),
            false => bail!(
                "container's cgroup has just been made by somebody else: {}",
                self.directory.display()
            ),
        }
    }

    /// Makes the directory and the missing ones above it. Returns whether the directory is new.
    pub(super) fn make_missing(&self, made: &mut Made) -> Result<bool> {
        let mut existing = Cow::Borrowed(self.existing.as_path());
        // The removal of another container may remove a directory above at any moment, so this is
        // repeated.
        for _ in 0..8 {
            match self.make_below(&existing, made) {
                Err(Errno::ENOENT) => {}
                Ok(new) => return Ok(new),
                Err(errno) => {
                    return Err(errno).with_context(|| self.directory.display().to_string());
                }
            }
            let version = if self.is_v2() {
                Version::V2
            } else {
                Version::V1
            };
            let found = hierarchy::existing_ancestor(&self.directory, Path::new("/"), version)?;
            existing = found
                .with_context(|| self.directory.display().to_string())?
                .into();
        }
        Err(Errno::ENOENT).with_context(|| self.directory.display().to_string())
    }

    /// Makes the missing directories below `existing`. Returns whether the last one is new.
    fn make_below(&self, existing: &Path, made: &mut Made) -> nix::Result<bool> {
        let missing = self
            .directory
            .ancestors()
            .take_while(|path| *path != existing);
        let missing: Vec<&Path> = missing.collect();
        let mut new = false;
        for directory in missing.into_iter().rev() {
            new = match nix::unistd::mkdir(directory, Mode::from_bits_truncate(0o755)) {
                Ok(()) => {
                    made.0.push(directory.to_owned());
                    true
                }
                Err(Errno::EEXIST) => false,
                Err(errno) => return Err(errno),
            };
        }
        Ok(new)
    }

    /// Removes the directory and those above that were made for it. If it is not `owned`, somebody
    /// else may have made it meanwhile: then nothing below it is removed, and it stays if it is in
    /// use.
    pub(super) fn remove(&self, owned: bool, deadline: Instant) -> Result<()> {
        if self.has_controller("devices") {
            // A killed `update` may have left the trial directory.
            let _ = walk::rmdir(&trial(&self.directory));
        }
        if self.existing == self.directory {
            return Ok(());
        }
        match walk::remove(&self.directory, owned, deadline) {
            Err(Errno::EBUSY | Errno::ENOTEMPTY) if !owned => return Ok(()),
            removed => removed.with_context(|| self.directory.display().to_string())?,
        }
        let above = self.directory.ancestors().skip(1);
        for directory in above.take_while(|path| *path != self.existing) {
            match walk::rmdir(directory) {
                Ok(()) => {}
                // Another container is in it; the last container removes it.
                Err(Errno::EBUSY | Errno::ENOTEMPTY) => break,
                Err(errno) => return Err(errno).with_context(|| directory.display().to_string()),
            }
        }
        Ok(())
    }
}

/// The directories that have been made so far. Dropping it removes them.
#[derive(Default)]
pub(super) struct Made(Vec<PathBuf>);

impl Made {
    pub(super) fn includes(&self, directory: &Path) -> bool {
        self.0.iter().any(|made| made == directory)
    }

    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for directory in self.0.iter().rev() {
            // The error that caused the drop says more than this one would.
            let _ = walk::rmdir(directory);
        }
    }
}
