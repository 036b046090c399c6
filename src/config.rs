//! `config.json`: reads it, parses it, and refuses what `rt` cannot honour.
//!
//! The types are those of oci-spec alone. oci-spec rejects some documents that the specification
//! allows. They are corrected and parsed again only after the first parse has failed, so a plain
//! configuration pays nothing for it.

pub mod capabilities;
mod check;
pub mod cpus;
pub mod hooks;
mod json;
mod linux;
pub mod memory_policy;
pub mod mount_options;
mod namespaces;
mod process;
mod scheduling;
mod seccomp;
mod sysctl;
mod text;

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use oci_spec::runtime::{Capability, Linux, LinuxResources, Process, Spec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::annotations::{Annotations, RECEIVER};
use crate::namespace::IdMap;
use crate::sys;

pub use check::{CheckedConfig, check_spec};
pub use linux::{check_intel_rdt, check_resources};
pub use process::check_process;
pub use sysctl::file as sysctl_file;
pub use text::{clean, is_root};

/// The version of runtime-spec that `rt` implements.
pub const OCI_VERSION: &str = "1.3.0";

const CONFIG: &str = "config.json";
/// The largest `config.json` that is read, in bytes; real ones have 10 to 60 KiB.
const LIMIT: u64 = 16 << 20;

/// A configuration, with a warning for each part that was dropped. Empty strings that mean the same
/// as an absent property (hostname, namespace path, cgroupsPath, …) are `None`.
#[derive(Debug)]
pub struct Loaded {
    pub spec: Spec,
    pub warnings: Vec<String>,
    /// The content of the file; empty after [`parse_spec`].
    pub bytes: Vec<u8>,
}

/// The `process.json` of `exec`, with a warning for each part that was dropped.
#[derive(Debug)]
pub struct LoadedProcess {
    pub process: Process,
    pub warnings: Vec<String>,
}

/// Reads and parses `config.json` of a bundle, or another file in its place. The caller runs
/// [`check_spec`] afterwards.
///
/// # Errors
/// `config.json in BUNDLE: …` or `--config FILE: …` with the path of the property that is wrong.
pub fn load(bundle: &Path, config: Option<&Path>) -> Result<Loaded> {
    // As with crun, `--config config.json` means the bundle's file; any other path is relative to
    // the working directory.
    let config = config.filter(|path| *path != Path::new(CONFIG));
    let own = bundle.join(CONFIG);
    let parsed = read(config.unwrap_or(&own)).and_then(|bytes| {
        let loaded = parse_spec(&bytes)?;
        Ok(Loaded { bytes, ..loaded })
    });
    parsed.with_context(|| match config {
        Some(path) => format!("--config {}", path.display()),
        None => format!("{CONFIG} in {}", bundle.display()),
    })
}

/// Parses a `process` object that is a document of its own.
///
/// # Errors
/// The path of the property that is wrong.
pub fn process(bytes: &[u8]) -> Result<LoadedProcess> {
    let mut warnings = Vec::new();
    let process = parse(bytes, |value| mend_process(value, "", &mut warnings))?;
    Ok(LoadedProcess { process, warnings })
}

/// Returns the bytes of `exec --process PATH`: of a file, or of a pipe that the engine holds open,
/// as in `--process /dev/fd/4`.
///
/// # Errors
/// `--process PATH: …`.
pub fn read_process(path: &Path) -> Result<Vec<u8>> {
    read_file_or_pipe(path).with_context(|| format!("--process {}", path.display()))
}

fn read_file_or_pipe(path: &Path) -> Result<Vec<u8>> {
    let file = open_file(path)?;
    let kind = file.metadata()?.file_type();
    ensure!(
        kind.is_fifo() || kind.is_file(),
        "neither a file nor a pipe"
    );
    // With O_NONBLOCK, which [`open`] sets, a pipe that is still empty would be an error.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= LIMIT,
        "larger than {} MiB",
        LIMIT >> 20
    );
    Ok(bytes)
}

