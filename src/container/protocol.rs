//! The whole protocol between the parent and init, both ends.
//!
//! ```text
//!  parent (create, exec)                         init (init::run)
//!    |                                             |
//!    | clone3 -----------------------------------> |  waits
//!    | id maps, hard limits                        |
//!    | Go -------------------------------------->  |  v1 cgroups
//!    |                                             |  namespaces, mounts, root attached
//!    | <------------------------------ Ask number  |  (for what a user namespace may not open
//!    | Lend + fd ------------------------------->  |  or may not change, see mount_service.rs)
//!    | <---------------------------------- Mounted |  (these two where Plan::stops_when_mounted)
//!    | prestart and createRuntime hooks            |
//!    | Proceed --------------------------------->  |
//!    | <----------------------- Terminal + fd      |  (with a terminal)
//!    | <------------------------------- Born + fd  |  (from a builder: see below)
//!    | <------------------------------------ Ready |  confined; the executable is found
//!    | limits, final state, pid file               |
//!    | Detach (create), Start (run, exec) -------> |
//!    .                                             |  create: waits on the start socket
//!  start (create), the parent itself (run, exec)   |
//!    | Start -------- start socket --------------> |  (create only)
//!    | <----------------------------- Listener + fd |  (these two with SCMP_ACT_NOTIFY)
//!    | the agent has it                            |
//!    | Proceed --------------------------------->  |
//!    | <-------------------------------- Executing |  just before execve
//!    | <------------------------------ end of file |  the program runs
//!
//!    | <------------------------------------ Failed |  at any point: phase and line; init exits
//! ```
//!
//! Where a process of the container could see init before it is confined, a **builder** takes its
//! place up to there: a process in the parent's pid namespace. It clones init, which the container
//! sees and which begins with its final rights, as a child of the parent, and sends Born with its
//! pid and pidfd. After that it only watches over init (`init/birth.rs`). The parent ends the
//! builder when the program runs or init waits for `start`.
//!
//! The channel is one `SOCK_SEQPACKET` pair; each message is one packet, whose first byte is its
//! name. The parent waits for the socket *and* the process, so that nothing hangs if init dies
//! while a copy of the socket is open elsewhere. At end of file before `Detach` or `Start` init
//! exits by itself: a killed `create` leaves no process.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::child::Interruption;
use crate::error::{Failure, InPhase, Phase};
use crate::sys;

/// The longest message, in bytes; the line of a failure is cut to fit.
const MESSAGE_MAX: usize = 4096;

/// The names of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum MessageName {
    Go = 1,
    Mounted,
    Proceed,
    Terminal,
    Ready,
    Detach,
    Start,
    Listener,
    Executing,
    Failed,
    Ask,
    Lend,
    Born,
}

impl MessageName {
    const ALL: [Self; 13] = [
        Self::Go,
        Self::Mounted,
        Self::Proceed,
        Self::Terminal,
        Self::Ready,
        Self::Detach,
        Self::Start,
        Self::Listener,
        Self::Executing,
        Self::Failed,
        Self::Ask,
        Self::Lend,
        Self::Born,
    ];
}

/// A message that has been received, or the end of file.
#[derive(Debug)]
enum ProtocolMessage {
    Point(MessageName),
    Terminal(OwnedFd),
    Ask(u32),
    Lent(OwnedFd),
    Born(i32, OwnedFd),
    Listener(OwnedFd),
    Failed(Failure),
    End,
}

/// The number that stands for `root.path` in an Ask; other numbers are indexes of `mounts`.
pub const ROOT: u32 = u32::MAX;

/// Opens or makes what init asks its parent for.
pub trait LendMounts {
    /// Returns a descriptor for the process `init`, by the number that init asks for.
    fn lend(&self, init: i32, index: u32) -> Result<OwnedFd>;
}

/// Makes a socket pair. Returns the parent's end and init's.
pub fn make_pair() -> Result<(OwnedFd, InitEnd)> {
    // Init's end has the lower number: together with the start socket and the cgroups, the
    // descriptors that init keeps are one range.
    let (init, parent) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .context("a socket pair")?;
    Ok((parent, InitEnd { socket: init }))
}

