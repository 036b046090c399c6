//! Refuses wrong configurations before any side effect: the properties outside of `process` and
//! `linux`, and the order of all checks.

use std::fmt::Arguments;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{Hooks, Linux, LinuxNamespaceType, Mount, Spec};

use crate::annotations::{Annotations, UNKNOWN_CALLS};
use crate::config::hooks::HookKind;
use crate::config::mount_options::{self, Bind, MountOptions};
use crate::config::namespaces::NamespaceList;
use crate::config::text::{absolute, is_root, path_text, text};
use crate::config::{linux, process, seccomp};
use crate::security::landlock::LandlockRules;

/// The longest host or domain name, in bytes (`__NEW_UTS_LEN` of the kernel).
const UTS_LEN: usize = 64;

/// What the checks have parsed of a configuration, so that the plan need not parse it again.
#[derive(Debug, PartialEq, Eq)]
pub struct CheckedConfig {
    /// The options of each entry of `mounts`.
    pub mount_options: Vec<MountOptions>,
    pub landlock: Option<LandlockRules>,
}

/// Checks every property of a configuration. A property is honoured, or is meant for another
/// platform, or is refused here. Reads nothing but `/sys` (does the security module exist?) and
/// `/proc/self/ns` (is the namespace of a sysctl the host's?).
///
/// # Errors
/// `JSON.PATH: what is wrong`, for the first error that is found.
pub fn check_spec(spec: &Spec) -> Result<CheckedConfig> {
    version(spec.version())?;
    root(spec)?;
    // The properties solaris, vm, windows and zos configure other platforms.
    if let Some(hooks) = spec.hooks() {
        check_hooks(hooks)?;
    }
    let linux = spec.linux().as_ref().context("linux: required")?;
    let namespaces = NamespaceList::new(linux)?;
    linux::check_linux(linux, &namespaces)?;
    uts_name("hostname", spec.hostname(), &namespaces)?;
    uts_name("domainname", spec.domainname(), &namespaces)?;
    let has_user = namespaces.has(LinuxNamespaceType::User);
    let mounts = spec.mounts().iter().flatten().enumerate();
    let mount_options = mounts
        .map(|(i, mount)| check_mount(format_args!("mounts[{i}]"), mount, has_user))
        .collect::<Result<_>>()?;
    for (key, value) in spec.annotations().iter().flatten() {
        text("annotations", key)?;
        text("annotations", value)?;
    }
    let landlock = LandlockRules::parse(spec.annotations().iter().flatten())?;
    if let Some(annotations) = spec.annotations() {
        annotations.check()?;
        if annotations.is_on(UNKNOWN_CALLS) {
            linux
                .seccomp()
                .as_ref()
                .map(seccomp::check_names)
                .transpose()?;
        }
    }
    if let Some(process) = spec.process() {
        process::check_process(process)?;
        let user = process.user();
        linux::mapped(
            "process.user.uid",
            user.uid(),
            linux.uid_mappings(),
            &namespaces,
        )?;
        linux::mapped(
            "process.user.gid",
            user.gid(),
            linux.gid_mappings(),
            &namespaces,
        )?;
    }
    mount_owners(spec, linux, &namespaces)?;
    Ok(CheckedConfig {
        mount_options,
        landlock,
    })
}

/// Checks that `ociVersion` is a semantic version; every version 1.x is compatible.
fn version(version: &str) -> Result<()> {
    let (core, rest) = match version.find(['-', '+']) {
        Some(end) => version.split_at(end),
        None => (version, ""),
    };
    let numbers = core
        .split('.')
        .map(|n| n.parse::<u32>().ok().filter(|_| !n.starts_with('+')));
    let numbers: Option<Vec<_>> = numbers.collect();
    let well_formed = rest.is_empty()
        || rest.len() > 1
            && rest
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"-+.".contains(&c));
    match numbers.as_deref() {
        Some([1, _, _]) if well_formed => Ok(()),
        Some([_, _, _]) if well_formed => bail!("ociVersion: {version} is not supported, 1.x is"),
        _ => bail!("ociVersion: {version:?} is not a semantic version"),
    }
}

fn root(spec: &Spec) -> Result<()> {
    let root = spec.root().as_ref().context("root: required")?;
    ensure!(!root.path().as_os_str().is_empty(), "root.path: required");
    path_text("root.path", root.path())
}

