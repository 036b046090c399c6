//! The state directory: what one command leaves for the next, in one directory per container below
//! `--root`.
//!
//! | file | what it is |
//! |---|---|
//! | the directory | its mkdir(2) claims the id; a flock(2) on it serialises commands |
//! | `state.json` | [`ContainerRecord`]: first the intent, later init's pid and the progress |
//! | `config.json` | a copy of the configuration, for `checkpoint` |
//! | `process.json` | `process` of the configuration, for `exec` |
//! | `seccomp.bpf` | the program of the container's filter, for `exec` |
//! | `start.sock` | the start socket, which init holds until its program runs |
//! | `notify` | what the container sees at `/run/notify`, if a service manager waits for it |
//!
//! The status is not stored but derived from the live process. *Created*: init is alive and the
//! start socket answers; *running*: init is alive and the socket does not answer; *paused*: the
//! cgroup is frozen; *stopped*: init is gone, or has begun to exit.

mod lock;
mod record;
mod remains;

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{AccessFlags, Pid, faccessat, write};

use crate::error::{InPhase, Phase};
use crate::id::check_id;
use crate::process::Process;
use crate::security::seccomp::SeccompFilter;
use crate::sys;

use lock::lock_by;
pub use lock::{LockBusy, StateLock};
pub use record::{ContainerRecord, ContainerStatus, CreateProgress};

const STATE_FILE: &str = "state.json";
const NEW_STATE_FILE: &str = ".state.json.new";
const CONFIG_FILE: &str = "config.json";
const PROCESS_FILE: &str = "process.json";
const FILTER_FILE: &str = "seccomp.bpf";
const LISTENER: &str = "start.sock";
pub const NOTIFY_DIRECTORY: &str = "notify";
pub const NOTIFY_SOCKET: &str = "notify.sock";
/// Every file that may be in a state directory.
const FILES: [&str; 6] = [
    LISTENER,
    CONFIG_FILE,
    PROCESS_FILE,
    FILTER_FILE,
    NEW_STATE_FILE,
    STATE_FILE,
];
/// How long a command waits for another command that works on the same container.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
/// How often the claim of an id is tried, if its directory is removed at the same moment.
const CLAIMS: u32 = 20;

/// A container: its state directory, and the record in it.
#[derive(Debug)]
pub struct Container {
    directory: OwnedFd,
    /// The directory `--root`, for error texts and for the removal.
    root: PathBuf,
    pub record: ContainerRecord,
    /// Why the record could not be read. The record is then made of what else is known.
    pub fault: Option<Error>,
    /// Whether the record cannot be read, or what it says of cgroups cannot be true.
    pub is_damaged: bool,
    /// Whether nothing exists but the claim of the id.
    pub is_bare: bool,
}

/// The content of a state directory.
enum FoundContainer {
    Record(Box<ContainerRecord>),
    /// A file that is no record: why it is none, and its bytes.
    NoRecord(Error, Vec<u8>),
    /// Nothing: the container is being claimed or removed at this moment, or the command that did
    /// so was killed.
    Nothing,
}

impl Container {
    /// Opens the container `id` and locks it, so that its record stays true. Returns `None` if
    /// there is no such container.
    pub fn open_locked(root: &Path, id: &str) -> Result<Option<(Self, StateLock)>> {
        let found = Self::open_locked_by(root, id, Instant::now() + LOCK_LIMIT)?;
        found
            .map(|(container, lock)| Ok((container.readable()?, lock)))
            .transpose()
    }

    /// Opens the container `id` and locks it, even if its record cannot be read. Waits for the lock
    /// until `deadline`.
    pub fn open_locked_by(
        root: &Path,
        id: &str,
        deadline: Instant,
    ) -> Result<Option<(Self, StateLock)>> {
        check_id(id)?;
        let Some(directory) = existing(&root.join(id))? else {
            return Ok(None);
        };
        let Some(lock) = lock_by(directory, id, deadline)? else {
            return Ok(None);
        };
        let directory = reopen(&lock.0).context("the state directory")?;
        Ok(Some((Self::load(directory, root, id)?, lock)))
    }

