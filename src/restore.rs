//! `restore` makes a container from its checkpoint. It is `create` with CRIU in the place of init:
//! steps 1 to 3 and 8 are the same (see `create.rs`), and so is the guard that takes everything
//! back after a failure.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sched::CloneFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::cgroup::Delegation;
use crate::checkpoint::{DESCRIPTORS, external_key};
use crate::config::hooks::CALLERS;
use crate::container::foreground::Foreground;
use crate::container::state::StateLock;
use crate::create::{self, CreateGuard, CreateRequest, CreatedContainer, PreparedContainer};
use crate::criu::rpc::{self, InheritFd, JoinNamespace, RequestKind};
use crate::criu::{
    self, CheckpointNotes, CriuCommonOptions, CriuProgram, CriuWorker, ImagesDirectory, lost,
    mounts, seen,
};
use crate::error::{InPhase, Phase};
use crate::interfaces::devices::MovedDevice;
use crate::namespace::{IdMap, NEWTIME, is_root_of_host};
use crate::plan::RootfsPlan;
use crate::process::Process;
use crate::pty::Relay;
use crate::{init, interfaces, launch, log, sys};

const LOG: &str = "restore.log";

/// Options of `restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreOptions {
    #[command(flatten)]
    common: CriuCommonOptions,
    /// Directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Unix socket that takes the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// File that takes init's pid
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Return when the container runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Leave orphans of the container to the caller
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
    pub(crate) id: String,
}

/// Executes `rt restore`. Returns the status of the process, or 0 when detached.
pub(crate) fn command(request: &CreateRequest, options: &RestoreOptions) -> Result<i32> {
    ensure!(
        is_root_of_host(),
        "restore: only root of the host may do that"
    );
    if request.detached {
        return restore(request, options).map(|_| 0);
    }
    let foreground = Foreground::prepare(!options.no_subreaper)?;
    let (restored, lock) = restore(request, options)?;
    restored.wait(&foreground, lock, false)
}

fn restore(
    request: &CreateRequest,
    options: &RestoreOptions,
) -> Result<(CreatedContainer, StateLock)> {
    let program = CriuProgram::find().phase(Phase::Process)?;
    let images = ImagesDirectory::existing(&options.common).phase(Phase::Config)?;
    let pipes = pipes(&images).phase(Phase::Config)?;
    let notes = CheckpointNotes::read(&images).phase(Phase::Config)?;
    let loaded = create::read(request).phase(Phase::Config)?;
    let spec = &loaded.spec;
    let prepared = create::prepare(request, spec).phase(Phase::Plan)?;
    lost::check(spec, root(&prepared)?).phase(Phase::Plan)?;
    let groups = options
        .common
        .groups(notes.ignores_groups || prepared.cgroup.is_nowhere());
    let groups = groups.phase(Phase::Config)?;
    let joined = JoinedByPath::open(spec).phase(Phase::Namespaces)?;
    let owner = spec
        .linux()
        .as_ref()
        .and_then(|linux| IdMap::new(linux.gid_mappings()).outside(0));
    owner
        .map_or(Ok(()), |root| images.let_in(root))
        .phase(Phase::Plan)?;
    let (mut guard, lock) = create::claim(request, &prepared, &loaded).phase(Phase::State)?;
    let inside = (notes.masked.as_deref(), &*joined.external);
    let mut worker = start(&program, &prepared, &mut guard, &images, inside)?;
    let inherit_fds = joined.inherited(images.count()).chain(pipes).collect();
    let mut asked = rpc::CriuOptions {
        inherit_fds,
        join_ns: joined.others().collect(),
        manage_cgroups_mode: Some(groups.into()),
        cgroup_roots: criu::cgroup_roots(worker.pid).phase(Phase::Cgroup)?,
        ..asked(&prepared, options, &images)?
    };
    let config = open_criu_options(&asked).phase(Phase::Config)?;
    asked.config_file = config.as_ref().map(path_of);
    let mut restored = RestoredContainer {
        request,
        prepared: &prepared,
        guard: &mut guard,
        terminals: vec![],
        relay: None,
    };
    let done = worker.request(
        RequestKind::Restore,
        asked,
        &images.log(LOG),
        |notify, descriptor| match notify.script() {
            "setup-namespaces" => restored.set_up(notify.pid()),
            "post-restore" => restored.complete(notify.pid()),
            "orphan-pts-master" => {
                restored.terminals.extend(descriptor);
                Ok(())
            }
            _ => Ok(()),
        },
    );
    let relay = restored.relay;
    done.phase(Phase::Process)?;
    worker.finish().phase(Phase::Process)?;
    create::record(&mut guard).phase(Phase::State)?;
    log::debug(format_args!("{}: restored", request.id));
    Ok((guard.release(relay, None)?, lock))
}

/// Opens the file with options of CRIU. CRIU itself would look for it with another `/tmp`.
fn open_criu_options(asked: &rpc::CriuOptions) -> Result<Option<File>> {
    let Some(path) = &asked.config_file else {
        return Ok(None);
    };
    let file = File::open(path).with_context(|| path.clone());
    file.context("criu's options").map(Some)
}

