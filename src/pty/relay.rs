//! Copies between the client's standard streams and the master of the container's terminal.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SpecialCharacterIndices, tcgetattr};
use nix::unistd::{read, write};

use super::client::{RawMode, TerminalClient};
use crate::sys;

/// How long the terminal may be silent after the process's end, in milliseconds.
const LEFTOVER_MS: u8 = 100;

/// Bytes on their way from one side to the other.
#[derive(Debug)]
struct RelayFlow {
    buffer: Box<[u8]>,
    /// The bytes `start..end` are still to be written.
    start: usize,
    end: usize,
    open: bool,
}

impl RelayFlow {
    fn new() -> Self {
        Self {
            buffer: vec![0; 16 * 1024].into(),
            start: 0,
            end: 0,
            open: true,
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn wants_more(&self) -> bool {
        self.open && self.is_empty()
    }

    /// Reads what is there; a side that has ended is closed.
    fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> nix::Result<usize>) -> nix::Result<()> {
        match read(&mut self.buffer) {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Ok(0) => self.open = false,
            Ok(length) => (self.start, self.end) = (0, length),
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    fn drain(&mut self, write: impl FnOnce(&[u8]) -> nix::Result<usize>) -> nix::Result<()> {
        match write(&self.buffer[self.start..self.end]) {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Ok(length) => self.start += length,
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Drops what nobody takes any more.
    fn close(&mut self) {
        (self.start, self.end, self.open) = (0, 0, false);
    }
}

/// The relay of a process in the foreground.
#[derive(Debug)]
pub(crate) struct Relay {
    /// `None` once the client takes no output any more: the process is told by a hang-up.
    master: Option<OwnedFd>,
    /// The process's side, held open as long as it lives: it may close its own and open it again,
    /// which without this one would be the end of the output. `None` after its end.
    peer: Option<OwnedFd>,
    client: TerminalClient,
    /// From the client.
    input: RelayFlow,
    /// To the client.
    output: RelayFlow,
    /// Whether the last byte that went to the process ended a line.
    at_line_start: bool,
    /// Whether standard input is a terminal that somebody else uses at the moment.
    in_background: bool,
    raw: Option<RawMode>,
    /// Why the client's output could not be written.
    failure: Option<Errno>,
}

impl Relay {
    /// The container's terminal takes the size of the client's; nothing is copied yet.
    pub(crate) fn new(master: OwnedFd, client: TerminalClient) -> Result<Self> {
        client.copy_size(master.as_fd());
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("the terminal")?;
        Ok(Self {
            peer: Some(sys::terminal_peer(master.as_fd()).context("TIOCGPTPEER")?),
            master: Some(master),
            client,
            input: RelayFlow::new(),
            output: RelayFlow::new(),
            at_line_start: true,
            in_background: false,
            raw: None,
            failure: None,
        })
    }

    /// Takes the client's terminal over, at first and after a stop. In the background it waits
    /// for it as any program does that reads from its terminal: `stop` stops this process.
    pub(crate) fn resume(&mut self, stop: impl FnOnce()) -> Result<()> {
        self.raw = None;
        if self.client.is_in_background() {
            stop();
        }
        // A process group without a shell is not stopped.
        self.in_background = self.client.is_in_background();
        if !self.in_background && self.input.open {
            self.raw = RawMode::enter()?;
        }
        self.resize();
        Ok(())
    }

    /// Gives the client's terminal back.
    pub(crate) fn suspend(&mut self) {
        self.raw = None;
    }

    /// The client's window has changed.
    pub(crate) fn resize(&self) {
        if let Some(master) = &self.master {
            self.client.copy_size(master.as_fd());
        }
    }

    /// Copies until one of `others` is readable.
    pub(crate) fn until(&mut self, others: &[BorrowedFd<'_>]) -> Result<()> {
        while !self.step(others)? {}
        Ok(())
    }

    /// After the end of the process: what is still in the terminal. `other` being readable is a
    /// reason to ask `enough` whether to go on.
    pub(crate) fn finish(
        mut self,
        other: BorrowedFd<'_>,
        mut enough: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        self.input.close();
        self.peer = None;
        while let Some(master) = self.master.as_ref().filter(|_| self.output.open) {
            let master = PollFd::new(master.as_fd(), PollFlags::POLLIN);
            // A process that was left behind may keep the terminal open for ever.
            if self.output.is_empty() && poll(&mut [master], PollTimeout::from(LEFTOVER_MS))? == 0 {
                break;
            }
            if self.step(&[other])? && enough()? {
                break;
            }
        }
        match self.failure {
            // A reader that has had enough.
            None | Some(Errno::EPIPE) => Ok(()),
            Some(errno) => Err(errno).context("standard output"),
        }
    }

    /// One round; true if one of `others` is readable. A side of which nothing is wanted is not
    /// polled: one that has hung up would be ready for ever.
    fn step(&mut self, others: &[BorrowedFd<'_>]) -> Result<bool> {
        let mut fds: Vec<_> = others
            .iter()
            .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
            .collect();
        let Some(master) = self.master.as_ref().map(AsFd::as_fd) else {
            return Ok(wait(&mut fds)?.contains(&true));
        };
        let reads = !self.in_background;
        let sides = [
            (self.output.wants_more(), master, PollFlags::POLLIN),
            (
                reads && self.input.wants_more(),
                self.client.input.as_fd(),
                PollFlags::POLLIN,
            ),
            (
                !self.output.is_empty(),
                self.client.output.as_fd(),
                PollFlags::POLLOUT,
            ),
            (!self.input.is_empty(), master, PollFlags::POLLOUT),
        ];
        let wanted = sides.iter().filter(|(wanted, ..)| *wanted);
        fds.extend(wanted.map(|(_, fd, flags)| PollFd::new(*fd, *flags)));
        let ready = wait(&mut fds)?;
        let (others, ready) = ready.split_at(others.len());
        let mut ready = ready.iter();
        let [output_in, input_in, output_out, input_out] =
            sides.map(|(wanted, ..)| wanted && ready.next() == Some(&true));
        if output_in {
            read_output(&mut self.output, &mut self.peer, master);
        }
        if input_out {
            self.at_line_start = self.input.buffer[..self.input.end].ends_with(b"\n");
            if self.input.drain(|bytes| write(master, bytes)).is_err() {
                self.input.close();
            }
        }
        if input_in {
            let read = self.input.fill(|buffer| self.client.input.read(buffer));
            if read.is_err() || !self.input.open {
                self.input.close();
                self.end_input();
            }
        }
        if output_out {
            self.failure = self
                .output
                .drain(|bytes| self.client.output.write(bytes))
                .err();
            if self.failure.is_some() {
                self.output.close();
                self.master = None;
            }
        }
        Ok(others.contains(&true))
    }

    /// The end of the client's input becomes that of the process's: the character that means it,
    /// if lines are being read; after the start of a line the first one only ends the line.
    fn end_input(&mut self) {
        let settings = self
            .master
            .as_ref()
            .and_then(|master| tcgetattr(master).ok());
        let lines = settings.filter(|s| s.local_flags.contains(LocalFlags::ICANON));
        if let Some(settings) = lines {
            let end = settings.control_chars[SpecialCharacterIndices::VEOF as usize];
            let count = if self.at_line_start { 1 } else { 2 };
            self.input.buffer[..count].fill(end);
            (self.input.start, self.input.end) = (0, count);
        }
    }
}

/// Reads what the process has written. The terminal has hung up (vhangup(2)), or, after the end of
/// the process, is drained, when another open of its other end fails.
fn read_output(output: &mut RelayFlow, peer: &mut Option<OwnedFd>, master: BorrowedFd<'_>) {
    let mut fails = || output.fill(|buffer| read(master, buffer)).is_err();
    // What fails may be another end than that of the data.
    if fails() && (!has_data(master) || fails()) {
        *peer = peer.as_ref().and_then(|_| sys::terminal_peer(master).ok());
        output.open = peer.is_some();
    }
}

fn has_data(master: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(master, PollFlags::POLLIN)];
    let seen = poll(&mut fds, PollTimeout::ZERO);
    seen.is_ok()
        && fds[0]
            .revents()
            .is_some_and(|revents| revents.contains(PollFlags::POLLIN))
}

/// poll(2) without a time limit: which of them are ready.
fn wait(fds: &mut [PollFd<'_>]) -> Result<Vec<bool>> {
    match poll(fds, PollTimeout::NONE) {
        Err(Errno::EINTR) => return Ok(vec![false; fds.len()]),
        result => result.context("poll")?,
    };
    Ok(fds.iter().map(|fd| fd.any().unwrap_or(true)).collect())
}
