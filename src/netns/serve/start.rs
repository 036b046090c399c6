//! Starts a helper process: `rt` executes itself again, with the socket to listen at as its
//! standard input.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{Backlog, bind, listen};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, setpgid};

use super::super::network::Network;
use super::super::store::Store;
use super::connection::{SOCKET, at, seqpacket};
use crate::sys::{self, Fork};

/// Starts the helper of the network, which knows no container yet.
pub(super) fn start(store: &Store, network: &Network) -> Result<()> {
    let directory = store.network(&network.name);
    match fs::remove_file(directory.join(SOCKET)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context(SOCKET);
        }
        _ => {}
    }
    let listener = seqpacket()?;
    at(&directory, |address| bind(listener.as_raw_fd(), address))?.context(SOCKET)?;
    listen(&listener, Backlog::new(8)?).context(SOCKET)?;
    let args = [
        c"rt".to_owned(),
        c"netns".to_owned(),
        c"--state".to_owned(),
        CString::new(store.directory().as_os_str().as_bytes())?,
        c"serve".to_owned(),
        CString::new(network.name.as_str())?,
    ];
    let null =
        open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).context("/dev/null")?;
    match sys::clone3(0, None).context("helper process")? {
        Fork::Child => {
            let _ = become_helper(&listener, &null, &args);
            sys::exit_now(127)
        }
        // The helper goes on after this command has ended. If it cannot be executed, the listener
        // is closed, and connecting to it fails.
        Fork::Parent { .. } => Ok(()),
    }
}

/// Executes this program again in the child, with the listener as its standard input. The helper
/// inherits no other descriptors, and neither the signal mask nor the ignored SIGPIPE of the
/// command.
fn become_helper(listener: &OwnedFd, null: &OwnedFd, args: &[CString]) -> nix::Result<Infallible> {
    dup2_stdin(listener)?;
    dup2_stdout(null)?;
    dup2_stderr(null)?;
    sys::close_all_but(vec![], 3)?;
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    chdir("/")?;
    sys::reset_signals()?;
    execve(c"/proc/self/exe", args, &[] as &[CString])
}