/// Step 4: starts CRIU in the container's cgroups, in which the processes that it makes stay.
fn start(
    program: &CriuProgram,
    prepared: &PreparedContainer,
    guard: &mut CreateGuard,
    images: &ImagesDirectory,
    (masked, joined): (Option<&[PathBuf]>, &[OwnedFd]),
) -> Result<CriuWorker> {
    let root = root(prepared)?;
    let group = prepared.cgroup.create().phase(Phase::Cgroup)?;
    let container = guard.container.as_mut().context("no container")?;
    if let Some(rdt) = &mut container.record.rdt {
        rdt.create().phase(Phase::Cgroup)?;
    }
    container.save().phase(Phase::State)?;
    let directory = group
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
        let mut group = group.born();
        group
            .enter()
            .and_then(|()| group.enter_pids())
            .phase(Phase::Cgroup)?;
        let mut inherited = images.open()?;
        mounts::prepare(root, masked, program).phase(Phase::Mounts)?;
        for namespace in joined {
            inherited.push(namespace.try_clone()?);
        }
        Ok(inherited)
    })
    .phase(Phase::Process)?;
    prepared
        .cgroup
        .start_unit(worker.pid)
        .phase(Phase::Cgroup)?;
    if let Some(rdt) = &container.record.rdt {
        rdt.enter(worker.pid).phase(Phase::Cgroup)?;
    }
    Ok(worker)
}

fn root(prepared: &PreparedContainer) -> Result<&RootfsPlan> {
    prepared.plan.root.as_ref().context("no root")
}

/// Returns CRIU's request without the parts that depend on the worker.
fn asked(
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

/// Returns the standard streams of `rt` for those of the container that were pipes.
fn pipes(images: &ImagesDirectory) -> Result<impl Iterator<Item = InheritFd> + use<>> {
    let names = serde_json::from_slice::<Vec<String>>(&images.read(DESCRIPTORS)?);
    let names = names.context(DESCRIPTORS)?;
    let pipes = (0..3)
        .zip(names)
        .filter(|(_, name)| name.starts_with("pipe:"));
    Ok(pipes.map(|(fd, key)| InheritFd { key, fd }))
}

/// The container while CRIU makes it from the images.
struct RestoredContainer<'a> {
    request: &'a CreateRequest,
    prepared: &'a PreparedContainer,
    guard: &'a mut CreateGuard,
    /// Masters of the terminals whose master is not in the images.
    terminals: Vec<OwnedFd>,
    relay: Option<Relay>,
}

impl RestoredContainer<'_> {
    /// Records the first process, sets up its network, and runs the hooks. The process and its
    /// namespaces exist, but nothing is in them yet.
    fn set_up(&mut self, pid: i32) -> Result<()> {
        let Self {
            prepared, guard, ..
        } = self;
        let plan = &prepared.plan;
        let pidfd = sys::pidfd_open(pid).context("the restored process")?;
        guard.init = Some((Pid::from_raw(pid), Rc::new(pidfd)));
        let container = guard.container.as_mut().context("no container")?;
        container.record.init = Some(Process::now(pid)?);
        container.save().phase(Phase::State)?;
        plan.namespaces
            .check(pid, CloneFlags::CLONE_NEWNET)
            .phase(Phase::Namespaces)?;
        if plan.namespaces.has_new(CloneFlags::CLONE_NEWNET) {
            let sysctls = || network_sysctls(&plan.sysctls);
            interfaces::bring_loopback_up_of(pid, sysctls).phase(Phase::Namespaces)?;
        }
        if !plan.net_devices.is_empty() {
            // The devices of a joined namespace can be in it since the container was created.
            let moved = match plan.namespaces.has_new(CloneFlags::CLONE_NEWNET) {
                true => MovedDevice::all(&plan.net_devices, pid),
                false => MovedDevice::missing(&plan.net_devices, pid),
            };
            guard.moved = Some(moved.phase(Phase::Namespaces)?);
        }
        let Some(hooks) = plan.hooks.as_ref().filter(|hooks| hooks.has(&CALLERS)) else {
            return Ok(());
        };
        // The hooks find the device rules set, since they may change them. Other limits would apply
        // to CRIU itself.
        prepared
            .cgroup
            .apply(&prepared.limits.of_devices())
            .phase(Phase::Cgroup)?;
        CALLERS
            .into_iter()
            .try_for_each(|kind| hooks.run(kind, pid))
    }

    /// Checks the container and completes it. All processes exist and none of them continues yet: a
    /// failure here ends them all.
    fn complete(&mut self, pid: i32) -> Result<()> {
        self.check_terminals().phase(Phase::Terminal)?;
        let Self {
            prepared, guard, ..
        } = self;
        let PreparedContainer {
            plan,
            cgroup,
            limits,
            ..
        } = prepared;
        plan.namespaces
            .check(pid, CloneFlags::all() | NEWTIME)
            .phase(Phase::Namespaces)?;
        seen::check(root(prepared)?, pid).phase(Phase::Mounts)?;
        launch::give_pipes(plan, pid).phase(Phase::Process)?;
        let container = guard.container.as_mut().context("no container")?;
        // CRIU makes a time namespace, so that clocks do not jump.
        let time = |process: &str| fs::read_link(format!("/proc/{process}/ns/time"));
        if time(&pid.to_string())? != time("self")? {
            container.record.namespaces |= libc::CLONE_NEWTIME;
        }
        container.save().phase(Phase::State)?;
        let with_hooks = plan.hooks.as_ref().is_some_and(|hooks| hooks.has(&CALLERS));
        let rest = if with_hooks {
            limits.without_devices()
        } else {
            limits.clone()
        };
        cgroup.apply(&rest).phase(Phase::Cgroup)?;
        if let Some(own @ Delegation::Own { .. }) = &prepared.delegation {
            cgroup.delegate(own, pid).phase(Phase::Cgroup)?;
        }
        launch::schedule(plan, Pid::from_raw(pid)).phase(Phase::Process)?;
        self.relay = prepared
            .relay(self.terminals.pop())
            .phase(Phase::Terminal)?;
        create::tell(self.request, prepared, guard).phase(Phase::State)
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
    fn open(spec: &Spec) -> Result<Self> {
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
