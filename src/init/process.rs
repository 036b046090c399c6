//! What init does to itself: it drops what it has inherited from the parent, becomes the user,
//! gives up its rights, and executes the program.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, makedev, stat, umask};
use nix::unistd::{
    AccessFlags, Gid, Uid, access, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fchdir, fchown,
    getpid, setgroups, setresgid, setresuid, setsid,
};

use super::diagnosis::refusal;
use super::landlock;
use super::seccomp::{self, FilterUser};
use crate::config::capabilities::Capabilities;
use crate::container::protocol::InitEnd;
use crate::error::{InPhase, Phase};
use crate::plan::{Plan, ProgramPlan, set_variable};
use crate::security::seccomp::SeccompFilter;
use crate::sys::procfd::ProcFd;
use crate::sys::rootfd::{RootFd, kind};
use crate::{namespace, sys};

/// How much of `/etc/passwd` is read at most, in bytes.
const PASSWD_MAX: usize = 1 << 20;
/// Permissions of a new session keyring: those that the kernel gives it (all to the possessor;
/// view, read and link to its user), and search for its user.
const KEYRING_PERMISSIONS: u32 = 0x3f1b_0000;
/// <linux/capability.h>, which libc does not have.
const CAP_SETGID: u64 = 6;

/// The program, already looked up, in a process that is confined.
#[derive(Debug)]
pub(super) struct ReadyProgram<'a> {
    program: &'a ProgramPlan,
    path: CString,
    env: Vec<CString>,
    /// The ruleset of [`landlock`].
    rules: Option<OwnedFd>,
    /// Whether this process is under its filter already.
    is_filtered: bool,
}

/// Drops what this process has inherited from the parent: every descriptor but `keep` and those
/// that are passed on to the program, the signal mask, and the signals that are ignored.
pub(super) fn leave_parent(plan: &Plan, keep: Vec<RawFd>) -> Result<()> {
    sys::close_all_but(keep, 3 + plan.preserve_fds).context("close_range")?;
    for signal in &plan.ignored_signals {
        sys::restore_signal(*signal).with_context(|| format!("signal {signal}"))?;
    }
    let none = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&none), None).context("the signal mask")
}

/// Sets the CPUs of the program. On version 2 the process is in its cgroup by now, which says which
/// CPUs there are, unless that was too crowded to clone into. Version 1 cgroups it enters later.
pub(super) fn take_cpus(plan: &Plan) -> Result<()> {
    match &plan.affinity.last {
        Some(cpus) => {
            sys::set_affinity(cpus.mask()).context("the CPUs (process.execCPUAffinity.final)")
        }
        None => Ok(()),
    }
}

/// Sets the labels that the process takes on with its next execve, and closes the procfs. They have
/// no effect before, so that they may be set before no_new_privs and before all rights are gone.
/// startContainer hooks run under them, too, as in runc.
pub(super) fn label(plan: &Plan, proc: Option<ProcFd>) -> Result<()> {
    match (plan.labels(), proc) {
        (Some(labels), Some(proc)) => labels.set(&proc),
        _ => Ok(()),
    }
}

/// Starts a new session, which this process leads.
pub(super) fn lead_session() -> Result<()> {
    setsid().context("setsid").map(drop)
}

pub(super) fn own_keyring(plan: &Plan, proc: Option<&ProcFd>) -> Result<()> {
    let Some(name) = plan.keyring.as_deref() else {
        return Ok(());
    };
    if let (Some(labels), Some(proc)) = (plan.labels(), proc) {
        labels.set_of_keyring(proc)?;
    }
    match join_keyring(name, plan.root.is_some()) {
        // The kernel has no keyrings, or an outer seccomp filter refuses them.
        Ok(()) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno).context("a session keyring (--no-new-keyring)"),
    }
}

/// Joins the session keyring `name`. `exec` finds the container's keyring by its name, but only one
/// that may be searched, so that a `new` one gets that permission.
fn join_keyring(name: &CStr, new: bool) -> nix::Result<()> {
    let serial = sys::join_session_keyring(name)?;
    match new {
        true => sys::set_key_permissions(serial, KEYRING_PERMISSIONS),
        false => Ok(()),
    }
}

