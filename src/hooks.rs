//! Hooks: programs of the configuration that run at six points of a container's life, with its
//! state on standard input (runtime-spec, config.md "POSIX-platform Hooks").
//!
//! | kind | run by | in | when |
//! |---|---|---|---|
//! | prestart, createRuntime | `create` | the caller's namespaces | everything is mounted, the root is attached at `root.path` |
//! | createContainer | init | the container's, with the host's root | after those |
//! | startContainer | init | the container's | `start`, just before the program |
//! | poststart | `start` | the caller's | the program runs |
//! | poststop | `delete` | the caller's | everything else is gone |
//!
//! Without `env` a hook has the environment of the command that runs it; startContainer has the
//! program's, and createContainer none, so that nothing of the caller's gets inside.

mod keeper;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, fstat};
use nix::sys::uio::pread;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, chdir, execve, getpid, getppid, pipe2, write};
use oci_spec::runtime::Hook;
use serde::Serialize;

use crate::annotations::{self, Annotations as _};
use crate::error::{InPhase, Phase, line};
use crate::image;
use crate::state::Record;
use crate::sys;

/// How much of a failed hook's output its error shows, in bytes.
const OUTPUT_MAX: usize = 1024;

/// The point of the container's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

/// Those that `create` runs itself.
pub(crate) const CALLERS: [Kind; 2] = [Kind::Prestart, Kind::CreateRuntime];

impl Kind {
    /// All of them, in the order in which they run.
    pub(crate) const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// The name in `config.json`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// What the state says. A prestart hook has always been told `created`; the others hear what
    /// runtime.md calls the moment.
    fn status(self) -> &'static str {
        match self {
            Self::CreateRuntime | Self::CreateContainer => "creating",
            Self::Prestart | Self::StartContainer => "created",
            Self::Poststart => "running",
            Self::Poststop => "stopped",
        }
    }

    /// The hooks of this kind.
    pub(crate) fn of(self, hooks: &oci_spec::runtime::Hooks) -> &[Hook] {
        #[allow(deprecated, reason = "docker's network is a prestart hook")]
        let list = match self {
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }
}

/// The hooks of a container, and what they are told of it.
#[derive(Debug)]
pub(crate) struct Hooks {
    hooks: oci_spec::runtime::Hooks,
    oci_version: String,
    id: String,
    bundle: PathBuf,
    annotations: BTreeMap<String, String>,
    /// Where their standard output and standard error go, if not into the error of one that fails.
    outputs: [Option<OwnedFd>; 2],
}

/// The state of runtime.md.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

impl<'a> State<'a> {
    /// The state of the container `record`.
    pub(crate) fn of(record: &'a Record, status: &'a str, pid: i32) -> Self {
        let Record { oci_version, id, bundle, annotations, .. } = record;
        Self { oci_version, id, status, pid, bundle, annotations }
    }
}

