//! Runs a hook, or another program that is given something to read: starts it, writes its standard
//! input, and waits for its end or its time limit.

mod answer;
mod interruption;
mod keeper;

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use nix::sys::stat::fstat;
use nix::sys::uio::pread;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{chdir, execve, pipe2, write};

use crate::error::line;
use crate::sys;

pub use answer::HelperAnswer;
pub use interruption::{ENDING, Interrupted, Interruption, ending, interrupted};

/// How much of a failed hook's output its error quotes, in bytes.
const OUTPUT_MAX: usize = 1024;

/// The files for the standard output and the standard error of hooks. Without a file, the output is
/// quoted in the error of a hook that fails.
#[derive(Debug, Default)]
pub struct HookOutputs(pub [Option<OwnedFd>; 2]);

/// No files: all output is quoted in the error.
pub static NO_OUTPUTS: HookOutputs = HookOutputs([None, None]);

/// Where a hook runs, and what ends it.
pub struct RunPlace<'a> {
    pub cwd: Option<&'a Path>,
    pub outputs: &'a HookOutputs,
    /// A socket: when its other end closes, the hook is ended.
    pub peer: Option<BorrowedFd<'a>>,
    /// Ends the hook when the command is asked to end.
    pub interruption: Option<Interruption>,
    /// Whether the hook has a [keeper], to which everything falls that the hook starts and leaves
    /// behind.
    pub has_keeper: bool,
    pub confinement: Option<&'a Confinement<'a>>,
}

/// The confinement that a hook enters at the last moment before its program.
pub struct Confinement<'a> {
    /// The descriptors that `enter` needs.
    pub keep: Vec<RawFd>,
    pub enter: &'a dyn Fn() -> Result<()>,
}

impl<'a> RunPlace<'a> {
    /// Returns a place in the namespaces of `rt`, with a keeper.
    pub fn outside(cwd: Option<&'a Path>) -> Self {
        let interruption = Interruption::of_command();
        Self {
            cwd,
            interruption,
            ..Self::inside(&NO_OUTPUTS)
        }
    }

    /// Returns a place in the namespaces and the working directory of this process, with a keeper.
    pub fn inside(outputs: &'a HookOutputs) -> Self {
        Self {
            cwd: None,
            outputs,
            peer: None,
            interruption: None,
            has_keeper: true,
            confinement: None,
        }
    }
}

/// Runs `program` in `place` with `input` as its standard input, to its end or its time limit. Then,
/// or if this process is killed, a program with a keeper ends with everything that it has started; a
/// program without a keeper ends alone.
///
/// # Errors
/// The program has failed or was killed. The error says how, and quotes the end of its output.
pub fn run(program: &ChildProgram, input: &[u8], place: &RunPlace<'_>) -> Result<()> {
    // A memfd takes whatever the hook writes: nobody has to read while it runs.
    let output = memfd_create(c"hook", MFdFlags::MFD_CLOEXEC).context("its output")?;
    let (stdin, state_end) = pipe2(OFlag::O_CLOEXEC).context("a pipe")?;
    fcntl(&state_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("a pipe")?;
    let [out, err] = place
        .outputs
        .0
        .each_ref()
        .map(|to| to.as_ref().unwrap_or(&output));
    let streams = ChildStreams {
        stdin: &stdin,
        out,
        err,
        errors: &output,
    };
    let execute = |parent: BorrowedFd<'_>| program.execute(&streams, place, parent);
    let process = match place.has_keeper {
        true => keeper::start(execute, output.as_fd()),
        false => keeper::fork(execute),
    };
    let process = process.context("clone3")?;
    drop(stdin);
    let limit = program.time_limit;
    let deadline = limit.map(|limit| Instant::now() + limit);
    let RunPlace {
        peer, interruption, ..
    } = *place;
    let wait = ChildWait {
        process: process.as_fd(),
        peer,
        interruption,
        deadline,
    };
    let outcome = wait.feed(state_end, input);
    if !matches!(outcome, Ok(ChildOutcome::Ended)) {
        end_process(&process, place.has_keeper);
    }
    let status = waitid(Id::PIDFd(process.as_fd()), WaitPidFlag::WEXITED).context("waitid")?;
    let what = match (outcome?, status) {
        (ChildOutcome::Ended, WaitStatus::Exited(_, 0)) => return Ok(()),
        (ChildOutcome::Late, _) => {
            let seconds = limit.unwrap_or_default().as_secs();
            format!("not finished after {seconds} s, killed")
        }
        (ChildOutcome::Alone, _) => "killed: who waited for it is gone".to_string(),
        (ChildOutcome::Ended, WaitStatus::Exited(_, status)) => format!("exit status {status}"),
        (ChildOutcome::Ended, WaitStatus::Signaled(_, signal, _)) => format!("killed by {signal}"),
        (ChildOutcome::Ended, _) => "ended".to_string(),
    };
    match last_words(&output) {
        words if words.is_empty() => bail!(what),
        words => bail!("{what}: {words}"),
    }
}

/// Tells the keeper to end everything, and kills it if it takes too long for that. Kills a hook
/// that has no keeper.
fn end_process(process: &OwnedFd, is_keeper: bool) {
    if !is_keeper {
        let _ = sys::pidfd_send_signal(process.as_fd(), libc::SIGKILL);
        return;
    }
    let _ = sys::pidfd_send_signal(process.as_fd(), keeper::END);
    let deadline = Instant::now() + keeper::PATIENCE + Duration::from_secs(1);
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(
            &mut fds,
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
        ) {
            Err(Errno::EINTR) => {}
            Ok(0) | Err(_) => break,
            Ok(_) => return,
        }
    }
    let _ = sys::pidfd_send_signal(process.as_fd(), libc::SIGKILL);
}