/// Parses a `linux.resources` object that is a document of its own.
///
/// # Errors
/// The path of the property that is wrong.
pub fn resources(bytes: &[u8]) -> Result<LinuxResources> {
    let mut resources = parse(bytes, |value| {
        remove_nulls(value) | mend_resources(Some(value))
    })?;
    normalise_pids(&mut resources, bytes, "/pids/limit")?;
    Ok(resources)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let file = open_file(path)?;
    let metadata = file.metadata()?;
    ensure!(metadata.is_file(), "not a regular file");
    ensure!(metadata.len() <= LIMIT, "larger than {} MiB", LIMIT >> 20);
    let bytes = sys::read_at_most(&file, usize::try_from(LIMIT)? + 1)?;
    ensure!(
        bytes.len() as u64 <= LIMIT,
        "larger than {} MiB",
        LIMIT >> 20
    );
    Ok(bytes)
}

/// Opens a file for reading, with O_NONBLOCK so that opening a fifo does not wait for a writer.
fn open_file(path: &Path) -> Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    Ok(OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?)
}

/// Parses the bytes of a `config.json`.
pub fn parse_spec(bytes: &[u8]) -> Result<Loaded> {
    let mut warnings = Vec::new();
    let mut spec = parse(bytes, |value| mend_spec(value, &mut warnings))?;
    normalise(&mut spec, bytes)?;
    Ok(Loaded {
        spec,
        warnings,
        bytes: Vec::new(),
    })
}

/// Parses a document. If that fails, corrects the document with `mend` and parses it once more.
fn parse<T: DeserializeOwned>(bytes: &[u8], mend: impl FnOnce(&mut Value) -> bool) -> Result<T> {
    let fault = match json::parse(bytes) {
        Ok(parsed) => return Ok(parsed),
        Err(fault) => fault,
    };
    let mut value = serde_json::from_slice::<Value>(bytes)?;
    if !mend(&mut value) {
        return Err(with_path(&fault.path, &fault.error.to_string()));
    }
    // The corrected tree is parsed as text again, because a second parser for trees would be a
    // tenth of the executable.
    json::parse(&serde_json::to_vec(&value)?).map_err(|fault| {
        // Its line and column belong to a text that nobody has written, so they are left out.
        let error = fault.error.to_string();
        with_path(
            &fault.path,
            error.rfind(" at line ").map_or(&error, |end| &error[..end]),
        )
    })
}

fn with_path(path: &str, error: &str) -> Error {
    if path.is_empty() {
        anyhow!("{error}")
    } else {
        anyhow!("{path}: {error}")
    }
}

/// Corrects what oci-spec rejects although the specification allows it. Returns whether there was
/// any.
fn mend_spec(value: &mut Value, warnings: &mut Vec<String>) -> bool {
    let mut mended = remove_nulls(value);
    if let Some(spec) = value.as_object_mut() {
        for other_platform in ["solaris", "vm", "windows", "zos"] {
            mended |= spec.remove(other_platform).is_some();
        }
    }
    mended |= mend_resources(value.pointer_mut("/linux/resources"));
    match value.get_mut("process") {
        Some(process) => mended | mend_process(process, "process.", warnings),
        None => mended,
    }
}

fn mend_resources(resources: Option<&mut Value>) -> bool {
    let mut mended = false;
    let limits = resources.and_then(|resources| resources.get_mut("hugepageLimits"));
    for limit in limits.and_then(Value::as_array_mut).into_iter().flatten() {
        // The kernel counts pages in a signed number, so a limit above that is no limit.
        if let Some(limit) = limit.get_mut("limit").filter(|n| n.is_u64() && !n.is_i64()) {
            *limit = i64::MAX.into();
            mended = true;
        }
    }
    mended
}

