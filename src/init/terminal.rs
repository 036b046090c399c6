//! Makes the terminal of the process: a pair of the container's own devpts.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};

use super::devices;
use crate::container::protocol;
use crate::plan::Plan;
use crate::pty::{self, Pair};
use crate::sys;
use crate::sys::rootfd::RootFd;

/// The pair, and who will own it.
#[derive(Debug)]
pub(super) struct Terminal {
    pair: Pair,
    uid: u32,
}

/// Opens a pair if the process wants a terminal, and puts it at `/dev/console` of a new root.
pub(super) fn open(root: &RootFd, plan: &Plan) -> Result<Option<Terminal>> {
    let Some(program) = plan.process.as_ref().filter(|program| program.terminal) else {
        return Ok(None);
    };
    let pair = Pair::open(root, program.console_size)?;
    if plan.root.is_some() {
        let dev = devices::directory(root)?;
        let console = devices::empty_file(&dev, "console".as_ref()).context("/dev/console")?;
        bind(&pair.peer, &console).context("/dev/console")?;
    }
    Ok(Some(Terminal {
        pair,
        uid: program.uid,
    }))
}

fn bind(peer: &OwnedFd, target: &OwnedFd) -> Result<()> {
    let tree = sys::clone_mount(peer.as_fd(), false)?;
    Ok(sys::move_mount(tree.as_fd(), target.as_fd())?)
}

impl Terminal {
    /// Makes the terminal the standard streams, and sends its master to the parent.
    pub(super) fn take(self, caller: &protocol::InitEnd) -> Result<()> {
        pty::give_to(&self.pair.peer, self.uid)?;
        caller.terminal(self.pair.master.as_fd())?;
        nix::unistd::dup2_stdin(&self.pair.peer)?;
        nix::unistd::dup2_stdout(&self.pair.peer)?;
        nix::unistd::dup2_stderr(&self.pair.peer)?;
        Ok(())
    }
}

/// Makes the terminal on standard input the controlling terminal of this process, which must lead a
/// session that has none.
pub(super) fn control() -> Result<()> {
    sys::set_controlling_terminal(sys::stdio(0)).context("TIOCSCTTY")
}
