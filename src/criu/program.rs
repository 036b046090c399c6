//! Finds the executable of CRIU. It is looked up once, before anything is made and while all
//! directories of the host are visible. `restore` starts CRIU in a mount namespace with another
//! `/tmp`: a search there could find a different program from the one of the checkpoint, or none.

use std::convert::Infallible;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat, stat};
use nix::unistd::{AccessFlags, access, execv, fexecve};

use crate::sys;
use crate::sys::rootfd::file_type;

const NAME: &str = "criu";
/// The search path that execvp(3) uses if `PATH` is not set.
const USUAL_PATH: &str = "/bin:/usr/bin";

/// The CRIU that `PATH` names, open.
#[derive(Debug)]
pub struct CriuProgram {
    file: OwnedFd,
    path: PathBuf,
}

impl CriuProgram {
    /// Finds the first executable file `criu` in `PATH`, as execvp(3) does.
    pub fn find() -> Result<Self> {
        Self::find_in(&env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into()))
    }

    fn find_in(path: &OsStr) -> Result<Self> {
        let mut refused = None;
        for directory in env::split_paths(path) {
            // An empty entry of `PATH` means the working directory.
            let path = Path::new(".").join(directory).join(NAME);
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            let Ok(file) = open(&path, flags, Mode::empty()) else {
                continue;
            };
            if file_type(&file)? != SFlag::S_IFREG {
                continue;
            }
            match access(&path, AccessFlags::X_OK) {
                Ok(()) => return Ok(Self { file, path }),
                Err(errno) => refused = refused.or(Some((path, errno))),
            }
        }
        match refused {
            Some((path, errno)) => Err(errno).with_context(|| format!("criu: {}", path.display())),
            None => bail!(
                "criu: executable file not found in $PATH: it does the work of checkpoint and restore, please install it"
            ),
        }
    }

    /// Whether the program was found below the directory `place`, or links lead from it to there.
    pub(super) fn is_below(&self, place: &Path) -> bool {
        let real = fs::canonicalize(&self.path);
        let directory = self
            .path
            .parent()
            .and_then(|parent| fs::canonicalize(parent).ok());
        [real.ok(), directory]
            .into_iter()
            .flatten()
            .any(|path| path.starts_with(place))
    }

    /// Returns the same program with a descriptor whose number is at least `first`.
    pub(super) fn moved_above(&self, first: RawFd) -> Result<Self> {
        let file = sys::duplicate_above(self.file.as_fd(), first).context(NAME)?;
        Ok(Self {
            file,
            path: self.path.clone(),
        })
    }

    /// Executes this program in the current process. It is executed by its path, which a script may
    /// need to find the files beside it, or by the descriptor if something hides the path.
    pub(super) fn execute(&self, arguments: &[CString]) -> Result<Infallible> {
        let own = fstat(&self.file).context("criu")?;
        let is_same = stat(&self.path)
            .is_ok_and(|found| (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino));
        let result = if is_same {
            execv(&CString::new(self.path.as_os_str().as_bytes())?, arguments)
        } else {
            let variable = |(mut name, value): (OsString, OsString)| {
                name.push("=");
                name.push(value);
                CString::new(name.into_vec())
            };
            let environment: Vec<_> = env::vars_os().map(variable).collect::<Result<_, _>>()?;
            fexecve(&self.file, arguments, &environment)
        };
        result
            .map_err(|errno| match errno {
                Errno::ENOENT => anyhow!(errno).context("its interpreter"),
                errno => errno.into(),
            })
            .with_context(|| format!("criu: {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn it_is_the_first_executable_file_of_the_path() {
        let top = env::temp_dir().join(format!("rt-criu-{}", std::process::id()));
        let [none, plain, folder, good, later] =
            ["none", "plain", "folder", "good", "later"].map(|name| top.join(name));
        for directory in [&none, &plain, &folder.join(NAME), &good, &later] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(plain.join(NAME), "").unwrap();
        let find = |all: &[&PathBuf]| CriuProgram::find_in(&env::join_paths(all).unwrap());
        let refused = format!("{:#}", find(&[&none, &plain, &folder]).unwrap_err());
        assert!(
            refused.ends_with("plain/criu: EACCES: Permission denied"),
            "{refused}"
        );
        let missing = find(&[&none, &folder]).unwrap_err().to_string();
        assert!(
            missing.starts_with("criu: executable file not found"),
            "{missing}"
        );
        for directory in [&good, &later] {
            fs::write(directory.join("real"), "").unwrap();
            fs::set_permissions(directory.join("real"), fs::Permissions::from_mode(0o755)).unwrap();
            symlink("real", directory.join(NAME)).unwrap();
        }
        let found = find(&[&none, &plain, &folder, &good, &later]).unwrap();
        assert_eq!(found.path, good.join(NAME));
        assert!(found.is_below(&good) && found.is_below(&top) && !found.is_below(&later));
        fs::remove_dir_all(top).unwrap();
    }
}