impl Hooks {
    /// The hooks of the container `record`, if it has any.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        Some(Self {
            hooks: record.hooks.clone()?,
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            bundle: record.bundle.clone(),
            annotations: record.annotations.clone(),
            outputs: [None, None],
        })
    }

    /// Opens the files that get what the hooks write, if there are such.
    pub(crate) fn open_outputs(&mut self) -> Result<()> {
        for (name, output) in annotations::HOOK_OUTPUTS.into_iter().zip(&mut self.outputs) {
            let Some(path) = self.annotations.path(name)? else { continue };
            let context = || format!("{} {}", annotations::origin(name), path.display());
            // A FIFO that nobody reads is an error and not a wait.
            let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_CLOEXEC;
            let flags = flags | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
            let fd = open(path, flags, Mode::S_IRUSR | Mode::S_IWUSR).with_context(context)?;
            fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_APPEND)).with_context(context)?;
            *output = Some(fd);
        }
        Ok(())
    }

    /// What has to stay open in init for the hooks that it runs.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let inside = self.has(&[Kind::CreateContainer, Kind::StartContainer]);
        self.outputs.iter().flatten().filter(move |_| inside).map(AsRawFd::as_raw_fd)
    }

    /// Whether there is a hook of one of these kinds.
    pub(crate) fn has(&self, kinds: &[Kind]) -> bool {
        kinds.iter().any(|kind| !kind.of(&self.hooks).is_empty())
    }

    /// Runs the hooks of `kind` in their order, in the bundle's directory; the first failure is
    /// the last one run. `pid` is init's as the hook sees it, 0 if there is none.
    pub(crate) fn run(&self, kind: Kind, pid: i32) -> Result<()> {
        let env = own_environment();
        let place = Place::outside(Some(&self.bundle), &env);
        self.each(kind, pid, &place).collect()
    }

    /// The same from inside the container, in the directory where init is. What has no
    /// environment of its own gets `env`. A `peer` that goes away while a hook runs ends it.
    pub(crate) fn run_inside(
        &self,
        kind: Kind,
        env: &[CString],
        peer: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        // In the container's root nothing of the image tells whom to kill, and the calls of a keeper
        // might not pass the container's filter: what is left ends with init, or by `start`.
        let has_keeper = kind != Kind::StartContainer;
        let place = Place { cwd: None, env, peer, has_keeper };
        self.each(kind, getpid().as_raw(), &place).collect()
    }

    /// Runs all of `kind`, whatever becomes of each; what became of those that failed.
    pub(crate) fn run_all(&self, kind: Kind) -> Vec<String> {
        let env = own_environment();
        let place = Place::outside(Some(&self.bundle), &env);
        let results = self.each(kind, 0, &place);
        results.filter_map(Result::err).map(|error| line(&error)).collect()
    }

    fn each(&self, kind: Kind, pid: i32, place: &Place<'_>) -> impl Iterator<Item = Result<()>> {
        let state = State {
            oci_version: &self.oci_version,
            id: &self.id,
            status: kind.status(),
            pid,
            bundle: &self.bundle,
            annotations: &self.annotations,
        };
        let state = serde_json::to_vec(&state);
        kind.of(&self.hooks).iter().enumerate().map(move |(i, hook)| {
            let (name, path) = (kind.name(), hook.path().display());
            let state = state.as_ref().map_err(|error| anyhow::anyhow!("the state: {error}"));
            state
                .and_then(|state| run_to(hook, state, &self.outputs, place))
                // The second half is runc's wording.
                .with_context(|| format!("hooks.{name}[{i}] {path}: error running {name} hook #{i}"))
                .phase(Phase::Hooks)
        })
    }
}

/// Where hooks run.
struct Place<'a> {
    cwd: Option<&'a Path>,
    /// For a hook that says nothing of its environment.
    env: &'a [CString],
    /// A socket whose end is the end of the hook.
    peer: Option<BorrowedFd<'a>>,
    /// Whether a [keeper] knows what the hook starts.
    has_keeper: bool,
}

impl<'a> Place<'a> {
    /// In the namespaces of the runtime.
    fn outside(cwd: Option<&'a Path>, env: &'a [CString]) -> Self {
        Self { cwd, env, peer: None, has_keeper: true }
    }
}

/// Runs one program with `state` as its standard input, to its end or its time limit.
///
/// # Errors
/// What became of it, and the end of what it wrote.
pub(crate) fn run(hook: &Hook, state: &[u8], cwd: Option<&Path>) -> Result<()> {
    run_to(hook, state, &[None, None], &Place::outside(cwd, &[]))
}

