//! The tracer's loop: every stop of every thread of every process that a command makes.

use std::collections::BTreeMap;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{CALLER, Call, Deed, Fault, Traced};

/// How long processes that outlive the caller have to stay in one call to be taken for waiting.
const QUIET: Duration = Duration::from_millis(8);

/// What the watchdog needs.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) pids: Vec<Pid>,
    pub(super) hung: bool,
}

/// A thread of a traced process.
#[derive(Debug)]
struct Thread {
    process: usize,
    in_call: bool,
    /// The error that the call it is in will give.
    fails: Option<Errno>,
}

pub(super) struct Tracer {
    /// Reaped by the tracer, with all others.
    _child: Child,
    caller: Pid,
    deed: Deed,
    watched: Arc<Mutex<Watched>>,
    /// By number.
    pub(super) processes: Vec<Pid>,
    counts: Vec<usize>,
    threads: BTreeMap<Pid, Thread>,
    startup: bool,
    ended: bool,
    pub(super) seen: Traced,
}

impl Tracer {
    pub(super) fn new(child: Child, deed: Deed, watched: Arc<Mutex<Watched>>) -> Self {
        let caller = Pid::from_raw(child.id() as i32);
        let mut this = Self {
            _child: child,
            caller,
            deed,
            watched,
            processes: vec![],
            counts: vec![],
            threads: BTreeMap::new(),
            startup: true,
            ended: false,
            seen: Traced::default(),
        };
        this.meet(caller);
        this
    }