/// Gives up what the program may not have, becomes the user, and looks the program up. Each step
/// comes as late as its rights allow.
pub(super) fn confine<'a>(program: &'a ProgramPlan, root: &RootFd) -> Result<ReadyProgram<'a>> {
    let entered = enter_directory(program, root);
    let env = environment(program, root);
    let rules = match &program.landlock {
        Some(wanted) => Some(landlock::rules(wanted, root)?),
        None => None,
    };
    own_standard_streams(program, root)?;
    if let Some(mask) = program.umask {
        umask(Mode::from_bits_truncate(mask));
    }
    if let Some(domain) = program.personality {
        sys::set_personality(domain).context("linux.personality")?;
    }
    if program.no_new_privileges {
        prctl::set_no_new_privs().context("process.noNewPrivileges")?;
    }
    become_user(program)?;
    // On some file systems (FUSE, NFS) the user may enter directories that root may not.
    entered.or_else(|_| enter_directory(program, root))?;
    let path = find_executable(program).phase(Phase::Exec)?;
    Ok(ReadyProgram {
        program,
        path,
        env,
        rules,
        is_filtered: false,
    })
}

/// Enters the working directory of the program. The look-up cannot leave the root and follows no
/// magic link, so that the directory is never one that leaked from the host (CVE-2024-21626).
fn enter_directory(program: &ProgramPlan, root: &RootFd) -> Result<()> {
    let context = || format!("process.cwd {}", program.cwd.display());
    if program.cwd == Path::new("/") {
        return chdir("/").with_context(context);
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let directory = root.open(&program.cwd, flags).with_context(context)?;
    fchdir(directory).with_context(context)
}

/// Gives the standard streams to the program's user, as runc does, so that `/dev/stdout` can be
/// opened again. A device is never given away (CVE-2026-88264), nor a file that is open for reading
/// only: users who redirect a file of theirs into a container do not give it away. The host's null
/// device is replaced with the container's, so that nothing of the host's file systems stays open.
fn own_standard_streams(program: &ProgramPlan, root: &RootFd) -> Result<()> {
    let mut null = None;
    for (number, stream) in sys::standard_streams().into_iter().enumerate() {
        let Ok(stat) = fstat(stream) else {
            continue;
        };
        if is_null_device(&stat) {
            null = null.or_else(|| null_device(root));
            if let Some(null) = &null {
                let replaced = replace_stream(number, null);
                replaced.with_context(|| format!("standard stream {number}"))?;
            }
            continue;
        }
        if program.uid == 0 || stat.st_uid == program.uid || !may_change_hands(stream, &stat) {
            continue;
        }
        match fchown(stream, Some(Uid::from_raw(program.uid)), None) {
            // A read-only file system, or an owner that this user namespace does not know.
            Ok(()) | Err(Errno::EPERM | Errno::EROFS | Errno::EINVAL) => {}
            Err(errno) => return Err(errno).with_context(|| format!("standard stream {number}")),
        }
    }
    Ok(())
}

fn may_change_hands(stream: BorrowedFd<'_>, stat: &FileStat) -> bool {
    match kind(stat) {
        SFlag::S_IFCHR | SFlag::S_IFBLK | SFlag::S_IFDIR => false,
        SFlag::S_IFREG => fcntl(stream, FcntlArg::F_GETFL)
            .is_ok_and(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY),
        _ => true,
    }
}

fn replace_stream(number: usize, by: &OwnedFd) -> nix::Result<()> {
    match number {
        0 => dup2_stdin(by),
        1 => dup2_stdout(by),
        _ => dup2_stderr(by),
    }
}

fn is_null_device(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFCHR && stat.st_rdev == makedev(1, 3)
}

/// Opens the container's `/dev/null`. `None` if it has something else in its place.
fn null_device(root: &RootFd) -> Option<OwnedFd> {
    let path = Path::new("/dev/null");
    // The file is examined before it is opened: not every file may be opened only to see what it
    // is.
    let found = root.open_without_links(path, OFlag::O_PATH).ok()?;
    fstat(&found).ok().filter(is_null_device)?;
    let device = root
        .open_without_links(path, OFlag::O_RDWR | OFlag::O_NOCTTY)
        .ok()?;
    fstat(&device)
        .is_ok_and(|stat| is_null_device(&stat))
        .then_some(device)
}

fn become_user(program: &ProgramPlan) -> Result<()> {
    let capabilities = &program.capabilities;
    drop_bounding(capabilities.bounding).context("process.capabilities.bounding")?;
    prctl::set_keepcaps(true).context("PR_SET_KEEPCAPS")?;
    if !program.keeps_groups {
        set_groups(program).context("process.user.additionalGids")?;
    }
    let gid = Gid::from_raw(program.gid);
    setresgid(gid, gid, gid).with_context(|| format!("process.user.gid {gid}"))?;
    let uid = Uid::from_raw(program.uid);
    setresuid(uid, uid, uid).with_context(|| format!("process.user.uid {uid}"))?;
    set_capabilities(capabilities, to_load(program)).context("process.capabilities")?;
    namespace::hide()
}

/// Sets the supplementary groups. A process with CAP_SETGID gets EPERM only in a user namespace
/// whose `/proc/PID/setgroups` says "deny" (user_namespaces(7)), as it must if an ordinary user
/// maps no group but their own. No group can be dropped there either.
fn set_groups(program: &ProgramPlan) -> Result<()> {
    let groups: Vec<Gid> = program.groups.iter().copied().map(Gid::from_raw).collect();
    match setgroups(&groups) {
        Err(Errno::EPERM) if sys::permitted_capabilities()? & 1 << CAP_SETGID != 0 => {
            if groups.is_empty() {
                return Ok(());
            }
            bail!("groups cannot be set in this user namespace")
        }
        result => Ok(result?),
    }
}

fn drop_bounding(keep: u64) -> nix::Result<()> {
    for capability in 0..64u8 {
        if keep & 1 << capability == 0 {
            match sys::bounding_drop(capability) {
                // The number is beyond the last capability of this kernel.
                Err(Errno::EINVAL) => break,
                result => result?,
            }
        }
    }
    Ok(())
}

/// Returns CAP_SYS_ADMIN if a filter or Landlock rules are to be loaded without no_new_privs, which
/// takes it. It stays until execve, which computes the program's sets from the other sets, so that
/// no call of `rt` to drop it has to pass the filter.
fn to_load(program: &ProgramPlan) -> u64 {
    let confines_itself = program.filter.is_some() || program.landlock.is_some();
    match confines_itself && !program.no_new_privileges {
        true => caps::Capability::CAP_SYS_ADMIN.bitmask(),
        false => 0,
    }
}

fn set_capabilities(sets: &Capabilities, more: u64) -> nix::Result<()> {
    sys::capset(
        sets.effective | more,
        sets.permitted | more,
        sets.inheritable,
    )?;
    sys::ambient_clear()?;
    for capability in (0..64u8).filter(|capability| sets.ambient & 1 << capability != 0) {
        sys::ambient_raise(capability)?;
    }
    Ok(())
}

/// Returns the environment as configured, with HOME from the container's passwd where it is
/// missing.
fn environment(program: &ProgramPlan, root: &RootFd) -> Vec<CString> {
    let mut env = program.env.clone();
    if program.wants_home {
        let home = home_of(program.uid, root).unwrap_or_else(|| b"/".to_vec());
        env.extend(CString::new([b"HOME=".as_slice(), &home].concat()));
    }
    env
}

/// Returns the home directory in the first entry for `uid`. `None` if there is no such entry, or if
/// anything is odd about the file.
fn home_of(uid: u32, root: &RootFd) -> Option<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = root.open(Path::new("/etc/passwd"), flags).ok()?;
    if crate::sys::rootfd::file_type(&file) != Ok(SFlag::S_IFREG) {
        return None;
    }
    let passwd = sys::read_at_most(&file, PASSWD_MAX).ok()?;
    find_home(&passwd, uid).map(<[u8]>::to_vec)
}