    /// Opens the container `id`, which must exist, and locks it.
    pub fn open_existing_locked(root: &Path, id: &str) -> Result<(Self, StateLock)> {
        Self::open_locked(root, id)?.ok_or_else(|| missing(id))
    }

    /// Locks this very container once more. Returns `None` if it has been removed, even if another
    /// container has its name now.
    pub fn lock(&self) -> Result<Option<StateLock>> {
        match reopen(&self.directory) {
            Err(Errno::ENOENT) => Ok(None),
            result => {
                let directory = result.context("the state directory")?;
                lock_by(directory, &self.record.id, Instant::now() + LOCK_LIMIT)
            }
        }
    }

    /// Claims the id and records the intent; both are taken back if that fails.
    pub fn claim(root: &Path, record: ContainerRecord) -> Result<(Self, StateLock)> {
        check_id(&record.id)?;
        let lock = claim_directory(root, &record.id)?;
        let directory = reopen(&lock.0).context("the state directory")?;
        let container = Self::new(directory, root, record);
        match container.save() {
            Ok(()) => Ok((container, lock)),
            Err(error) => {
                let _ = container.remove();
                Err(error)
            }
        }
    }

    /// Opens the container `id`, which must exist.
    pub fn open_existing(root: &Path, id: &str) -> Result<Self> {
        Self::find_readable(root, id)?.ok_or_else(|| missing(id))
    }

    /// Opens the container `id` if there is one.
    pub fn find_readable(root: &Path, id: &str) -> Result<Option<Self>> {
        Self::find_any(root, id)?.map(Self::readable).transpose()
    }

    /// Opens the container `id` if there is one, even if its record cannot be read.
    pub fn find_any(root: &Path, id: &str) -> Result<Option<Self>> {
        check_id(id)?;
        let Some(directory) = existing(&root.join(id))? else {
            return Ok(None);
        };
        let container = Self::load(directory, root, id)?;
        Ok((!container.is_bare).then_some(container))
    }

    fn new(directory: OwnedFd, root: &Path, record: ContainerRecord) -> Self {
        Self {
            directory,
            root: root.to_owned(),
            record,
            fault: None,
            is_damaged: false,
            is_bare: false,
        }
    }

    /// Reads what is in the state directory of the container `id`.
    fn load(directory: OwnedFd, root: &Path, id: &str) -> Result<Self> {
        let mut container = match Self::read(&directory, id)? {
            FoundContainer::Record(mut record) => {
                // The name of the directory is the id, whatever the file says.
                id.clone_into(&mut record.id);
                Self::new(directory, root, *record)
            }
            FoundContainer::NoRecord(fault, bytes) => {
                let record = ContainerRecord::from_remains(&directory, id, &bytes);
                Self {
                    fault: Some(fault),
                    is_damaged: true,
                    ..Self::new(directory, root, record)
                }
            }
            // A `create` was killed between the claim and the intent: nothing else can exist.
            FoundContainer::Nothing => {
                let record = ContainerRecord::empty(id);
                Self {
                    is_bare: true,
                    ..Self::new(directory, root, record)
                }
            }
        };
        // The start socket is bound when the cgroups have been made; the record says so only later.
        if container.record.progress == CreateProgress::Creating && container.has_listener() {
            container.record.cgroup.own();
        }
        Ok(container)
    }

    /// Returns the container, or an error with the reason why its record cannot be read and what to
    /// do about that.
    pub fn readable(self) -> Result<Self> {
        match self.fault {
            None => Ok(self),
            Some(fault) => Err(fault.context(UnreadableState(self.record.id))),
        }
    }

