//! Checks the namespaces of a process that `rt` has not cloned (CRIU has restored it) against the
//! configuration.

use anyhow::{Context, Result, ensure};
use nix::sched::CloneFlags;
use nix::sys::stat::{FileStat, fstat, stat};

use super::id_map::IdMap;
use super::{FILES, NEWTIME, Namespaces, word};

impl Namespaces {
    /// Checks the namespaces `kinds` of process `pid`, and the id maps of a new user namespace.
    ///
    /// # Errors
    /// If the process is in another namespace than the one that the configuration names, if it
    /// shares the namespace of `rt` although the configuration wants a new one, or if it has its
    /// own although the configuration wants none. If the id maps differ.
    pub fn check(&self, pid: i32, kinds: CloneFlags) -> Result<()> {
        for (kind, name) in FILES.into_iter().filter(|(kind, _)| kinds.contains(*kind)) {
            let of = |process: &str| {
                let path = format!("/proc/{process}/ns/{name}");
                stat(path.as_str())
                    .context(path)
                    .map(|stat| identity(&stat))
            };
            let (theirs, ours, word) = (of(&pid.to_string())?, of("self")?, word(kind));
            if let Some(joined) = self.joined.iter().find(|joined| joined.kind == kind) {
                let named = identity(&fstat(&joined.fd)?);
                ensure!(
                    theirs == named,
                    "{}: the images have another {word}",
                    joined.origin
                );
            } else if self.has_new(kind) {
                // CRIU creates no cgroup namespace if it does not restore cgroups.
                let shared = theirs == ours && kind != CloneFlags::CLONE_NEWCGROUP;
                ensure!(
                    !shared,
                    "linux.namespaces: {word}: the images have none of their own"
                );
            } else {
                // CRIU creates a time namespace so that the clocks do not jump.
                let shared = theirs == ours || kind == NEWTIME;
                ensure!(
                    shared,
                    "linux.namespaces: {word}: the images have one of their own"
                );
            }
        }
        let user = CloneFlags::CLONE_NEWUSER;
        if kinds.contains(user) && self.has_new(user) {
            let [users, groups] = IdMap::both_of(pid)?;
            ensure!(
                users.is_same(&self.uids),
                "linux.uidMappings: the images have others"
            );
            ensure!(
                groups.is_same(&self.gids),
                "linux.gidMappings: the images have others"
            );
        }
        Ok(())
    }
}

/// Returns device and inode, which no two namespaces share (namespaces(7)).
fn identity(stat: &FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
