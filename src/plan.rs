//! Turns the configuration into data that init only walks. Everything that allocates or can be
//! computed happens here, before the clone; what has to be opened before it is in
//! [`InitDescriptors`](crate::init::InitDescriptors).

mod mount;
mod program;
mod root;
mod rootless;
mod scheduling;
mod source;
mod strings;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::AT_FDCWD;
use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, LinuxPersonalityDomain as Domain, Process};

use crate::annotations::Annotations as _;
use crate::cgroup::Cgroup;
use crate::config::hooks::{CALLERS, HookKind};
use crate::config::memory_policy::MemoryPolicy;
use crate::container::hooks::Hooks;
use crate::container::service::DIRECTORY_INSIDE;
use crate::container::state::{ContainerRecord, NOTIFY_SOCKET};
use crate::interfaces::devices::NetDevice;
use crate::namespace::Namespaces;
use crate::security::landlock::LandlockRules;
use crate::security::lsm::{self, SecurityLabels};
use crate::security::seccomp::SeccompFilter;
use crate::sys::procfd::ProcFd;
use crate::{config, sys};

pub use mount::{FileSystem, MountIds, MountKind, MountPoint};
pub use program::{ProgramPlan, set_variable};
pub use root::{DeviceNode, RootfsPlan};
use scheduling::Affinity;
pub use source::PlanSource;
use strings::c_string;

// <sys/personality.h>, which libc does not have.
const PER_LINUX32: u32 = 8;

/// The data that init, or a process that joins a container, walks after its clone.
#[derive(Debug)]
pub struct Plan {
    /// Whether a builder does everything that comes before the program. A process that the container
    /// sees then has the program's rights, and no others, from its first moment.
    pub has_builder: bool,
    /// `None`: the process joins a container, which has a root already.
    pub root: Option<RootfsPlan>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// Paths below `/proc/sys` and what to write there.
    pub sysctls: Vec<(PathBuf, String)>,
    /// The name of a new session keyring.
    pub keyring: Option<CString>,
    /// `None`: there is nothing to run, the container stops when it is started.
    pub process: Option<ProgramPlan>,
    pub hooks: Option<Hooks>,
    pub memory_policy: Option<MemoryPolicy>,
    pub net_devices: Vec<NetDevice>,
    pub affinity: Affinity,
    /// How many descriptors from 3 on pass to the program.
    pub preserve_fds: u32,
    /// The numbers of the signals that `rt` ignores and the program must not.
    pub ignored_signals: Vec<i32>,
}

/// What the command line adds to the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub preserve_fds: u32,
    /// How many sockets of a service manager are passed on, before the descriptors of
    /// `preserve_fds`.
    pub listen_fds: u32,
    /// How many descriptors from 3 on the engine really passed.
    pub inherited_fds: u32,
}

impl Extras {
    /// Refuses descriptors that the engine did not pass: their numbers would be those of
    /// descriptors of `rt`.
    pub fn check(&self) -> Result<()> {
        let Self {
            preserve_fds,
            listen_fds,
            inherited_fds,
            ..
        } = self;
        if listen_fds > inherited_fds {
            bail!(
                "LISTEN_FDS {listen_fds}: descriptor {} is closed",
                3 + inherited_fds
            );
        }
        if self.passed_on() > *inherited_fds {
            bail!(
                "--preserve-fds {preserve_fds}: descriptor {} is closed",
                3 + inherited_fds
            );
        }
        Ok(())
    }

    /// Returns how many descriptors from 3 on reach the program.
    pub fn passed_on(&self) -> u32 {
        self.listen_fds.saturating_add(self.preserve_fds)
    }
}

