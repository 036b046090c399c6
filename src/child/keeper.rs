//! The keeper of a hook: a process between `rt` and the hook, to which falls whatever the hook
//! starts and leaves alone (`PR_SET_CHILD_SUBREAPER`). When it is told to, or when `rt` ends, it ends
//! the hook and everything that the hook has started, in whatever session that is. When the hook
//! ends by itself it is gone as well, and what the hook has left in the background stays.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl::{set_child_subreaper, set_dumpable, set_pdeathsig};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpid, getppid, write};

use crate::sys::{self, Fork};

/// What tells the keeper to end everything.
pub(crate) const END: i32 = libc::SIGTERM;
/// How long it tries: a killed process may be stuck in the kernel, or multiply.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);

/// Starts `hook` in a process below a keeper; the keeper as a pidfd, which ends as the hook does.
/// `hook` gets the pid of its parent; what it returns is its status. What goes wrong in the keeper
/// is written to `errors`.
pub(crate) fn start(hook: impl FnOnce(Pid) -> i32, errors: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    fork(|parent| {
        keep(hook, parent, errors.as_raw_fd()).unwrap_or_else(|errno| {
            let _ = write(errors, errno.desc().as_bytes());
            127
        })
    })
}

/// Runs `child` in a process of its own; its pidfd. `child` gets the pid of its parent; what it
/// returns is its status.
pub(crate) fn fork(child: impl FnOnce(Pid) -> i32) -> nix::Result<OwnedFd> {
    let parent = getpid();
    match sys::clone3(0, None)? {
        Fork::Parent { pidfd, .. } => Ok(pidfd),
        Fork::Child => sys::exit_now(child(parent)),
    }
}

/// In the keeper: the status to end with.
fn keep(hook: impl FnOnce(Pid) -> i32, parent: Pid, errors: RawFd) -> nix::Result<i32> {
    // None of them ends the keeper; two of them are waited for.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
    set_child_subreaper(true)?;
    set_pdeathsig(Signal::SIGTERM)?;
    if getppid() != parent {
        return Err(Errno::ECHILD);
    }
    let own = getpid();
    let (pid, process) = match sys::clone3(0, None)? {
        Fork::Child => return Ok(hook(own)),
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    // Above all the end of the pipe that the hook reads the state from.
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

/// Waits for the end of the hook: its status, or none when everything is to end.
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

/// Reaps what has ended; the status of the hook if it is among it.
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

/// Ends as the hook did if that was by a signal; its status otherwise.
fn end_alike(status: sys::ExitStatus) -> i32 {
    let signal = match status {
        sys::ExitStatus::Exited(status) => return status,
        sys::ExitStatus::Signaled(signal) => signal,
    };
    // The hook has dumped its core, if it was to.
    let _ = set_dumpable(false);
    // If this fails, the keeper ends with the status that a shell would give.
    let _ = sys::restore_signal(signal);
    sys::kill(getpid(), signal);
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    128 + signal
}

/// Kills the children until there is none: the children of one that has been killed are the keeper's
/// from then on.
fn end_all(hook: &OwnedFd) {
    let deadline = Instant::now() + PATIENCE;
    let _ = sys::pidfd_send_signal(hook.as_fd(), libc::SIGKILL);
    loop {
        // None of them is reaped in between, so that no number becomes another process's.
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

/// The children's names in `/proc`, which in a new container's first process is the host's: there
/// they are not the pids that this process knows.
fn children() -> Vec<String> {
    match fs::read_to_string("/proc/thread-self/children") {
        Ok(list) => list.split_ascii_whitespace().map(str::to_owned).collect(),
        // A kernel without CONFIG_PROC_CHILDREN.
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
    // The directory is as good as a pidfd.
    if let Ok(process) = open(format!("/proc/{name}").as_str(), flags, Mode::empty()) {
        let _ = sys::pidfd_send_signal(process.as_fd(), libc::SIGKILL);
    }
}
