//! One `criu swrk`: starts it, sends it a request, answers when it asks back, and waits for its
//! end.

use std::convert::Infallible;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, send, sendmsg, socketpair,
};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::write;
use prost::Message;

use super::program::CriuProgram;
use super::rpc::{CriuNotify, CriuOptions, CriuRequest, CriuResponse, RequestKind};
use crate::error::line;
use crate::sys::{self, Fork};

/// The descriptor at which a worker finds its socket; the descriptors that it inherits follow.
const SOCKET: RawFd = 3;
/// The numbers of all inherited descriptors are below this one.
const INHERITED_MAX: RawFd = 64;
/// CRIU's own limit for a message, in bytes.
const MESSAGE_MAX: usize = 64 * 1024;
/// How long CRIU may take to undo what it has made, in milliseconds.
const END_MS: u16 = 10_000;
/// How many of the errors in CRIU's log are quoted.
const CAUSES_MAX: usize = 2;

/// A worker that waits for its request.
#[derive(Debug)]
pub struct CriuWorker {
    /// Open from the start of `criu swrk` until [`CriuWorker::finish`].
    socket: Option<OwnedFd>,
    process: OwnedFd,
    ended: bool,
    pub pid: i32,
}

impl CriuWorker {
    /// Starts `program` as `criu swrk` in new namespaces of the kinds `flags`, and in `cgroup` if
    /// there is one. The child first runs `prepare`. It inherits the descriptors that `prepare`
    /// returns, with the numbers that [`CriuWorker::inherited`] gives.
    pub fn start(
        program: &CriuProgram,
        flags: u64,
        cgroup: Option<BorrowedFd<'_>>,
        prepare: impl FnOnce() -> Result<Vec<OwnedFd>>,
    ) -> Result<Self> {
        let (reports, end) = pair().context("a socket")?;
        // The number of this descriptor must not be one of those that the worker inherits.
        let reporter = sys::duplicate_above(end.as_fd(), INHERITED_MAX).context("a socket")?;
        drop(end);
        let (pid, process) = match sys::clone3(flags, cgroup).context("clone3")? {
            Fork::Parent { pid, pidfd } => (pid, pidfd),
            Fork::Child => {
                let Err(error) =
                    prepare().and_then(|inherited| execute(program, &inherited, &reporter));
                let _ = write(&reporter, line(&error).as_bytes());
                sys::exit_now(1)
            }
        };
        drop(reporter);
        let mut worker = Self {
            socket: None,
            process,
            ended: false,
            pid,
        };
        let mut buffer = vec![0; MESSAGE_MAX];
        loop {
            match sys::receive(reports.as_fd(), &mut buffer).context("criu")? {
                (_, Some(socket)) => worker.socket = Some(socket),
                (0, None) => return Ok(worker),
                (length, None) => bail!("{}", String::from_utf8_lossy(&buffer[..length])),
            }
        }
    }

    /// Returns the number in the worker of the descriptor `index`, of those that the worker
    /// inherits (see [`CriuWorker::start`]).
    pub fn inherited(index: usize) -> i32 {
        SOCKET + 1 + index as i32
    }

