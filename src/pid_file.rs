//! `--pid-file`: the bare decimal number of a process, whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::sys::{self, Fork};

/// Writes `pid` to `path`, beside which a hidden file is made first.
pub(crate) fn write(path: &Path, pid: Pid) -> Result<()> {
    let context = || format!("--pid-file {}", path.display());
    let Some(name) = path.file_name() else { bail!("{}: not a file name", context()) };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    // A link that stands there is not followed.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(context)?,
        _ => {}
    }
    let mut file = File::create_new(&temporary).with_context(context)?;
    file.write_all(pid.to_string().as_bytes()).with_context(context)?;
    fs::rename(&temporary, path).with_context(context)
}

/// The pid file of `exec`, which joins the container's mount namespace: there it can name no file
/// of the host, and it may not hold its directory open, which a payload that traces could go
/// through. So a process that stays behind writes the file.
#[derive(Debug)]
pub(crate) struct PidFile {
    socket: UnixStream,
    writer: OwnedFd,
}

impl PidFile {
    /// Forks the writer, before anything is joined.
    pub(crate) fn prepare(path: &Path) -> Result<Self> {
        let (socket, writers) = UnixStream::pair().context("a socket pair")?;
        match sys::clone3(0, None).context("clone")? {
            Fork::Parent { pidfd, .. } => Ok(Self { socket, writer: pidfd }),
            Fork::Child => {
                drop(socket);
                answer(writers, path);
                sys::exit_now(0)
            }
        }
    }

    /// Has the file written.
    pub(crate) fn write(mut self, pid: Pid) -> Result<()> {
        let mut answer = String::new();
        let asked = self.socket.write_all(&pid.as_raw().to_ne_bytes());
        let heard = asked.and_then(|()| self.socket.read_to_string(&mut answer));
        heard.context("--pid-file: the process that writes it")?;
        match answer.strip_prefix("written") {
            Some(_) => Ok(()),
            None if answer.is_empty() => bail!("--pid-file: the process that writes it has died"),
            None => bail!("{answer}"),
        }
    }
}

/// In the writer: waits for the pid, or for the end of who would send it.
fn answer(mut socket: UnixStream, path: &Path) {
    let mut pid = [0; 4];
    if socket.read_exact(&mut pid).is_ok() {
        let written = write(path, Pid::from_raw(i32::from_ne_bytes(pid)));
        let line = written.map_or_else(|error| crate::error::line(&error), |()| "written".into());
        let _ = socket.write_all(line.as_bytes());
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = waitid(Id::PIDFd(self.writer.as_fd()), WaitPidFlag::WEXITED);
    }
}
