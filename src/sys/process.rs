//! Creates processes, signals them and waits for their end, and sets their limits, capabilities,
//! signal dispositions and keyrings.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_ulong};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask,
};
use nix::sys::time::TimeSpec;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};

use super::call::{call, call_fd};

// The constant of libc is cut off at 32 bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
// <linux/keyctl.h>, which libc does not have.
const KEYCTL_JOIN_SESSION_KEYRING: c_long = 1;
const KEYCTL_SETPERM: c_long = 5;

/// On which side of a fork ([`clone3`], [`fork_sibling`]) this process is.
pub(crate) enum Fork {
    Parent { pid: i32, pidfd: OwnedFd },
    Child,
}

/// Forks with clone3(2), without a shared address space. `flags` are `CLONE_NEW*` for new
/// namespaces, `CLONE_PARENT` and `CLONE_FILES`. The child starts in the version 2 `cgroup`, if
/// there is one.
pub(crate) fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork> {
    let mut pidfd: c_int = -1;
    // SAFETY: clone_args is a plain structure of integers for which zero means "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // With CLONE_PARENT the child gets the exit signal of the calling process; the field must be 0.
    args.exit_signal = match flags & libc::CLONE_PARENT as u64 {
        0 => libc::SIGCHLD as u64,
        _ => 0,
    };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child gets its own copy of this single-threaded process, so
    // no lock can be held by a thread that does not exist there; `args` and `pidfd` outlive the
    // call, and the size is that of the structure passed.
    let pid = call(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    })?;
    if pid == 0 {
        return Ok(Fork::Child);
    }
    // SAFETY: CLONE_PIDFD succeeded, so the kernel stored a new descriptor in `pidfd`.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent {
        pid: pid as i32,
        pidfd,
    })
}

/// The flags that [`fork_sibling`] passes to clone(2).
pub(crate) const SIBLING_FLAGS: u64 = (libc::CLONE_PARENT | libc::CLONE_PIDFD) as u64;

/// Forks a process that is a child of this process's parent (clone(2) with `CLONE_PARENT`). It
/// does not use clone3(2), because it is called under the seccomp filters of containers: the common
/// profiles answer `ENOSYS` to clone3, since a filter cannot look at its flags.
pub(crate) fn fork_sibling() -> Result<Fork> {
    let mut pidfd: c_int = -1;
    // SAFETY: as in `clone3`; without a new stack the child continues on its copy of this one. The
    // third argument is the place for the pidfd on every architecture, and the rest is not used.
    let pid =
        call(unsafe { libc::syscall(libc::SYS_clone, SIBLING_FLAGS, 0, &raw mut pidfd, 0, 0) })?;
    if pid == 0 {
        return Ok(Fork::Child);
    }
    // SAFETY: CLONE_PIDFD succeeded, so the kernel stored a new descriptor in `pidfd`.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent {
        pid: pid as i32,
        pidfd,
    })
}

/// Ends this process at once (_exit(2)), without destructors and exit handlers: in a forked process
/// they would act on copies of the parent's objects.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes any integer and does not return.
    unsafe { libc::_exit(status) }
}

/// An execve(2) with its arguments prepared, so that [`Execution::run`] allocates nothing.
#[derive(Debug)]
pub(crate) struct Execution<'a> {
    path: &'a CStr,
    args: Vec<*const c_char>,
    env: Vec<*const c_char>,
}

impl<'a> Execution<'a> {
    pub(crate) fn new(path: &'a CStr, args: &'a [CString], env: &'a [CString]) -> Self {
        let pointers = |list: &[CString]| -> Vec<*const c_char> {
            list.iter()
                .map(|text| text.as_ptr())
                .chain([std::ptr::null()])
                .collect()
        };
        Self {
            path,
            args: pointers(args),
            env: pointers(env),
        }
    }

    /// Executes the program; returns only if that failed.
    pub(crate) fn run(&self) -> Errno {
        // SAFETY: both lists end with a null pointer; the strings that they and `path` point to
        // are borrowed for 'a, which `self` does not outlive.
        unsafe { libc::execve(self.path.as_ptr(), self.args.as_ptr(), self.env.as_ptr()) };
        Errno::last()
    }
}

/// Returns a pidfd of process `pid` (pidfd_open(2)).
pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: integers only.
    call_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends `signal` to the process behind `pidfd` (pidfd_send_signal(2)).
