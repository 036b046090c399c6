//! `restore` makes a container from its checkpoint. It is `create` with CRIU in the place of init:
//! steps 1 to 3 and 8 are the same (see `create.rs`), and so is the guard that takes everything
//! back after a failure.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sched::CloneFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::cgroup::{Delegation, UnitConnection};
use crate::checkpoint::{DESCRIPTORS, external_key};
use crate::config::hooks::CALLERS;
use crate::config::{CheckedConfig, Loaded};
use crate::container::foreground::Foreground;
use crate::container::hooks::Hooks;
use crate::container::protocol::ClonedProcess;
use crate::create::{self, ClaimedContainer, CreateRequest, PreparedContainer, RunningContainer};
use crate::criu::rpc::{self, InheritFd, JoinNamespace, RequestKind};
use crate::criu::{
    self, CheckpointNotes, CriuCommonOptions, CriuProgram, CriuWorker, ImagesDirectory, lost,
    mounts, seen,
};
use crate::error::{InPhase, Phase};
use crate::interfaces::devices::MovedDevice;
use crate::namespace::{IdMap, NEWTIME, is_root_of_host};
use crate::plan::RootfsPlan;
use crate::pty::Relay;
use crate::{init, interfaces, launch, log, sys};

const LOG: &str = "restore.log";

/// Options of `restore`.
#[derive(Debug, Args)]
pub struct RestoreOptions {
    #[command(flatten)]
    common: CriuCommonOptions,
    /// Directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Unix socket that takes the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// File that takes init's pid
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Return when the container runs
    #[arg(short, long)]
    pub detach: bool,
    /// Leave orphans of the container to the engine
    #[arg(long)]
    no_subreaper: bool,
    /// Tolerated for callers of runc: it is CRIU that makes the root
    #[arg(long, hide = true)]
    no_pivot: bool,
    /// TYPE:NAME of a security module's profile in the place of the one that was dumped
    #[arg(long, value_name = "PROFILE")]
    lsm_profile: Option<String>,
    /// Context of mounts in the place of the one that was dumped
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Executes `rt restore`. Returns the status of the process, or 0 when detached.
pub fn restore(request: &CreateRequest, options: &RestoreOptions) -> Result<i32> {
    ensure!(
        is_root_of_host(),
        "restore: only root of the host may do that"
    );
    let foreground = match request.detached {
        true => None,
        false => Some(Foreground::prepare(!options.no_subreaper)?),
    };
    let restored = restore_container(request, options).phase(Phase::Process)?;
    match foreground {
        Some(foreground) => restored.wait(&foreground, false),
        None => Ok(0),
    }
}

fn restore_container(
    request: &CreateRequest,
    options: &RestoreOptions,
) -> Result<RunningContainer> {
    let program = CriuProgram::find()?;
    let (checkpoint, (loaded, checked)) = load(request, options).phase(Phase::Config)?;
    let images = &checkpoint.images;
    let spec = &loaded.spec;
    let prepared = prepare(request, spec, &checked).phase(Phase::Plan)?;
    let ignores_cgroups = checkpoint.notes.ignores_groups || prepared.record.cgroup.is_nowhere();
    let cgroup_mode = options
        .common
        .cgroup_mode(ignores_cgroups)
        .phase(Phase::Config)?;
    let joined = JoinedByPath::open_all(spec).phase(Phase::Namespaces)?;
    let linux = spec.linux().as_ref();
    let owner = linux.and_then(|linux| IdMap::new(linux.gid_mappings()).outside(0));
    owner
        .map_or(Ok(()), |root| images.let_in(root))
        .phase(Phase::Plan)?;
    let mut restored = RestoredContainer {
        init: None,
        claimed: create::claim(request, &prepared, &loaded).phase(Phase::State)?,
        request,
        prepared: &prepared,
        unit: None,
        terminals: vec![],
        relay: None,
    };
    let mut worker = restored.start_criu(&program, &checkpoint, &joined.external)?;
    let inherit_fds = joined
        .inherited(images.count())
        .chain(checkpoint.pipes())
        .collect();
    let mut asked = rpc::CriuOptions {
        inherit_fds,
        join_ns: joined.others().collect(),
        manage_cgroups_mode: Some(cgroup_mode.into()),
        cgroup_roots: criu::cgroup_roots(worker.pid).phase(Phase::Cgroup)?,
        ..base_options(&prepared, options, images)?
    };
    let config = open_criu_options(&asked).phase(Phase::Config)?;
    asked.config_file = config.as_ref().map(path_of);
    worker.request(
        RequestKind::Restore,
        asked,
        &images.log(LOG),
        |notify, descriptor| restored.act_on(notify.script(), notify.pid(), descriptor),
    )?;
    worker.finish()?;
    restored.claimed.record()?;
    log::debug(format_args!("{}: restored", request.options.id));
    let init = restored.init.context("CRIU has named no first process")?;
    Ok(RunningContainer::new(
        init,
        restored.claimed,
        restored.relay,
    ))
}

/// A checkpoint that is read from its directory.
struct Checkpoint {
    images: ImagesDirectory,
    notes: CheckpointNotes,
    /// The names of the files that were the standard streams of the container.
    streams: Vec<String>,
}

impl Checkpoint {
    fn load(options: &CriuCommonOptions) -> Result<Self> {
        let images = ImagesDirectory::existing(options)?;
        let streams = serde_json::from_slice(&images.read(DESCRIPTORS)?).context(DESCRIPTORS)?;
        let notes = CheckpointNotes::read(&images)?;
        Ok(Self {
            images,
            notes,
            streams,
        })
    }

