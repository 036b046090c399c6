//! Makes the terminal of the process: a pair of the container's own devpts.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::devices;
use crate::container::protocol::InitEnd;
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

impl Terminal {
    /// Opens a pair if the process wants a terminal, and puts it at `/dev/console` of a new root.
    pub(super) fn open_wanted(root: &RootFd, plan: &Plan) -> Result<Option<Self>> {
        let Some(program) = plan.process.as_ref().filter(|program| program.terminal) else {
            return Ok(None);
        };
        let pair = Pair::open(root, program.console_size)?;
        if plan.root.is_some() {
            let dev = devices::directory(root)?;
            mount_console(&dev, &pair.peer).context("/dev/console")?;
        }
        let uid = program.uid;
        Ok(Some(Self { pair, uid }))
    }

    /// Makes the terminal the standard streams, and sends its master to the parent. A builder
    /// leaves it to its clone to make it the controlling terminal.
    pub(super) fn hand_over(self, plan: &Plan, parent: &InitEnd) -> Result<()> {
        let Pair { master, peer } = self.pair;
        pty::give_to(&peer, self.uid)?;
        parent.terminal(master.as_fd())?;
        dup2_stdin(&peer)?;
        dup2_stdout(&peer)?;
        dup2_stderr(&peer)?;
        match plan.has_builder {
            true => Ok(()),
            false => control_terminal(),
        }
    }
}

fn mount_console(dev: &OwnedFd, peer: &OwnedFd) -> Result<()> {
    let console = devices::empty_file(dev, "console".as_ref())?;
    let tree = sys::clone_mount(peer.as_fd(), false)?;
    Ok(sys::move_mount(tree.as_fd(), console.as_fd())?)
}

/// Makes the terminal on standard input the controlling terminal of this process, which must lead a
/// session that has none.
pub(super) fn control_terminal() -> Result<()> {
    sys::set_controlling_terminal(sys::stdin()).context("TIOCSCTTY")
}