fn find_home(passwd: &[u8], uid: u32) -> Option<&[u8]> {
    let uid = uid.to_string();
    passwd.split(|&byte| byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
        match fields[..] {
            [_, _, id, _, _, home, ..] if id == uid.as_bytes() && !home.is_empty() => Some(home),
            _ => None,
        }
    })
}

/// Returns the program's path as execve takes it. The texts of the errors are those that docker and
/// podman turn into exit status 127 and 126: no error about something else may contain them.
fn find_executable(program: &ProgramPlan) -> Result<CString> {
    let Some(name) = program.args.first() else {
        bail!("process.args: empty")
    };
    let shown = name.to_string_lossy();
    if name.as_bytes().contains(&b'/') {
        return match executable(name) {
            Ok(()) => Ok(name.clone()),
            Err(Errno::ENOENT) => bail!("exec: {shown:?}: stat {shown}: no such file or directory"),
            Err(errno) => Err(refusal(&shown, &from_root(program, name), errno)),
        };
    }
    let mut refused = None;
    for directory in program.path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let path = CString::new([directory.as_bytes(), b"/", name.as_bytes()].concat())?;
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(Errno::EACCES) => refused = Some(path),
            Err(_) => {}
        }
    }
    match refused {
        Some(path) => Err(refusal(&shown, &from_root(program, &path), Errno::EACCES)),
        None => bail!("exec: {shown:?}: executable file not found in $PATH"),
    }
}

