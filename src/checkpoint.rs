//! `checkpoint`: CRIU writes the processes of a container into a directory, for `restore`.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::stat;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use crate::container::service;
use crate::container::state::{Container, ContainerRecord, ContainerStatus};
use crate::criu::rpc::{self, CgroupMode, PageServer, RequestKind};
use crate::criu::{
    self, CheckpointNotes, CriuCommonOptions, CriuProgram, CriuWorker, ImagesDirectory, lost,
    mounts,
};
use crate::error::{InPhase, Phase};
use crate::namespace::is_root_of_host;
use crate::plan::{PlanSource, RootfsPlan};
use crate::{config, delete, log, sys};

const LOG: &str = "dump.log";
/// The file among the images that says where the standard streams led to; runc has the same one.
pub const DESCRIPTORS: &str = "descriptors.json";

/// Options of `checkpoint`.
#[derive(Debug, Args)]
pub struct CheckpointOptions {
    #[command(flatten)]
    pub common: CriuCommonOptions,
    /// Directory of the checkpoint before, relative to --image-path
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Let the container go on
    #[arg(long)]
    leave_running: bool,
    /// Leave out TCP connections that are still being made
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Keep open files that have been removed
    #[arg(long)]
    link_remap: bool,
    /// Descriptor that takes a zero byte when the pages can be fetched
    #[arg(long, value_name = "FD", default_value_t = -1, hide_default_value = true, allow_hyphen_values = true)]
    pub status_fd: i32,
    /// Send the pages to this server
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = page_server)]
    page_server: Option<PageServer>,
    /// Write the memory only, and let the container go on
    #[arg(long)]
    pre_dump: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
}

fn page_server(text: &str) -> Result<PageServer, String> {
    let form = || "use ADDRESS:PORT".to_owned();
    let (address, port) = text.rsplit_once(':').ok_or_else(form)?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if address.is_empty() {
        return Err(form());
    }
    let port: u16 = port.parse().map_err(|_| form())?;
    Ok(PageServer {
        address: Some(address.to_owned()),
        port: Some(port.into()),
    })
}

/// Executes `rt checkpoint`.
pub fn checkpoint(root: &Path, options: &CheckpointOptions) -> Result<()> {
    let id = &options.id;
    let (container, _lock) = Container::open_existing_locked(root, id)?;
    let (status, init) = container.status().phase(Phase::State)?;
    let init = match (status, init) {
        (ContainerStatus::Running | ContainerStatus::Paused, Some(init)) => init,
        _ => bail!("{id}: container cannot be checkpointed in {status} state"),
    };
    ensure!(
        is_root_of_host(),
        "checkpoint: only root of the host may do that"
    );
    let manager = "a container that tells a service manager (NOTIFY_SOCKET) has no checkpoint";
    ensure!(!service::is_prepared(&container), "{id}: {manager}");
    let dumped = dump(&container, options).phase(Phase::Process);
    if dumped.is_err() && status == ContainerStatus::Running {
        // CRIU may have been killed while the container was frozen.
        container.record.cgroup.thaw().phase(Phase::Cgroup)?;
    }
    dumped?;
    log::debug(format_args!("{id}: its checkpoint is written"));
    if options.leave_running || options.pre_dump {
        return Ok(());
    }
    // A container with a checkpoint is removed, as runc does: nothing is left that could be
    // started.
    delete::end_init(&container, init.as_fd())?;
    delete::clean_up(&container)
}

fn dump(container: &Container, options: &CheckpointOptions) -> Result<()> {
    let record = &container.record;
    let pid = record.init.context("no process")?.pid;
    let spec = config::load(&record.bundle, Some(&container.config()))?.spec;
    let root = plan_root(record, &spec)?;
    lost::refuse_what_is_lost(&spec, &root)?;
    // In the root cgroup CRIU would dump every cgroup of the host, and make them again.
    let at_top = criu::cgroup_roots(pid)?.iter().any(|root| root.path == "/");
    let cgroup_mode = options
        .common
        .cgroup_mode(at_top || record.cgroup.is_nowhere())?;
    let mut server = options.status()?;
    let program = CriuProgram::find()?;
    let images = ImagesDirectory::make(&options.common)?;
    let mut request = dump_request(record, options, &images)?;
    request.external = external_namespaces(&spec, pid)?;
    request.manage_cgroups_mode = Some(cgroup_mode.into());
    if !options.pre_dump {
        request.external_mounts = mounts::dumped(&root, pid)?;
        save_descriptors(&images, pid)?;
        let masked = Some(mounts::masked(&request.external_mounts));
        let ignores_groups = cgroup_mode == CgroupMode::Ignore;
        let notes = CheckpointNotes {
            ignores_groups,
            masked,
        };
        notes.write(&images)?;
    }
    let kind = if options.pre_dump {
        RequestKind::PreDump
    } else {
        RequestKind::Dump
    };
    let mut worker = start(&program, &images)?;
    let done = worker.request(kind, request, &images.log(LOG), |notify, _| {
        match server.take() {
            Some(mut file) if notify.script() == "status-ready" => {
                file.write_all(&[0]).context("--status-fd")
            }
            other => {
                server = other;
                Ok(())
            }
        }
    });
    // CRIU is waited for after an error, too: it lets the container go on.
    let ended = worker.finish();
    done?;
    // After a pre-dump CRIU expects another one, and takes the closed socket for an error.
    if options.pre_dump { Ok(()) } else { ended }
}

