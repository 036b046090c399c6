//! Hooks: programs of the configuration that run at six points of a container's life, with its
//! state on standard input (runtime-spec, config.md "POSIX-platform Hooks").
//!
//! | kind | run by | in | when |
//! |---|---|---|---|
//! | prestart, createRuntime | `create` | the caller's namespaces | everything is mounted, the root is attached at `root.path` |
//! | createContainer | init | the container's, with the host's root | after those |
//! | startContainer | init | the container's | `start`, just before the program |
//! | poststart | `start` | the caller's | the program runs |
//! | poststop | `delete` | the caller's | everything else is gone |
//!
//! Without `env` a hook has the environment of the command that runs it; startContainer has the
//! program's, and createContainer none, so that nothing of the caller's gets inside.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use nix::unistd::getpid;
use serde::Serialize;

use crate::annotations::{self, Annotations as _};
use crate::child::{Confinement, RunPlace, run_to};
use crate::config::hooks::HookKind;
use crate::container::state::ContainerRecord;
use crate::error::{InPhase, Phase, line};
use crate::sealed_exe;

/// The hooks of a container, and what they are told of it.
#[derive(Debug)]
pub(crate) struct Hooks {
    hooks: oci_spec::runtime::Hooks,
    oci_version: String,
    id: String,
    bundle: PathBuf,
    annotations: BTreeMap<String, String>,
    /// Where their standard output and standard error go, if not into the error of one that fails.
    outputs: [Option<OwnedFd>; 2],
}

/// The state of runtime.md.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HookState<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

impl<'a> HookState<'a> {
    /// The state of the container `record`.
    pub(crate) fn of(record: &'a ContainerRecord, status: &'a str, pid: i32) -> Self {
        let ContainerRecord {
            oci_version,
            id,
            bundle,
            annotations,
            ..
        } = record;
        Self {
            oci_version,
            id,
            status,
            pid,
            bundle,
            annotations,
        }
    }
}

impl Hooks {
    /// The hooks of the container `record`, if it has any.
    pub(crate) fn of(record: &ContainerRecord) -> Option<Self> {
        Some(Self {
            hooks: record.hooks.clone()?,
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            bundle: record.bundle.clone(),
            annotations: record.annotations.clone(),
            outputs: [None, None],
        })
    }

    /// Opens the files that get what the hooks write, if there are such.
    pub(crate) fn open_outputs(&mut self) -> Result<()> {
        for (name, output) in annotations::HOOK_OUTPUTS.into_iter().zip(&mut self.outputs) {
            let Some(path) = self.annotations.path(name)? else {
                continue;
            };
            let context = || format!("{} {}", annotations::origin(name), path.display());
            // A FIFO that nobody reads is an error and not a wait.
            let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_CLOEXEC;
            let flags = flags | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
            let fd = open(path, flags, Mode::S_IRUSR | Mode::S_IWUSR).with_context(context)?;
            fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_APPEND)).with_context(context)?;
            *output = Some(fd);
        }
        Ok(())
    }

    /// What has to stay open in init for the hooks that it runs.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let inside = self.has(&[HookKind::CreateContainer, HookKind::StartContainer]);
        self.outputs
            .iter()
            .flatten()
            .filter(move |_| inside)
            .map(AsRawFd::as_raw_fd)
    }

    /// Whether there is a hook of one of these kinds.
    pub(crate) fn has(&self, kinds: &[HookKind]) -> bool {
        kinds.iter().any(|kind| !kind.of(&self.hooks).is_empty())
    }

    /// Runs the hooks of `kind` in their order, in the bundle's directory; the first failure is
    /// the last one run. `pid` is init's as the hook sees it, 0 if there is none.
    pub(crate) fn run(&self, kind: HookKind, pid: i32) -> Result<()> {
        let env = own_environment();
        let place = RunPlace::outside(Some(&self.bundle), &env);
        self.each(kind, pid, &place).collect()
    }

    /// The same from inside the container, in the directory where init is. What has no
    /// environment of its own gets `env`. A `peer` that goes away while a hook runs ends it; it
    /// runs under the `confinement`.
    pub(crate) fn run_inside(
        &self,
        kind: HookKind,
        env: &[CString],
        peer: Option<BorrowedFd<'_>>,
        confinement: Option<&Confinement<'_>>,
    ) -> Result<()> {
        // In the container's root nothing of the image tells whom to kill, and the calls of a keeper
        // might not pass the container's filter: what is left ends with init, or by `start`.
        let has_keeper = kind != HookKind::StartContainer;
        let place = RunPlace {
            cwd: None,
            env,
            peer,
            interruption: None,
            has_keeper,
            confinement,
        };
        self.each(kind, getpid().as_raw(), &place).collect()
    }

    /// Runs all of `kind`, whatever becomes of each; what became of those that failed.
    pub(crate) fn run_all(&self, kind: HookKind) -> Vec<String> {
        let env = own_environment();
        let place = RunPlace::outside(Some(&self.bundle), &env);
        let results = self.each(kind, 0, &place);
        results
            .filter_map(Result::err)
            .map(|error| line(&error))
            .collect()
    }

    fn each(
        &self,
        kind: HookKind,
        pid: i32,
        place: &RunPlace<'_>,
    ) -> impl Iterator<Item = Result<()>> {
        let state = HookState {
            oci_version: &self.oci_version,
            id: &self.id,
            status: kind.status(),
            pid,
            bundle: &self.bundle,
            annotations: &self.annotations,
        };
        let state = serde_json::to_vec(&state);
        kind.of(&self.hooks).iter().enumerate().map(move |(i, hook)| {
            let (name, path) = (kind.name(), hook.path().display());
            let state = state.as_ref().map_err(|error| anyhow::anyhow!("the state: {error}"));
            state
                .and_then(|state| run_to(hook, state, &self.outputs, place))
                // The second half is runc's wording.
                .with_context(|| format!("hooks.{name}[{i}] {path}: error running {name} hook #{i}"))
                .phase(Phase::Hooks)
        })
    }
}

/// The environment of this command, which a hook without one inherits from runc and crun as well.
fn own_environment() -> Vec<CString> {
    let variables = std::env::vars_os().filter(|(name, _)| name != sealed_exe::MARK);
    variables
        .filter_map(|(name, value)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect()
}
