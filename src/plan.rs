//! The configuration decided into data that init only walks. Everything that allocates, can be
//! computed or must be opened with the caller's rights happens here, before the clone.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::SFlag;
use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceType, Mount, PosixRlimit, PosixRlimitType, Process, Spec,
};

use crate::caps::{self, Capabilities};
use crate::cgroup::Cgroup;
use crate::mounts::{self, Bind, Options, Propagation};
use crate::namespace::Namespaces;
use crate::procfd::ProcFd;
use crate::state::{self, Record};
use crate::{spec, sys};

/// Where a program is looked up when the process has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the first process of a container, or a process that joins one, does.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) namespaces: Namespaces,
    /// `None`: the process joins a container and finds its root there.
    pub(crate) root: Option<Root>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    /// Paths below `/proc/sys` and what to write there.
    pub(crate) sysctls: Vec<(PathBuf, String)>,
    /// The name of a new session keyring.
    pub(crate) keyring: Option<CString>,
    /// `None`: there is nothing to run, the container stops when it is started.
    pub(crate) process: Option<Program>,
    /// The private procfs, where something has to be written to it.
    pub(crate) proc: Option<ProcFd>,
    /// How many descriptors from 3 on pass to the program.
    pub(crate) preserve_fds: u32,
    /// What the caller ignored, and the program must not: the numbers of the signals.
    pub(crate) ignored_signals: Vec<i32>,
}

/// The root file system.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    pub(crate) readonly: bool,
    pub(crate) no_pivot: bool,
    /// `linux.rootfsPropagation`.
    pub(crate) propagation: Option<Propagation>,
    pub(crate) mounts: Vec<MountPoint>,
    /// `None`: `/dev` is bound from elsewhere and is left alone.
    pub(crate) devices: Option<Vec<Device>>,
    /// A user namespace may not make device nodes: the host's are bound.
    pub(crate) devices_by_bind: bool,
    pub(crate) masked: Vec<PathBuf>,
    pub(crate) read_only: Vec<PathBuf>,
    /// What a mount of type `cgroup` shows.
    pub(crate) cgroups: Cgroups,
}

/// The container's groups as a `cgroup` mount shows them.
#[derive(Debug)]
pub(crate) struct Cgroups {
    pub(crate) unified: bool,
    /// Directory name below the mount point, and the group's directory on the host.
    pub(crate) groups: Vec<(String, PathBuf)>,
}

/// One entry of `mounts`.
#[derive(Debug)]
pub(crate) struct MountPoint {
    /// `mounts[3] /data`, for errors.
    pub(crate) origin: String,
    pub(crate) destination: PathBuf,
    pub(crate) what: What,
    pub(crate) options: Options,
}

/// What is mounted.
#[derive(Debug)]
pub(crate) enum What {
    Bind { source: PathBuf },
    Cgroup,
    FileSystem { kind: CString, source: Option<CString> },
}

/// A device node.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) path: PathBuf,
    pub(crate) kind: SFlag,
    /// makedev(3).
    pub(crate) number: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The user's program and what it is allowed.
#[derive(Debug)]
pub(crate) struct Program {
    /// Never empty.
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
    /// Directories to look in.
    pub(crate) path: String,
    /// HOME is absent or empty, and taken from the container's passwd.
    pub(crate) wants_home: bool,
    pub(crate) cwd: PathBuf,
    pub(crate) terminal: bool,
    /// Rows and columns of the terminal, in characters.
    pub(crate) console_size: Option<(u16, u16)>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) umask: u32,
    pub(crate) capabilities: Capabilities,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) rlimits: Vec<Rlimit>,
}

/// One entry of `process.rlimits`.
#[derive(Debug)]
pub(crate) struct Rlimit {
    /// `process.rlimits[0] RLIMIT_NOFILE`, for errors.
    pub(crate) origin: String,
    pub(crate) resource: u32,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// Where a container comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) spec: &'a Spec,
    /// The resolved bundle directory.
    pub(crate) bundle: &'a Path,
    /// The resolved `root.path`.
    pub(crate) rootfs: &'a Path,
    pub(crate) id: &'a str,
}

/// What the command line adds to the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras {
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    pub(crate) preserve_fds: u32,
    /// How many from 3 on the caller really passed.
    pub(crate) inherited_fds: u32,
}

