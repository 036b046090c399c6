//! Steps 1 and 2 of `create`: the configuration is read and checked, and everything is planned and
//! opened that the container needs. Nothing has a side effect yet.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use oci_spec::runtime::{Linux, Spec};

use super::options::CreateOptions;
use crate::annotations::{self, Annotations as _};
use crate::cgroup::{Cgroup, Delegation, Limits, Manager, Property, UnitConnection};
use crate::child::HookOutputs;
use crate::config::{self, CheckedConfig, Loaded};
use crate::container::hooks::Hooks;
use crate::container::state::ContainerRecord;
use crate::id::check_id;
use crate::log;
use crate::namespace::{Namespaces, is_root_of_host};
use crate::plan::{self, Extras, Plan, PlanSource};
use crate::pty::{self, DescriptorSocket, Relay, TerminalClient};
use crate::rdt::Rdt;

/// What the command line asks for.
#[derive(Debug)]
pub struct CreateRequest {
    /// `--root`.
    pub root: PathBuf,
    pub options: CreateOptions,
    pub extras: Extras,
    /// `--systemd-cgroup` or `--cgroup-manager`.
    pub manager: Manager,
    /// Whether `rt` returns before the container ends, so that nobody relays its terminal.
    pub detached: bool,
}

/// Everything that is known before the first side effect.
#[derive(Debug)]
pub struct PreparedContainer {
    pub plan: Plan,
    pub namespaces: Namespaces,
    /// The detached mount with the socket of sd_notify(3).
    pub(super) notify: Option<OwnedFd>,
    pub hook_outputs: HookOutputs,
    pub limits: Limits,
    /// With which systemd starts the scope of the container, if it makes one.
    unit_properties: Vec<Property>,
    pub record: ContainerRecord,
    pub delegation: Option<Delegation>,
    console: Option<DescriptorSocket>,
    /// The sockets of `--pidfd-socket` and of the annotation.
    pub(super) pidfd_sockets: Vec<DescriptorSocket>,
}

impl PreparedContainer {
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.record.annotations
    }

    /// Moves the process into the cgroups that systemd makes and into the class of Intel RDT.
    pub fn enter_cgroups(
        &self,
        record: &mut ContainerRecord,
        unit: Option<&mut UnitConnection>,
        pid: i32,
    ) -> Result<()> {
        if let Some(unit) = unit {
            record.cgroup.start_unit(unit, &self.unit_properties, pid)?;
        }
        record.rdt.as_ref().map_or(Ok(()), |rdt| rdt.enter(pid))
    }

    /// Passes the terminal's master to the console socket. Returns a relay for it if there is no
    /// console socket.
    pub fn relay(&self, terminal: Option<OwnedFd>) -> Result<Option<Relay>> {
        let terminal = pty::hand_over(terminal, self.console.as_ref())?;
        terminal
            .map(|master| Relay::new(master, TerminalClient::open()?))
            .transpose()
    }
}

/// Step 1: reads and checks the configuration.
pub fn load_config(request: &CreateRequest) -> Result<(Loaded, CheckedConfig)> {
    check_id(&request.options.id)?;
    let loaded = config::load(&request.options.bundle, request.options.config.as_deref())?;
    let checked = config::check_spec(&loaded.spec)?;
    loaded.warnings.iter().for_each(log::warn);
    let process = loaded.spec.process().as_ref();
    let terminal = process.and_then(|process| process.terminal());
    let console = &request.options.engine.console_socket;
    pty::check_console(terminal.unwrap_or(false), request.detached, console)?;
    request.extras.check()?;
    Ok((loaded, checked))
}