/// How long to wait for a process that was killed, in milliseconds. In a frozen cgroup it ends only
/// when that is thawed, and is then reaped by the process that orphans fall to.
const KILL_LIMIT_MS: u16 = 2_000;

/// A child of `rt` that is killed and reaped when this is dropped, unless it has been released.
#[derive(Debug)]
pub struct ClonedProcess {
    pid: Pid,
    pidfd: OwnedFd,
    is_released: bool,
}

impl ClonedProcess {
    pub fn new(pid: i32, pidfd: OwnedFd) -> Self {
        Self {
            pid: Pid::from_raw(pid),
            pidfd,
            is_released: false,
        }
    }

    /// The pid as the parent sees it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Lets the process outlive this handle.
    pub fn release(&mut self) {
        self.is_released = true;
    }
}

impl AsFd for ClonedProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for ClonedProcess {
    fn drop(&mut self) {
        if !self.is_released {
            let _ = sys::pidfd_send_signal(self.as_fd(), libc::SIGKILL);
            let _ = sys::reap(self.as_fd(), KILL_LIMIT_MS.into());
        }
    }
}

/// The parent's end, with the process at the other end. When it is dropped, it kills that process,
/// and then the builder.
#[derive(Debug)]
pub struct ParentEnd {
    socket: OwnedFd,
    process: ClonedProcess,
    /// Whether the process is a builder that has not cloned init yet.
    is_builder: bool,
    /// The builder that has cloned init and watches over it.
    builder: Option<ClonedProcess>,
}

impl ParentEnd {
    /// Makes the parent's end. `process` is init, or its builder.
    pub fn new(socket: OwnedFd, process: ClonedProcess, is_builder: bool) -> Self {
        Self {
            socket,
            process,
            is_builder,
            builder: None,
        }
    }

    /// Init; before [`Self::ready`] its builder, if it has one.
    pub fn process(&self) -> &ClonedProcess {
        &self.process
    }

    /// Sends Go: everything that only the parent may do is done.
    pub fn go(&self) -> Result<()> {
        self.send(MessageName::Go)
    }

    /// Waits until everything is mounted and init waits for the parent's hooks. Serves mount
    /// requests meanwhile.
    pub fn mounted(&self, lender: &impl LendMounts) -> Result<()> {
        match self.lend(lender, "before everything was mounted")? {
            ProtocolMessage::Point(MessageName::Mounted) => Ok(()),
            other => bail!("the container's first process answered {other:?}"),
        }
    }

    /// Sends Proceed: the parent's hooks are done.
    pub fn proceed(&self) -> Result<()> {
        self.send(MessageName::Proceed)
    }

    /// Waits until init is confined. Returns the master of its terminal, if it has one. Serves
    /// mount requests meanwhile. From now on the process is the one that a builder has cloned, if
    /// there was a builder.
    pub fn ready(&mut self, lender: &impl LendMounts) -> Result<Option<OwnedFd>> {
        let mut terminal = None;
        let mut is_ready = false;
        // The process may report Ready before the builder that has cloned it reports Born.
        while !is_ready || self.is_builder {
            match self.lend(lender, "before it was ready")? {
                ProtocolMessage::Terminal(fd) => terminal = Some(fd),
                ProtocolMessage::Born(pid, process) => {
                    let init = ClonedProcess::new(pid, process);
                    self.builder = Some(std::mem::replace(&mut self.process, init));
                    self.is_builder = false;
                }
                ProtocolMessage::Point(MessageName::Ready) => is_ready = true,
                other => bail!("the container's first process answered {other:?}"),
            }
        }
        Ok(terminal)
    }

    /// Sends Detach, so that init goes on alone and waits for `start`. Ends the builder.
    pub fn detach(mut self) -> Result<()> {
        self.send(MessageName::Detach)?;
        self.process.release();
        Ok(())
    }

    /// Sends Start, so that init goes on to the program.
    pub fn start(&self) -> Result<()> {
        self.send(MessageName::Start)
    }

    /// Waits until the program runs, after [`Self::start`], and ends the builder. Returns the
    /// process of the program. `agent` gets the seccomp notify fds of the filters of the program
    /// and of hooks.
    pub fn wait_program(self, agent: impl FnMut(OwnedFd) -> Result<()>) -> Result<ClonedProcess> {
        match runs_program(self.socket.as_fd(), self.process.as_fd(), agent)? {
            true => Ok(self.process),
            false => Err(self.died("before the program ran")),
        }
    }