/// Why the wait for a hook is over.
enum ChildOutcome {
    Ended,
    Late,
    /// The other end of the peer has closed.
    Alone,
}

/// Everything that the wait for a hook watches.
struct ChildWait<'a> {
    process: BorrowedFd<'a>,
    peer: Option<BorrowedFd<'a>>,
    interruption: Option<Interruption>,
    deadline: Option<Instant>,
}

impl ChildWait<'_> {
    /// Writes the state as the hook reads it, and waits until the hook has ended, its time is over
    /// or the peer has gone. A hook may close its standard input unread, or never read.
    ///
    /// # Errors
    /// The command is asked to end, or a system call fails.
    fn feed(&self, state_end: OwnedFd, mut state: &[u8]) -> Result<ChildOutcome> {
        let mut state_end = Some(state_end);
        loop {
            if let Some(end) = &state_end {
                match write(end, state) {
                    Ok(written) => state = &state[written..],
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    Err(Errno::EPIPE) => state = &[],
                    Err(errno) => return Err(errno).context("its standard input"),
                }
            }
            if state.is_empty() {
                state_end = None;
            }
            let interruption = self.interruption.as_ref();
            let watched = [Some(self.process), self.peer, interruption.map(AsFd::as_fd)];
            let mut fds: Vec<_> = watched.into_iter().flatten().map(readable).collect();
            fds.extend(
                state_end
                    .as_ref()
                    .map(|end| PollFd::new(end.as_fd(), PollFlags::POLLOUT)),
            );
            match poll(&mut fds, self.timeout()) {
                Ok(_) if fds[0].any() == Some(true) => return Ok(ChildOutcome::Ended),
                Ok(_) if self.peer.is_some() && fds[1].any() == Some(true) => {
                    return Ok(ChildOutcome::Alone);
                }
                Ok(1..) => interruption.map_or(Ok(()), |interruption| interruption.check())?,
                Ok(0) if self.deadline.is_some_and(|at| at <= Instant::now()) => {
                    return Ok(ChildOutcome::Late);
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("poll"),
            }
        }
    }

    fn timeout(&self) -> PollTimeout {
        match self
            .deadline
            .map(|at| at.saturating_duration_since(Instant::now()))
        {
            None => PollTimeout::NONE,
            // Rounded up, so that the wait does not end just before the deadline again and again.
            Some(left) => {
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
        }
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

/// Returns the end of the hook's output.
fn last_words(output: &OwnedFd) -> String {
    let length = fstat(output).map_or(0, |stat| stat.st_size);
    let mut bytes = [0; OUTPUT_MAX];
    let read = pread(output, &mut bytes, (length - OUTPUT_MAX as i64).max(0)).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..read]).trim().to_string()
}

/// The standard streams of a hook, and where the error goes if it cannot be executed.
struct ChildStreams<'a> {
    stdin: &'a OwnedFd,
    out: &'a OwnedFd,
    err: &'a OwnedFd,
    errors: &'a OwnedFd,
}

