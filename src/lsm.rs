//! Labels of the security modules: AppArmor's profiles and SELinux's contexts. A module takes the
//! label of the next execve(2) as a write to the process's own attributes (proc_pid_attr(5)), and
//! that of a file system as a mount option. A label without its module is nothing to act on.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use oci_spec::runtime::{Linux, Process};

use crate::log;
use crate::procfd::ProcFd;

/// The kernel would take the beginning of a longer one (`proc_pid_attr_write`), in bytes.
const LABEL_MAX: usize = 4096 - "exec ".len();

const APPARMOR: &str = "process.apparmorProfile";
const SELINUX: &str = "process.selinuxLabel";
const MOUNT: &str = "linux.mountLabel";

/// The modules that this kernel runs with.
#[derive(Clone, Copy, Debug)]
struct Modules {
    apparmor: bool,
    selinux: bool,
}

impl Modules {
    fn of_kernel() -> Self {
        let apparmor = std::fs::read("/sys/module/apparmor/parameters/enabled");
        Self {
            apparmor: apparmor.is_ok_and(|word| word.starts_with(b"Y")),
            // The directory alone says nothing: container engines mask it.
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }
}

/// What the program runs under.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    /// The name of a profile.
    apparmor: Option<String>,
    /// A context, which is also that of the session keyring.
    selinux: Option<String>,
}

/// Refuses labels that no module could take.
///
/// # Errors
/// `process.…: what is wrong`.
pub(crate) fn check_process(process: &Process) -> Result<()> {
    check(APPARMOR, process.apparmor_profile())?;
    check(SELINUX, process.selinux_label())
}

/// The same for the label of file systems.
///
/// # Errors
/// `linux.mountLabel: what is wrong`.
pub(crate) fn check_mounts(linux: &Linux) -> Result<()> {
    check(MOUNT, linux.mount_label())
}

fn check(path: &str, label: &Option<String>) -> Result<()> {
    let label = label.as_deref().unwrap_or_default();
    ensure!(!label.contains(['\0', '\n']), "{path}: contains a NUL byte or the end of a line");
    ensure!(label.len() <= LABEL_MAX, "{path}: longer than {LABEL_MAX} bytes");
    Ok(())
}

impl Labels {
    /// Those that this kernel can act on.
    pub(crate) fn of(process: &Process) -> Self {
        let (apparmor, selinux) = (process.apparmor_profile(), process.selinux_label());
        // An answer takes two look-ups.
        if wanted(apparmor).or(wanted(selinux)).is_none() {
            return Self::default();
        }
        Self::under(Modules::of_kernel(), apparmor, selinux)
    }

    fn under(modules: Modules, apparmor: &Option<String>, selinux: &Option<String>) -> Self {
        Self {
            apparmor: effective(APPARMOR, modules.apparmor, apparmor),
            selinux: effective(SELINUX, modules.selinux, selinux),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// In init: what this process executes next runs under the labels.
    pub(crate) fn set(&self, proc: &ProcFd) -> Result<()> {
        if let Some(profile) = &self.apparmor {
            let command = format!("exec {profile}");
            match proc.write("self/attr/apparmor/exec", command.as_bytes()) {
                // As strerror(3) has it, clients would take it for a missing program.
                Err(Errno::ENOENT) => bail!("{APPARMOR} {profile}: no such profile is loaded"),
                result => result.with_context(|| format!("{APPARMOR} {profile}"))?,
            }
        }
        if let Some(label) = &self.selinux {
            let written = proc.write("self/attr/exec", label.as_bytes());
            written.with_context(|| format!("{SELINUX} {label}"))?;
        }
        Ok(())
    }

    /// In init: a keyring made from here to execve has the program's label, which may use it.
    pub(crate) fn set_of_keyring(&self, proc: &ProcFd) -> Result<()> {
        let Some(label) = &self.selinux else { return Ok(()) };
        let written = proc.write("self/attr/keycreate", label.as_bytes());
        written.with_context(|| format!("{SELINUX} {label}: the session keyring"))
    }
}

/// The context of the container's file systems, if this kernel can act on one.
pub(crate) fn mount_label(linux: &Linux) -> Option<String> {
    wanted(linux.mount_label())?;
    effective(MOUNT, Modules::of_kernel().selinux, linux.mount_label())
}

/// A file system that takes a context as a mount option, as with runc: those of the kernel have
/// labels of their own, and mqueue's root gets one when it is mounted.
pub(crate) fn takes_context(kind: &str) -> bool {
    !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2")
}

fn wanted(label: &Option<String>) -> Option<&str> {
    label.as_deref().filter(|label| !label.is_empty())
}

fn effective(path: &str, has_module: bool, label: &Option<String>) -> Option<String> {
    let label = wanted(label)?;
    if !has_module {
        log::debug(format_args!("{path}: ignored, the kernel runs without this security module"));
        return None;
    }
    Some(label.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(label: &str) -> Option<String> {
        Some(label.to_owned())
    }

    #[test]
    fn a_label_needs_its_security_module() {
        let (profile, context) = (some("docker-default"), some("u:r:t:s0"));
        let labels = |apparmor, selinux| {
            let labels = Labels::under(Modules { apparmor, selinux }, &profile, &context);
            (labels.apparmor, labels.selinux)
        };
        assert_eq!(labels(true, true), (profile.clone(), context.clone()));
        assert_eq!(labels(true, false), (profile.clone(), None));
        assert_eq!(labels(false, true), (None, context.clone()));
        assert_eq!(labels(false, false), (None, None));
    }

    #[test]
    fn an_empty_label_is_none() {
        let modules = Modules { apparmor: true, selinux: true };
        assert!(Labels::under(modules, &some(""), &some("")).is_empty());
        assert!(Labels::under(modules, &None, &None).is_empty());
    }

    #[test]
    fn a_label_that_the_kernel_would_cut_is_refused() {
        assert!(check(APPARMOR, &some(&"x".repeat(LABEL_MAX))).is_ok());
        for label in ["x".repeat(LABEL_MAX + 1), "a\0b".to_owned(), "a\nb".to_owned()] {
            let error = check(APPARMOR, &Some(label)).unwrap_err().to_string();
            assert!(error.starts_with("process.apparmorProfile: "), "{error}");
        }
    }

    #[test]
    fn file_systems_of_the_kernel_take_no_context() {
        assert!(["tmpfs", "ramfs", "devpts", "overlay", "ext4"].into_iter().all(takes_context));
        assert!(!["proc", "sysfs", "mqueue", "cgroup"].into_iter().any(takes_context));
    }
}
