//! The builder's last act: it clones the process that the container sees.
//!
//! A process that enters a pid namespace can be traced there by a process with CAP_SYS_PTRACE, and
//! stopped by one with CAP_KILL. So a builder, a process in the parent's pid namespace, does
//! everything that takes rights: it joins the namespaces of the container or builds its root,
//! becomes the user and gives up its rights. The process that it then clones has the program's
//! rights from its first moment, no descriptor of the host, and none of the words of the parent's
//! command line. A tracer finds in it what it would find in the program.
//!
//! The builder then stays for as long as the process can still be stopped half-way. If the parent
//! ends in that time, also by SIGKILL, the builder kills the process. The parent ends the builder
//! when the program runs or init waits for `start` ([`crate::container::protocol`]).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getppid};

use super::{process, terminal};
use crate::cgroup::OpenCgroup;
use crate::container::protocol::InitEnd;
use crate::plan::Plan;
use crate::sys::{self, Fork};

/// Clones the process and returns in the clone; the builder does not return. `keep` are the
/// descriptors that the process needs besides its standard streams and those that are passed on.
pub(super) fn appear(
    plan: &Plan,
    cgroup: &mut OpenCgroup,
    parent_end: &InitEnd,
    keep: Vec<i32>,
) -> Result<()> {
    sys::close_all_but(keep, 3 + plan.preserve_fds).context("close_range")?;
    let parent = getppid();
    match sys::fork_sibling().context("clone")? {
        Fork::Parent { pid, pidfd } => {
            if parent_end.born(pid, pidfd.as_fd()).is_ok() {
                watch_over(&pidfd, parent);
            }
            // The parent is gone, or has to see that the process ends.
            kill_and_exit(&pidfd)
        }
        Fork::Child => {
            cgroup.enter_pids()?;
            process::lead_session()?;
            if plan
                .process
                .as_ref()
                .is_some_and(|program| program.terminal)
            {
                terminal::control_terminal()?;
            }
            Ok(())
        }
    }
}

/// How often a builder that cannot wait looks for the end of the parent.
const LOOK: Duration = Duration::from_millis(5);

/// Waits for the end of the parent, and then kills `process`.
fn watch_over(process: &OwnedFd, parent: Pid) -> ! {
    // Pipes and sockets that the builder also has open would otherwise stay open after the process
    // has ended.
    let _ = sys::close_all_but(vec![process.as_raw_fd()], 0);
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    let waits = ends.thread_block().is_ok() && set_pdeathsig(Signal::SIGTERM).is_ok();
    // If the wait fails, the end of the parent still shows. The process is not killed for that: its
    // program may run already, and then nobody would say why it ended.
    while getppid() == parent {
        if waits && sys::wait_for_signal(&ends).is_ok() {
            break;
        }
        sys::sleep(LOOK);
    }
    kill_and_exit(process)
}

fn kill_and_exit(process: &OwnedFd) -> ! {
    let _ = sys::pidfd_send_signal(process.as_fd(), libc::SIGKILL);
    sys::exit_now(1)
}