/// A program, as execve(2) takes it.
pub struct ChildProgram {
    pub path: CString,
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    /// How long it may run. `None`: until it ends by itself.
    pub time_limit: Option<Duration>,
}

impl ChildProgram {
    /// Runs in the child: executes the program, or returns the status to end with if that fails.
    /// The program inherits no other descriptor of `parent`, whose pidfd this is, and no blocked
    /// signal. It does not outlive `parent`, so that a killed command leaves nothing behind.
    fn execute(
        &self,
        streams: &ChildStreams<'_>,
        place: &RunPlace<'_>,
        parent: BorrowedFd<'_>,
    ) -> i32 {
        let prepared = self.prepare(streams, place, parent);
        let executed = prepared.and_then(|()| Ok(execve(&self.path, &self.args, &self.env)?));
        match executed {
            Ok(never) => match never {},
            Err(error) => {
                let _ = write(streams.errors, line(&error).as_bytes());
                127
            }
        }
    }

    fn prepare(
        &self,
        streams: &ChildStreams<'_>,
        place: &RunPlace<'_>,
        parent: BorrowedFd<'_>,
    ) -> Result<()> {
        keeper::end_with(parent, Signal::SIGKILL)?;
        nix::unistd::dup2_stdout(streams.out)?;
        nix::unistd::dup2_stderr(streams.err)?;
        nix::unistd::dup2_stdin(streams.stdin)?;
        let mut keep = vec![streams.errors.as_raw_fd()];
        keep.extend(
            place
                .confinement
                .iter()
                .flat_map(|confinement| &confinement.keep),
        );
        sys::close_all_but(keep, 3)?;
        sys::reset_signals()?;
        if let Some(bundle) = place.cwd {
            // The bundle may be gone by the time of poststop.
            chdir(bundle).or_else(|_| chdir("/"))?;
        }
        place
            .confinement
            .map_or(Ok(()), |confinement| (confinement.enter)())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_hook(
        script: &str,
        seconds: Option<u64>,
        state: &[u8],
        cwd: Option<&Path>,
    ) -> Result<()> {
        let hook = ChildProgram {
            path: c"/bin/sh".into(),
            args: vec![c"sh".into(), c"-c".into(), CString::new(script)?],
            env: vec![c"PATH=/bin:/usr/bin".into()],
            time_limit: seconds.map(Duration::from_secs),
        };
        run(&hook, state, &RunPlace::outside(cwd))
    }

    fn error(script: &str, seconds: Option<u64>) -> String {
        line(&run_hook(script, seconds, b"{}", None).unwrap_err())
    }

    #[test]
    fn a_hook_that_fails_is_quoted() {
        assert_eq!(
            error("echo no such bridge >&2; exit 3", None),
            "exit status 3: no such bridge"
        );
        assert_eq!(error("kill -9 $$", None), "killed by SIGKILL");
    }

    #[test]
    fn a_hook_that_hangs_is_killed_at_its_time() {
        assert_eq!(
            error("exec sleep 60", Some(1)),
            "not finished after 1 s, killed"
        );
    }

    #[test]
    fn the_state_may_be_longer_than_a_pipe_whether_it_is_read_or_not() {
        let state = vec![b'x'; 300_000];
        run_hook("test $(wc -c) = 300000", None, &state, None).unwrap();
        run_hook("exec <&-; exit 0", None, &state, None).unwrap();
        run_hook("exit 0", None, &state, None).unwrap();
    }

    #[test]
    fn a_hook_gets_its_own_name_environment_and_directory_and_nothing_else() {
        let script = "test \"$(pwd)\" = /usr && test \"$(ls /proc/self/fd | wc -l)\" = 4 && \
                      test \"$(tr '\\0' '\\n' </proc/$$/environ)\" = PATH=/bin:/usr/bin";
        run_hook(script, None, b"{}", Some(Path::new("/usr"))).unwrap();
    }
}