impl Plan {
    /// Plans a new container.
    pub fn for_container(
        source: &PlanSource<'_>,
        namespaces: &Namespaces,
        cgroup: &Cgroup,
        extras: Extras,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let spec = source.spec;
        let default = Linux::default();
        let linux = spec.linux().as_ref().unwrap_or(&default);
        let has_user = namespaces.has_user();
        let root = RootfsPlan::new(source, linux, cgroup, has_user, extras.no_pivot)?;
        rootless::check_rootless(namespaces, &root, linux)?;
        warnings.extend(lsm::left_out(linux).filter(|_| root.label.is_none()));
        let process = spec.process().as_ref();
        let personality = personality(linux);
        let mut plan = Self {
            has_builder: false,
            root: Some(root),
            hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
            domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
            sysctls: sysctls(linux),
            keyring: None,
            process: process
                .map(|process| ProgramPlan::from_spec(process, has_user, personality, warnings))
                .transpose()?,
            hooks: None,
            net_devices: NetDevice::all(linux),
            memory_policy: linux
                .memory_policy()
                .as_ref()
                .map(MemoryPolicy::new)
                .transpose()?,
            affinity: Affinity::all(),
            preserve_fds: extras.passed_on(),
            ignored_signals: ignored_signals()?,
        };
        if let Some(program) = &mut plan.process {
            let landlock = source.checked.landlock.clone();
            program.landlock = landlock.map(LandlockRules::for_this_kernel).transpose()?;
            program.keeps_groups = spec
                .annotations()
                .as_ref()
                .is_some_and(|all| all.keeps_groups());
            plan.set_filter(
                linux
                    .seccomp()
                    .as_ref()
                    .map(SeccompFilter::compile)
                    .transpose()?,
            );
        }
        if !extras.no_new_keyring {
            plan.keyring = Some(keyring(source.id)?);
        }
        Ok(plan)
    }

    /// Plans a process that joins a running container.
    pub fn for_exec(
        process: &Process,
        record: &ContainerRecord,
        extras: Extras,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let has_user = record.has_user_namespace();
        let mut program = ProgramPlan::from_spec(process, has_user, record.personality, warnings)?;
        let landlock = LandlockRules::parse(&record.annotations)?;
        program.landlock = landlock.map(LandlockRules::for_this_kernel).transpose()?;
        program.keeps_groups = record.annotations.keeps_groups();
        Ok(Self {
            has_builder: true,
            root: None,
            hostname: None,
            domainname: None,
            sysctls: Vec::new(),
            keyring: record.keyring.then(|| keyring(&record.id)).transpose()?,
            process: Some(program),
            hooks: None,
            net_devices: Vec::new(),
            memory_policy: record.memory_policy.clone(),
            affinity: Affinity::of_exec(process)?,
            preserve_fds: extras.passed_on(),
            ignored_signals: ignored_signals()?,
        })
    }

    /// Whether init waits when everything is mounted: for hooks of the parent, for interfaces that
    /// are moved into its network namespace, or for the limits, without which the kernel does not
    /// know the memory nodes of the container (`cpuset.mems`) that a memory policy needs.
    pub fn stops_when_mounted(&self) -> bool {
        let hooks = self.has_hooks(&CALLERS);
        hooks || self.memory_policy.is_some() || !self.net_devices.is_empty()
    }

    /// Lets a builder take the place of init until that is confined, if init joins a pid namespace,
    /// whose processes could see it and have the rights to trace it. There is no builder with a
    /// user namespace, nor with hooks of the parent, which are told init's pid before a builder
    /// could have cloned it, nor on a kernel that cannot mount a procfs of a pid namespace that the
    /// builder is not in (before Linux 6.18).
    pub fn decide_builder(&mut self, namespaces: &Namespaces) {
        let joined = namespaces.joined(CloneFlags::CLONE_NEWPID);
        self.has_builder = !namespaces.has_user()
            && !self.has_hooks(&CALLERS)
            && joined.is_some_and(ProcFd::shows_other_namespaces);
    }

    /// Whether there is a hook of one of these kinds.
    pub fn has_hooks(&self, kinds: &[HookKind]) -> bool {
        self.hooks.as_ref().is_some_and(|hooks| hooks.has(kinds))
    }

