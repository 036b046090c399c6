//! The namespaces of a container: which are new, which are joined, and in what order, so that one
//! clone creates init for every combination of them. "Before" and "after" in the table mean the
//! clone; the parent returns to its own namespaces afterwards.
//!
//! | kind | new | joined |
//! |---|---|---|
//! | pid | at the clone | by the parent before; by a builder if there is one |
//! | time | by the parent before (unshare(2); offsets cannot be set later); by init if the user namespace is new | by the parent before |
//! | mount | at the clone | by init |
//! | network, uts, ipc | at the clone; by init after the id maps are written if the user namespace is new | by init; by the parent before if the user namespace is new |
//! | cgroup | by init after Go: at the clone it would get the wrong root on v1 | by init; by the parent before if the user namespace is new |
//! | user | at the clone; the parent writes the id maps before Go | by a middle process, see [`Namespaces::clone_in_user`], which joins all other kinds as well |

mod check;
mod id_map;
mod middle;
mod owner;

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Gid, Uid, geteuid, setresgid, setresuid};
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use crate::sys::{self, Fork};

pub use id_map::{IdMap, user_namespace};
pub use owner::is_root_of_host;

/// `CLONE_NEWTIME` (time_namespaces(7)), for which nix has no name.
pub const NEWTIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
/// The kinds that a new user namespace must own, but that must not be created before its root
/// exists: if all are created by one clone, the mqueue file system belongs to the overflow user.
const AFTER_ID_MAPS: CloneFlags = CloneFlags::CLONE_NEWNET
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC);
/// The kinds that only the children of a process get: pid, and time after unshare(2).
const FOR_CHILDREN: CloneFlags = CloneFlags::CLONE_NEWPID.union(NEWTIME);

/// A namespace that exists already and is joined.
#[derive(Debug)]
struct JoinedNamespace {
    kind: CloneFlags,
    fd: OwnedFd,
    /// The place in the configuration that names the namespace, for errors.
    origin: String,
}

/// The namespaces of a process that has yet to be created.
#[derive(Debug)]
pub struct Namespaces {
    new: CloneFlags,
    joined: Vec<JoinedNamespace>,
    /// For `exec`: the running process (a pidfd) whose namespaces `container_kinds` are joined.
    container: Option<OwnedFd>,
    container_kinds: CloneFlags,
    uids: IdMap,
    gids: IdMap,
    time_offsets: String,
    /// Whether the parent runs as an ordinary user. Init reads this as well: it may be root of its
    /// user namespace then.
    is_ordinary: bool,
}

