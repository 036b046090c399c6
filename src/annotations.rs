//! Annotations of crun (crun(1) "Extensions to OCI") that change what `rt` does: configurations of
//! podman's users contain them.
//!
//! | `run.oci.…` | effect | where |
//! |---|---|---|
//! | `keep_original_groups` | the process keeps the supplementary groups of the engine, unless the value is `0` | `plan.rs`, `init/process.rs` |
//! | `hooks.stdout` `hooks.stderr` | files to which the output of hooks is written | `container/hooks.rs` |
//! | `pidfd_receiver` | a socket that receives the pidfd of init, like `--pidfd-socket` | `create.rs` |
//! | `systemd.subgroup` | the cgroup, below the systemd scope, of the container | `cgroup/place.rs` |
//! | `delegate-cgroup` | the cgroup, below that of the container, in which its process starts | `cgroup/delegation.rs` |
//! | `seccomp_fail_unknown_syscall` | an unknown name of a system call in a profile is an error, unless the value is `0` | `config/check.rs` |
//! | `seccomp.receiver` | the default of `linux.seccomp.listenerPath` | `config.rs` |
//! | `mount_context_type` | the mount option, instead of `context`, that gives `linux.mountLabel` to new file systems | `plan/mount.rs` |

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};

const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
/// The annotations for standard output and standard error of hooks.
pub const HOOK_OUTPUTS: [&str; 2] = ["run.oci.hooks.stdout", "run.oci.hooks.stderr"];
pub const PIDFD: &str = "run.oci.pidfd_receiver";
pub const SUBGROUP: &str = "run.oci.systemd.subgroup";
pub const DELEGATE: &str = "run.oci.delegate-cgroup";
pub const UNKNOWN_CALLS: &str = "run.oci.seccomp_fail_unknown_syscall";
pub const RECEIVER: &str = "run.oci.seccomp.receiver";
const CONTEXT: &str = "run.oci.mount_context_type";
/// Annotations that are refused: if they were ignored, a container would have a weaker seccomp
/// filter than was asked for.
const REFUSED: [&str; 2] = ["run.oci.seccomp_bpf_data", "run.oci.seccomp.plugins"];

/// The values of `mount_context_type` (mount(8) "Filesystem-independent mount options").
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// All supported annotations, for `features`.
pub const ALL: [&str; 9] = [
    KEEP_GROUPS,
    HOOK_OUTPUTS[0],
    HOOK_OUTPUTS[1],
    PIDFD,
    SUBGROUP,
    DELEGATE,
    UNKNOWN_CALLS,
    RECEIVER,
    CONTEXT,
];

/// A map of annotations, of a configuration or of a record.
pub trait Annotations {
    /// Returns the value of `name`.
    fn value(&self, name: &str) -> Option<&str>;