    /// Returns the hooks if there are startContainer hooks, which init runs at `start`.
    pub fn start_hooks(&self) -> Option<&Hooks> {
        self.hooks
            .as_ref()
            .filter(|hooks| hooks.has(&[HookKind::StartContainer]))
    }

    /// Whether init copies files of the image into memory (`tmpcopyup`), which may be of any size.
    pub fn copies_up(&self) -> bool {
        let mut mounts = self.root.iter().flat_map(|root| &root.mounts);
        mounts.any(|mount| mount.options.tmpcopyup)
    }

    /// Sets the variables that tell the program of the `count` sockets that are passed on
    /// (sd_listen_fds(3)). Init adds `LISTEN_PID`, which is its own pid.
    pub fn announce_sockets(&mut self, count: u32) -> Result<()> {
        let Some(program) = self.process.as_mut().filter(|_| count > 0) else {
            return Ok(());
        };
        program.set_variable("LISTEN_FDS", count.to_string().as_bytes())?;
        if let Some(names) = std::env::var_os("LISTEN_FDNAMES") {
            program.set_variable("LISTEN_FDNAMES", names.as_bytes())?;
        }
        program.has_sockets = true;
        Ok(())
    }

    /// Sets the variable that tells the program where it finds its service manager's socket.
    pub fn announce_notify(&mut self) -> Result<()> {
        let path = format!("{DIRECTORY_INSIDE}/{NOTIFY_SOCKET}");
        match &mut self.process {
            Some(program) => program.set_variable("NOTIFY_SOCKET", path.as_bytes()),
            None => Ok(()),
        }
    }

    /// Returns the labels that security modules put on the program, if there are any.
    pub fn labels(&self) -> Option<&SecurityLabels> {
        let program = self.process.as_ref()?;
        Some(&program.labels).filter(|labels| !labels.is_empty())
    }

    /// Sets the filter of the process, if there is a process.
    pub fn set_filter(&mut self, filter: Option<SeccompFilter>) {
        if let Some(program) = &mut self.process {
            program.filter = filter;
        }
    }

    /// The filter of the process.
    pub fn filter(&self) -> Option<&SeccompFilter> {
        self.process.as_ref()?.filter.as_ref()
    }

    /// Whether init writes something to its private procfs.
    pub fn needs_procfs(&self) -> bool {
        !self.sysctls.is_empty() || self.labels().is_some()
    }
}

/// Returns the name of a container's session keyring, which is runc's. `exec` finds the keyring by
/// it.
fn keyring(id: &str) -> Result<CString> {
    c_string(&format!("_ses.{id}"), "container id")
}

/// Returns `linux.personality` as personality(2) takes it.
pub fn personality(linux: &Linux) -> Option<u32> {
    let domain = linux
        .personality()
        .as_ref()
        .map(|personality| personality.domain());
    domain.map(|domain| match domain {
        Domain::PerLinux => 0,
        Domain::PerLinux32 => PER_LINUX32,
    })
}

/// Returns the ignored signals, from the mask `SigIgn` of proc_pid_status(5). SIGPIPE is among
/// them, which `rt` itself ignores.
fn ignored_signals() -> Result<Vec<i32>> {
    let path = "/proc/self/status";
    let status =
        String::from_utf8_lossy(&sys::read_file_at(AT_FDCWD, path).context(path)?).into_owned();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = u64::from_str_radix(mask.context(path)?.trim(), 16).context(path)?;
    Ok((0..64)
        .filter(|bit| mask & 1 << bit != 0)
        .map(|bit| bit + 1)
        .collect())
}

/// Returns the sysctls in the order of their names: the configuration has no order for them.
fn sysctls(linux: &Linux) -> Vec<(PathBuf, String)> {
    let sysctls = linux.sysctl().iter().flatten();
    let path = |name: &str| Path::new("sys").join(config::sysctl_file(name));
    let mut sysctls: Vec<_> = sysctls
        .map(|(name, value)| (path(name), value.clone()))
        .collect();
    sysctls.sort();
    sysctls
}

#[cfg(test)]
mod tests;