///
/// # Errors
/// `ESRCH` if the process has ended.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: with a null siginfo the kernel fills in the one of kill(2).
    call(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            null,
            0,
        )
    })
    .map(drop)
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Ignores `signal`, or sets its default action (sigaction(2)).
pub(crate) fn set_signal_disposition(signal: Signal, ignore: bool) -> Result<()> {
    let handler = if ignore {
        SigHandler::SigIgn
    } else {
        SigHandler::SigDfl
    };
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: neither disposition is a function that could run in a signal's context.
    unsafe { sigaction(signal, &action) }.map(drop)
}

/// Undoes for a program that is about to be executed what `rt` has set for itself: the ignored
/// SIGPIPE and the signal mask.
pub(crate) fn reset_signals() -> Result<()> {
    set_signal_disposition(Signal::SIGPIPE, false)?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Lets SIGHUP, SIGINT, SIGQUIT and SIGTERM end this process, also if it is the first process of a
/// pid namespace: the kernel does not deliver signals to that one unless it has a handler
/// (pid_namespaces(7)). execve(2) restores the default action.
pub(crate) fn end_when_asked() -> Result<()> {
    extern "C" fn end(signal: i32) {
        // SAFETY: _exit(2) is safe in the context of a signal.
        unsafe { libc::_exit(128 + signal) }
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ]
    .into_iter()
    .try_for_each(
        // SAFETY: the handler makes one call, which is safe there.
        |signal| unsafe { sigaction(signal, &action) }.map(drop),
    )
}

/// Sets the default action for the signal with that number, also for the two signals that the C
/// library keeps for itself.
pub(crate) fn restore_signal(signal: i32) -> Result<()> {
    // The kernel's struct sigaction (handler, flags, restorer, mask): all zeros mean SIG_DFL.
    let default = [0u64; 4];
    let null = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads `default`, which has the size of its structure, and writes nothing
    // back; SIG_DFL is no function that could run in a signal's context.
    call(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), null, 8) })
        .map(drop)
}

/// Raises the hard limit of process `pid` to `hard` if it is lower; does not change the soft limit.
pub(crate) fn raise_hard_limit(pid: i32, resource: u32, hard: u64) -> Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let null = std::ptr::null();
    // SAFETY: without a new limit the call only writes the old one to `limit`, which outlives it.
    Errno::result(unsafe { libc::prlimit(pid, resource as _, null, &raw mut limit) })?;
    if limit.rlim_max >= hard {
        return Ok(());
    }
    limit.rlim_max = hard;
    // SAFETY: a null old limit asks for nothing back; `limit` is only read.
    Errno::result(unsafe {
        libc::prlimit(pid, resource as _, &raw const limit, std::ptr::null_mut())
    })
    .map(drop)
}

/// Sets the limits of `resource` (`RLIMIT_*`) for this process (setrlimit(2)).
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `limit` outlives the call, which only reads it.
    Errno::result(unsafe { libc::setrlimit(resource as _, &raw const limit) }).map(drop)
}

/// Sets the effective, permitted and inheritable capabilities of this thread, as bit masks
/// (capset(2)).
pub(crate) fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let header = CapHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let mut data = [0u32; 6];
    for (i, set) in [effective, permitted, inheritable].into_iter().enumerate() {
        data[i] = set as u32;
        data[i + 3] = (set >> 32) as u32;
    }
    // SAFETY: version 3 reads one header and two triples of u32, which `data` is.
    call(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Returns the permitted capabilities of this thread as a bit mask (capget(2)).
pub(crate) fn permitted_capabilities() -> Result<u64> {
    let mut header = CapHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let mut data = [0u32; 6];
    // SAFETY: version 3 writes two triples of u32, for which `data` has the room.
    call(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    Ok(u64::from(data[1]) | u64::from(data[4]) << 32)
}

fn prctl(option: c_int, argument: c_ulong, second: c_ulong) -> Result<c_int> {
    // SAFETY: the options used in this file take integers only and expect zero for the rest.
    Errno::result(unsafe { libc::prctl(option, argument, second, 0, 0) })
}

/// Removes `capability` from the bounding set; this cannot be undone.
pub(crate) fn bounding_drop(capability: u8) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

/// Adds `capability` to the ambient set.
pub(crate) fn ambient_raise(capability: u8) -> Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_RAISE as c_ulong,
        capability.into(),
    )
    .map(drop)
}

