//! The keeper of a hook: a process between `rt` and the hook, to which everything falls that the
//! hook starts and leaves behind (`PR_SET_CHILD_SUBREAPER`). When it is told to, or when `rt` ends,
//! it kills the hook and everything that the hook has started, in whatever session that is. When
//! the hook ends by itself the keeper ends, too, and what the hook has left in the background
//! stays.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl::{set_child_subreaper, set_dumpable, set_pdeathsig};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::Mode;
use nix::unistd::{getpid, write};

use crate::process;
use crate::sys::{self, Fork};

/// The signal that tells the keeper to end everything.
pub const END: i32 = libc::SIGTERM;
/// How long the keeper tries to end everything: a killed process may be stuck in the kernel, and
/// processes may multiply.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The time between two rounds of killing.
const LOOK: Duration = Duration::from_millis(1);

/// Starts `hook` in a process below a keeper. Returns the keeper's pidfd; the keeper ends as the
/// hook does. `hook` gets the pidfd of its parent and returns its exit status. A failure in the
/// keeper is written to `errors`.
pub fn start(
    hook: impl FnOnce(BorrowedFd<'_>) -> i32,
    errors: BorrowedFd<'_>,
) -> nix::Result<OwnedFd> {
    fork(|parent| {
        keep(hook, parent, errors.as_raw_fd()).unwrap_or_else(|errno| {
            let _ = write(errors, errno.desc().as_bytes());
            127
        })
    })
}

/// Runs `child` in a process of its own. Returns its pidfd. `child` gets the pidfd of its parent and
/// returns its exit status.
pub fn fork(child: impl FnOnce(BorrowedFd<'_>) -> i32) -> nix::Result<OwnedFd> {
    let parent = own_pidfd()?;
    match sys::clone3(0, None)? {
        Fork::Parent { pidfd, .. } => Ok(pidfd),
        Fork::Child => sys::exit_now(child(parent.as_fd())),
    }
}

fn own_pidfd() -> nix::Result<OwnedFd> {
    sys::pidfd_open(getpid().as_raw())
}

/// Makes the kernel send `signal` to this process when `parent` ends.
///
/// # Errors
/// `ECHILD` if it has ended already. Its pid would not tell: in a builder that has joined a pid
/// namespace for its children, the children do not see the parent, alive or not.
pub fn end_with(parent: BorrowedFd<'_>, signal: Signal) -> nix::Result<()> {
    set_pdeathsig(signal)?;
    match process::has_ended(parent)? {
        true => Err(Errno::ECHILD),
        false => Ok(()),
    }
}

/// Runs in the keeper. Returns the status to end with.
fn keep(
    hook: impl FnOnce(BorrowedFd<'_>) -> i32,
    parent: BorrowedFd<'_>,
    errors: RawFd,
) -> nix::Result<i32> {
    // No signal ends the keeper. It waits for two of them.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
    set_child_subreaper(true)?;
    end_with(parent, Signal::SIGTERM)?;
    let own = own_pidfd()?;
    let (pid, process) = match sys::clone3(0, None)? {
        Fork::Child => sys::exit_now(hook(own.as_fd())),
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(own);
    // This closes above all the keeper's copy of the pipe that the hook reads the state from.
    sys::close_all_but(vec![process.as_raw_fd(), errors], 3)?;
    let mut awaited = SigSet::empty();
    awaited.add(Signal::SIGCHLD);
    awaited.add(Signal::SIGTERM);
    let ended = wait(&awaited, pid);
    if !matches!(ended, Ok(Some(_))) {
        end_all(&process);
    }
    Ok(ended?.map_or(127, end_alike))
}

/// Waits for the end of the hook. Returns its status, or `None` if everything is to end.
fn wait(awaited: &SigSet, hook: i32) -> nix::Result<Option<sys::ExitStatus>> {
    loop {
        if sys::wait_for_signal(awaited)? != libc::SIGCHLD {
            return Ok(None);
        }
        if let Some(status) = reap(hook)? {
            return Ok(Some(status));
        }
    }
}

/// Reaps the children that have ended. Returns the status of the hook if it is one of them.
fn reap(hook: i32) -> nix::Result<Option<sys::ExitStatus>> {
    loop {
        match sys::reap_any() {
            Ok(Some((pid, status))) if pid == hook => return Ok(Some(status)),
            Ok(None) => return Ok(None),
            Ok(Some(_)) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Ends this process by the signal that has ended the hook. Returns the hook's status if it was not
/// a signal.
fn end_alike(status: sys::ExitStatus) -> i32 {
    let signal = match status {
        sys::ExitStatus::Exited(status) => return status,
        sys::ExitStatus::Signaled(signal) => signal,
    };
    // The keeper dumps no core: the hook has, if it was to.
    let _ = set_dumpable(false);
    // If this fails, the keeper ends with the status that a shell would give.
    let _ = sys::restore_signal(signal);
    sys::kill(getpid(), signal);
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    128 + signal
}

/// Kills the children until there are none. The children of a killed process fall to the keeper.
fn end_all(hook: &OwnedFd) {
    let deadline = Instant::now() + PATIENCE;
    let _ = sys::pidfd_send_signal(hook.as_fd(), libc::SIGKILL);
    loop {
        // No child is reaped while the list is worked through, so that no number becomes that of
        // another process.
        children().iter().for_each(|pid| kill(pid));
        loop {
            match sys::reap_any() {
                Ok(Some(_)) | Err(Errno::EINTR) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        if Instant::now() > deadline {
            return;
        }
        sys::sleep(LOOK);
    }
}

/// Returns the names of the children in `/proc`. In the first process of a new container `/proc` is
/// the host's, where they are not the pids that this process knows.
fn children() -> Vec<String> {
    match fs::read_to_string("/proc/thread-self/children") {
        Ok(list) => list.split_ascii_whitespace().map(str::to_owned).collect(),
        // The kernel was built without CONFIG_PROC_CHILDREN.
        Err(_) => children_by_parent().unwrap_or_default(),
    }
}

fn children_by_parent() -> Option<Vec<String>> {
    let own = fs::read_link("/proc/self").ok()?;
    let own = own.to_str()?;
    let entries = sys::list_directory("/proc").ok()?.into_iter();
    let names = entries.filter_map(|entry| entry.name.into_string().ok());
    let is_own = |name: &String| {
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).unwrap_or_default();
        // PID (NAME) STATE PPID: the name may hold anything.
        stat.rsplit(") ")
            .next()
            .and_then(|rest| rest.split(' ').nth(1))
            == Some(own)
    };
    Some(names.filter(is_own).collect())
}

fn kill(name: &str) {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // pidfd_send_signal(2) takes this directory like a pidfd.
    if let Ok(process) = open(format!("/proc/{name}").as_str(), flags, Mode::empty()) {
        let _ = sys::pidfd_send_signal(process.as_fd(), libc::SIGKILL);
    }
}
