//! Creates processes, signals them and waits for their end, and sets their limits, capabilities,
//! signal dispositions and keyrings.

use std::ffi::{CStr, CString, c_char, c_int, c_long};
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
use rustix::process::{Pid, PidfdFlags, WaitOptions};
use rustix::system::setdomainname;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

use super::call::{call, errno};

// The constant of libc is cut off at 32 bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
// <linux/keyctl.h>, which libc does not have.
const KEYCTL_JOIN_SESSION_KEYRING: c_long = 1;
const KEYCTL_SETPERM: c_long = 5;

/// On which side of a fork ([`clone3`], [`fork_sibling`]) this process is.
pub enum Fork {
    Parent { pid: i32, pidfd: OwnedFd },
    Child,
}

/// Forks with clone3(2), without a shared address space. `flags` are `CLONE_NEW*` for new
/// namespaces, and `CLONE_PARENT`. The child starts in the version 2 `cgroup`, if
/// there is one.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork> {
    let mut pidfd: c_int = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        // With CLONE_PARENT the child gets the exit signal of the calling process; the field must
        // be 0.
        exit_signal: match flags & libc::CLONE_PARENT as u64 {
            0 => libc::SIGCHLD as u64,
            _ => 0,
        },
        ..CloneArgs::default()
    };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child gets its own copy of this single-threaded process, so
    // no lock can be held by a thread that does not exist there; `args` and `pidfd` outlive the
    // call, and the size is that of the structure passed. CLONE_PIDFD stores a new descriptor.
    unsafe {
        let size = size_of::<CloneArgs>();
        let pid = libc::syscall(libc::SYS_clone3, &raw mut args, size);
        forked(pid, &raw const pidfd)
    }
}

/// `struct clone_args` of clone3(2), in which zero means "not used".
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Returns on which side of a fork this process is.
///
/// # Safety
/// `pid` is what clone(2) or clone3(2) with `CLONE_PIDFD` has returned; in the parent it has stored
/// a new descriptor in `pidfd`.
unsafe fn forked(pid: c_long, pidfd: *const c_int) -> Result<Fork> {
    Ok(match call(pid)? {
        0 => Fork::Child,
        pid => Fork::Parent {
            pid: pid as i32,
            // SAFETY: the descriptor is new, see above.
            pidfd: unsafe { OwnedFd::from_raw_fd(*pidfd) },
        },
    })
}

/// The flags that [`fork_sibling`] passes to clone(2).
pub const SIBLING_FLAGS: u64 = (libc::CLONE_PARENT | libc::CLONE_PIDFD) as u64;

/// Forks a process that is a child of this process's parent (clone(2) with `CLONE_PARENT`). It
/// does not use clone3(2), because it is called under the seccomp filters of containers: the common
/// profiles answer `ENOSYS` to clone3, since a filter cannot look at its flags.
pub fn fork_sibling() -> Result<Fork> {
    let mut pidfd: c_int = -1;
    // SAFETY: as in `clone3`; without a new stack the child continues on its copy of this one. The
    // third argument is the place for the pidfd on every architecture, and the rest is not used.
    unsafe {
        let pid = libc::syscall(libc::SYS_clone, SIBLING_FLAGS, 0, &raw mut pidfd, 0, 0);
        forked(pid, &raw const pidfd)
    }
}

/// Ends this process at once (_exit(2)), without destructors and exit handlers: in a forked process
/// they would act on copies of the parent's objects.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes any integer and does not return.
    unsafe { libc::_exit(status) }
}

/// An execve(2) with its arguments prepared, so that [`Execution::run`] allocates nothing.
#[derive(Debug)]
pub struct Execution<'a> {
    path: &'a CStr,
    args: Vec<*const c_char>,
    env: Vec<*const c_char>,
}

impl<'a> Execution<'a> {
    pub fn new(path: &'a CStr, args: &'a [CString], env: &'a [CString]) -> Self {
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
    pub fn run(&self) -> Errno {
        // SAFETY: both lists end with a null pointer; the strings that they and `path` point to
        // are borrowed for 'a, which `self` does not outlive.
        unsafe { libc::execve(self.path.as_ptr(), self.args.as_ptr(), self.env.as_ptr()) };
        Errno::last()
    }
}

/// Returns a pidfd of process `pid` (pidfd_open(2)).
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(Errno::EINVAL)?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(errno)
}