impl Plan {
    /// The plan of a new container.
    pub(crate) fn for_container(
        source: &Source<'_>,
        cgroup: &Cgroup,
        extras: Extras,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let spec = source.spec;
        let default = Linux::default();
        let linux = spec.linux().as_ref().unwrap_or(&default);
        let namespaces = Namespaces::from_spec(linux)?;
        let has_user = namespaces.has_user();
        let root = Root {
            path: source.rootfs.to_owned(),
            readonly: spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
            no_pivot: extras.no_pivot,
            propagation: linux.rootfs_propagation().as_deref().and_then(mounts::propagation),
            mounts: mount_points(spec, source.bundle)?,
            devices: devices(spec, linux),
            devices_by_bind: has_user,
            masked: paths(linux.masked_paths()),
            read_only: paths(linux.readonly_paths()),
            cgroups: Cgroups {
                unified: cgroup.is_unified(),
                groups: cgroup
                    .groups()
                    // As runc: a hybrid host's version 2 tree is not shown.
                    .filter(|group| cgroup.is_unified() || !group.is_v2)
                    .map(|group| (group.name.to_string(), group.directory.to_owned()))
                    .collect(),
            },
        };
        let process = spec.process().as_ref();
        let mut plan = Self {
            namespaces,
            root: Some(root),
            hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
            domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
            sysctls: sysctls(linux),
            keyring: None,
            process: process
                .map(|process| Program::from_spec(process, has_user, warnings))
                .transpose()?,
            proc: None,
            preserve_fds: extras.preserve_fds,
            ignored_signals: ignored_signals()?,
        };
        if !extras.no_new_keyring {
            plan.keyring = Some(keyring(source.id)?);
        }
        if plan.writes_proc() {
            plan.proc = Some(ProcFd::new()?);
        }
        Ok(plan)
    }

    /// The plan of a process that joins a running container.
    pub(crate) fn for_exec(
        namespaces: Namespaces,
        process: &Process,
        record: &Record,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let has_user = namespaces.has_user();
        let mut plan = Self {
            namespaces,
            root: None,
            hostname: None,
            domainname: None,
            sysctls: Vec::new(),
            keyring: record.keyring.then(|| keyring(&record.id)).transpose()?,
            process: Some(Program::from_spec(process, has_user, warnings)?),
            proc: None,
            preserve_fds: 0,
            ignored_signals: ignored_signals()?,
        };
        if plan.writes_proc() {
            plan.proc = Some(ProcFd::new()?);
        }
        Ok(plan)
    }

    fn writes_proc(&self) -> bool {
        let score = self.process.as_ref().and_then(|program| program.oom_score_adj);
        !self.sysctls.is_empty() || score.is_some()
    }

    /// The descriptors that init needs besides its sockets.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let mut all = self.namespaces.descriptors();
        all.extend(self.proc.as_ref().map(AsRawFd::as_raw_fd));
        all
    }
}

impl Program {
    fn from_spec(process: &Process, has_user: bool, warnings: &mut Vec<String>) -> Result<Self> {
        let env = last_wins(process.env().as_deref().unwrap_or_default());
        let value =
            |name: &str| env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
        let user = process.user();
        let (held, last) = grantable(has_user)?;
        let size = process.console_size();
        let clip = |cells: u64| u16::try_from(cells).unwrap_or(u16::MAX);
        let wants_home = value("HOME").is_none_or(str::is_empty);
        Ok(Self {
            args: c_strings(process.args().iter().flatten(), "process.args")?,
            path: value("PATH").unwrap_or(DEFAULT_PATH).to_string(),
            wants_home,
            env: c_strings(
                env.iter().copied().filter(|entry| !wants_home || !entry.starts_with("HOME=")),
                "process.env",
            )?,
            cwd: process.cwd().clone(),
            terminal: process.terminal().unwrap_or(false),
            console_size: size.as_ref().map(|size| (clip(size.height()), clip(size.width()))),
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask().unwrap_or(0o022),
            capabilities: caps::from_spec(process.capabilities().as_ref(), held, last, warnings),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: process.oom_score_adj(),
            rlimits: process.rlimits().iter().flatten().enumerate().map(rlimit).collect(),
        })
    }
}

/// runc's name for the session keyring of a container: exec finds the same one by it.
fn keyring(id: &str) -> Result<CString> {
    c_string(&format!("_ses.{id}"), "container id")
}

/// The mask `SigIgn` of proc_pid_status(5); SIGPIPE is in it, which we ignore ourselves.
fn ignored_signals() -> Result<Vec<i32>> {
    let path = "/proc/self/status";
    let status =
        String::from_utf8_lossy(&state::read_at(AT_FDCWD, path).context(path)?).into_owned();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = u64::from_str_radix(mask.context(path)?.trim(), 16).context(path)?;
    Ok((0..64).filter(|bit| mask & 1 << bit != 0).map(|bit| bit + 1).collect())
}

/// The capabilities that can be given, and the number of the last one: what this process holds,
/// but everything that the kernel knows inside another user namespace.
fn grantable(has_user: bool) -> Result<(u64, u8)> {
    if !has_user {
        let held = sys::permitted_capabilities().context("capget")?;
        return Ok((held, u8::try_from(held.checked_ilog2().unwrap_or(0))?));
    }
    let path = "/proc/sys/kernel/cap_last_cap";
    let last = std::fs::read_to_string(path).context(path)?;
    Ok((u64::MAX, last.trim().parse().context(path)?))
}

/// Of several settings of one variable the last one counts; the order is that of the first.
fn last_wins(env: &[String]) -> Vec<&str> {
    let name = |entry: &str| entry.split_once('=').map_or(entry.len(), |(name, _)| name.len());
    let mut seen = HashSet::new();
    let mut kept: Vec<&str> =
        env.iter().rev().map(String::as_str).filter(|e| seen.insert(&e[..name(e)])).collect();
    kept.reverse();
    kept
}

