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

/// How long to wait for further output after the end of the process, in milliseconds.
const LEFTOVER_MS: u8 = 100;

/// A buffer for the bytes that go in one direction.
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

    /// Reads what is available; an end of file closes this direction.
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

    /// Discards the buffer and closes this direction.
    fn close(&mut self) {
        (self.start, self.end, self.open) = (0, 0, false);
    }
}

/// The relay between the client and the terminal of a process in the foreground.
#[derive(Debug)]
pub struct Relay {
    /// The master of the container's terminal. `None` after the client's output has failed: closing
    /// the master tells the process by a hang-up.
    master: Option<OwnedFd>,
    /// The other end of the terminal, held open while the process lives: the process may close all
    /// its descriptors of the terminal and open it again, and meanwhile reading from the master
    /// would fail. `None` after the end of the process.
    peer: Option<OwnedFd>,
    client: TerminalClient,
    /// The bytes from the client to the process.
    input: RelayFlow,
    /// The bytes from the process to the client.
    output: RelayFlow,
    /// Whether the last byte that was sent to the process ended a line.
    at_line_start: bool,
    /// Whether standard input is a terminal that another process group has at the moment.
    in_background: bool,
    raw: Option<RawMode>,
    /// The error of writing the client's output, if there was one.
    failure: Option<Errno>,
}

impl Relay {
    /// Creates a relay and gives the container's terminal the size of the client's. Copies nothing
    /// yet.
    pub fn new(master: OwnedFd, client: TerminalClient) -> Result<Self> {
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

    /// Takes over the client's terminal: at the start, and after this process was stopped. In the
    /// background it calls `stop`, which stops this process: a program that reads from its terminal
    /// in the background is stopped in the same way.
    pub fn resume(&mut self, stop: impl FnOnce()) -> Result<()> {
        self.raw = None;
        if self.client.is_in_background() {
            stop();
        }
        // The kernel does not stop a process group without a shell, so this one may still be in the
        // background.
        self.in_background = self.client.is_in_background();
        if !self.in_background && self.input.open {
            self.raw = RawMode::enter()?;
        }
        self.resize();
        Ok(())
    }

    /// Restores the settings of the client's terminal.
    pub fn suspend(&mut self) {
        self.raw = None;
    }

    /// Copies the size of the client's terminal, after it has changed.
    pub fn resize(&self) {
        if let Some(master) = &self.master {
            self.client.copy_size(master.as_fd());
        }
    }

    /// Copies in both directions until one of `others` is readable.
    pub fn until(&mut self, others: &[BorrowedFd<'_>]) -> Result<()> {
        while !self.step(others)? {}
        Ok(())
    }

    /// After the end of the process: copies the output that is still in the terminal. When `other`
    /// is readable, `enough` is called and says whether to stop.
    ///
    /// # Errors
    /// If the output could not be written, except `EPIPE`.
    pub fn finish(
        mut self,
        other: BorrowedFd<'_>,
        mut enough: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        self.input.close();
        self.peer = None;
        while let Some(master) = self.master.as_ref().filter(|_| self.output.open) {
            let master = PollFd::new(master.as_fd(), PollFlags::POLLIN);
            // A process that the program has left behind may keep the terminal open for ever.
            if self.output.is_empty() && poll(&mut [master], PollTimeout::from(LEFTOVER_MS))? == 0 {
                break;
            }
            if self.step(&[other])? && enough()? {
                break;
            }
        }
        match self.failure {
            // EPIPE: the reader of the output has ended, which is no error.
            None | Some(Errno::EPIPE) => Ok(()),
            Some(errno) => Err(errno).context("standard output"),
        }
    }

    /// Waits once and copies what is possible; true if one of `others` is readable. A descriptor
    /// that is not needed at the moment is not polled: after a hang-up it would be ready for ever.
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

    /// After the end of the client's input: ends the input of the process as well. If its terminal
    /// reads whole lines, this is done with the character for the end of file (`VEOF`); in the
    /// middle of a line two are needed, because the first one only ends the line.
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

/// Reads what the process has written. If reading fails without data left, opens the other end
/// again. If that fails, or is not wanted any more after the end of the process, the output has
/// ended: the terminal has hung up (vhangup(2)), or is drained.
fn read_output(output: &mut RelayFlow, peer: &mut Option<OwnedFd>, master: BorrowedFd<'_>) {
    let mut fails = || output.fill(|buffer| read(master, buffer)).is_err();
    // The error may come from another open of the other end than the data: it counts only if no
    // data is left.
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

/// Waits without a time limit (poll(2)); returns which of the descriptors are ready.
fn wait(fds: &mut [PollFd<'_>]) -> Result<Vec<bool>> {
    match poll(fds, PollTimeout::NONE) {
        Err(Errno::EINTR) => return Ok(vec![false; fds.len()]),
        result => result.context("poll")?,
    };
    Ok(fds.iter().map(|fd| fd.any().unwrap_or(true)).collect())
}
