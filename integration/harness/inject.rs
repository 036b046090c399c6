//! Faults at exact system calls: an own tracer, so that every call of every process can be hit.
//!
//! Processes are numbered in the order of their creation: 0 is the caller, which is the runtime
//! that was started (it stays 0 when it executes itself again); for `create` 1 is init, if the
//! runtime forks once. Threads count for their process. Calls are numbered from 1, the caller's
//! from its first execve on; sched_yield(2) and clock_nanosleep(2) do not
//! count, of which there are as many as it takes. Only x86_64: error injection writes registers.
//!
//! A tracer is a thread: everything here runs in one thread, and waits with `__WNOTHREAD`, which
//! sees what this thread started or traces and nothing of other tests.

mod tracer;

use std::ffi::OsString;
use std::fmt;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Rt;
use super::syscalls::name;
use tracer::{Tracer, Watched};

/// The number of the process that was started.
pub(crate) const CALLER: usize = 0;

/// How long one traced command may take before all of it is killed and called hung.
const LIMIT: Duration = Duration::from_secs(10);

/// The children of a traced process are traced as well.
const FOLLOW: Options = Options::PTRACE_O_TRACECLONE
    .union(Options::PTRACE_O_TRACEFORK)
    .union(Options::PTRACE_O_TRACEVFORK);

/// Every how many-th call a sweep tries: `RT_SWEEP_STEP`, or `usual`.
pub(crate) fn sweep_step(usual: usize) -> usize {
    std::env::var("RT_SWEEP_STEP").map_or(usual, |step| step.parse().unwrap())
}

/// One system call, as it was entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) process: usize,
    /// Counted from 1 within the process.
    pub(crate) n: usize,
    pub(crate) number: i64,
    /// The first two.
    pub(crate) arguments: [u64; 2],
    /// Of the caller, after an execve: the calls of libc before `main`.
    pub(crate) startup: bool,
}

impl Call {
    pub(crate) fn name(&self) -> String {
        name(self.number)
    }

    pub(crate) fn is_execve(&self) -> bool {
        self.number == libc::SYS_execve
    }

    /// One with which a process can tell another something.
    pub(crate) fn is_message(&self) -> bool {
        let known = [libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_write, libc::SYS_writev];
        known.contains(&self.number)
    }

    /// Some calls have no way to report an error: after `exit` nothing is meant to run, brk(2)
    /// answers with the break that stays, the C library ends the process if it does not know an error
    /// of futex(2) or rseq(2), and the others always succeed.
    pub(crate) fn can_fail(&self) -> bool {
        !matches!(
            self.number,
            libc::SYS_exit
                | libc::SYS_exit_group
                | libc::SYS_rt_sigreturn
                | libc::SYS_brk
                | libc::SYS_futex
                | libc::SYS_rseq
                | libc::SYS_umask
                | libc::SYS_getpid
                | libc::SYS_getppid
                | libc::SYS_gettid
                | libc::SYS_getuid
                | libc::SYS_geteuid
                | libc::SYS_getgid
                | libc::SYS_getegid
                | libc::SYS_set_tid_address
                | libc::SYS_clock_gettime
                | libc::SYS_gettimeofday
        )
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.process {
            CALLER => "caller".to_owned(),
            other => format!("child {other}"),
        };
        write!(f, "{} (call {} of {who})", self.name(), self.n)
    }
}

/// Where a fault happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) process: usize,
    pub(crate) n: usize,
}

/// What happens at the entry of a call, which is not executed then.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Error(Errno),
    /// SIGKILL to that process alone.
    Kill,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(errno) => write!(f, "{errno:?}"),
            Self::Kill => f.write_str("SIGKILL"),
        }
    }
}

/// What was seen of a traced command.
#[derive(Debug, Default)]
pub(crate) struct Traced {
    /// The caller's exit status, 128 + signal if it was killed.
    pub(crate) status: i32,
    pub(crate) calls: Vec<Call>,
    /// The call that the fault met.
    pub(crate) hit: Option<Call>,
    /// Not finished in time: all of its processes have been killed.
    pub(crate) hung: bool,
    /// Every process but the caller.
    pub(crate) children: Vec<i32>,
}

/// What is done to a traced command.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Fault(At, Fault),
    /// Nothing: its calls are listed.
    List {
        /// Those of the user's program, too.
        with_programs: bool,
    },
}

/// Runs a command and lists its system calls. Its streams go to the files of `rt`.
pub(crate) fn trace(rt: &Rt, out: &Path, err: &Path) -> Traced {
    run(rt, (out, err), FOLLOW, Deed::List { with_programs: false })
}

/// As [`trace`], with the calls of the program that the command runs in the container.
pub(crate) fn trace_all(rt: &Rt, out: &Path, err: &Path) -> Traced {
    run(rt, (out, err), FOLLOW, Deed::List { with_programs: true })
}

/// Runs a command with one fault in it.
pub(crate) fn inject(rt: &Rt, (out, err): (&Path, &Path), at: At, fault: Fault) -> Traced {
    run(rt, (out, err), FOLLOW, Deed::Fault(at, fault))
}

/// As [`trace`], but the caller alone: its children have a tracer of their own.
pub(crate) fn trace_alone(rt: &Rt, out: &Path, err: &Path) -> Traced {
    run(rt, (out, err), Options::empty(), Deed::List { with_programs: false })
}

/// As [`inject`], into the caller.
pub(crate) fn inject_alone(rt: &Rt, files: (&Path, &Path), n: usize, fault: Fault) -> Traced {
    run(rt, files, Options::empty(), Deed::Fault(At { process: CALLER, n }, fault))
}

/// In a thread of its own, so that what it waits for is all its own.
fn run(rt: &Rt, files: (&Path, &Path), follow: Options, deed: Deed) -> Traced {
    std::thread::scope(|scope| scope.spawn(|| run_here(rt, files, follow, deed)).join().unwrap())
}

fn run_here(rt: &Rt, files: (&Path, &Path), follow: Options, deed: Deed) -> Traced {
    let child = start_seized(rt, files, follow);
    let watched = Arc::new(Mutex::new(Watched { pids: vec![], hung: false }));
    let (ended, ending) = mpsc::channel::<()>();
    let watchdog = {
        let watched = Arc::clone(&watched);
        std::thread::spawn(move || {
            if ending.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                let mut watched = watched.lock().unwrap();
                watched.hung = true;
                for pid in &watched.pids {
                    let _ = kill(*pid, Signal::SIGKILL);
                }
            }
        })
    };
    let mut tracer = Tracer::new(child, deed, Arc::clone(&watched));
    tracer.follow();
    tracer.let_go();
    drop(ended);
    watchdog.join().unwrap();
    tracer.seen.hung = watched.lock().unwrap().hung;
    tracer.seen.children = tracer.processes.iter().skip(1).map(|pid| pid.as_raw()).collect();
    tracer.seen
}

/// A shell waits for a line before it becomes the command, so that the first thing the tracer
/// sees is the execve.
fn start_seized(rt: &Rt, (out, err): (&Path, &Path), follow: Options) -> Child {
    let script = "o=$1 e=$2; shift 2; echo; read -r go; exec \"$@\" </dev/null >>\"$o\" 2>>\"$e\"";
    let mut between: Vec<OsString> = ["sh", "-c", script, "sh"].map(Into::into).to_vec();
    between.extend([out.into(), err.into()]);
    let mut command = rt.command(&between);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let pid = Pid::from_raw(child.id() as i32);
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options | follow).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child
}
