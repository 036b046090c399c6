//! Relays connections and datagrams that the kernel's translation does not serve: from ::1, to an
//! IPv6 address of the host for a container without one, or where the network's driver translates
//! nothing.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, SockaddrStorage, connect, send,
    setsockopt, shutdown, socket, sockopt,
};
use nix::unistd::{pipe2, read};

/// The size of a pipe, in bytes.
const CHUNK: usize = 64 * 1024;
/// How many chunks go one way before it is another connection's turn.
const TURN: usize = 8;

/// The pipe through which the bytes of all connections go, so that the kernel need not copy them.
/// It is empty between two uses.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

impl Pipe {
    pub(super) fn new() -> Result<Self> {
        let (out, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Self { out, into })
    }

    /// Moves the bytes that are there. Returns how many there were, and those that `to` did not
    /// take.
    fn carry(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(usize, Vec<u8>)> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let length = splice(from, None, &self.into, None, CHUNK, flags)?;
        let mut rest = length;
        while rest > 0 {
            match splice(&self.out, None, to, None, rest, flags) {
                Ok(moved) if moved > 0 => rest -= moved,
                Ok(_) | Err(Errno::EAGAIN) => break,
                Err(errno) => {
                    // The bytes left in the pipe must not reach another connection.
                    *self = Self::new()?;
                    return Err(errno);
                }
            }
        }
        let mut left = vec![0; rest];
        let mut filled = 0;
        while filled < rest {
            match read(&self.out, &mut left[filled..]) {
                Ok(count) if count > 0 => filled += count,
                result => {
                    *self = Self::new()?;
                    return Err(result.err().unwrap_or(Errno::EIO));
                }
            }
        }
        Ok((length, left))
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// It waits for one of its two sockets.
    Waits,
    /// There is more to move, after the other sources' turns.
    Again,
    Ended,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Way {
    /// The bytes that the receiving socket has not taken yet.
    left: Vec<u8>,
    ended: bool,
}

impl Way {
    /// Moves what can be moved in one turn. Returns whether there may be more.
    fn pump(&mut self, pipe: &mut Pipe, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool> {
        for _ in 0..TURN {
            if !self.flush(to)? {
                return Ok(false);
            }
            if self.ended {
                return Ok(false);
            }
            match pipe.carry(from, to) {
                Ok((0, _)) => {
                    self.ended = true;
                    // The other direction may go on for long.
                    return match shutdown(to.as_raw(), Shutdown::Write) {
                        Ok(()) | Err(Errno::ENOTCONN) => Ok(false),
                        Err(errno) => Err(errno),
                    };
                }
                Ok((_, left)) => self.left = left,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }

    /// Sends the bytes that are left. Returns whether all are sent.
    fn flush(&mut self, to: BorrowedFd<'_>) -> Result<bool> {
        while !self.left.is_empty() {
            match send(
                to.as_raw(),
                &self.left,
                MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
            ) {
                Ok(length) => drop(self.left.drain(..length)),
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        // An idle connection keeps no memory for a buffer.
        self.left = Vec::new();
        Ok(true)
    }
}

/// The number of a descriptor, for calls of nix that take one.
trait AsRaw {
    fn as_raw(&self) -> i32;
}

impl AsRaw for BorrowedFd<'_> {
    fn as_raw(&self) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(self)
    }
}

/// A TCP connection of a client, and the one to the container that continues it.
#[derive(Debug)]
pub(super) struct RelayStream {
    pub(super) client: OwnedFd,
    pub(super) target: OwnedFd,
    up: Way,
    down: Way,
}

impl RelayStream {
    pub(super) fn new(client: TcpStream, to: SocketAddr) -> Result<Self> {
        client.set_nonblocking(true).map_err(|_| Errno::EIO)?;
        let client = OwnedFd::from(client);
        let target = connecting(to)?;
        for end in [&client, &target] {
            setsockopt(end, sockopt::KeepAlive, &true)?;
            setsockopt(end, sockopt::TcpNoDelay, &true)?;
        }
        Ok(Self {
            client,
            target,
            up: Way::default(),
            down: Way::default(),
        })
    }

    /// Moves bytes in both directions, as far as one turn allows.
    pub(super) fn pump(&mut self, pipe: &mut Pipe) -> Pumped {
        let (client, target) = (self.client.as_fd(), self.target.as_fd());
        let up = self.up.pump(pipe, client, target);
        let down = self.down.pump(pipe, target, client);
        match (up, down) {
            (Err(_), _) | (_, Err(_)) => Pumped::Ended,
            _ if self.up.ended && self.down.ended => Pumped::Ended,
            (Ok(false), Ok(false)) => Pumped::Waits,
            _ => Pumped::Again,
        }
    }
}

/// Starts a TCP connection to `to`, without waiting for it.
pub(super) fn connecting(to: SocketAddr) -> Result<OwnedFd> {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    match connect(fd.as_fd().as_raw(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        Err(errno) => Err(errno),
    }
}

/// The datagrams between one client and a container.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) socket: UdpSocket,
    pub(super) client: SocketAddr,
    /// The source of the published port at which the client's datagrams arrive.
    pub(super) held: u64,
    /// Whether the container has answered.
    pub(super) answered: bool,
}

impl Flow {
    pub(super) fn new(client: SocketAddr, held: u64, to: SocketAddr) -> std::io::Result<Self> {
        let own: SocketAddr = match to {
            SocketAddr::V4(_) => ([0; 4], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(own)?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            client,
            held,
            answered: false,
        })
    }
}
