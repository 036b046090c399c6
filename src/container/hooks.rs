//! Hooks: programs of the configuration that run at six points of a container's life, with its
//! state on standard input (runtime-spec, config.md "POSIX-platform Hooks").
//!
//! | kind | run by | in the namespaces of | when |
//! |---|---|---|---|
//! | prestart, createRuntime | `create` | `rt` | everything is mounted, the root is attached at `root.path` |
//! | createContainer | init | the container, with the host's root | after those |
//! | startContainer | init | the container | `start`, just before the program |
//! | poststart | `start` | `rt` | the program runs |
//! | poststop | `delete` | `rt` | everything else is gone |
//!
//! A hook without `env` has the environment of the command that runs it. Exceptions are
//! startContainer hooks, which have the program's, and createContainer hooks, which have none, so
//! that nothing of the engine's environment gets inside.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use oci_spec::runtime::Hook;
use serde::Serialize;

use crate::annotations::{self, Annotations as _};
use crate::child::{ChildProgram, HookOutputs, RunPlace, run};
use crate::config::hooks::HookKind;
use crate::container::state::ContainerRecord;
use crate::error::{InPhase, Phase, line};
use crate::sealed_exe;

/// The hooks of a container, and what they are told about it.
#[derive(Debug)]
pub struct Hooks {
    hooks: oci_spec::runtime::Hooks,
    oci_version: String,
    id: String,
    bundle: PathBuf,
    annotations: BTreeMap<String, String>,
}

/// The state of a container as runtime.md defines it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookState<'a> {
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
    pub fn new(record: &'a ContainerRecord, status: &'a str, pid: i32) -> Self {
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
    pub fn from_record(record: &ContainerRecord) -> Option<Self> {
        Some(Self {
            hooks: record.hooks.clone()?,
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            bundle: record.bundle.clone(),
            annotations: record.annotations.clone(),
        })
    }

    /// Opens the files for the output of the hooks, if the annotations name any.
    pub fn open_outputs(&self) -> Result<HookOutputs> {
        let mut outputs = HookOutputs::default();
        for (name, output) in annotations::HOOK_OUTPUTS.into_iter().zip(&mut outputs.0) {
            let Some(path) = self.annotations.path(name)? else {
                continue;
            };
            let context = || format!("{} {}", annotations::origin(name), path.display());
            // With O_NONBLOCK a FIFO that nobody reads is an error and not a wait.
            let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_CLOEXEC;
            let flags = flags | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
            let fd = open(path, flags, Mode::S_IRUSR | Mode::S_IWUSR).with_context(context)?;
            fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_APPEND)).with_context(context)?;
            *output = Some(fd);
        }
        Ok(outputs)
    }

    /// Whether there is a hook of one of these kinds.
    pub fn has(&self, kinds: &[HookKind]) -> bool {
        kinds.iter().any(|kind| !kind.of(&self.hooks).is_empty())
    }

    /// Runs the hooks of `kind` in their order, in the bundle's directory, up to the first that
    /// fails. `pid` is init's as the hook sees it.
    pub fn run(&self, kind: HookKind, pid: i32, outputs: &HookOutputs) -> Result<()> {
        let env = own_environment();
        self.each(kind, pid, &env, &self.outside(outputs)).collect()
    }

    fn outside<'a>(&'a self, outputs: &'a HookOutputs) -> RunPlace<'a> {
        RunPlace {
            outputs,
            ..RunPlace::outside(Some(&self.bundle))
        }
    }

    /// Runs the hooks of `kind` in their order from inside the container, up to the first that
    /// fails. `pid` is init's as the hook sees it, 0 if init does not exist yet. A hook that
    /// configures no environment gets `env`.
    pub fn run_inside(
        &self,
        kind: HookKind,
        pid: i32,
        env: &[CString],
        place: RunPlace<'_>,
    ) -> Result<()> {
        // startContainer hooks have no keeper: in the container's root nothing of the image can be
        // trusted to tell whom to kill, and the filter might not allow the keeper's calls. What
        // such a hook leaves behind ends with init, or is killed by `start`.
        let has_keeper = kind != HookKind::StartContainer;
        let place = RunPlace {
            has_keeper,
            ..place
        };
        self.each(kind, pid, env, &place).collect()
    }

    /// Runs every hook of `kind` even if some fail. Returns one error line per failure.
    pub fn run_all(&self, kind: HookKind, outputs: &HookOutputs) -> Vec<String> {
        let env = own_environment();
        let place = self.outside(outputs);
        let results = self.each(kind, 0, &env, &place);
        results
            .filter_map(Result::err)
            .map(|error| line(&error))
            .collect()
    }

    fn each(
        &self,
        kind: HookKind,
        pid: i32,
        env: &[CString],
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
                .and_then(|state| run(&program(hook, env)?, state, place))
                // The second half is runc's wording.
                .with_context(|| format!("hooks.{name}[{i}] {path}: error running {name} hook #{i}"))
                .phase(Phase::Hooks)
        })
    }
}

/// Returns the program of a hook, which gets `env` if it configures no environment.
fn program(hook: &Hook, env: &[CString]) -> Result<ChildProgram> {
    let strings = |list: &Vec<String>| -> Result<Vec<CString>> {
        list.iter()
            .map(|text| Ok(CString::new(text.as_str())?))
            .collect()
    };
    let path = CString::new(hook.path().as_os_str().as_bytes())?;
    let args = hook.args().as_ref().map(strings).transpose()?;
    let own_env = hook.env().as_ref().map(strings).transpose()?;
    let seconds = hook.timeout();
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Ok(ChildProgram {
        args: args
            .filter(|args| !args.is_empty())
            .unwrap_or_else(|| vec![path.clone()]),
        path,
        env: own_env.unwrap_or_else(|| env.to_vec()),
        time_limit: seconds.map(Duration::from_secs),
    })
}

/// Returns the environment of this command, which a hook without one inherits, as from runc and
/// crun.
fn own_environment() -> Vec<CString> {
    let variables = std::env::vars_os().filter(|(name, _)| name != sealed_exe::MARK);
    variables
        .filter_map(|(name, value)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect()
}
