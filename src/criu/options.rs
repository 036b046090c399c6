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

/// The directory of the images without `--image-path`; it is runc's default, too.
const DEFAULT_IMAGES: &str = "checkpoint";
/// The annotation that names a file with options of CRIU for the container.
pub const CONFIG: &str = "org.criu.config";
/// Files with options of CRIU for all containers, of which the first that exists counts. The second
/// one is for hosts that come from runc.
const CONFIGS: [&str; 2] = ["/etc/criu/rt.conf", "/etc/criu/runc.conf"];

/// Flags of open(2) with which `rt` waits for no FIFO and follows no link.
const SAFELY: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;

#[derive(Debug, Args)]
pub struct CriuCommonOptions {
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
    /// Allow a terminal of the host
    #[arg(long)]
    shell_job: bool,
    /// Keep locks of files
    #[arg(long)]
    file_locks: bool,
    /// soft, full, strict or ignore: which cgroups below the container are kept
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
    pub lazy_pages: bool,
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
    /// Returns which cgroups are kept, or none if it is `impossible` to keep any.
    ///
    /// # Errors
    /// `impossible` is true, and `--manage-cgroups-mode` asks for cgroups to be kept.
    pub fn cgroup_mode(&self, impossible: bool) -> Result<CgroupMode> {
        let mode = self.manage_cgroups_mode;
        let kept = !matches!(mode, CgroupMode::Default | CgroupMode::Ignore);
        ensure!(
            !(impossible && kept),
            "--manage-cgroups-mode: nothing of this container's cgroups can be kept, only ignored"
        );
        Ok(if impossible { CgroupMode::Ignore } else { mode })
    }

    /// Returns the options of a request for which CRIU writes `log`.
    pub fn request(
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
            // Hooks, not `rt`, make what is in a network namespace.
            empty_ns: Some(libc::CLONE_NEWNET as u32),
            orphan_pts_master: Some(true),
            auto_dedup: Some(self.auto_dedup),
            lazy_pages: Some(self.lazy_pages),
            config_file: config(annotations),
            ..rpc::CriuOptions::default()
        }
    }
}

/// Returns the file with options of CRIU: the container's own, or one for all containers. An empty
/// annotation means none.
fn config(annotations: &BTreeMap<String, String>) -> Option<String> {
    match annotations.get(CONFIG) {
        Some(own) => Some(own.clone()).filter(|path| !path.is_empty()),
        None => CONFIGS
            .into_iter()
            .find(|path| Path::new(path).exists())
            .map(Into::into),
    }
}

/// The directory of a checkpoint's images, and CRIU's work directory if that is another one.
#[derive(Debug)]
pub struct ImagesDirectory {
    path: PathBuf,
    work: Option<PathBuf>,
}

impl ImagesDirectory {
    /// Returns the directories for a new checkpoint. Missing ones are made.
    pub fn make(common: &CriuCommonOptions) -> Result<Self> {
        let images = Self::of(common);
        make(&images.path).with_context(|| format!("--image-path {}", images.path.display()))?;
        images.checked()
    }

    /// Returns the directories of an existing checkpoint. A missing work directory is made.
    pub fn existing(common: &CriuCommonOptions) -> Result<Self> {
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

    /// Opens the directories: they are the first descriptors that a worker inherits.
    pub fn open(&self) -> Result<Vec<OwnedFd>> {
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

    /// Lets processes with the gid `group` find the images: CRIU opens some of them as root of the
    /// container's user namespace. These processes can neither list the directory nor write to it,
    /// and nobody else gets access. The directory stays like this after the restore.
    pub fn let_in(&self, group: u32) -> Result<()> {
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

    /// Returns how many descriptors [`ImagesDirectory::open`] opens.
    pub fn count(&self) -> usize {
        1 + usize::from(self.work.is_some())
    }

    /// Writes the file `name` among the images. Neither follows a link of that name nor waits for a
    /// FIFO.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
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

    /// Reads the file `name` among the images, with the same care.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
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

    /// Returns the path at which CRIU writes the log `name`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.work.as_ref().unwrap_or(&self.path).join(name)
    }

    /// Refuses a `--parent-path`, the directory of the images before, that is not relative to this
    /// one or is not a directory.
    pub fn check_parent(&self, parent: &Path) -> Result<()> {
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