/// Step 2: plans the container and opens what it needs.
pub fn prepare(
    request: &CreateRequest,
    spec: &Spec,
    checked: &CheckedConfig,
) -> Result<PreparedContainer> {
    let (bundle, rootfs) = resolve_paths(request, spec)?;
    let linux = spec.linux().as_ref();
    let none = HashMap::new();
    let annotations = spec.annotations().as_ref().unwrap_or(&none);
    let (cgroup, limits) = plan_cgroup(request, linux, annotations)?;
    let unit_properties = cgroup.unit_properties(annotations, &limits)?;
    let delegation = Delegation::plan(spec, annotations, &cgroup)?;
    let rdt = match linux.and_then(|linux| linux.intel_rdt().as_ref()) {
        Some(wanted) => Some(Rdt::plan(wanted, &request.options.id)?),
        None => None,
    };
    let mut warnings = Vec::new();
    let namespaces = Namespaces::from_spec(spec)?;
    let source = PlanSource {
        spec,
        checked,
        bundle: &bundle,
        rootfs: &rootfs,
        id: &request.options.id,
    };
    let mut plan =
        Plan::for_container(&source, &namespaces, &cgroup, request.extras, &mut warnings)?;
    warnings.iter().for_each(log::warn);
    let console_socket = &request.options.engine.console_socket;
    let console = DescriptorSocket::connect_if(console_socket, "--console-socket")?;
    let pidfd_sockets = connect_pidfd_sockets(request, annotations)?;
    let record = ContainerRecord {
        cgroup,
        namespaces: namespaces.kinds().bits(),
        keyring: plan.keyring.is_some(),
        personality: linux.and_then(plan::personality),
        memory_policy: plan.memory_policy.clone(),
        rdt,
        seccomp: plan.filter().map(|filter| filter.terms.clone()),
        bundle,
        rootfs,
        ..ContainerRecord::new(&request.options.id, spec)
    };
    plan.hooks = Hooks::from_record(&record);
    plan.announce_sockets(request.extras.listen_fds)?;
    let hooks = plan.hooks.as_ref();
    let hook_outputs = hooks.map(Hooks::open_outputs).transpose()?;
    plan.decide_builder(&namespaces);
    Ok(PreparedContainer {
        plan,
        namespaces,
        notify: None,
        hook_outputs: hook_outputs.unwrap_or_default(),
        limits,
        unit_properties,
        record,
        delegation,
        console,
        pidfd_sockets,
    })
}

/// Returns the absolute paths of the bundle and of its root file system.
fn resolve_paths(request: &CreateRequest, spec: &Spec) -> Result<(PathBuf, PathBuf)> {
    let bundle = &request.options.bundle;
    let bundle = resolve(bundle).with_context(|| format!("--bundle {}", bundle.display()))?;
    let root = spec.root().as_ref();
    let rootfs = root
        .map(|root| bundle.join(root.path()))
        .unwrap_or_default();
    let rootfs = resolve(&rootfs).with_context(|| format!("root.path {}", rootfs.display()))?;
    Ok((bundle, rootfs))
}

/// Connects to the sockets that get init's pidfd: those that the command line and the annotation
/// name.
fn connect_pidfd_sockets(
    request: &CreateRequest,
    annotations: &HashMap<String, String>,
) -> Result<Vec<DescriptorSocket>> {
    let pidfd_socket = &request.options.engine.pidfd_socket;
    let socket = DescriptorSocket::connect_if(pidfd_socket, "--pidfd-socket")?;
    let mut sockets = Vec::from_iter(socket);
    if let Some(path) = annotations.path(annotations::PIDFD)? {
        let origin = annotations::origin(annotations::PIDFD);
        sockets.push(DescriptorSocket::connect(path, &origin)?);
    }
    Ok(sockets)
}

fn plan_cgroup(
    request: &CreateRequest,
    linux: Option<&Linux>,
    annotations: &HashMap<String, String>,
) -> Result<(Cgroup, Limits)> {
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let mut cgroup = match request.manager {
        Manager::Cgroupfs | Manager::Disabled => Cgroup::plan(path, &request.options.id)?,
        Manager::Systemd => Cgroup::plan_unit(path, &request.options.id, annotations)?,
    };
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let mut limits = Limits::from_spec(resources, &cgroup)?;
    if request.manager == Manager::Disabled {
        cgroup.leave_out_all(&mut limits)?;
    } else if !is_root_of_host() {
        cgroup.leave_out_unwritable(path.is_some(), &mut limits)?;
    }
    Ok((cgroup, limits))
}

/// Returns the absolute path of a directory, without links, in three system calls however deep it
/// is.
fn resolve(directory: &Path) -> Result<PathBuf> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = openat(AT_FDCWD, directory, flags, Mode::empty())?;
    Ok(fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?)
}
