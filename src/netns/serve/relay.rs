//! Connections and datagrams that the kernel's way does not serve, carried over: from ::1, to an
//! IPv6 address of the host for a container without one, or where nobody translates.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, SockaddrStorage, connect, setsockopt, shutdown,
    socket, sockopt,
};
use nix::unistd::pipe2;

/// As much as a pipe holds.
const CHUNK: usize = 64 * 1024;
/// A UDP client that is silent for so long is forgotten.
const FLOW_LIMIT: Duration = Duration::from_secs(90);

/// One way of a connection: through a pipe, so that no byte is copied.
#[derive(Debug)]
struct Way {
    pipe: (OwnedFd, OwnedFd),
    filled: usize,
    ended: bool,
}

impl Way {
    fn new() -> Result<Self> {
        let pipe = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Self { pipe, filled: 0, ended: false })
    }

    /// Moves what can be moved.
    fn pump(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        while !self.ended {
            if self.filled == 0 {
                match splice(from, None, &self.pipe.1, None, CHUNK, flags) {
                    Ok(0) => {
                        self.ended = true;
                        // The other way may go on for long.
                        return match shutdown(to.as_raw(), Shutdown::Write) {
                            Ok(()) | Err(Errno::ENOTCONN) => Ok(()),
                            Err(errno) => Err(errno),
                        };
                    }
                    Ok(length) => self.filled = length,
                    Err(Errno::EAGAIN) => return Ok(()),
                    Err(errno) => return Err(errno),
                }
            }
            match splice(&self.pipe.0, None, to, None, self.filled, flags) {
                Ok(length) => self.filled -= length,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// The number that old calls want.
trait AsRaw {
    fn as_raw(&self) -> i32;
}

impl AsRaw for BorrowedFd<'_> {
    fn as_raw(&self) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(self)
    }
}

/// A TCP connection and its continuation to the container.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) client: OwnedFd,
    pub(super) target: OwnedFd,
    up: Way,
    down: Way,
}

impl Stream {
    pub(super) fn new(client: TcpStream, to: SocketAddr) -> Result<Self> {
        client.set_nonblocking(true).map_err(|_| Errno::EIO)?;
        let client = OwnedFd::from(client);
        let target = connecting(to)?;
        for end in [&client, &target] {
            setsockopt(end, sockopt::KeepAlive, &true)?;
            setsockopt(end, sockopt::TcpNoDelay, &true)?;
        }
        Ok(Self { client, target, up: Way::new()?, down: Way::new()? })
    }

    /// Whether it goes on.
    pub(super) fn pump(&mut self) -> bool {
        let (client, target) = (self.client.as_fd(), self.target.as_fd());
        self.up.pump(client, target).is_ok()
            && self.down.pump(target, client).is_ok()
            && !(self.up.ended && self.down.ended)
    }
}

/// A TCP connection that is being made.
pub(super) fn connecting(to: SocketAddr) -> Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    match connect(fd.as_fd().as_raw(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        Err(errno) => Err(errno),
    }
}

/// The datagrams of one client.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) socket: UdpSocket,
    pub(super) client: SocketAddr,
    /// The source through which the client came.
    pub(super) held: u64,
    last: Instant,
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
        Ok(Self { socket, client, held, last: Instant::now() })
    }

    pub(super) fn send(&mut self, datagram: &[u8]) {
        self.last = Instant::now();
        // As lost as on any other way.
        let _ = self.socket.send(datagram);
    }

    pub(super) fn is_over(&self) -> bool {
        self.last.elapsed() > FLOW_LIMIT
    }
}