    fn read(directory: &OwnedFd, id: &str) -> Result<FoundContainer> {
        let read = || sys::read_file_at(directory, STATE_FILE);
        let bytes = match read() {
            // The record is written before the copy of the configuration, and removed after it.
            Err(Errno::ENOENT) if !has_file(directory, CONFIG_FILE) => {
                return Ok(FoundContainer::Nothing);
            }
            Err(Errno::ENOENT) => read(),
            result => result,
        };
        let fault = |error: Error| error.context(STATE_FILE);
        match bytes {
            Ok(bytes) => Ok(match serde_json::from_slice(&bytes) {
                Ok(record) => FoundContainer::Record(Box::new(record)),
                Err(error) => FoundContainer::NoRecord(fault(error.into()), bytes),
            }),
            Err(errno @ (Errno::ENOENT | Errno::EISDIR | Errno::ELOOP)) => {
                Ok(FoundContainer::NoRecord(fault(errno.into()), vec![]))
            }
            Err(errno) => Err(errno).with_context(|| format!("{STATE_FILE} of {id}")),
        }
    }

    /// Returns every container below `root`, sorted by id, and an error for each one that cannot be
    /// read: it does not hide the others.
    pub fn all(root: &Path) -> Result<(Vec<Self>, Vec<Error>)> {
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        let entries = sys::list_directory(root);
        for entry in entries.with_context(|| format!("--root {}", root.display()))? {
            let Some(id) = entry.name.to_str().filter(|id| check_id(id).is_ok()) else {
                continue;
            };
            match Self::find_readable(root, id) {
                Ok(found) => all.extend(found),
                Err(error) => errors.push(error),
            }
        }
        all.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        Ok((all, errors))
    }

    /// Whether a command holds the lock right now.
    fn is_locked(&self) -> bool {
        let again = open_directory(&self.path()).map(File::from);
        again.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Waits until no command holds the lock, but no longer than `limit`.
    pub fn wait_for_turn(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.is_locked() && Instant::now() < deadline {
            sys::sleep(Duration::from_millis(2));
        }
    }

    /// The descriptor of the state directory.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    fn path(&self) -> PathBuf {
        self.root.join(&self.record.id)
    }

    /// Replaces `state.json` in one step.
    pub fn save(&self) -> Result<()> {
        self.replace_record().phase(Phase::State)
    }

    fn replace_record(&self) -> Result<()> {
        let bytes = serde_json::to_vec(&self.record)?;
        self.write(NEW_STATE_FILE, &bytes)?;
        renameat(&self.directory, NEW_STATE_FILE, &self.directory, STATE_FILE).context(STATE_FILE)
    }

    /// Stores a copy of the configuration for `checkpoint`: by then the bundle's file may have
    /// changed or be gone.
    pub fn save_config(&self, bytes: &[u8]) -> Result<()> {
        self.write(CONFIG_FILE, bytes)
    }

    /// The path of the copy that [`Self::save_config`] stores.
    pub fn config(&self) -> PathBuf {
        self.path().join(CONFIG_FILE)
    }

    /// Stores `process` of the configuration for `exec`.
    pub fn save_process(&self, process: Option<&oci_spec::runtime::Process>) -> Result<()> {
        match process {
            Some(process) => self.write(PROCESS_FILE, &serde_json::to_vec(process)?),
            None => Ok(()),
        }
    }

    /// Reads the bytes that [`Self::save_process`] stores.
    pub fn process(&self) -> Result<Vec<u8>> {
        sys::read_file_at(&self.directory, PROCESS_FILE)
            .with_context(|| format!("{}/{PROCESS_FILE}", self.path().display()))
    }

    /// Stores the compiled filter of the container for `exec`.
    pub fn save_filter(&self, filter: Option<&SeccompFilter>) -> Result<()> {
        match filter {
            Some(filter) => self.write(FILTER_FILE, &filter.to_bytes()),
            None => Ok(()),
        }
    }

    /// Reads the filter that [`Self::save_filter`] stores; `None` if the container has none.
    pub fn filter(&self) -> Result<Option<SeccompFilter>> {
        let Some(terms) = self.record.seccomp.clone() else {
            return Ok(None);
        };
        let bytes = sys::read_file_at(&self.directory, FILTER_FILE).map_err(Error::from);
        bytes
            .and_then(|bytes| SeccompFilter::from_bytes(&bytes, terms))
            .with_context(|| format!("{}/{FILTER_FILE}", self.path().display()))
            .map(Some)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
        let context = || format!("{}/{name}", self.path().display());
        let fd = openat(&self.directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .with_context(context)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[write(&fd, rest).with_context(context)?..];
        }
        Ok(())
    }