impl Namespaces {
    /// Opens every namespace that the configuration names by path and checks its kind.
    pub fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Linux::default();
        let linux = spec.linux().as_ref().unwrap_or(&default);
        let mut this = Self {
            new: CloneFlags::empty(),
            joined: Vec::new(),
            container: None,
            container_kinds: CloneFlags::empty(),
            uids: IdMap::new(linux.uid_mappings()),
            gids: IdMap::new(linux.gid_mappings()),
            time_offsets: time_offsets(linux),
            is_ordinary: !geteuid().is_root(),
        };
        for (i, namespace) in linux.namespaces().iter().flatten().enumerate() {
            let kind = flag(namespace.typ());
            match namespace.path() {
                None => this.new |= kind,
                Some(path) => {
                    let origin = format!("linux.namespaces[{i}] {}", path.display());
                    this.join(kind, path, origin)?;
                }
            }
        }
        Ok(this)
    }

    /// Makes the process join the namespaces `kinds` of the running process `pidfd`.
    pub fn of_container(pidfd: OwnedFd, kinds: CloneFlags) -> Self {
        Self {
            new: CloneFlags::empty(),
            joined: Vec::new(),
            container: Some(pidfd),
            container_kinds: kinds,
            uids: IdMap::default(),
            gids: IdMap::default(),
            time_offsets: String::new(),
            is_ordinary: !geteuid().is_root(),
        }
    }

    fn join(&mut self, kind: CloneFlags, path: &Path, origin: String) -> Result<()> {
        let fd = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .with_context(|| origin.clone())?;
        match sys::namespace_kind(fd.as_fd()) {
            Ok(actual) if actual == kind.bits() => {}
            Ok(actual) => bail!(
                "{origin}: is a {} namespace, not a {} namespace",
                word(CloneFlags::from_bits_retain(actual)),
                word(kind)
            ),
            Err(_) => bail!("{origin}: is not a namespace"),
        }
        if kind == CloneFlags::CLONE_NEWNS && is_own(&fd, "mnt")? {
            bail!("{origin}: is the runtime's own mount namespace");
        }
        // setns(2) refuses the user namespace in which the process already is: then there is
        // nothing to join.
        if kind != CloneFlags::CLONE_NEWUSER || !is_own(&fd, "user")? {
            self.joined.push(JoinedNamespace { kind, fd, origin });
        }
        Ok(())
    }

    /// Returns the kinds in which the container differs from `rt` itself: those that `exec` has to
    /// join.
    pub fn kinds(&self) -> CloneFlags {
        self.new | self.container_kinds | self.joined_kinds()
    }

    fn joined_kinds(&self) -> CloneFlags {
        self.joined
            .iter()
            .fold(CloneFlags::empty(), |all, joined| all | joined.kind)
    }

    /// Whether the process gets another user namespace than that of `rt`.
    pub fn has_user(&self) -> bool {
        self.kinds().contains(CloneFlags::CLONE_NEWUSER)
    }

    /// Whether an ordinary user makes them.
    pub fn is_ordinary(&self) -> bool {
        self.is_ordinary
    }

    /// Returns them as root would make them, whoever runs the test.
    #[cfg(test)]
    pub fn of_root(self) -> Self {
        Self {
            is_ordinary: false,
            ..self
        }
    }

    /// Whether a new namespace of this kind is created.
    pub fn has_new(&self, kind: CloneFlags) -> bool {
        self.new.contains(kind)
    }

    /// Returns the numbers of the descriptors that init still needs after the clone.
    pub fn descriptors(&self) -> Vec<i32> {
        let container = self.container.iter().map(AsRawFd::as_raw_fd);
        self.joined
            .iter()
            .map(|joined| joined.fd.as_raw_fd())
            .chain(container)
            .collect()
    }

    fn joins(&self, kind: CloneFlags) -> bool {
        self.joined.iter().any(|joined| joined.kind == kind)
    }

    /// Returns the namespace of this kind that is joined by path, if there is one.
    pub fn joined(&self, kind: CloneFlags) -> Option<BorrowedFd<'_>> {
        self.joined
            .iter()
            .find(|joined| joined.kind == kind)
            .map(|joined| joined.fd.as_fd())
    }

    /// In the parent: clones init, or the builder that will clone it. On cgroup v2 the new process
    /// starts in `cgroup`.
    pub fn clone(&self, cgroup: Option<BorrowedFd<'_>>, has_builder: bool) -> Result<Fork> {
        if self.container.is_some() {
            return sys::clone3(0, cgroup).with_context(|| clone_of(cgroup));
        }
        if self.joins(CloneFlags::CLONE_NEWUSER) {
            let clone = || self.clone_in_user();
            return middle::clone_through(cgroup, || clone_of(cgroup), clone);
        }
        let mut before = self.kinds_joined_before_clone();
        if has_builder {
            before -= CloneFlags::CLONE_NEWPID;
        }
        let time = if self.new.contains(CloneFlags::CLONE_NEWUSER) {
            CloneFlags::empty()
        } else {
            self.new & NEWTIME
        };
        let home = Home::remember((before & self.joined_kinds()) | time)?;
        self.join_kinds(before)?;
        if !time.is_empty() {
            self.unshare_time()?;
        }
        let fork = sys::clone3(self.flags_at_clone().bits() as u64, cgroup)
            .with_context(|| format!("clone into new namespaces ({})", words(self.new)))?;
        if matches!(fork, Fork::Parent { .. }) {
            home.go_back()?;
        }
        Ok(fork)
    }

    /// In the middle process: joins the user namespace and clones init as a child of the parent.
    fn clone_in_user(&self) -> Result<Fork> {
        hide()?;
        // Init is visible in a pid namespace that it joins.
        sys::clear_command_line();
        if !self.is_ordinary {
            self.join_kinds((CloneFlags::all() | NEWTIME) - CloneFlags::CLONE_NEWUSER)?;
            self.join_kinds(CloneFlags::CLONE_NEWUSER)?;
        } else {
            // An ordinary user may join a namespace only if that user namespace owns it.
            self.join_kinds(CloneFlags::CLONE_NEWUSER)?;
            self.join_kinds((CloneFlags::all() | NEWTIME) - CloneFlags::CLONE_NEWUSER)?;
        }
        self.become_builder()?;
        self.unshare_time()?;
        let flags = self.flags_at_clone().bits() as u64 | libc::CLONE_PARENT as u64;
        sys::clone3(flags, None)
            .with_context(|| format!("clone into new namespaces ({})", words(self.new)))
    }

    fn kinds_joined_before_clone(&self) -> CloneFlags {
        if self.new.contains(CloneFlags::CLONE_NEWUSER) {
            // Init is created in the new user namespace and has no rights over namespaces of the
            // host then.
            FOR_CHILDREN | AFTER_ID_MAPS | CloneFlags::CLONE_NEWCGROUP
        } else {
            FOR_CHILDREN
        }
    }

    fn flags_at_clone(&self) -> CloneFlags {
        let late = if self.new.contains(CloneFlags::CLONE_NEWUSER) {
            AFTER_ID_MAPS
        } else {
            CloneFlags::empty()
        };
        self.new - NEWTIME - CloneFlags::CLONE_NEWCGROUP - late
    }

    fn join_kinds(&self, kinds: CloneFlags) -> Result<()> {
        for joined in self
            .joined
            .iter()
            .filter(|joined| kinds.contains(joined.kind))
        {
            match setns(&joined.fd, joined.kind) {
                Err(Errno::EPERM) if self.is_ordinary => {
                    bail!("{}: may not be joined by an ordinary user", joined.origin)
                }
                result => result.with_context(|| joined.origin.clone())?,
            }
        }
        Ok(())
    }

    fn unshare_time(&self) -> Result<()> {
        if self.new.contains(NEWTIME) {
            unshare(NEWTIME).context("a new time namespace")?;
            if !self.time_offsets.is_empty() {
                fs::write("/proc/self/timens_offsets", &self.time_offsets)
                    .context("linux.timeOffsets")?;
            }
        }
        Ok(())
    }

    /// In init, after it is confined: makes it visible again (see [`hide`]) if the parent runs as
    /// an ordinary user, who could not `exec` into a hidden process while it waits for `start`.
    /// Every other process in that user namespace was started by the same user.
    pub fn show(&self) -> Result<()> {
        match self.is_ordinary {
            true => prctl::set_dumpable(true).context("PR_SET_DUMPABLE"),
            false => Ok(()),
        }
    }

    /// In init: creates and enters a new time namespace, which the new user namespace owns.
    fn take_time(&self) -> Result<()> {
        if !self.new.contains(NEWTIME) {
            return Ok(());
        }
        // The files in /proc of a hidden process belong to root of the host, so init could not
        // write its offsets. No other process is in these namespaces yet that could trace it.
        prctl::set_dumpable(true).context("PR_SET_DUMPABLE")?;
        let taken = self.unshare_time().and_then(|()| {
            setns(open_own("time_for_children")?, NEWTIME).context("the new time namespace")
        });
        hide()?;
        taken
    }

    /// Becomes root of the user namespace that was just entered, or the first id of the map if that
    /// has no root. Changes nothing if a namespace that existed already does not have this id.
    fn become_builder(&self) -> Result<()> {
        let (uid, gid) = (
            Uid::from_raw(self.uids.builder()),
            Gid::from_raw(self.gids.builder()),
        );
        let changed = setresgid(gid, gid, gid).and_then(|()| setresuid(uid, uid, uid));
        match changed {
            // A user namespace that exists already need not map a root.
            Err(Errno::EINVAL) if !self.new.contains(CloneFlags::CLONE_NEWUSER) => {}
            result => result.context("root of the user namespace")?,
        }
        hide()
    }

    /// In the parent, between the clone and Go: writes the id maps of a new user namespace.
    pub fn write_id_maps(&self, pid: i32) -> Result<()> {
        if self.new.contains(CloneFlags::CLONE_NEWUSER) {
            id_map::write(pid, &self.uids, &self.gids)?;
        }
        Ok(())
    }

    /// In a builder: joins the pid namespace for the processes that it will clone.
    pub fn join_pid(&self) -> Result<()> {
        self.join_kinds(CloneFlags::CLONE_NEWPID)
    }

    /// In init, after Go: creates and joins the namespaces that it did not get at the clone.
    pub fn enter(&self) -> Result<()> {
        if let Some(container) = &self.container {
            if !self.container_kinds.is_empty() {
                setns(container, self.container_kinds).context("the container's namespaces")?;
            }
            return if self.has_user() {
                self.become_builder()
            } else {
                Ok(())
            };
        }
        if self.new.contains(CloneFlags::CLONE_NEWUSER) {
            self.become_builder()?;
            self.take_time()?;
            unshare(self.new & AFTER_ID_MAPS)
                .with_context(|| format!("new namespaces ({})", words(self.new & AFTER_ID_MAPS)))?;
            self.join_kinds(CloneFlags::CLONE_NEWNS)?;
        } else if !self.joins(CloneFlags::CLONE_NEWUSER) {
            self.join_kinds(CloneFlags::all() - FOR_CHILDREN)?;
        }
        if self.new.contains(CloneFlags::CLONE_NEWCGROUP) {
            unshare(CloneFlags::CLONE_NEWCGROUP).context("a new cgroup namespace")?;
        }
        Ok(())
    }
}