    /// Receives the next message, serving the mount requests that come before it.
    fn lend(&self, lender: &impl LendMounts, when: &str) -> Result<ProtocolMessage> {
        loop {
            match self.receive(when)? {
                ProtocolMessage::Ask(index) => {
                    let fd = lender
                        .lend(self.process.pid.as_raw(), index)
                        .phase(Phase::Mounts)?;
                    self.send_with(MessageName::Lend, Some(fd.as_fd()))?;
                }
                message => return Ok(message),
            }
        }
    }

    fn send(&self, name: MessageName) -> Result<()> {
        self.send_with(name, None)
    }

    fn send_with(&self, name: MessageName, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        match send(self.socket.as_fd(), name, &[], fd) {
            // Init has ended or is about to: a failure that it has reported says more than the
            // broken pipe.
            Err(Errno::EPIPE | Errno::ECONNRESET) => {
                self.receive("early")?;
                bail!("the container's first process closed its socket")
            }
            result => result.context("the container's first process"),
        }
    }

    fn receive(&self, when: &str) -> Result<ProtocolMessage> {
        match receive(self.socket.as_fd(), Some(self.process.as_fd()))? {
            ProtocolMessage::Failed(failure) => Err(failure.into()),
            ProtocolMessage::End => Err(self.died(when)),
            message => Ok(message),
        }
    }

    /// Returns the error for an init that has closed its end without reporting a failure. It says
    /// how init ended.
    fn died(&self, when: &str) -> anyhow::Error {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let how = match waitid(Id::PIDFd(self.process.as_fd()), flags) {
            Ok(WaitStatus::Exited(_, status)) => format!("exited with status {status}"),
            Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) => {
                "was killed (if not by you: out of memory?)".to_string()
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("was ended by {signal}"),
            _ => "ended".to_string(),
        };
        anyhow!("the container's first process {how} {when}")
    }
}

/// The last message from the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartCommand {
    /// Wait for `start`.
    Detach,
    /// Execute the program now.
    Start,
}

/// Init's end.
#[derive(Debug)]
pub struct InitEnd {
    socket: OwnedFd,
}

impl AsRawFd for InitEnd {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

impl AsFd for InitEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl InitEnd {
    /// Makes an end of an accepted connection of `start`, which takes the place of the pair.
    pub fn from_connection(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Waits for Go from the parent.
    pub fn wait_go(&self) -> Result<()> {
        self.wait(MessageName::Go)
    }

    /// Reports that everything is mounted, and waits until the parent's hooks are done.
    pub fn wait_hooks(&self) -> Result<()> {
        self.send(MessageName::Mounted, &[], None)?;
        self.wait(MessageName::Proceed)
    }

    /// Asks the parent for the descriptor with the number `index`.
    pub fn borrow(&self, index: u32) -> Result<OwnedFd> {
        self.send(MessageName::Ask, &index.to_ne_bytes(), None)?;
        match receive(self.socket.as_fd(), None)? {
            ProtocolMessage::Lent(fd) => Ok(fd),
            ProtocolMessage::End => bail!("the rt command is gone"),
            other => bail!(
                "the rt command said {other:?} instead of {:?}",
                MessageName::Lend
            ),
        }
    }

    /// Sends the terminal's master to the parent.
    pub fn terminal(&self, master: BorrowedFd<'_>) -> Result<()> {
        self.send(MessageName::Terminal, &[], Some(master))
    }

    /// Reports the process that a builder has cloned: its pid, which is the same in the parent's
    /// view and the builder's, and its pidfd.
    pub fn born(&self, pid: i32, process: BorrowedFd<'_>) -> Result<()> {
        self.send(MessageName::Born, &pid.to_ne_bytes(), Some(process))
    }

    /// Reports Ready: everything is done but the program itself.
    pub fn ready(&self) -> Result<()> {
        self.send(MessageName::Ready, &[], None)
    }

    /// Waits for Detach or Start, which the parent sends when it has recorded the container.
    pub fn wait_release(&self) -> Result<StartCommand> {
        match self.wait_for(&[MessageName::Detach, MessageName::Start])? {
            MessageName::Start => Ok(StartCommand::Start),
            _ => Ok(StartCommand::Detach),
        }
    }

    /// Another handle of this end.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
        })
    }

    /// Waits for Start from the peer. Returns `false` if the peer has gone without it, as one does
    /// that only probes the socket.
    pub fn wait_start(&self) -> bool {
        matches!(
            receive(self.socket.as_fd(), None),
            Ok(ProtocolMessage::Point(MessageName::Start))
        )
    }

    /// Sends the seccomp notify fd of the filter to the parent, and waits until the agent has it.
    pub fn listener(&self, listener: BorrowedFd<'_>) -> Result<()> {
        self.send(MessageName::Listener, &[], Some(listener))?;
        self.wait(MessageName::Proceed)
    }

    /// Reports that execve comes next. The peer may be gone by now: the program runs nevertheless,
    /// as it would a moment later.
    pub fn executing(&self) {
        let _ = self.send(MessageName::Executing, &[], None);
    }

    /// Reports the failure. If that fails, too, there is nobody else to report it to.
    pub fn failed(&self, failure: &Failure) {
        let mut payload = vec![failure.phase as u8];
        let room = MESSAGE_MAX - 2;
        payload.extend(failure.line.bytes().take(room));
        let _ = self.send(MessageName::Failed, &payload, None);
    }

    fn send(&self, name: MessageName, payload: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
        send(self.as_fd(), name, payload, fd).context("the rt command")
    }

    fn wait(&self, name: MessageName) -> Result<()> {
        self.wait_for(&[name]).map(drop)
    }

    fn wait_for(&self, names: &[MessageName]) -> Result<MessageName> {
        match receive(self.socket.as_fd(), None)? {
            ProtocolMessage::Point(got) if names.contains(&got) => Ok(got),
            ProtocolMessage::End => bail!("the rt command is gone"),
            other => bail!("the rt command said {other:?} instead of {names:?}"),
        }
    }
}