/// Sends `signal` to the process behind `pidfd` (pidfd_send_signal(2)).
///
/// # Errors
/// `ESRCH` if the process has ended.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
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

/// Ignores `signal`, or sets its default action (sigaction(2)).
pub fn set_signal_disposition(signal: Signal, ignore: bool) -> Result<()> {
    let handler = if ignore {
        SigHandler::SigIgn
    } else {
        SigHandler::SigDfl
    };
    handle_signal(signal, handler)
}

/// Sets what happens at `signal` (sigaction(2)): a disposition, or [`end_when_asked`]'s handler.
fn handle_signal(signal: Signal, handler: SigHandler) -> Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: a disposition is no function that could run in a signal's context, and the handler
    // makes one call, which is safe there.
    unsafe { sigaction(signal, &action) }.map(drop)
}

/// Undoes for a program that is about to be executed what `rt` has set for itself: the ignored
/// SIGPIPE and the signal mask.
pub fn reset_signals() -> Result<()> {
    set_signal_disposition(Signal::SIGPIPE, false)?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Lets SIGHUP, SIGINT, SIGQUIT and SIGTERM end this process, also if it is the first process of a
/// pid namespace: the kernel does not deliver signals to that one unless it has a handler
/// (pid_namespaces(7)). execve(2) restores the default action.
pub fn end_when_asked() -> Result<()> {
    extern "C" fn end(signal: i32) {
        // _exit(2) is safe in the context of a signal.
        exit_now(128 + signal)
    }
    [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ]
    .into_iter()
    .try_for_each(|signal| handle_signal(signal, SigHandler::Handler(end)))
}

/// Sets the default action for the signal with that number, also for the two signals that the C
/// library keeps for itself.
pub fn restore_signal(signal: i32) -> Result<()> {
    // The kernel's struct sigaction (handler, flags, restorer, mask): all zeros mean SIG_DFL.
    let default = [0u64; 4];
    let null = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads `default`, which has the size of its structure, and writes nothing
    // back; SIG_DFL is no function that could run in a signal's context.
    call(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), null, 8) })
        .map(drop)
}

/// Raises the hard limit of process `pid` to `hard` if it is lower; does not change the soft limit.
pub fn raise_hard_limit(pid: i32, resource: u32, hard: u64) -> Result<()> {
    let limit = prlimit(pid, resource, None)?;
    if limit.rlim_max >= hard {
        return Ok(());
    }
    set_limit_of(pid, resource, limit.rlim_cur, hard)
}

/// Sets the limits of `resource` (`RLIMIT_*`) for this process (setrlimit(2)).
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    set_limit_of(0, resource, soft, hard)
}

fn set_limit_of(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    prlimit(pid, resource, Some(&limit)).map(drop)
}

/// Returns the limits of process `pid`, which is this one if 0, and replaces them if there are new
/// ones (prlimit(2)). rustix replaces them in any case.
fn prlimit(pid: i32, resource: u32, new: Option<&libc::rlimit>) -> Result<libc::rlimit> {
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the call only reads new limits, and writes the old ones; both outlive it.
    call(unsafe { libc::prlimit(pid, resource as _, new, &raw mut old).into() })?;
    Ok(old)
}

/// Sets the effective, permitted and inheritable capabilities of this thread, as bit masks
/// (capset(2)).
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(effective),
        permitted: CapabilitySet::from_bits_retain(permitted),
        inheritable: CapabilitySet::from_bits_retain(inheritable),
    };
    set_capabilities(None, sets).map_err(errno)
}

/// Returns the permitted capabilities of this thread as a bit mask (capget(2)).
pub fn permitted_capabilities() -> Result<u64> {
    Ok(capabilities(None).map_err(errno)?.permitted.bits())
}

/// Removes `capability` from the bounding set; this cannot be undone.
pub fn bounding_drop(capability: u8) -> Result<()> {
    remove_capability_from_bounding_set(one(capability)).map_err(errno)
}

/// Adds `capability` to the ambient set.
pub fn ambient_raise(capability: u8) -> Result<()> {
    configure_capability_in_ambient_set(one(capability), true).map_err(errno)
}

/// Empties the ambient set.
pub fn ambient_clear() -> Result<()> {
    clear_ambient_capability_set().map_err(errno)
}

