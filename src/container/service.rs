//! What a service manager passes to a service through the environment, and what it hears from the
//! service: sd_listen_fds(3) and sd_notify(3). A container takes the place of the service.

use std::fs::{self, Permissions};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, recv,
    sendmsg, socket,
};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, pipe2, unlinkat};

use crate::container::state::{Container, NOTIFY_DIRECTORY, NOTIFY_SOCKET};
use crate::{error, log, sys};

/// The directory in which a container finds the socket, the same as with runc.
pub const DIRECTORY_INSIDE: &str = "/run/notify";
/// The longest notification that is read, in bytes; systemd's own limit.
const MESSAGE_MAX: usize = 4096;
/// How many notifications are read at a time; as a rule the kernel queues no more
/// (net.unix.max_dgram_qlen).
const MESSAGES_MAX: usize = 512;
/// How long the manager may take to acknowledge, in milliseconds.
const BARRIER_MS: u16 = 30_000;

/// Returns how many sockets from descriptor 3 on are meant for `rt`, and so for the container.
pub fn listen_fds() -> Result<u32> {
    let own = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    match std::env::var("LISTEN_FDS") {
        Ok(count) if own => count
            .parse()
            .with_context(|| format!("LISTEN_FDS {count:?}")),
        _ => Ok(0),
    }
}

/// Connects to the manager's socket, if there is one. The environment may be an old one: a manager
/// that has gone is no reason not to run the container.
fn manager() -> Result<Option<OwnedFd>> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let address = match name.as_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name),
        path => UnixAddr::new(path),
    };
    let fd = datagram_socket()?;
    match address.and_then(|address| connect(fd.as_raw_fd(), &address)) {
        Ok(()) => Ok(Some(fd)),
        Err(errno) => {
            let cause = error::line(&errno.into());
            log::warn(format!(
                "NOTIFY_SOCKET {}: {cause}, nobody is told",
                name.display()
            ));
            Ok(None)
        }
    }
}

fn datagram_socket() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Unix, SockType::Datagram, flags, None).context("a socket")
}

/// Makes the directory in which the socket will be. Returns a copy of its mount for
/// [`DIRECTORY_INSIDE`], or `None` if there is no manager. The parent does this because init has no
/// rights in the state directory if it is in a user namespace.
pub fn prepare(container: &Container) -> Result<Option<OwnedFd>> {
    if manager()?.is_none() {
        return Ok(None);
    }
    let context = || "NOTIFY_SOCKET: the container's directory for it";
    mkdirat(
        container.directory(),
        NOTIFY_DIRECTORY,
        Mode::from_bits_truncate(0o755),
    )
    .with_context(context)?;
    let directory = open_directory(container.directory())?;
    let tree = sys::clone_mount(directory.as_fd(), false).with_context(context)?;
    let set = libc::MOUNT_ATTR_RDONLY
        | libc::MOUNT_ATTR_NOSUID
        | libc::MOUNT_ATTR_NODEV
        | libc::MOUNT_ATTR_NOEXEC;
    sys::mount_setattr(tree.as_fd(), false, set, 0, libc::MS_PRIVATE).with_context(context)?;
    Ok(Some(tree))
}

/// Whether the container has a socket for its manager.
pub fn is_prepared(container: &Container) -> bool {
    open_directory(container.directory()).is_ok()
}

fn open_directory(state: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(state, NOTIFY_DIRECTORY, flags, Mode::empty())
}

/// Passes notifications from the container on to the manager.
#[derive(Debug)]
pub struct NotifyRelay {
    socket: OwnedFd,
    manager: OwnedFd,
}

impl AsFd for NotifyRelay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl NotifyRelay {
    /// Binds the container's socket, before its program runs. `None` without a manager, or if the
    /// container was created without one.
    pub fn listen(container: &Container) -> Result<Option<Self>> {
        let Some(manager) = manager()? else {
            return Ok(None);
        };
        let directory = match open_directory(container.directory()) {
            Err(Errno::ENOENT) => return Ok(None),
            result => result.context(NOTIFY_DIRECTORY)?,
        };
        match unlinkat(&directory, NOTIFY_SOCKET, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).context(NOTIFY_SOCKET),
        }
        // The address goes through the descriptor: the path itself may be longer than a socket
        // address.
        let path = format!("/proc/self/fd/{}/{NOTIFY_SOCKET}", directory.as_raw_fd());
        let socket = datagram_socket()?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path.as_str())?).context(NOTIFY_SOCKET)?;
        fs::set_permissions(&path, Permissions::from_mode(0o777)).context(NOTIFY_SOCKET)?;
        Ok(Some(Self { socket, manager }))
    }

    /// Waits until the container is ready, or its `init` has ended.
    pub fn wait(&self, init: BorrowedFd<'_>, pid: i32) -> Result<()> {
        loop {
            let mut fds = [self.as_fd(), init].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result.context("poll")?,
            };
            let [message, ended] = fds.map(|fd| fd.any().unwrap_or(true));
            if message && self.pass_on(pid.unsigned_abs()) {
                self.wait_for_manager();
                return Ok(());
            }
            if ended && !message {
                return Ok(());
            }
        }
    }

    /// Reads the notifications that have come. Returns `true` if the container is ready; the
    /// manager has then been told so, and that `pid` is the process to watch.
    pub fn pass_on(&self, pid: u32) -> bool {
        let mut buffer = [0; MESSAGE_MAX];
        // A container that floods the socket does not hold `rt`.
        for _ in 0..MESSAGES_MAX {
            let socket = self.socket.as_raw_fd();
            let Ok(length) = recv(socket, &mut buffer, MsgFlags::MSG_DONTWAIT) else {
                break;
            };
            let mut lines = buffer[..length].split(|byte| *byte == b'\n');
            if lines.any(|line| line == b"READY=1") {
                self.tell(&format!("READY=1\nMAINPID={pid}\n"), &[]);
                return true;
            }
        }
        false
    }

    /// Waits until the manager has looked at its message (sd_notify(3) `BARRIER=1`): a process that
    /// ends before may not be known any more as a process of the service.
    fn wait_for_manager(&self) {
        let Ok((reader, writer)) = pipe2(OFlag::O_CLOEXEC) else {
            return;
        };
        self.tell("BARRIER=1", &[writer.as_raw_fd()]);
        drop(writer);
        let _ = poll(
            &mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)],
            BARRIER_MS,
        );
    }

    /// Sends `message` to the manager. A failure is only a warning: the container runs, whether its
    /// manager hears of it or not.
    fn tell(&self, message: &str, fds: &[i32]) {
        let vector = [IoSlice::new(message.as_bytes())];
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(self.manager.as_raw_fd(), &vector, rights, flags, None);
        if let Err(errno) = sent {
            log::warn(format!("NOTIFY_SOCKET: {}", error::line(&errno.into())));
        }
    }
}