    /// Returns the standard streams of `rt` for those of the container that were pipes.
    fn pipes(&self) -> impl Iterator<Item = InheritFd> {
        let streams = (0..3).zip(self.streams.iter().cloned());
        let pipes = streams.filter(|(_, name)| name.starts_with("pipe:"));
        pipes.map(|(fd, key)| InheritFd { key, fd })
    }
}

fn load(
    request: &CreateRequest,
    options: &RestoreOptions,
) -> Result<(Checkpoint, (Loaded, CheckedConfig))> {
    let checkpoint = Checkpoint::load(&options.common)?;
    Ok((checkpoint, create::load_config(request)?))
}

/// Plans the container, and refuses what a checkpoint loses.
fn prepare(
    request: &CreateRequest,
    spec: &Spec,
    checked: &CheckedConfig,
) -> Result<PreparedContainer> {
    let prepared = create::prepare(request, spec, checked)?;
    lost::refuse_what_is_lost(spec, root(&prepared)?)?;
    Ok(prepared)
}

/// Opens the file with options of CRIU. CRIU itself would look for it with another `/tmp`.
fn open_criu_options(asked: &rpc::CriuOptions) -> Result<Option<File>> {
    let Some(path) = &asked.config_file else {
        return Ok(None);
    };
    let file = File::open(path).with_context(|| path.clone());
    file.context("criu's options").map(Some)
}

fn root(prepared: &PreparedContainer) -> Result<&RootfsPlan> {
    prepared.plan.root.as_ref().context("no root")
}

/// Returns CRIU's request without the parts that depend on the worker.
fn base_options(
    prepared: &PreparedContainer,
    options: &RestoreOptions,
    images: &ImagesDirectory,
) -> Result<rpc::CriuOptions> {
    let root = root(prepared)?;
    Ok(rpc::CriuOptions {
        evasive_devices: Some(true),
        rst_sibling: Some(true),
        root: Some(root.path.to_string_lossy().into_owned()),
        external_mounts: mounts::restored(root),
        lsm_profile: options.lsm_profile.clone(),
        lsm_mount_context: options.lsm_mount_context.clone(),
        ..options.common.request(images, LOG, prepared.annotations())
    })
}

/// Returns the path at which CRIU, which has another `/tmp`, finds a file that `rt` has open.
fn path_of(file: &File) -> String {
    format!("/proc/{}/fd/{}", getpid(), file.as_raw_fd())
}

/// The container while CRIU makes it from the images. When it is dropped, the first process is
/// killed, and then the container is removed.
struct RestoredContainer<'a> {
    /// The first process, from the moment at which CRIU has named it.
    init: Option<ClonedProcess>,
    claimed: ClaimedContainer,
    request: &'a CreateRequest,
    prepared: &'a PreparedContainer,
    /// The connection to systemd, if it makes the cgroups.
    unit: Option<UnitConnection>,
    /// Masters of the terminals whose master is not in the images.
    terminals: Vec<OwnedFd>,
    relay: Option<Relay>,
}