fn mend_process(value: &mut Value, path: &str, warnings: &mut Vec<String>) -> bool {
    let mut mended = remove_nulls(value);
    let Some(process) = value.as_object_mut() else {
        return mended;
    };
    if !process.contains_key("user") {
        process.insert("user".into(), Value::Object(serde_json::Map::new()));
        mended = true;
    }
    if let Some(sets) = process
        .get_mut("capabilities")
        .and_then(Value::as_object_mut)
    {
        for (set, names) in sets {
            let Some(names) = names.as_array_mut() else {
                continue;
            };
            let before = names.len();
            names.retain(|name| {
                let unknown = name.is_string() && Capability::deserialize(name).is_err();
                if unknown {
                    warnings.push(format!(
                        "{path}capabilities.{set}: unknown {name}, left out"
                    ));
                }
                !unknown
            });
            mended |= names.len() != before;
        }
    }
    let flags = process
        .get_mut("scheduler")
        .and_then(|scheduler| scheduler.get_mut("flags"));
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        // oci-spec spells these two flags differently.
        let theirs = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = theirs.into();
        mended = true;
    }
    if let Some(cpus) = process
        .get_mut("execCPUAffinity")
        .and_then(Value::as_object_mut)
    {
        let before = cpus.len();
        cpus.retain(|_, list| *list != "");
        mended |= cpus.len() != before;
    }
    mended
}

/// Removes properties that are null, which encoders of clients write for absent ones. Returns
/// whether there were any.
fn remove_nulls(value: &mut Value) -> bool {
    match value {
        Value::Object(object) => {
            let before = object.len();
            object.retain(|_, value| !value.is_null());
            let removed = object.len() != before;
            object
                .values_mut()
                .fold(removed, |removed, value| remove_nulls(value) | removed)
        }
        Value::Array(array) => array
            .iter_mut()
            .fold(false, |removed, value| remove_nulls(value) | removed),
        _ => false,
    }
}

/// Replaces values that mean the same as an absent property with `None`.
fn normalise(spec: &mut Spec, bytes: &[u8]) -> Result<()> {
    let empty = |path: &PathBuf| path.as_os_str().is_empty();
    spec.hostname_mut().take_if(|name| name.is_empty());
    spec.domainname_mut().take_if(|name| name.is_empty());
    for mount in spec.mounts_mut().iter_mut().flatten() {
        mount.typ_mut().take_if(|typ| typ.is_empty());
        mount.source_mut().take_if(|source| empty(source));
    }
    take_maps(spec)?;
    let receiver = match spec.annotations() {
        Some(annotations) => annotations.path(RECEIVER)?.map(Path::to_owned),
        None => None,
    };
    let Some(linux) = spec.linux_mut() else {
        return Ok(());
    };
    if let Some(seccomp) = linux.seccomp_mut() {
        let none = seccomp.listener_path().as_ref().is_none_or(empty);
        if none {
            seccomp.set_listener_path(receiver);
        }
    }
    linux.cgroups_path_mut().take_if(|path| empty(path));
    linux
        .rootfs_propagation_mut()
        .take_if(|word| word.is_empty());
    for namespace in linux.namespaces_mut().iter_mut().flatten() {
        if namespace.path().as_ref().is_some_and(empty) {
            namespace.set_path(None);
        }
    }
    match linux.resources_mut() {
        Some(resources) => normalise_pids(resources, bytes, "/linux/resources/pids/limit"),
        None => Ok(()),
    }
}

/// Moves the id maps in the options of mounts to the properties that the specification has for
/// them.
fn take_maps(spec: &mut Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    let container = [
        linux.map(Linux::uid_mappings),
        linux.map(Linux::gid_mappings),
    ]
    .map(|list| list.map(IdMap::new).unwrap_or_default());
    let mut mounts = spec.mounts_mut().iter_mut().flatten().enumerate();
    mounts.try_for_each(|(i, mount)| mount_options::take_maps(i, mount, &container))
}

/// Removes a pids limit of 0 that the document does not contain: oci-spec reads `"pids": {}`, which
/// limits nothing, as a limit of 0, which admits no process. `pointer` is the JSON pointer of the
/// limit.
fn normalise_pids(resources: &mut LinuxResources, bytes: &[u8], pointer: &str) -> Result<()> {
    if resources.pids().is_some_and(|pids| pids.limit() == 0) {
        let value: Value = serde_json::from_slice(bytes)?;
        if value.pointer(pointer).is_none_or(Value::is_null) {
            resources.set_pids(None);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