fn plan_root(record: &ContainerRecord, spec: &Spec) -> Result<RootfsPlan> {
    let default = Linux::default();
    let linux = spec.linux().as_ref().unwrap_or(&default);
    let source = PlanSource {
        spec,
        checked: &config::check_spec(spec)?,
        bundle: &record.bundle,
        rootfs: &record.rootfs,
        id: &record.id,
    };
    let has_user = record.has_user_namespace();
    RootfsPlan::new(&source, linux, &record.cgroup, has_user, false)
}

/// Returns the part of CRIU's request that the record and the options determine.
fn dump_request(
    record: &ContainerRecord,
    options: &CheckpointOptions,
    images: &ImagesDirectory,
) -> Result<rpc::CriuOptions> {
    let freezer = record.cgroup.freezer_directory();
    let mut request = rpc::CriuOptions {
        pid: record.init.map(|init| init.pid),
        root: Some(record.rootfs.to_string_lossy().into_owned()),
        leave_running: Some(options.leave_running),
        tcp_skip_in_flight: Some(options.tcp_skip_in_flight),
        link_remap: Some(options.link_remap),
        page_server: options.page_server.clone(),
        freeze_cgroup: freezer.map(|directory| directory.to_string_lossy().into_owned()),
        track_mem: options.pre_dump.then_some(true),
        ..options.common.request(images, LOG, &record.annotations)
    };
    if let Some(parent) = &options.parent_path {
        images.check_parent(parent)?;
        request.parent_img = Some(parent.to_string_lossy().into_owned());
        request.track_mem = Some(true);
    }
    Ok(request)
}

/// Starts CRIU in a session of its own, without the streams of this command.
fn start(program: &CriuProgram, images: &ImagesDirectory) -> Result<CriuWorker> {
    CriuWorker::start(program, 0, None, || {
        // A Ctrl-C must not reach CRIU: without CRIU the processes would stay frozen.
        setsid()?;
        // CRIU writes its messages to its log.
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .context("/dev/null")?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        images.open()
    })
}

/// Returns the namespaces that the container has joined and that CRIU leaves alone: they must exist
/// at the restore.
fn external_namespaces(spec: &Spec, pid: i32) -> Result<Vec<String>> {
    let namespaces = spec
        .linux()
        .iter()
        .filter_map(|linux| linux.namespaces().as_ref())
        .flatten();
    let joined = namespaces.filter(|namespace| namespace.path().is_some());
    let external = joined.filter_map(|namespace| external_key(namespace.typ()));
    external
        .map(|(name, key)| {
            let path = format!("/proc/{pid}/ns/{name}");
            let stat = stat(path.as_str()).context(path)?;
            Ok(format!("{name}[{}]:{key}", stat.st_ino))
        })
        .collect()
}

/// Returns the kernel's name of a namespace that CRIU can leave alone, and its name in runc's
/// images.
pub fn external_key(kind: LinuxNamespaceType) -> Option<(&'static str, &'static str)> {
    match kind {
        LinuxNamespaceType::Network => Some(("net", "extRootNetNS")),
        LinuxNamespaceType::Pid => Some(("pid", "extRootPidNS")),
        _ => None,
    }
}

fn save_descriptors(images: &ImagesDirectory, pid: i32) -> Result<()> {
    let name = |fd: i32| {
        let link = fs::read_link(format!("/proc/{pid}/fd/{fd}"));
        link.map_or_else(
            |_| String::new(),
            |name| name.to_string_lossy().into_owned(),
        )
    };
    let names: Vec<String> = (0..3).map(name).collect();
    images.write(DESCRIPTORS, &serde_json::to_vec(&names)?)
}

impl CheckpointOptions {
    /// Returns a duplicate of the descriptor that `--status-fd` names. It is not opened anew: a
    /// socket cannot be opened, and opening a FIFO would wait for its other end.
    fn status(&self) -> Result<Option<File>> {
        if self.status_fd < 0 {
            return Ok(None);
        }
        let copy = || -> Result<OwnedFd> {
            let fd = sys::duplicate(self.status_fd)?;
            let mode = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?) & OFlag::O_ACCMODE;
            ensure!(mode != OFlag::O_RDONLY, "not open for writing");
            Ok(fd)
        };
        copy()
            .map(|fd| Some(fd.into()))
            .with_context(|| format!("--status-fd {}", self.status_fd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        let read = |text| page_server(text).map(|server| (server.address.unwrap(), server.port));
        assert_eq!(read("host:27").unwrap(), ("host".to_owned(), Some(27)));
        assert_eq!(read("[::1]:27").unwrap(), ("::1".to_owned(), Some(27)));
        for wrong in ["", "host", ":27", "host:", "host:70000", "host:x"] {
            assert!(page_server(wrong).is_err(), "{wrong}");
        }
    }
}