impl<'a> RestoredContainer<'a> {
    /// Step 4: starts CRIU in the container's cgroups, in which the processes that it makes stay.
    fn start_criu(
        &mut self,
        program: &CriuProgram,
        checkpoint: &Checkpoint,
        joined: &[OwnedFd],
    ) -> Result<CriuWorker> {
        let prepared = self.prepared;
        let root = root(prepared)?;
        let masked = checkpoint.notes.masked.as_deref();
        let container = &mut self.claimed.container;
        let made = create::make_cgroups(&mut container.record).phase(Phase::Cgroup)?;
        let cgroup = made.0;
        self.unit = made.1;
        container.save()?;
        let directory = cgroup
            .clone_into()
            .map(|fd| fd.try_clone_to_owned())
            .transpose()?;
        let directory = directory.as_ref().map(AsFd::as_fd);
        let parent = getpid();
        let worker = CriuWorker::start(program, libc::CLONE_NEWNS as u64, directory, || {
            set_pdeathsig(Signal::SIGKILL)?;
            ensure!(getppid() == parent, "rt has ended");
            // Gives CRIU a fresh session keyring, which the restored processes inherit.
            init::own_keyring(&prepared.plan)?;
            let mut cgroup = cgroup;
            cgroup.forget_directory();
            cgroup
                .enter()
                .and_then(|()| cgroup.enter_pids())
                .phase(Phase::Cgroup)?;
            let mut inherited = checkpoint.images.open()?;
            mounts::prepare(root, masked, program).phase(Phase::Mounts)?;
            for namespace in joined {
                inherited.push(namespace.try_clone()?);
            }
            Ok(inherited)
        })?;
        prepared
            .enter_cgroups(&mut container.record, self.unit.as_mut(), worker.pid)
            .phase(Phase::Cgroup)?;
        Ok(worker)
    }

    /// Does what CRIU asks for with the name of a script. `pid` is the first process.
    fn act_on(&mut self, script: &str, pid: i32, descriptor: Option<OwnedFd>) -> Result<()> {
        match script {
            "setup-namespaces" => self.set_up(pid)?,
            "post-restore" => self.complete(pid)?,
            "orphan-pts-master" => self.terminals.extend(descriptor),
            _ => {}
        }
        Ok(())
    }

    /// Records the first process, sets up its network, and runs the hooks. The process and its
    /// namespaces exist, but nothing is in them yet.
    fn set_up(&mut self, pid: i32) -> Result<()> {
        let pidfd = sys::pidfd_open(pid).context("the restored process")?;
        self.init = Some(ClonedProcess::new(pid, pidfd));
        let container = &mut self.claimed.container;
        container.set_init(Pid::from_raw(pid))?;
        container.save()?;
        self.set_up_network(pid).phase(Phase::Namespaces)?;
        let Some(hooks) = self.parent_hooks() else {
            return Ok(());
        };
        // The hooks find the device rules set, since they may change them. Other limits would apply
        // to CRIU itself.
        let devices = self.prepared.limits.of_devices();
        let cgroup = &self.claimed.container.record.cgroup;
        cgroup
            .apply(&devices, self.unit.as_mut())
            .phase(Phase::Cgroup)?;
        create::run_parent_hooks(hooks, pid, &self.prepared.hook_outputs)
    }

    fn set_up_network(&mut self, pid: i32) -> Result<()> {
        let plan = &self.prepared.plan;
        let namespaces = &self.prepared.namespaces;
        namespaces.check(pid, CloneFlags::CLONE_NEWNET)?;
        let is_new = namespaces.has_new(CloneFlags::CLONE_NEWNET);
        if is_new {
            let sysctls = || network_sysctls(&plan.sysctls);
            interfaces::bring_loopback_up_of(pid, sysctls)?;
        }
        if !plan.net_devices.is_empty() {
            // The devices of a joined namespace can be in it since the container was created.
            let moved = match is_new {
                true => MovedDevice::all(&plan.net_devices, pid),
                false => MovedDevice::missing(&plan.net_devices, pid),
            };
            self.claimed.moved = Some(moved?);
        }
        Ok(())
    }