/// The environment of this command, which a hook without one inherits from runc and crun as well.
fn own_environment() -> Vec<CString> {
    let variables = std::env::vars_os().filter(|(name, _)| name != image::MARK);
    variables
        .filter_map(|(name, value)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect()
}

/// The same with standard output and standard error where `outputs` says, in `place`. At its time
/// limit the hook ends with all that it has started, and so it does if this process is killed.
fn run_to(
    hook: &Hook,
    state: &[u8],
    outputs: &[Option<OwnedFd>; 2],
    place: &Place<'_>,
) -> Result<()> {
    let program = Program::new(hook, place.env)?;
    // A file takes whatever the hook writes: nobody has to read while it runs.
    let output = memfd_create(c"hook", MFdFlags::MFD_CLOEXEC).context("its output")?;
    let (stdin, state_end) = pipe2(OFlag::O_CLOEXEC).context("a pipe")?;
    fcntl(&state_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("a pipe")?;
    let [out, err] = outputs.each_ref().map(|to| to.as_ref().unwrap_or(&output));
    let streams = Streams { stdin: &stdin, out, err, errors: &output };
    let execute = |parent| program.execute(&streams, place.cwd, parent);
    let process = if place.has_keeper { keeper::start(execute) } else { keeper::fork(execute) };
    let process = process.context("clone3")?;
    drop(stdin);
    let seconds = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let wait = Wait { process: process.as_fd(), peer: place.peer, deadline };
    let outcome = wait.feed(state_end, state);
    if !matches!(outcome, Ok(Outcome::Ended)) {
        end(&process, place.has_keeper);
    }
    let status = waitid(Id::PIDFd(process.as_fd()), WaitPidFlag::WEXITED).context("waitid")?;
    let what = match (outcome?, status) {
        (Outcome::Ended, WaitStatus::Exited(_, 0)) => return Ok(()),
        (Outcome::Late, _) => format!("not finished after {} s, killed", seconds.unwrap_or(0)),
        (Outcome::Alone, _) => "killed: who waited for it is gone".to_string(),
        (Outcome::Ended, WaitStatus::Exited(_, status)) => format!("exit status {status}"),
        (Outcome::Ended, WaitStatus::Signaled(_, signal, _)) => format!("killed by {signal}"),
        (Outcome::Ended, _) => "ended".to_string(),
    };
    match last_words(&output) {
        words if words.is_empty() => bail!(what),
        words => bail!("{what}: {words}"),
    }
}

/// Has the keeper end everything. One that takes too long for that is killed, and so is a hook that
/// has none.
fn end(process: &OwnedFd, is_keeper: bool) {
    let _ = sys::pidfd_send_signal(process.as_fd(), keeper::END);
    let deadline = Instant::now() + keeper::PATIENCE + Duration::from_secs(1);
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    while is_keeper {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(Errno::EINTR) => {}
            Ok(0) | Err(_) => break,
            Ok(_) => return,
        }
    }
    let _ = sys::pidfd_send_signal(process.as_fd(), libc::SIGKILL);
}

/// Why the wait for a hook is over.
enum Outcome {
    Ended,
    Late,
    /// The peer has gone.
    Alone,
}

/// The wait for a hook.
struct Wait<'a> {
    process: BorrowedFd<'a>,
    peer: Option<BorrowedFd<'a>>,
    deadline: Option<Instant>,
}

impl Wait<'_> {
    /// Writes the state as the hook reads it, until it is over. A hook may close its standard input
    /// unread, or never read.
    fn feed(&self, state_end: OwnedFd, mut state: &[u8]) -> Result<Outcome> {
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
            let mut fds = vec![PollFd::new(self.process, PollFlags::POLLIN)];
            fds.extend(self.peer.map(|peer| PollFd::new(peer, PollFlags::POLLIN)));
            fds.extend(state_end.as_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLOUT)));
            match poll(&mut fds, self.timeout()) {
                Ok(_) if fds[0].any() == Some(true) => return Ok(Outcome::Ended),
                Ok(_) if self.peer.is_some() && fds[1].any() == Some(true) => {
                    return Ok(Outcome::Alone);
                }
                Ok(0) if self.deadline.is_some_and(|at| at <= Instant::now()) => {
                    return Ok(Outcome::Late);
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("poll"),
            }
        }
    }

    fn timeout(&self) -> PollTimeout {
        match self.deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            None => PollTimeout::NONE,
            // Rounded up: not to wake just before the deadline again and again.
            Some(left) => {
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
        }
    }
}

/// The end of what the hook wrote.
fn last_words(output: &OwnedFd) -> String {
    let length = fstat(output).map_or(0, |stat| stat.st_size);
    let mut bytes = [0; OUTPUT_MAX];
    let read = pread(output, &mut bytes, (length - OUTPUT_MAX as i64).max(0)).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..read]).trim().to_string()
}