/// Tells init over a connection to the start socket to run the program, and waits until it runs.
/// `agent` gets the seccomp notify fds of the filters of the program and of hooks.
pub fn start(
    socket: BorrowedFd<'_>,
    process: BorrowedFd<'_>,
    agent: impl FnMut(OwnedFd) -> Result<()>,
) -> Result<()> {
    let running = "cannot start an already running container";
    match send(socket, MessageName::Start, &[], None) {
        Err(Errno::EPIPE | Errno::ECONNRESET) => bail!(running),
        result => result.context("the start listener")?,
    }
    match runs_program(socket, process, agent) {
        Ok(true) => Ok(()),
        Ok(false) => bail!("the container's first process died before the program ran"),
        Err(error) if error.downcast_ref() == Some(&Errno::ECONNRESET) => bail!(running),
        Err(error) => Err(error),
    }
}

/// Waits until the program runs. Returns `false` if init has ended before.
fn runs_program(
    socket: BorrowedFd<'_>,
    process: BorrowedFd<'_>,
    mut agent: impl FnMut(OwnedFd) -> Result<()>,
) -> Result<bool> {
    let mut is_executing = false;
    loop {
        match receive(socket, Some(process))? {
            ProtocolMessage::Listener(fd) => pass_on(socket, fd, &mut agent)?,
            ProtocolMessage::Point(MessageName::Executing) => is_executing = true,
            ProtocolMessage::Failed(failure) => return Err(failure.into()),
            ProtocolMessage::End => return Ok(is_executing),
            other => bail!("the container's first process answered {other:?}"),
        }
    }
}

fn pass_on(
    socket: BorrowedFd<'_>,
    listener: OwnedFd,
    agent: &mut impl FnMut(OwnedFd) -> Result<()>,
) -> Result<()> {
    agent(listener)?;
    send(socket, MessageName::Proceed, &[], None).context("the container's first process")
}

fn send(
    socket: BorrowedFd<'_>,
    name: MessageName,
    payload: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> nix::Result<()> {
    let first = [name as u8];
    let vectors = [IoSlice::new(&first), IoSlice::new(payload)];
    let fds = fd.map(|fd| [fd.as_raw_fd()]);
    let rights = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
    let flags = MsgFlags::MSG_NOSIGNAL;
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &vectors, rights.as_slice(), flags, None) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop),
        }
    }
}