    /// Until every process has ended, or the caller has and the others wait for something.
    pub(super) fn follow(&mut self) {
        let all = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let mut quiet_since = Instant::now();
        loop {
            let flags = if self.ended { all | WaitPidFlag::WNOHANG } else { all };
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::StillAlive) => {
                    let waits = self.threads.values().all(|thread| thread.in_call);
                    if waits && quiet_since.elapsed() > QUIET {
                        return;
                    }
                    std::thread::sleep(Duration::from_micros(200));
                    continue;
                }
                Ok(status) => self.handle(status),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
            quiet_since = Instant::now();
        }
    }

    fn handle(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, code) => self.forget(pid, code),
            WaitStatus::Signaled(pid, signal, _) => self.forget(pid, 128 + signal as i32),
            WaitStatus::PtraceSyscall(pid) => self.at_call(pid),
            WaitStatus::PtraceEvent(pid, _, event) => {
                self.meet(pid);
                match event {
                    libc::PTRACE_EVENT_CLONE
                    | libc::PTRACE_EVENT_FORK
                    | libc::PTRACE_EVENT_VFORK => {
                        if let Ok(new) = ptrace::getevent(pid) {
                            self.meet(Pid::from_raw(new as i32));
                        }
                    }
                    libc::PTRACE_EVENT_EXEC => self.at_exec(pid),
                    _ => {}
                }
                go_on(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => {
                self.meet(pid);
                if is_fatal(pid, signal) {
                    let _ = kill(pid, Signal::SIGKILL);
                }
                go_on(pid, Some(signal));
            }
            _ => {}
        }
    }

    /// The first sight of a thread, by its own first stop or by its parent's event.
    fn meet(&mut self, pid: Pid) {
        if self.threads.contains_key(&pid) {
            return;
        }
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
        let Some(group) = group.and_then(|group| group.trim().parse().ok()) else {
            return;
        };
        let group = Pid::from_raw(group);
        let known = self.processes.iter().position(|process| *process == group);
        // Its parent's event may come after its own last one: it has been let go already.
        if known.is_some() && pid == group {
            return;
        }
        let process = known.unwrap_or_else(|| {
            self.processes.push(group);
            self.counts.push(0);
            self.watched.lock().unwrap().pids.push(group);
            self.processes.len() - 1
        });
        self.threads.insert(pid, Thread { process, in_call: false, fails: None });
    }

    fn forget(&mut self, pid: Pid, status: i32) {
        self.threads.remove(&pid);
        if pid == self.caller {
            self.seen.status = status;
            self.ended = true;
        }
    }

    /// The other threads of the process are gone, and this one has its number. A child that executes
    /// something else than the runtime is on its own: no fault is meant for the user's program.
    fn at_exec(&mut self, pid: Pid) {
        let Some(process) = self.threads.get(&pid).map(|thread| thread.process) else {
            return;
        };
        self.threads.retain(|other, thread| *other == pid || thread.process != process);
        let image = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let followed = matches!(self.deed, Deed::List { with_programs: true });
        if process == CALLER {
            self.startup = true;
        } else if image.file_name() == Some("busybox".as_ref()) && !followed {
            let _ = ptrace::detach(pid, None);
            self.threads.remove(&pid);
        }
    }

    fn at_call(&mut self, pid: Pid) {
        self.meet(pid);
        match ptrace::syscall_info(pid).map(|info| info.op) {
            Ok(libc::PTRACE_SYSCALL_INFO_ENTRY) if self.at_entry(pid) == Some(true) => return,
            Ok(libc::PTRACE_SYSCALL_INFO_EXIT) => {
                let _ = self.at_exit(pid);
            }
            _ => {}
        }
        go_on(pid, None);
    }

    fn at_exit(&mut self, pid: Pid) -> Option<()> {
        let thread = self.threads.get_mut(&pid)?;
        thread.in_call = false;
        let errno = thread.fails.take()?;
        let mut registers = ptrace::getregs(pid).ok()?;
        registers.rax = -i64::from(errno as i32) as u64;
        ptrace::setregs(pid, registers).ok()
    }

    /// `Some(true)` when the process has been killed.
    fn at_entry(&mut self, pid: Pid) -> Option<bool> {
        let mut registers = ptrace::getregs(pid).ok()?;
        let thread = self.threads.get_mut(&pid)?;
        thread.in_call = true;
        let process = thread.process;
        let number = registers.orig_rax as i64;
        // Who polls does so as often as he likes, and each call has to keep its number.
        if [libc::SYS_sched_yield, libc::SYS_clock_nanosleep].contains(&number) {
            return None;
        }
        self.counts[process] += 1;
        // What comes before the C library (`src/sealed_exe/entry.rs`) may be more than an execve.
        self.startup |= number == libc::SYS_arch_prctl;
        let startup = process == CALLER && self.startup && is_startup(number);
        self.startup &= process != CALLER || startup;
        let arguments = [registers.rdi, registers.rsi];
        let call = Call { process, n: self.counts[process], number, arguments, startup };
        self.seen.calls.push(call.clone());
        let Deed::Fault(at, fault) = self.deed else { return None };
        if (at.process, at.n) != (process, call.n) {
            return None;
        }
        match fault {
            Fault::Kill => {
                self.seen.hit = Some(call);
                kill(self.processes[process], Signal::SIGKILL).ok()?;
                return Some(true);
            }
            Fault::Error(errno) if call.can_fail() => {
                self.threads.get_mut(&pid)?.fails = Some(errno);
                // The kernel's close always releases the descriptor, whatever it returns.
                if number != libc::SYS_close {
                    registers.orig_rax = u64::MAX;
                    ptrace::setregs(pid, registers).ok()?;
                }
                self.seen.hit = Some(call);
            }
            Fault::Error(_) => {}
        }
        None
    }

    /// What is left runs on without a tracer.
    pub(super) fn let_go(&mut self) {
        for pid in self.threads.keys() {
            let _ = ptrace::interrupt(*pid);
        }
        let all = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        while !self.threads.is_empty() {
            match waitpid(None, Some(all)) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                    self.threads.remove(&pid);
                }
                Ok(WaitStatus::Stopped(pid, signal)) => {
                    let _ = ptrace::detach(pid, signal);
                    self.threads.remove(&pid);
                }
                Ok(WaitStatus::PtraceEvent(pid, ..) | WaitStatus::PtraceSyscall(pid)) => {
                    let _ = ptrace::detach(pid, None);
                    self.threads.remove(&pid);
                }
                Err(Errno::EINTR) | Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

/// A thread that has been killed meanwhile cannot go on, which `waitpid` reports next.
fn go_on(pid: Pid, signal: Option<Signal>) {
    let _ = ptrace::syscall(pid, signal);
}

fn is_startup(number: i64) -> bool {
    matches!(
        number,
        libc::SYS_brk
            | libc::SYS_arch_prctl
            | libc::SYS_set_tid_address
            | libc::SYS_set_robust_list
            | libc::SYS_rseq
            | libc::SYS_prlimit64
            | libc::SYS_readlink
            | libc::SYS_readlinkat
            | libc::SYS_getrandom
            | libc::SYS_mprotect
    )
}

/// A kernel-made fault ends an init that does not handle it; under a tracer the kernel spares init,
/// which would then fault for ever.
fn is_fatal(pid: Pid, signal: Signal) -> bool {
    let faults = [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE];
    let from_kernel = ptrace::getsiginfo(pid).is_ok_and(|info| info.si_code > 0);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    faults.contains(&signal) && from_kernel && caught & (1 << (signal as i32 - 1)) == 0
}