    /// Whether `name` is present with another value than `0`.
    fn is_on(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value != "0")
    }

    /// Whether the process keeps the supplementary groups of the engine.
    fn keeps_groups(&self) -> bool {
        self.is_on(KEEP_GROUPS)
    }

    /// Returns the value of `name`, which has to be an absolute path; `None` if it is missing or
    /// empty.
    fn path(&self, name: &str) -> Result<Option<&Path>> {
        let Some(path) = self.value(name).filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        ensure!(
            path.starts_with('/'),
            "{}: {path:?} is not an absolute path",
            origin(name)
        );
        Ok(Some(Path::new(path)))
    }

    /// Returns the value of `name` as the path of a cgroup relative to another one; `None` if it is
    /// missing or empty. A leading `/` is ignored.
    ///
    /// # Errors
    /// If the path contains `..` or names no cgroup.
    fn cgroup(&self, name: &str) -> Result<Option<PathBuf>> {
        let Some(text) = self.value(name).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let path = Path::new(text);
        let leads_up = path.components().any(|part| part == Component::ParentDir);
        let below = path
            .components()
            .filter(|part| matches!(part, Component::Normal(_)));
        let below = below.collect::<PathBuf>();
        let names_one = !leads_up && !below.as_os_str().is_empty();
        ensure!(
            names_one,
            "{}: {text:?} names no cgroup below another one",
            origin(name)
        );
        Ok(Some(below))
    }

    /// Returns the mount option that gives a file system its label: `context` by default.
    fn context_type(&self) -> Result<&'static str> {
        let asked = self.value(CONTEXT).unwrap_or(CONTEXTS[0]);
        let known = CONTEXTS.into_iter().find(|known| *known == asked);
        known.with_context(|| {
            format!(
                "{}: {asked:?} is none of {}",
                origin(CONTEXT),
                CONTEXTS.join(", ")
            )
        })
    }

    /// Checks the values of all annotations in this file, and refuses those of [`REFUSED`].
    fn check(&self) -> Result<()> {
        for name in [HOOK_OUTPUTS[0], HOOK_OUTPUTS[1], PIDFD, RECEIVER] {
            self.path(name)?;
        }
        for name in REFUSED {
            ensure!(
                self.value(name).is_none(),
                "{}: not supported",
                origin(name)
            );
        }
        for name in [SUBGROUP, DELEGATE] {
            self.cgroup(name)?;
        }
        self.context_type().map(drop)
    }
}

macro_rules! annotations {
    ($map:ident) => {
        impl Annotations for std::collections::$map<String, String> {
            fn value(&self, name: &str) -> Option<&str> {
                self.get(name).map(String::as_str)
            }
        }
    };
}
annotations!(HashMap);
annotations!(BTreeMap);

/// Returns the name of an annotation as errors write it.
pub fn origin(name: &str) -> String {
    format!("annotations[{name:?}]")
}

/// Refuses the annotation `name` unless the host has only cgroup version 2 (`unified`).
pub fn needs_v2(name: &str, unified: bool) -> Result<()> {
    unified
        .then_some(())
        .with_context(|| format!("{}: needs cgroup v2", origin(name)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn one(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn groups_are_kept_unless_the_value_is_zero() {
        assert!(one(KEEP_GROUPS, "1").keeps_groups() && one(KEEP_GROUPS, "").keeps_groups());
        assert!(!one(KEEP_GROUPS, "0").keeps_groups() && !BTreeMap::new().keeps_groups());
    }

    #[test]
    fn a_cgroup_is_below_another_one() {
        let cgroup = |value| one(DELEGATE, value).cgroup(DELEGATE);
        assert_eq!(cgroup("a/./b").unwrap(), Some("a/b".into()));
        assert_eq!(cgroup("/a").unwrap(), Some("a".into()));
        assert_eq!(cgroup("").unwrap(), None);
        for wrong in ["..", "a/../..", "/", "."] {
            assert!(cgroup(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_would_be_a_weaker_filter_is_refused() {
        for name in REFUSED {
            for value in ["", "x"] {
                let error = one(name, value).check().unwrap_err().to_string();
                assert_eq!(error, format!("annotations[{name:?}]: not supported"));
            }
        }
    }

    #[test]
    fn a_label_is_one_of_four_kinds_of_context() {
        for kind in CONTEXTS {
            assert_eq!(one(CONTEXT, kind).context_type().unwrap(), kind);
        }
        assert_eq!(BTreeMap::new().context_type().unwrap(), "context");
        assert!(one(CONTEXT, "seccontext").check().is_err());
    }

    #[test]
    fn files_and_sockets_have_absolute_paths() {
        for name in [HOOK_OUTPUTS[0], HOOK_OUTPUTS[1], PIDFD, RECEIVER] {
            assert!(one(name, "/x").check().is_ok() && one(name, "").check().is_ok());
            let error = one(name, "x").check().unwrap_err().to_string();
            assert_eq!(
                error,
                format!("annotations[{name:?}]: \"x\" is not an absolute path")
            );
        }
    }
}
