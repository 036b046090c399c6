//! What `checkpoint` and `restore` have in common on the command line.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::rpc::{self, CgroupMode};
use super::worker::CriuWorker;

/// Where the images are if nobody says so, as with runc.
const DEFAULT_IMAGES: &str = "checkpoint";
/// Names CRIU's file of options for a container.
pub(crate) const CONFIG: &str = "org.criu.config";
/// CRIU's options for all of them; the second one is for who comes from runc.
const CONFIGS: [&str; 2] = ["/etc/criu/rt.conf", "/etc/criu/runc.conf"];

/// Nobody waits for a FIFO, and no link leads elsewhere.
const SAFELY: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;

#[derive(Debug, Args)]
pub(crate) struct CriuCommonOptions {
    /// Directory of the images [default: checkpoint]
    #[arg(long, value_name = "DIR")]
    image_path: Option<PathBuf>,
    /// Directory of CRIU's log and what else it needs [default: that of the images]
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Keep open TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// Allow Unix sockets whose other end is outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// Allow a terminal of the host's
    #[arg(long)]
    shell_job: bool,
    /// Keep locks of files
    #[arg(long)]
    file_locks: bool,
    /// soft, full, strict or ignore: what is kept of groups below the container's
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true, value_parser = mode)]
    manage_cgroups_mode: CgroupMode,
    /// Tolerated: what is in a network namespace is never kept
    #[arg(long, value_name = "NAMESPACE", value_parser = ["network"])]
    empty_ns: Vec<String>,
    /// Free pages of older images that newer ones replace
    #[arg(long)]
    auto_dedup: bool,
    /// Fetch memory when it is needed
    #[arg(long)]
    pub(crate) lazy_pages: bool,
}

fn mode(word: &str) -> Result<CgroupMode, String> {
    match word {
        "" => Ok(CgroupMode::Default),
        "soft" => Ok(CgroupMode::Soft),
        "full" => Ok(CgroupMode::Full),
        "strict" => Ok(CgroupMode::Strict),
        "ignore" => Ok(CgroupMode::Ignore),
        _ => Err("not soft, full, strict or ignore".into()),
    }
}

impl CriuCommonOptions {
    /// What is kept of control groups, or nothing where it is `impossible` to keep any.
    ///
    /// # Errors
    /// Another mode was asked for.
    pub(crate) fn groups(&self, impossible: bool) -> Result<CgroupMode> {
        let mode = self.manage_cgroups_mode;
        let kept = !matches!(mode, CgroupMode::Default | CgroupMode::Ignore);
        ensure!(
            !(impossible && kept),
            "--manage-cgroups-mode: nothing of this container's groups can be kept, only ignored"
        );
        Ok(if impossible { CgroupMode::Ignore } else { mode })
    }

    /// The options of a request that writes `log`.
    pub(crate) fn request(
        &self,
        images: &ImagesDirectory,
        log: &str,
        annotations: &BTreeMap<String, String>,
    ) -> rpc::CriuOptions {
        rpc::CriuOptions {
            images_dir_fd: CriuWorker::inherited(0),
            work_dir_fd: images.work.as_ref().map(|_| CriuWorker::inherited(1)),
            log_level: Some(4),
            log_file: Some(log.into()),
            notify_scripts: Some(true),
            tcp_established: Some(self.tcp_established),
            ext_unix_sk: Some(self.ext_unix_sk),
            shell_job: Some(self.shell_job),
            file_locks: Some(self.file_locks),
            manage_cgroups_mode: Some(self.manage_cgroups_mode.into()),
            // What is in a network is made by hooks, and not by this program.
            empty_ns: Some(libc::CLONE_NEWNET as u32),
            orphan_pts_master: Some(true),
            auto_dedup: Some(self.auto_dedup),
            lazy_pages: Some(self.lazy_pages),
            config_file: config(annotations),
            ..rpc::CriuOptions::default()
        }
    }
}