/// Receives the next message. With `process`, a peer that has ended counts as end of file even if
/// another process still holds a copy of its socket.
fn receive(socket: BorrowedFd<'_>, process: Option<BorrowedFd<'_>>) -> Result<ProtocolMessage> {
    let mut buffer = [0u8; MESSAGE_MAX];
    if let Some(process) = process
        && !wait_readable(socket, process, Interruption::of_command())?
    {
        return Ok(ProtocolMessage::End);
    }
    let (length, fd) = loop {
        match sys::receive(socket, &mut buffer) {
            Err(Errno::EINTR) => {}
            result => break result?,
        }
    };
    decode(&buffer[..length], fd)
}

/// Waits for the socket or the end of the process. Returns `false` if only the process has ended.
///
/// # Errors
/// The command is asked to end before either happens.
fn wait_readable(
    socket: BorrowedFd<'_>,
    process: BorrowedFd<'_>,
    interruption: Option<Interruption>,
) -> Result<bool> {
    // The process is first in the list: if it had ended when poll(2) looked at it, everything that
    // it ever sent is there when poll(2) looks at the socket.
    let fds = [process, socket]
        .into_iter()
        .chain(interruption.as_ref().map(AsFd::as_fd));
    let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result.context("poll")?,
        };
        match (fds[0].any(), fds[1].any()) {
            (_, Some(true)) => return Ok(true),
            (Some(true), _) => return Ok(false),
            _ => interruption.map_or(Ok(()), Interruption::check)?,
        }
    }
}

fn decode(packet: &[u8], fd: Option<OwnedFd>) -> Result<ProtocolMessage> {
    let Some((&first, payload)) = packet.split_first() else {
        return Ok(ProtocolMessage::End);
    };
    let name = MessageName::ALL
        .into_iter()
        .find(|name| *name as u8 == first);
    match (name, fd) {
        (Some(MessageName::Terminal), Some(fd)) => Ok(ProtocolMessage::Terminal(fd)),
        (Some(MessageName::Lend), Some(fd)) => Ok(ProtocolMessage::Lent(fd)),
        (Some(MessageName::Born), Some(fd)) => Ok(ProtocolMessage::Born(
            i32::from_ne_bytes(payload.try_into()?),
            fd,
        )),
        (Some(MessageName::Ask), None) => Ok(ProtocolMessage::Ask(u32::from_ne_bytes(
            payload.try_into()?,
        ))),
        (Some(MessageName::Listener), Some(fd)) => Ok(ProtocolMessage::Listener(fd)),
        (Some(MessageName::Failed), _) => {
            let (phase, line) = payload.split_first().unwrap_or((&0, &[]));
            let phase = Phase::from_number(*phase).unwrap_or(Phase::Process);
            let line = String::from_utf8_lossy(line).into_owned();
            Ok(ProtocolMessage::Failed(Failure { phase, line }))
        }
        (Some(name), None) => Ok(ProtocolMessage::Point(name)),
        _ => bail!("a message that is not of the protocol: {first}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_crosses_the_socket_whole() {
        let (parent, init) = make_pair().unwrap();
        init.failed(&Failure {
            phase: Phase::Mounts,
            line: "mounts[3] /data: gone".into(),
        });
        match receive(parent.as_fd(), None).unwrap() {
            ProtocolMessage::Failed(failure) => {
                assert_eq!(failure.phase, Phase::Mounts);
                assert_eq!(failure.line, "mounts[3] /data: gone");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_long_failure_is_cut_to_one_message() {
        let (parent, init) = make_pair().unwrap();
        init.failed(&Failure {
            phase: Phase::Exec,
            line: "x".repeat(100_000),
        });
        assert!(matches!(
            receive(parent.as_fd(), None).unwrap(),
            ProtocolMessage::Failed(_)
        ));
    }

    #[test]
    fn a_parent_that_is_gone_ends_the_wait() {
        let (parent, init) = make_pair().unwrap();
        drop(parent);
        assert!(init.wait_go().is_err());
    }

    #[test]
    fn noise_is_refused() {
        assert!(decode(&[99], None).is_err());
        assert!(matches!(decode(&[], None), Ok(ProtocolMessage::End)));
    }
}