    /// The hooks, if the parent runs any of them.
    fn parent_hooks(&self) -> Option<&'a Hooks> {
        let hooks = self.prepared.plan.hooks.as_ref();
        hooks.filter(|hooks| hooks.has(&CALLERS))
    }

    /// Checks the container and completes it. All processes exist and none of them continues yet: a
    /// failure here ends them all.
    fn complete(&mut self, pid: i32) -> Result<()> {
        let PreparedContainer {
            plan, namespaces, ..
        } = self.prepared;
        self.check_terminals().phase(Phase::Terminal)?;
        namespaces
            .check(pid, CloneFlags::all() | NEWTIME)
            .phase(Phase::Namespaces)?;
        seen::check(root(self.prepared)?, pid).phase(Phase::Mounts)?;
        launch::give_pipes(plan, namespaces, Pid::from_raw(pid))?;
        let container = &mut self.claimed.container;
        // CRIU makes a time namespace, so that clocks do not jump.
        let time = |process: &str| fs::read_link(format!("/proc/{process}/ns/time"));
        if time(&pid.to_string())? != time("self")? {
            container.record.namespaces |= libc::CLONE_NEWTIME;
        }
        container.save()?;
        self.set_limits(pid).phase(Phase::Cgroup)?;
        launch::schedule(plan, Pid::from_raw(pid))?;
        let relay = self.prepared.relay(self.terminals.pop());
        self.relay = relay.phase(Phase::Terminal)?;
        let init = self.init.as_ref().context("no first process")?;
        create::report_init(self.request, self.prepared, init).phase(Phase::State)
    }

    fn set_limits(&mut self, pid: i32) -> Result<()> {
        let limits = match self.parent_hooks() {
            Some(_) => &self.prepared.limits.without_devices(),
            None => &self.prepared.limits,
        };
        let cgroup = &self.claimed.container.record.cgroup;
        cgroup.apply(limits, self.unit.as_mut())?;
        match &self.prepared.delegation {
            Some(own @ Delegation::Own { .. }) => cgroup.delegate(own, pid),
            _ => Ok(()),
        }
    }

    /// Refuses more terminals in the images than the configuration has: one or none. There may be
    /// fewer, since the program may have closed its terminal.
    fn check_terminals(&self) -> Result<()> {
        let program = self.prepared.plan.process.as_ref();
        let wanted = usize::from(program.is_some_and(|program| program.terminal));
        let found = self.terminals.len();
        ensure!(
            found <= wanted,
            "process.terminal: {found} in the images, {wanted} in the configuration"
        );
        Ok(())
    }
}

/// Writes the sysctls of the network namespace, which CRIU does not keep. The calling process must
/// be in that namespace.
fn network_sysctls(all: &[(PathBuf, String)]) -> Result<()> {
    for (path, value) in all.iter().filter(|(path, _)| path.starts_with("sys/net")) {
        let path = Path::new("/proc").join(path);
        fs::write(&path, value).with_context(|| format!("linux.sysctl: {}", path.display()))?;
    }
    Ok(())
}

/// Namespaces that the configuration names by their path.
#[derive(Debug, Default)]
struct JoinedByPath {
    /// Namespaces that CRIU left alone at the checkpoint; `keys` has their names in the images.
    external: Vec<OwnedFd>,
    keys: Vec<&'static str>,
    others: Vec<(LinuxNamespaceType, File)>,
}

impl JoinedByPath {
    fn open_all(spec: &Spec) -> Result<Self> {
        let mut joined = Self::default();
        let all = spec
            .linux()
            .iter()
            .filter_map(|linux| linux.namespaces().as_ref())
            .flatten();
        for namespace in all {
            let Some(path) = namespace.path() else {
                continue;
            };
            let kind = namespace.typ();
            if kind == LinuxNamespaceType::Cgroup {
                bail!(
                    "linux.namespaces: criu cannot join a cgroup namespace: {}",
                    path.display()
                );
            }
            let file = File::open(path);
            let file = file.with_context(|| format!("linux.namespaces: {}", path.display()))?;
            if let Some((_, key)) = external_key(kind) {
                joined.external.push(file.into());
                joined.keys.push(key);
            } else {
                joined.others.push((kind, file));
            }
        }
        Ok(joined)
    }

    fn others(&self) -> impl Iterator<Item = JoinNamespace> {
        let others = self.others.iter();
        others.map(|(kind, file)| JoinNamespace {
            ns: kind.to_string(),
            file: path_of(file),
        })
    }

    /// Returns the external namespaces as descriptors of the worker; `first` is the index of the
    /// first one among those that the worker inherits.
    fn inherited(&self, first: usize) -> impl Iterator<Item = InheritFd> {
        let fds = (first..).map(CriuWorker::inherited);
        fds.zip(&self.keys).map(|(fd, key)| InheritFd {
            key: (*key).to_owned(),
            fd,
        })
    }
}