/// Empties the ambient set.
pub(crate) fn ambient_clear() -> Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong,
        0,
    )
    .map(drop)
}

/// Joins the session keyring `name`, or creates it if there is none that this process may search
/// (keyctl_join_session_keyring(3)). Returns its serial number.
pub(crate) fn join_session_keyring(name: &CStr) -> Result<c_long> {
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    call(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
}

/// Sets the rights on a key for its possessor (`KEY_POS_*`) and its user (`KEY_USR_*`)
/// (keyctl_setperm(3)).
pub(crate) fn set_key_permissions(serial: c_long, permissions: u32) -> Result<()> {
    // SAFETY: integers only.
    call(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial, permissions) }).map(drop)
}

/// Sets the NIS domain name of this uts namespace (setdomainname(2)).
pub(crate) fn set_domain_name(name: &str) -> Result<()> {
    // SAFETY: pointer and length are those of `name`.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Returns the kind of the namespace behind `fd` as its `CLONE_NEW*` flag (ioctl_ns(2)).
///
/// # Errors
/// `ENOTTY` if `fd` is not a namespace.
pub(crate) fn namespace_kind(fd: BorrowedFd<'_>) -> Result<i32> {
    // SAFETY: NS_GET_NSTYPE takes no argument.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE as _) })
}

/// How a process has ended. Signals are numbers, because nix has no names for real-time signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    Exited(i32),
    Signaled(i32),
}

/// Reaps a child that has ended, without waiting (waitpid(2) with `WNOHANG`). Returns its pid and
/// how it ended; `None` if no child has ended yet.
pub(crate) fn reap_any() -> Result<Option<(i32, ExitStatus)>> {
    let mut status: c_int = 0;
    // SAFETY: `status` outlives the call, which writes it.
    let pid = Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) })?;
    let ended = match libc::WIFSIGNALED(status) {
        true => ExitStatus::Signaled(libc::WTERMSIG(status)),
        false => ExitStatus::Exited(libc::WEXITSTATUS(status)),
    };
    Ok((pid != 0).then_some((pid, ended)))
}

/// Reaps a child like [`reap_any`]. Returns its pid and its exit status as shells have it: 128 plus
/// the number of the signal that ended it.
pub(crate) fn reap_child() -> Result<Option<(i32, i32)>> {
    let code = |status| match status {
        ExitStatus::Exited(status) => status,
        ExitStatus::Signaled(signal) => 128 + signal,
    };
    Ok(reap_any()?.map(|(pid, status)| (pid, code(status))))
}

/// Waits for one of the blocked signals in `set`; returns its number (sigwaitinfo(2)). nix's own
/// function uses sigwait(3), which returns its error as its result, and panics.
pub(crate) fn wait_for_signal(set: &SigSet) -> Result<c_int> {
    loop {
        // SAFETY: the set is only read; with a null siginfo nothing is written.
        match Errno::result(unsafe { libc::sigwaitinfo(set.as_ref(), std::ptr::null_mut()) }) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Waits at most `limit` for the end of the child `process` (a pidfd), and reaps it.
///
/// # Errors
/// `EAGAIN` if it has not ended by then.
pub(crate) fn reap(process: BorrowedFd<'_>, limit: PollTimeout) -> Result<()> {
    let mut fds = [PollFd::new(process, PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, limit) {
            Ok(0) => return Err(Errno::EAGAIN),
            Err(Errno::EINTR) => {}
            result => break result.map(drop)?,
        }
    }
    waitid(Id::PIDFd(process), WaitPidFlag::WEXITED).map(drop)
}

/// Sends `signal` to a child that has not been reaped (kill(2)); also a real-time signal, for which
/// nix has no name.
pub(crate) fn kill(process: nix::unistd::Pid, signal: i32) {
    // SAFETY: integers only. The error is ignored: a process that has ended needs no signal.
    unsafe { libc::kill(process.as_raw(), signal) };
}

/// Sleeps for `duration` (clock_nanosleep(2)), or less if a signal comes: every caller waits in a
/// loop that looks at a clock or a process. The standard library's `sleep` panics if the call
/// fails.
pub(crate) fn sleep(duration: Duration) {
    let clock = ClockId::CLOCK_MONOTONIC;
    let _ = clock_nanosleep(
        clock,
        ClockNanosleepFlags::empty(),
        &TimeSpec::from(duration),
    );
}