/// Returns `path`, which is relative to the working directory unless it is absolute, as a path from
/// the root.
fn from_root(program: &ProgramPlan, path: &CStr) -> PathBuf {
    program.cwd.join(OsStr::from_bytes(path.to_bytes()))
}

fn executable(path: &CStr) -> nix::Result<()> {
    if kind(&stat(path)?) == SFlag::S_IFDIR {
        return Err(Errno::EACCES);
    }
    access(path, AccessFlags::X_OK)
}

impl ReadyProgram<'_> {
    /// The program's environment.
    pub(super) fn env(&self) -> &[CString] {
        &self.env
    }

    /// The descriptor that has to stay open until the program is executed.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.rules.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Makes the messenger, the second thread that a filter with an agent needs.
    pub(super) fn prepare_filter(&self) -> Result<()> {
        self.filter().map_or(Ok(()), seccomp::prepare)
    }

    /// The filter, if this process is not under it yet.
    fn filter(&self) -> Option<&SeccompFilter> {
        self.program.filter.as_ref().filter(|_| !self.is_filtered)
    }

    /// Confines a process that is about to execute a startContainer hook. The hook is code of the
    /// image, so the limits, Landlock rules and filter of the program hold for it as well.
    pub(super) fn confine_hook(&self, starter: &InitEnd) -> Result<()> {
        if let Some(filter) = self.filter() {
            seccomp::prepare(filter)?;
        }
        self.set_limits()?;
        self.rules.as_ref().map_or(Ok(()), landlock::restrict)?;
        match self.filter() {
            Some(filter) => seccomp::load(filter, starter, FilterUser::Hook),
            None => Ok(()),
        }
    }

    fn set_limits(&self) -> Result<()> {
        self.program.rlimits.iter().try_for_each(|limit| {
            sys::set_rlimit(limit.resource, limit.soft, limit.hard)
                .with_context(|| limit.origin.clone())
        })
    }

    /// Sets `LISTEN_PID` to this process's own pid, if sockets of a service manager are passed on.
    pub(super) fn learn_pid(&mut self) {
        if self.program.has_sockets {
            let own = getpid().to_string();
            // A number holds no NUL byte.
            let _ = set_variable(&mut self.env, "LISTEN_PID", own.as_bytes());
        }
    }

    /// Runs in a builder: puts this process, and so the process that it will clone, under Landlock
    /// and the filter, and drops the capability that only they need. A filter that stops one of the
    /// calls that are still to come is left for the last moment before execve(2).
    pub(super) fn restrict_early(&mut self) -> Result<()> {
        if let Some(rules) = self.rules.take() {
            landlock::restrict(&rules)?;
        }
        if let Some(filter) = &self.program.filter {
            if !seccomp::may_come_early(filter) {
                return Ok(());
            }
            sys::set_filter(&filter.program, filter.terms.flags).context("linux.seccomp")?;
            self.is_filtered = true;
        }
        if to_load(self.program) == 0 {
            return Ok(());
        }
        let sets = &self.program.capabilities;
        sys::capset(sets.effective, sets.permitted, sets.inheritable)
            .context("process.capabilities")
    }

    /// Sets the limits, which from then on hold for init, too, applies Landlock and the filter, and
    /// executes the program.
    pub(super) fn execute(self, starter: &InitEnd) -> Result<Infallible> {
        let execution = sys::Execution::new(&self.path, &self.program.args, &self.env);
        self.set_limits()?;
        if let Some(rules) = &self.rules {
            landlock::restrict(rules)?;
        }
        match self.filter() {
            Some(filter) => {
                seccomp::load(filter, starter, FilterUser::Program)?;
            }
            None => starter.executing(),
        }
        let errno = execution.run();
        let path = from_root(self.program, &self.path);
        Err(refusal(&self.path.to_string_lossy(), &path, errno)).phase(Phase::Exec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_that_of_the_first_entry_of_the_user() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbad\na:x:10:10::/a:/b\nb:x:10:10::/b:/b\n";
        assert_eq!(find_home(passwd, 0), Some(b"/root".as_slice()));
        assert_eq!(find_home(passwd, 10), Some(b"/a".as_slice()));
        assert_eq!(find_home(passwd, 1), None);
    }
}