    /// Makes the start socket in the directory. Init inherits it, and so can be started.
    pub fn listen(&self) -> Result<OwnedFd> {
        let address = self.listener_address()?;
        listen_at(&address).context(LISTENER)
    }

    /// Connects to the start socket of an init that waits; `None` if init does not wait (any more).
    pub fn connect(&self) -> Result<Option<OwnedFd>> {
        let fd = connecting(SockType::SeqPacket)?;
        match connect(fd.as_raw_fd(), &self.listener_address()?) {
            Ok(()) => Ok(Some(fd)),
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno).context(LISTENER),
        }
    }

    /// Whether init waits for `start`. A connection with a socket of the wrong type gets EPROTOTYPE
    /// from a living listener, which does not even notice, and ECONNREFUSED from a dead one
    /// (unix(7)).
    fn waits_for_start(&self) -> Result<bool> {
        let fd = connecting(SockType::Stream)?;
        match connect(fd.as_raw_fd(), &self.listener_address()?) {
            Err(Errno::EPROTOTYPE) => Ok(true),
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno).context(LISTENER),
            Ok(()) => bail!("{LISTENER}: a stranger's socket"),
        }
    }

    fn has_listener(&self) -> bool {
        has_file(&self.directory, LISTENER)
    }

    /// Waits for the end of an init that is in no record: it has been killed, or ends by itself as
    /// soon as it notices that its parent is gone. Until then it holds the start socket.
    pub fn wait_for_orphan(&self, deadline: Instant) -> Result<()> {
        while self.waits_for_start().unwrap_or(false) {
            if Instant::now() >= deadline {
                let id = &self.record.id;
                bail!("{id}: its init, of which the record does not say the pid, does not end");
            }
            sys::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Returns the address of the start socket, through the descriptor of the directory: the path
    /// itself may be longer than the 107 bytes of a socket address.
    fn listener_address(&self) -> Result<UnixAddr> {
        let path = format!("/proc/self/fd/{}/{LISTENER}", self.directory.as_raw_fd());
        UnixAddr::new(path.as_str()).context(LISTENER)
    }

    /// Makes the process `pid` the init of the record.
    pub fn set_init(&mut self, pid: Pid) -> Result<()> {
        let process = Process::now(pid.as_raw()).phase(Phase::State)?;
        self.record.init = Some(process);
        Ok(())
    }

    /// Returns init's pidfd if init is alive.
    pub fn init(&self) -> Result<Option<OwnedFd>> {
        self.record.init.map_or(Ok(None), Process::open)
    }

    /// Returns the status now, and init's pidfd if init is alive.
    pub fn status(&self) -> Result<(ContainerStatus, Option<OwnedFd>)> {
        let init = self.init()?;
        let is_creating = self.record.progress == CreateProgress::Creating;
        let status = if init.is_none() {
            match is_creating && self.is_locked() {
                true => ContainerStatus::Creating,
                false => ContainerStatus::Stopped,
            }
        } else if is_creating {
            ContainerStatus::Creating
        } else if self.record.cgroup.is_frozen()? {
            ContainerStatus::Paused
        } else if self.waits_for_start()? {
            ContainerStatus::Created
        } else if self.record.init.is_some_and(Process::is_ending) {
            // A killed init has closed the start socket before its end shows, also if it has never
            // run the program.
            ContainerStatus::Stopped
        } else {
            ContainerStatus::Running
        };
        Ok((status, init))
    }

    /// Removes the directory. The lock must be held.
    pub fn remove(&self) -> Result<()> {
        let path = self.path();
        remove_directory(&path)
            .with_context(|| path.display().to_string())
            .phase(Phase::State)
    }
}

/// Returns the error for a container that does not exist, in runc's words, which engines look for.
pub fn missing(id: &str) -> Error {
    anyhow!("{id}: container does not exist")
}

/// Removes a state directory and the files that may be in it, as far as they exist.
fn remove_directory(path: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    };
    let remove = |names: &[&str]| {
        names
            .iter()
            .try_for_each(|name| gone(fs::remove_file(path.join(name))))?;
        fs::remove_dir(path)
    };
    match remove(&[LISTENER, CONFIG_FILE, PROCESS_FILE, STATE_FILE]) {
        // Only some directories have these: the socket for a service manager, a filter, and a
        // record that a killed command did not write to the end.
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
            let notify = path.join(NOTIFY_DIRECTORY);
            gone(fs::remove_file(notify.join(NOTIFY_SOCKET)))?;
            gone(fs::remove_dir(notify))?;
            gone(remove(&[FILTER_FILE, NEW_STATE_FILE]))
        }
        // On a damaged disk the record may have become a directory.
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            gone(fs::remove_dir(path.join(STATE_FILE)))?;
            gone(fs::remove_dir(path))
        }
        result => gone(result),
    }
}

