//! Annotations of crun's (crun(1) "Extensions to OCI") that change what is done: podman's users
//! have them in their configurations.
//!
//! | `run.oci.…` | what it does | where |
//! |---|---|---|
//! | `keep_original_groups` | the process keeps the caller's groups, unless it is `0` | `init/process.rs` |
//! | `hooks.stdout` `hooks.stderr` | files that get what hooks write | `container/hooks.rs` |
//! | `pidfd_receiver` | a socket that gets init's pidfd, as that of `--pidfd-socket` | `create.rs` |
//! | `systemd.subgroup` | the group within the scope that the container is in | `cgroup.rs` |
//! | `delegate-cgroup` | the group below the container's that its process starts in | `cgroup/delegation.rs` |
//! | `seccomp_fail_unknown_syscall` | a name of no system call in a profile is an error, unless it is `0` | `config/check.rs` |
//! | `seccomp.receiver` | what `linux.seccomp.listenerPath` is, where that is missing | `config.rs` |
//! | `mount_context_type` | what `linux.mountLabel` is to new file systems, instead of `context` | `plan/mount.rs` |

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};

const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
/// Standard output and standard error.
pub(crate) const HOOK_OUTPUTS: [&str; 2] = ["run.oci.hooks.stdout", "run.oci.hooks.stderr"];
pub(crate) const PIDFD: &str = "run.oci.pidfd_receiver";
pub(crate) const SUBGROUP: &str = "run.oci.systemd.subgroup";
pub(crate) const DELEGATE: &str = "run.oci.delegate-cgroup";
pub(crate) const UNKNOWN_CALLS: &str = "run.oci.seccomp_fail_unknown_syscall";
pub(crate) const RECEIVER: &str = "run.oci.seccomp.receiver";
const CONTEXT: &str = "run.oci.mount_context_type";
/// Without these a container would have a weaker filter than was asked for.
const REFUSED: [&str; 2] = ["run.oci.seccomp_bpf_data", "run.oci.seccomp.plugins"];

/// mount(8) "Filesystem-independent mount options".
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// All of them, for `features`.
pub(crate) const ALL: [&str; 9] = [
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

/// A map of annotations, of the configuration or of a state.
pub(crate) trait Annotations {
    /// The value of `name`.
    fn value(&self, name: &str) -> Option<&str>;

    /// Whether a switch is on.
    fn is_on(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value != "0")
    }

    /// Whether the process keeps the caller's supplementary groups.
    fn keeps_groups(&self) -> bool {
        self.is_on(KEEP_GROUPS)
    }

    /// The absolute path that `name` has as its value, if it has one.
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

    /// The path of a group below another one that `name` has as its value, if it has one.
    fn group(&self, name: &str) -> Result<Option<PathBuf>> {
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
            "{}: {text:?} names no group below another one",
            origin(name)
        );
        Ok(Some(below))
    }

    /// The option that gives a file system its label.
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

    /// Refuses values that make no sense.
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
            self.group(name)?;
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

/// How errors name an annotation.
pub(crate) fn origin(name: &str) -> String {
    format!("annotations[{name:?}]")
}

/// Needs a host with version 2 of control groups alone, as `unified` says.
pub(crate) fn needs_v2(name: &str, unified: bool) -> Result<()> {
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
    fn a_group_is_below_another_one() {
        let group = |value| one(DELEGATE, value).group(DELEGATE);
        assert_eq!(group("a/./b").unwrap(), Some("a/b".into()));
        assert_eq!(group("/a").unwrap(), Some("a".into()));
        assert_eq!(group("").unwrap(), None);
        for wrong in ["..", "a/../..", "/", "."] {
            assert!(group(wrong).is_err(), "{wrong}");
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
