//! Whether a process that this program has not cloned is where the configuration wants it.

use anyhow::{Context, Result, ensure};
use nix::sched::CloneFlags;
use nix::sys::stat::{FileStat, fstat, stat};

use super::id_map::IdMap;
use super::{FILES, NEWTIME, Namespaces, word};

impl Namespaces {
    /// Refuses process `pid` if it is, of any of `kinds`, in another namespace than the one that the
    /// configuration names, or shares ours where it wants a new one, or does not where it wants none.
    pub(crate) fn check(&self, pid: i32, kinds: CloneFlags) -> Result<()> {
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
                // Without control groups CRIU makes none.
                let shared = theirs == ours && kind != CloneFlags::CLONE_NEWCGROUP;
                ensure!(
                    !shared,
                    "linux.namespaces: {word}: the images have none of their own"
                );
            } else {
                // It makes one for clocks that do not jump.
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

/// What no two namespaces have in common: namespaces(7).
fn identity(stat: &FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