fn c_string(text: &str, origin: &str) -> Result<CString> {
    CString::new(text).with_context(|| format!("{origin}: {text:.64?}"))
}

fn c_strings<T: AsRef<str>>(texts: impl Iterator<Item = T>, origin: &str) -> Result<Vec<CString>> {
    texts.enumerate().map(|(i, text)| c_string(text.as_ref(), &format!("{origin}[{i}]"))).collect()
}

fn paths(list: &Option<Vec<String>>) -> Vec<PathBuf> {
    list.iter().flatten().map(PathBuf::from).collect()
}

fn mount_points(spec: &Spec, bundle: &Path) -> Result<Vec<MountPoint>> {
    let mounts = spec.mounts().iter().flatten().enumerate();
    mounts.map(|(i, mount)| mount_point(i, mount, bundle)).collect()
}

fn mount_point(i: usize, mount: &Mount, bundle: &Path) -> Result<MountPoint> {
    // runtime-spec 1.2: a relative destination is relative to the root.
    let destination = Path::new("/").join(mount.destination());
    let origin = format!("mounts[{i}] {}", destination.display());
    let options =
        mounts::parse(mount.options().as_deref().unwrap_or_default(), format!("mounts[{i}]"))?;
    if options.tmpcopyup {
        bail!("mounts[{i}].options: tmpcopyup: not yet supported");
    }
    let kind = mount.typ().as_deref().unwrap_or("none");
    let source = mount.source().as_deref();
    let what = if options.bind != Bind::No || kind == "bind" {
        let source = source.with_context(|| format!("mounts[{i}].source: missing"))?;
        What::Bind { source: bundle.join(source) }
    } else if kind == "cgroup" || kind == "cgroup2" {
        What::Cgroup
    } else {
        let source = source.map(|source| source.to_string_lossy());
        What::FileSystem {
            kind: c_string(kind, &format!("mounts[{i}].type"))?,
            source: source.map(|s| c_string(&s, &format!("mounts[{i}].source"))).transpose()?,
        }
    };
    Ok(MountPoint { origin, destination, what, options })
}

fn sysctls(linux: &Linux) -> Vec<(PathBuf, String)> {
    let sysctls = linux.sysctl().iter().flatten();
    let path = |name: &str| Path::new("sys").join(spec::sysctl_file(name));
    sysctls.map(|(name, value)| (path(name), value.clone())).collect()
}

/// The devices that config-linux.md wants in every container, then those of the configuration.
fn devices(spec: &Spec, linux: &Linux) -> Option<Vec<Device>> {
    let bound = |mount: &Mount| {
        let options = mount.options().as_deref().unwrap_or_default();
        let bind = mount.typ().as_deref() == Some("bind")
            || options.iter().any(|word| word == "bind" || word == "rbind");
        bind && Path::new("/").join(mount.destination()) == Path::new("/dev")
    };
    if spec.mounts().iter().flatten().any(bound) {
        return None;
    }
    let configured: Vec<Device> = linux.devices().iter().flatten().filter_map(device).collect();
    let default =
        [("null", 3), ("zero", 5), ("full", 7), ("tty", 0), ("urandom", 9), ("random", 8)].map(
            |(name, minor)| Device {
                path: Path::new("/dev").join(name),
                kind: SFlag::S_IFCHR,
                number: nix::sys::stat::makedev(if name == "tty" { 5 } else { 1 }, minor),
                mode: 0o666,
                uid: 0,
                gid: 0,
            },
        );
    let given: HashSet<PathBuf> = configured.iter().map(|device| device.path.clone()).collect();
    let missing = default.into_iter().filter(|device| !given.contains(&device.path));
    Some(missing.chain(configured).collect())
}

fn device(device: &LinuxDevice) -> Option<Device> {
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
        LinuxDeviceType::B => SFlag::S_IFBLK,
        LinuxDeviceType::P => SFlag::S_IFIFO,
        // "all" stands in rules for cgroups and names no node.
        LinuxDeviceType::A => return None,
    };
    // A FIFO has no device number, whatever the configuration says.
    let number = match kind {
        SFlag::S_IFIFO => 0,
        _ => nix::sys::stat::makedev(device.major() as u64, device.minor() as u64),
    };
    Some(Device {
        path: device.path().clone(),
        kind,
        number,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

fn rlimit((i, limit): (usize, &PosixRlimit)) -> Rlimit {
    let resource = match limit.typ() {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    };
    Rlimit {
        origin: format!("process.rlimits[{i}] {}", limit.typ()),
        resource,
        soft: limit.soft(),
        hard: limit.hard(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_duplicate_variables_the_last_wins() {
        let env = ["A=1", "B=2", "A=3", "C"].map(String::from);
        assert_eq!(last_wins(&env), ["B=2", "A=3", "C"]);
    }
}