fn one(capability: u8) -> CapabilitySet {
    CapabilitySet::from_bits_retain(1 << capability)
}

/// Joins the session keyring `name`, or creates it if there is none that this process may search
/// (keyctl_join_session_keyring(3)). Returns its serial number.
pub fn join_session_keyring(name: &CStr) -> Result<c_long> {
    keyctl(KeyringCall::JoinSession(name))
}

/// Sets the rights on a key for its possessor (`KEY_POS_*`) and its user (`KEY_USR_*`)
/// (keyctl_setperm(3)).
pub fn set_key_permissions(serial: c_long, permissions: u32) -> Result<()> {
    keyctl(KeyringCall::SetPermissions(serial, permissions)).map(drop)
}

/// The operations of keyctl(2) that `rt` needs.
enum KeyringCall<'a> {
    JoinSession(&'a CStr),
    SetPermissions(c_long, u32),
}

fn keyctl(operation: KeyringCall<'_>) -> Result<c_long> {
    let (operation, first, second) = match operation {
        KeyringCall::JoinSession(name) => {
            let name = name.as_ptr().expose_provenance();
            (KEYCTL_JOIN_SESSION_KEYRING, name as c_long, 0)
        }
        KeyringCall::SetPermissions(serial, permissions) => (KEYCTL_SETPERM, serial, permissions),
    };
    // SAFETY: integers only, or a NUL-terminated string that outlives the call.
    call(unsafe { libc::syscall(libc::SYS_keyctl, operation, first, second) })
}

/// Sets the NIS domain name of this uts namespace (setdomainname(2)).
pub fn set_domain_name(name: &str) -> Result<()> {
    setdomainname(name.as_bytes()).map_err(errno)
}

/// Returns the kind of the namespace behind `fd` as its `CLONE_NEW*` flag (ioctl_ns(2)).
///
/// # Errors
/// `ENOTTY` if `fd` is not a namespace.
pub fn namespace_kind(fd: BorrowedFd<'_>) -> Result<i32> {
    // SAFETY: NS_GET_NSTYPE takes no argument.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE as _) })
}

/// How a process has ended. Signals are numbers, because nix has no names for real-time signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Exited(i32),
    Signaled(i32),
}

/// Reaps a child that has ended, without waiting (waitpid(2) with `WNOHANG`). Returns its pid and
/// how it ended; `None` if no child has ended yet.
pub fn reap_any() -> Result<Option<(i32, ExitStatus)>> {
    let ended = rustix::process::wait(WaitOptions::NOHANG).map_err(errno)?;
    Ok(ended.map(|(pid, status)| {
        let ended = match status.terminating_signal() {
            Some(signal) => ExitStatus::Signaled(signal),
            None => ExitStatus::Exited(status.exit_status().unwrap_or(0)),
        };
        (pid.as_raw_nonzero().get(), ended)
    }))
}

/// Reaps a child like [`reap_any`]. Returns its pid and its exit status as shells have it: 128 plus
/// the number of the signal that ended it.
pub fn reap_child() -> Result<Option<(i32, i32)>> {
    let code = |status| match status {
        ExitStatus::Exited(status) => status,
        ExitStatus::Signaled(signal) => 128 + signal,
    };
    Ok(reap_any()?.map(|(pid, status)| (pid, code(status))))
}

/// Waits for one of the blocked signals in `set`; returns its number (sigwaitinfo(2)). nix's own
/// function uses sigwait(3), which returns its error as its result, and panics.
pub fn wait_for_signal(set: &SigSet) -> Result<c_int> {
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
pub fn reap(process: BorrowedFd<'_>, limit: PollTimeout) -> Result<()> {
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
pub fn kill(process: nix::unistd::Pid, signal: i32) {
    // SAFETY: integers only. The error is ignored: a process that has ended needs no signal.
    unsafe { libc::kill(process.as_raw(), signal) };
}

/// Sleeps for `duration` (clock_nanosleep(2)), or less if a signal comes: every caller waits in a
/// loop that looks at a clock or a process. The standard library's `sleep` panics if the call
/// fails.
pub fn sleep(duration: Duration) {
    let clock = ClockId::CLOCK_MONOTONIC;
    let _ = clock_nanosleep(
        clock,
        ClockNanosleepFlags::empty(),
        &TimeSpec::from(duration),
    );
}