/// Makes the state directory of container `id`, and locks it.
fn claim_directory(root: &Path, id: &str) -> Result<StateLock> {
    let path = root.join(id);
    // A `delete` may find the directory before it is locked, and remove it as the remains of a
    // killed command.
    for _ in 0..CLAIMS {
        make_directory(root, id)?;
        let directory = match open_directory(&path) {
            Err(Errno::ENOENT) => continue,
            opened => opened.with_context(|| path.display().to_string())?,
        };
        if let Some(lock) = lock_by(directory, id, Instant::now() + LOCK_LIMIT)? {
            return Ok(lock);
        }
    }
    bail!("{}: removed meanwhile", path.display())
}

/// Makes the state directory of container `id`, which is the claim of the id.
fn make_directory(root: &Path, id: &str) -> Result<()> {
    let path = root.join(id);
    let mut made = mkdirat(AT_FDCWD, &path, Mode::S_IRWXU);
    if made == Err(Errno::ENOENT) {
        let mut all = fs::DirBuilder::new();
        // The sticky bit tells programs that clean up XDG_RUNTIME_DIR to leave the directory alone.
        all.recursive(true).mode(0o1700);
        all.create(root)
            .with_context(|| format!("--root {}", root.display()))?;
        made = mkdirat(AT_FDCWD, &path, Mode::S_IRWXU);
    }
    if made != Err(Errno::EEXIST) {
        return made.with_context(|| path.display().to_string());
    }
    let exists = "container with given ID already exists";
    match Container::find_readable(root, id)
        .err()
        .filter(is_unreadable)
    {
        Some(error) => Err(error.context(exists)),
        None => bail!("{id}: {exists}"),
    }
}

fn has_file(directory: &OwnedFd, name: &str) -> bool {
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    faccessat(directory, name, AccessFlags::F_OK, flags).is_ok()
}

/// The error that the record of a container cannot be read, with what to do about it.
#[derive(Debug)]
struct UnreadableState(String);

impl std::fmt::Display for UnreadableState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{0}: its record cannot be read, `rt delete --force {0}` takes it away",
            self.0
        )
    }
}

fn is_unreadable(error: &Error) -> bool {
    error.downcast_ref::<UnreadableState>().is_some()
}

fn listen_at(address: &UnixAddr) -> nix::Result<OwnedFd> {
    let kind = SockType::SeqPacket;
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), address)?;
    listen(&fd, Backlog::new(8)?)?;
    Ok(fd)
}

/// Makes a socket for a connection. It does not block, so that a full queue is an error and no
/// wait.
fn connecting(kind: SockType) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, kind, flags, None).context(LISTENER)
}

/// Opens the state directory of a container, if there is one.
fn existing(path: &Path) -> Result<Option<OwnedFd>> {
    match open_directory(path) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        result => result.map(Some).with_context(|| path.display().to_string()),
    }
}

/// Opens a second open file description of the same directory, even if its name leads elsewhere
/// now. Neither of the two holds the other's lock.
fn reopen(directory: impl AsFd) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(directory, ".", flags, Mode::empty())
}

fn open_directory(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(AT_FDCWD, path, flags, Mode::empty())
}