/// The file of options: the container's own, or one for all; an empty annotation means none.
fn config(annotations: &BTreeMap<String, String>) -> Option<String> {
    match annotations.get(CONFIG) {
        Some(own) => Some(own.clone()).filter(|path| !path.is_empty()),
        None => CONFIGS
            .into_iter()
            .find(|path| Path::new(path).exists())
            .map(Into::into),
    }
}

/// The directories of a checkpoint.
#[derive(Debug)]
pub(crate) struct ImagesDirectory {
    path: PathBuf,
    work: Option<PathBuf>,
}

impl ImagesDirectory {
    /// Those of a checkpoint to be: they are made if they are not there.
    pub(crate) fn make(common: &CriuCommonOptions) -> Result<Self> {
        let images = Self::of(common);
        make(&images.path).with_context(|| format!("--image-path {}", images.path.display()))?;
        images.checked()
    }

    /// Those of a checkpoint that there is.
    pub(crate) fn existing(common: &CriuCommonOptions) -> Result<Self> {
        Self::of(common).checked()
    }

    fn of(common: &CriuCommonOptions) -> Self {
        let path = common
            .image_path
            .clone()
            .unwrap_or_else(|| DEFAULT_IMAGES.into());
        Self {
            path,
            work: common.work_path.clone(),
        }
    }

    fn checked(self) -> Result<Self> {
        if let Some(work) = &self.work {
            make(work).with_context(|| format!("--work-path {}", work.display()))?;
        }
        self.open().map(|_| self)
    }

    /// What a worker inherits first.
    pub(crate) fn open(&self) -> Result<Vec<OwnedFd>> {
        let named = |name: &'static str, path: &Path| {
            open(path).with_context(|| format!("{name} {}", path.display()))
        };
        let mut all = vec![named("--image-path", &self.path)?];
        all.extend(
            self.work
                .as_ref()
                .map(|path| named("--work-path", path))
                .transpose()?,
        );
        Ok(all)
    }

    /// Lets the processes of this group find the images: CRIU opens some of them as root of the
    /// container's user namespace. They cannot list the directory or write to it, and nobody else
    /// gets in. It stays so.
    pub(crate) fn let_in(&self, group: u32) -> Result<()> {
        let let_in = || -> io::Result<()> {
            let directory = File::from(open(&self.path)?);
            let now = directory.metadata()?;
            let mode = now.mode();
            let is_in = now.gid() == group && mode & libc::S_IRWXG == libc::S_IXGRP;
            if mode & libc::S_IXOTH == 0 && !is_in {
                fchown(&directory, None, Some(group))?;
                let mode = mode & !libc::S_IRWXG | libc::S_IXGRP;
                directory.set_permissions(Permissions::from_mode(mode))?;
            }
            Ok(())
        };
        let_in().with_context(|| format!("--image-path {}", self.path.display()))
    }

    /// How many those are.
    pub(crate) fn count(&self) -> usize {
        1 + usize::from(self.work.is_some())
    }

    /// Writes a file among the images, of which nothing may stand there but a file.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let mut options = File::options();
        options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(SAFELY);
        options
            .open(&path)
            .and_then(|mut file| file.write_all(bytes))
            .with_context(|| path.display().to_string())
    }

    /// A file among the images.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path.join(name);
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            File::options()
                .read(true)
                .custom_flags(SAFELY)
                .open(&path)?
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().with_context(|| path.display().to_string())
    }

    /// Where CRIU writes its log.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.work.as_ref().unwrap_or(&self.path).join(name)
    }

    /// Refuses a directory for the images before that is not one: it is relative to this one.
    pub(crate) fn check_parent(&self, parent: &Path) -> Result<()> {
        if parent.is_absolute() {
            bail!(
                "--parent-path {}: must be relative to --image-path",
                parent.display()
            );
        }
        open(&self.path.join(parent))
            .with_context(|| format!("invalid --parent-path {}", parent.display()))
            .map(drop)
    }
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_DIRECTORY);
    Ok(options.open(path)?.into())
}