/// Namespaces of the parent, to which it returns after a clone into others.
struct Home(Vec<(CloneFlags, OwnedFd)>);

impl Home {
    fn remember(kinds: CloneFlags) -> Result<Self> {
        let mut home = Vec::new();
        for (kind, name) in FILES {
            if kinds.contains(kind) {
                home.push((kind, open_own(name)?));
            }
        }
        Ok(Self(home))
    }

    fn go_back(&self) -> Result<()> {
        for (kind, fd) in &self.0 {
            setns(fd, *kind).with_context(|| format!("back to the own {}", word(*kind)))?;
        }
        Ok(())
    }
}

/// The kinds, and the names of their files below `/proc/self/ns`.
const FILES: [(CloneFlags, &str); 8] = [
    (CloneFlags::CLONE_NEWUSER, "user"),
    (CloneFlags::CLONE_NEWPID, "pid"),
    (NEWTIME, "time"),
    (CloneFlags::CLONE_NEWNS, "mnt"),
    (CloneFlags::CLONE_NEWNET, "net"),
    (CloneFlags::CLONE_NEWUTS, "uts"),
    (CloneFlags::CLONE_NEWIPC, "ipc"),
    (CloneFlags::CLONE_NEWCGROUP, "cgroup"),
];

fn open_own(name: &str) -> Result<OwnedFd> {
    let path = format!("/proc/self/ns/{name}");
    open(
        path.as_str(),
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .context(path)
}

fn is_own(fd: &OwnedFd, name: &str) -> Result<bool> {
    let (theirs, ours) = (fstat(fd)?, fstat(open_own(name)?)?);
    Ok((theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino))
}

/// Hides this process: no process of the container may trace it or read its memory before it
/// executes the program (`PR_SET_DUMPABLE`). A change of user resets the flag to the value of
/// fs.suid_dumpable, and execve(2) makes the process dumpable again.
pub fn hide() -> Result<()> {
    prctl::set_dumpable(false).context("PR_SET_DUMPABLE")
}

fn flag(kind: LinuxNamespaceType) -> CloneFlags {
    match kind {
        LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
        LinuxNamespaceType::Time => NEWTIME,
        LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
    }
}

fn word(kind: CloneFlags) -> &'static str {
    match FILES.iter().find(|(flag, _)| *flag == kind) {
        Some((_, "mnt")) => "mount",
        Some((_, "net")) => "network",
        Some((_, name)) => name,
        None => "unknown",
    }
}

/// Returns the name of every kind as in `linux.namespaces`, for `features`.
pub fn words_of_all() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(kind, _)| word(*kind))
}

fn words(kinds: CloneFlags) -> String {
    let names: Vec<_> = FILES
        .iter()
        .filter(|(kind, _)| kinds.contains(*kind))
        .map(|(kind, _)| word(*kind))
        .collect();
    names.join(", ")
}

/// Returns the lines for `timens_offsets` (time_namespaces(7)): clock, seconds, nanoseconds.
fn time_offsets(linux: &Linux) -> String {
    let offsets = linux.time_offsets().iter().flatten();
    offsets
        .map(|(clock, offset)| {
            let (seconds, nanoseconds) =
                (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            format!("{clock} {seconds} {nanoseconds}\n")
        })
        .collect()
}

/// Returns what a failed clone was for, for its error: an ordinary user may not put a process into
/// every cgroup that the user owns (cgroups(7) "Delegation containment").
fn clone_of(cgroup: Option<BorrowedFd<'_>>) -> &'static str {
    if cgroup.is_some() {
        "clone into the container's cgroup"
    } else {
        "clone"
    }
}