    /// Sends a request and waits until CRIU has finished it. Calls `answer` at each point at which
    /// CRIU asks back.
    ///
    /// # Errors
    /// The error of `answer`, or what CRIU says in its response and in its `log`.
    pub fn request(
        &mut self,
        kind: RequestKind,
        options: CriuOptions,
        log: &Path,
        mut answer: impl FnMut(&CriuNotify, Option<OwnedFd>) -> Result<()>,
    ) -> Result<()> {
        match fs::remove_file(log) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| log.display().to_string());
            }
            _ => {}
        }
        self.send(&CriuRequest {
            kind: kind.into(),
            options: Some(options),
            notify_success: None,
        })?;
        let mut buffer = vec![0; MESSAGE_MAX];
        loop {
            let (length, descriptor) = self.receive(&mut buffer)?;
            if length == 0 {
                let ended = self
                    .finish()
                    .and_then(|()| bail!("criu has ended without an answer"));
                return ended.map_err(|error| explain(&error, log));
            }
            let response = CriuResponse::decode(&buffer[..length]).context("criu's answer")?;
            let Some(notify) = response
                .notify
                .as_ref()
                .filter(|_| response.kind() == RequestKind::Notify)
            else {
                return finished(&response).map_err(|error| explain(&error, log));
            };
            let answered = answer(notify, descriptor);
            let (kind, success) = (RequestKind::Notify.into(), Some(answered.is_ok()));
            let sent = self.send(&CriuRequest {
                kind,
                options: None,
                notify_success: success,
            });
            if answered.is_err() {
                self.let_end();
            }
            answered.and(sent)?;
        }
    }

    /// Waits until CRIU has ended, or for [`END_MS`]: after a refusal it ends all processes that it
    /// has made, and removes its directory in `/tmp`.
    fn let_end(&self) {
        let mut end = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
        while poll(&mut end, END_MS) == Err(Errno::EINTR) {}
    }

    /// Receives the next message. Its length is 0 if CRIU has ended, even if processes that CRIU
    /// has forked still hold its socket.
    fn receive(&self, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
        let socket = self.socket()?.as_fd();
        loop {
            let mut fds =
                [socket, self.process.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result.context("poll")?,
            };
            match fds.map(|fd| fd.any().unwrap_or(true)) {
                [true, _] => {
                    return match sys::receive(socket, buffer) {
                        // CRIU has ended without reading a request of `rt`.
                        Err(Errno::ECONNRESET) => Ok((0, None)),
                        result => result.context("criu"),
                    };
                }
                [false, true] => return Ok((0, None)),
                [false, false] => {}
            }
        }
    }

    fn send(&self, request: &CriuRequest) -> Result<()> {
        let bytes = request.encode_to_vec();
        match send(self.socket()?.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL) {
            // CRIU has ended; the code that waits for its answer reports how.
            Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            result => result.map(drop).context("criu"),
        }
    }

    fn socket(&self) -> Result<&OwnedFd> {
        self.socket.as_ref().context("criu has ended")
    }

    /// Closes the socket, upon which CRIU ends by itself, and waits for its end.
    ///
    /// # Errors
    /// CRIU has ended with a status other than 0, or by a signal.
    pub fn finish(&mut self) -> Result<()> {
        self.socket = None;
        match self.reap()? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, status) => bail!("criu has ended with status {status}"),
            WaitStatus::Signaled(_, signal, _) => bail!("criu was killed by {signal}"),
            other => bail!("criu has ended: {other:?}"),
        }
    }

    fn reap(&mut self) -> Result<WaitStatus> {
        let result = wait_for(self.process.as_fd());
        self.ended = result.is_ok();
        result.context("criu")
    }
}

impl Drop for CriuWorker {
    fn drop(&mut self) {
        if !self.ended {
            let _ = sys::pidfd_send_signal(self.process.as_fd(), libc::SIGKILL);
            let _ = self.reap();
        }
    }
}

/// Waits for the end of a child process.
pub(super) fn wait_for(process: BorrowedFd<'_>) -> nix::Result<WaitStatus> {
    loop {
        match waitid(Id::PIDFd(process), WaitPidFlag::WEXITED) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Turns the response to a failed request into an error, in the words that runc uses.
fn finished(response: &CriuResponse) -> Result<()> {
    let kind = match response.kind() {
        RequestKind::PreDump => "PRE_DUMP".to_owned(),
        kind => format!("{kind:?}").to_uppercase(),
    };
    ensure!(
        response.success,
        "criu failed: type {kind} errno {}",
        response.errno.unwrap_or(0)
    );
    Ok(())
}

fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
}

/// Executes CRIU in the worker, with the inherited descriptors in their places. Makes the socket in
/// the worker, since CRIU looks for the directories of the images among the descriptors of the
/// process that made the socket, and these have to be of CRIU's own mount namespace. Sends the
/// parent's end of the socket to `reporter`.
fn execute(program: &CriuProgram, inherited: &[OwnedFd], reporter: &OwnedFd) -> Result<Infallible> {
    let (ours, socket) = pair().context("a socket")?;
    let fds = [ours.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(
        reporter.as_raw_fd(),
        &[IoSlice::new(b"\0")],
        &rights,
        flags,
        None,
    )?;
    // The descriptors first move away from the numbers that they are to get.
    let away = |fd: &OwnedFd| sys::duplicate_above(fd.as_fd(), INHERITED_MAX);
    let all: Vec<_> = [&socket]
        .into_iter()
        .chain(inherited)
        .map(away)
        .collect::<Result<_, _>>()?;
    let program = program.moved_above(INHERITED_MAX)?;
    sys::pass_from(SOCKET, &all)?;
    sys::reset_signals()?;
    let socket = SOCKET.to_string();
    let arguments = [
        c"criu".to_owned(),
        c"swrk".to_owned(),
        std::ffi::CString::new(socket)?,
    ];
    program.execute(&arguments)
}

/// Adds the first errors in CRIU's log, and the path of the log, to `error`.
fn explain(error: &anyhow::Error, log: &Path) -> anyhow::Error {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    let errors = text
        .lines()
        .filter_map(|line| line.split_once("Error (")?.1.split_once("): "));
    let errors = errors.map(|(_, cause)| cause.trim());
    // CRIU works without a higher RLIMIT_NOFILE, too, and the line with "FAILED." only says that
    // the whole request has failed.
    let causes =
        errors.filter(|c| !c.contains("Can't setup RLIMIT_NOFILE") && !c.ends_with("FAILED."));
    let causes: String = causes
        .take(CAUSES_MAX)
        .map(|cause| format!(": {cause}"))
        .collect();
    anyhow!("{}{causes} (see {})", line(error), log.display())
}