fn check_hooks(hooks: &Hooks) -> Result<()> {
    for kind in HookKind::ALL {
        for (i, hook) in kind.of(hooks).iter().enumerate() {
            let path = format_args!("hooks.{}[{i}]", kind.name());
            absolute(format_args!("{path}.path"), hook.path())?;
            for (name, list) in [("args", hook.args()), ("env", hook.env())] {
                for (j, string) in list.iter().flatten().enumerate() {
                    text(format_args!("{path}.{name}[{j}]"), string)?;
                }
            }
            let seconds = hook.timeout();
            ensure!(
                seconds.is_none_or(|n| n > 0),
                "{path}.timeout: must be more than 0 seconds"
            );
        }
    }
    Ok(())
}

fn uts_name(path: &str, name: &Option<String>, namespaces: &NamespaceList<'_>) -> Result<()> {
    let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    text(path, name)?;
    ensure!(name.len() <= UTS_LEN, "{path}: longer than {UTS_LEN} bytes");
    ensure!(
        namespaces.has(LinuxNamespaceType::Uts),
        "{path}: unable to set {path} without a private UTS namespace"
    );
    Ok(())
}

fn check_mount(path: Arguments<'_>, mount: &Mount, has_user: bool) -> Result<MountOptions> {
    let destination = mount.destination();
    ensure!(
        !destination.as_os_str().is_empty(),
        "{path}.destination: required"
    );
    path_text(format_args!("{path}.destination"), destination)?;
    let typ = mount.typ().as_deref().unwrap_or_default();
    text(format_args!("{path}.type"), typ)?;
    let source = mount.source().as_deref().unwrap_or(Path::new(""));
    path_text(format_args!("{path}.source"), source)?;

    let options = mount_options::of_mount(path, mount)?;
    check_kind(path, typ, source, &options)?;
    // A mount over the root would be visible to nobody.
    let beneath = options.remount || !is_root(destination);
    ensure!(
        beneath,
        "{path}.destination: {} is root.path itself",
        destination.display()
    );
    check_ids(path, mount, &options, has_user)?;
    Ok(options)
}

/// Checks the id mappings of a mount: its own, or, with `idmap` or `ridmap`, those of the
/// container.
fn check_ids(
    path: Arguments<'_>,
    mount: &Mount,
    options: &MountOptions,
    has_user: bool,
) -> Result<()> {
    let word = options.id_map.is_some();
    let [uids, gids] = [mount.uid_mappings(), mount.gid_mappings()]
        .map(|list| list.as_deref().unwrap_or_default());
    linux::mapping_list(&format!("{path}.uidMappings"), uids)?;
    linux::mapping_list(&format!("{path}.gidMappings"), gids)?;
    ensure!(
        uids.is_empty() == gids.is_empty(),
        "{path}: uidMappings and gidMappings: only together"
    );
    let own = !uids.is_empty();
    ensure!(
        !word || own || has_user,
        "{path}.options: idmap: needs uidMappings and gidMappings, or a user namespace"
    );
    let bind =
        !options.remount && (options.bind != Bind::No || mount.typ().as_deref() == Some("bind"));
    ensure!(
        bind || !(own || word),
        "{path}: only a bind mount can be id-mapped"
    );
    Ok(())
}

/// Checks that ids in file system options are mapped in the container's user namespace.
fn mount_owners(spec: &Spec, linux: &Linux, namespaces: &NamespaceList<'_>) -> Result<()> {
    for (i, mount) in spec.mounts().iter().flatten().enumerate() {
        for option in mount.options().iter().flatten() {
            let (ids, id) = match option.split_once('=') {
                Some(("uid", id)) => (linux.uid_mappings(), id),
                Some(("gid", id)) => (linux.gid_mappings(), id),
                _ => continue,
            };
            if let Ok(id) = id.parse() {
                linux::mapped(
                    &format!("mounts[{i}].options: {option}"),
                    id,
                    ids,
                    namespaces,
                )?;
            }
        }
    }
    Ok(())
}

fn check_kind(path: Arguments<'_>, typ: &str, source: &Path, options: &MountOptions) -> Result<()> {
    let bind = options.bind != Bind::No || typ == "bind";
    if options.remount {
        // Changes an earlier mount, so neither type nor source is needed.
    } else if bind {
        ensure!(
            !source.as_os_str().is_empty(),
            "{path}.source: required for a bind mount"
        );
    } else {
        ensure!(
            !typ.is_empty(),
            "{path}.type: required unless it is a bind mount"
        );
    }
    if bind && let Some(name) = options.beyond_bind() {
        bail!("{path}.options: {name}: not an option of a bind mount");
    }
    let links = options.minds_links() && (options.remount || !bind);
    ensure!(
        !links,
        "{path}.options: copy-symlink, src-nofollow, dest-nofollow: only for a new bind mount"
    );
    let copies = options.tmpcopyup && (options.remount || typ != "tmpfs");
    ensure!(!copies, "{path}.options: tmpcopyup: only for a new tmpfs");
    Ok(())
}