/// What a hook finds open, and where the error goes if it cannot be executed.
struct Streams<'a> {
    stdin: &'a OwnedFd,
    out: &'a OwnedFd,
    err: &'a OwnedFd,
    errors: &'a OwnedFd,
}

/// A hook as execve(2) wants it.
struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    fn new(hook: &Hook, inherited: &[CString]) -> Result<Self> {
        let strings = |list: &Vec<String>| {
            list.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>()
        };
        let path = CString::new(hook.path().as_os_str().as_bytes())?;
        let mut args = hook.args().as_ref().map(strings).transpose()?.unwrap_or_default();
        if args.is_empty() {
            args.push(path.clone());
        }
        let env = hook.env().as_ref().map(strings).transpose()?;
        Ok(Self { path, args, env: env.unwrap_or_else(|| inherited.to_vec()) })
    }

    /// In the child; the status to end with if the program does not run. What `parent` has open or
    /// blocked is none of the hook's business, and it does not outlive `parent`, so that a killed
    /// command leaves nothing behind.
    fn execute(&self, streams: &Streams<'_>, cwd: Option<&Path>, parent: Pid) -> i32 {
        let error = match self.prepare(streams, cwd, parent) {
            Err(errno) => errno,
            Ok(()) => match execve(&self.path, &self.args, &self.env) {
                Ok(never) => match never {},
                Err(errno) => errno,
            },
        };
        let _ = write(streams.errors, error.desc().as_bytes());
        127
    }

    fn prepare(&self, streams: &Streams<'_>, cwd: Option<&Path>, parent: Pid) -> nix::Result<()> {
        set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            return Err(Errno::ECHILD);
        }
        nix::unistd::dup2_stdout(streams.out)?;
        nix::unistd::dup2_stderr(streams.err)?;
        nix::unistd::dup2_stdin(streams.stdin)?;
        sys::close_all_but(vec![streams.errors.as_raw_fd()], 3)?;
        sys::set_signal_disposition(Signal::SIGPIPE, false)?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        match cwd {
            // A bundle may be gone by the time of poststop.
            Some(bundle) => chdir(bundle).or_else(|_| chdir("/")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(args: &[&str], timeout: Option<i64>) -> Hook {
        let mut hook = Hook::default();
        hook.set_path("/bin/sh".into());
        let args = ["sh", "-c"].iter().chain(args).map(ToString::to_string).collect();
        hook.set_args(Some(args));
        hook.set_env(Some(vec!["PATH=/bin:/usr/bin".into()]));
        hook.set_timeout(timeout);
        hook
    }

    fn error(script: &str, timeout: Option<i64>) -> String {
        line(&run(&hook(&[script], timeout), b"{}", None).unwrap_err())
    }

    #[test]
    fn a_hook_that_fails_is_quoted() {
        assert_eq!(error("echo no such bridge >&2; exit 3", None), "exit status 3: no such bridge");
        assert_eq!(error("kill -9 $$", None), "killed by SIGKILL");
    }

    #[test]
    fn a_hook_that_hangs_is_killed_at_its_time() {
        assert_eq!(error("exec sleep 60", Some(1)), "not finished after 1 s, killed");
    }

    #[test]
    fn the_state_may_be_longer_than_a_pipe_whether_it_is_read_or_not() {
        let state = vec![b'x'; 300_000];
        run(&hook(&["test $(wc -c) = 300000"], None), &state, None).unwrap();
        run(&hook(&["exec <&-; exit 0"], None), &state, None).unwrap();
        run(&hook(&["exit 0"], None), &state, None).unwrap();
    }

    #[test]
    fn a_hook_gets_its_own_name_environment_and_directory_and_nothing_else() {
        let script = "test \"$(pwd)\" = /usr && test \"$(ls /proc/self/fd | wc -l)\" = 4 && \
                      test \"$(tr '\\0' '\\n' </proc/$$/environ)\" = PATH=/bin:/usr/bin";
        run(&hook(&[script], None), b"{}", Some(Path::new("/usr"))).unwrap();
    }
}
