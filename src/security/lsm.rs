//! Labels of security modules: AppArmor profiles and SELinux contexts. The label of the next
//! execve(2) is written to the process's own attributes (proc_pid_attr(5)); the label of a file
//! system is a mount option.
//!
//! A label confines, so the label of a process is never left out: if its module is not in force, or
//! that is not known, the process is refused. Only the label of file systems is left out on a
//! kernel without SELinux, with a warning, because it would not confine anything there.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::statfs::{FsType, SYSFS_MAGIC, fstatfs, statfs};
use oci_spec::runtime::{Linux, Process};

use crate::sys;
use crate::sys::procfd::ProcFd;

/// The longest label in bytes; the kernel would cut off the rest of a longer one
/// (`proc_pid_attr_write`).
const LABEL_MAX: usize = 4096 - "exec ".len();

const APPARMOR: &str = "process.apparmorProfile";
const SELINUX: &str = "process.selinuxLabel";
const MOUNT: &str = "linux.mountLabel";

/// <linux/magic.h>; nix does not have this constant.
const SECURITYFS_MAGIC: FsType = FsType(0x7363_6673);

/// A security module that takes labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SecurityModule {
    AppArmor,
    Selinux,
}

/// Whether the kernel acts on the labels of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ModulePresence {
    InForce,
    Absent,
    /// No source that could tell is accessible.
    Unknown,
}

impl SecurityModule {
    fn name(self) -> &'static str {
        match self {
            Self::AppArmor => "AppArmor",
            Self::Selinux => "SELinux",
        }
    }

    /// Asks the kernel by lsm_list_modules(2) (Linux 6.8), which no mount can hide, or else by
    /// files.
    fn presence(self) -> ModulePresence {
        match sys::lsm_list_modules() {
            Ok(ids) => self.is_listed(&ids),
            // The kernel is older, or a seccomp filter around `rt` forbids the call.
            Err(_) => match securityfs_list() {
                Some(list) => self.is_named(&list),
                None => self.in_sysfs(Path::new("/sys")),
            },
        }
    }

    fn is_listed(self, ids: &[u64]) -> ModulePresence {
        let own = match self {
            Self::AppArmor => sys::LSM_ID_APPARMOR,
            Self::Selinux => sys::LSM_ID_SELINUX,
        };
        ModulePresence::from_answer(ids.contains(&own))
    }

    /// Looks the module up in the list of `/sys/kernel/security/lsm`: `capability,yama,apparmor`.
    fn is_named(self, list: &str) -> ModulePresence {
        let own = match self {
            Self::AppArmor => "apparmor",
            Self::Selinux => "selinux",
        };
        ModulePresence::from_answer(list.trim().split(',').any(|name| name == own))
    }

    /// Looks for the files of the module in sysfs. If something else is mounted over sysfs or a
    /// part of it, as container engines do to mask it, the answer is unknown.
    fn in_sysfs(self, sys: &Path) -> ModulePresence {
        let (parent, own) = match self {
            Self::AppArmor => (sys.join("module"), "apparmor"),
            // This directory exists on every kernel with SELinux, whether selinuxfs is mounted or
            // not.
            Self::Selinux => (sys.join("fs"), "selinux"),
        };
        let directory = parent.join(own);
        let word = match self {
            Self::AppArmor => fs::read(directory.join("parameters/enabled")).ok(),
            Self::Selinux => directory.join("enforce").exists().then(|| b"Y".to_vec()),
        };
        let is_sysfs = || statfs(&parent).is_ok_and(|fs| fs.filesystem_type() == SYSFS_MAGIC);
        match word {
            Some(word) => ModulePresence::from_answer(word.starts_with(b"Y")),
            None if matches!(directory.try_exists(), Ok(false)) && is_sysfs() => {
                ModulePresence::Absent
            }
            None => ModulePresence::Unknown,
        }
    }
}

impl ModulePresence {
    fn from_answer(is_in_force: bool) -> Self {
        if is_in_force {
            Self::InForce
        } else {
            Self::Absent
        }
    }
}

/// Returns the list of modules in securityfs; None if it cannot be read, or the file is not in a
/// securityfs.
fn securityfs_list() -> Option<String> {
    let mut file = File::open("/sys/kernel/security/lsm").ok()?;
    fstatfs(&file)
        .ok()
        .filter(|fs| fs.filesystem_type() == SECURITYFS_MAGIC)?;
    let mut list = String::new();
    file.read_to_string(&mut list).ok()?;
    Some(list)
}

/// The labels of the program.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SecurityLabels {
    /// The name of an AppArmor profile.
    apparmor: Option<String>,
    /// An SELinux context, which is also that of the session keyring.
    selinux: Option<String>,
}

/// Refuses process labels that no module could accept.
///
/// # Errors
/// `process.…: what is wrong`.
pub fn check_process(process: &Process) -> Result<()> {
    check_label(APPARMOR, process.apparmor_profile())?;
    check_label(SELINUX, process.selinux_label())
}

/// Refuses a label of file systems that no module could accept.
///
/// # Errors
/// `linux.mountLabel: what is wrong`.
pub fn check_mounts(linux: &Linux) -> Result<()> {
    check_label(MOUNT, linux.mount_label())
}

fn check_label(path: &str, label: &Option<String>) -> Result<()> {
    let label = label.as_deref().unwrap_or_default();
    ensure!(
        !label.contains(['\0', '\n']),
        "{path}: contains a NUL byte or the end of a line"
    );
    ensure!(
        label.len() <= LABEL_MAX,
        "{path}: longer than {LABEL_MAX} bytes"
    );
    Ok(())
}

impl SecurityLabels {
    /// Returns the labels of `process`.
    ///
    /// # Errors
    /// The module of a label is not in force, or that is not known.
    pub fn from_process(process: &Process) -> Result<Self> {
        Self::under(
            SecurityModule::presence,
            process.apparmor_profile(),
            process.selinux_label(),
        )
    }

    fn under(
        presence: impl Fn(SecurityModule) -> ModulePresence,
        apparmor: &Option<String>,
        selinux: &Option<String>,
    ) -> Result<Self> {
        let label = |path, module, label| -> Result<Option<String>> {
            let Some(label) = wanted(label) else {
                return Ok(None);
            };
            require(path, module, presence(module), label)?;
            Ok(Some(label.to_owned()))
        };
        Ok(Self {
            apparmor: label(APPARMOR, SecurityModule::AppArmor, apparmor)?,
            selinux: label(SELINUX, SecurityModule::Selinux, selinux)?,
        })
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// In init: sets the labels of the program that this process executes next.
    pub fn set(&self, proc: &ProcFd) -> Result<()> {
        if let Some(profile) = &self.apparmor {
            let command = format!("exec {profile}");
            match proc.write("self/attr/apparmor/exec", command.as_bytes()) {
                // With the text of strerror(3), clients would take this for a missing program.
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

    /// In init: sets the label of keyrings made from now until execve to that of the program, which
    /// may then use them.
    pub fn set_of_keyring(&self, proc: &ProcFd) -> Result<()> {
        let Some(label) = &self.selinux else {
            return Ok(());
        };
        let written = proc.write("self/attr/keycreate", label.as_bytes());
        written.with_context(|| format!("{SELINUX} {label}: the session keyring"))
    }
}

/// Returns the context for the container's file systems; None on a kernel without SELinux, see
/// [`left_out`].
///
/// # Errors
/// It is not known whether the kernel has SELinux.
pub fn mount_label(linux: &Linux) -> Result<Option<String>> {
    let Some(label) = wanted(linux.mount_label()) else {
        return Ok(None);
    };
    match SecurityModule::Selinux.presence() {
        ModulePresence::Absent => Ok(None),
        presence => {
            require(MOUNT, SecurityModule::Selinux, presence, label)?;
            Ok(Some(label.to_owned()))
        }
    }
}

/// Returns the warning that the label for file systems has no effect, if the configuration has one.
pub fn left_out(linux: &Linux) -> Option<String> {
    let label = wanted(linux.mount_label())?;
    Some(format!(
        "{MOUNT} {label}: left out, the kernel runs without SELinux"
    ))
}

/// Whether a file system accepts a context as a mount option; the same ones as in runc. The
/// kernel's own file systems have their own labels, and the root of an mqueue is labelled when it
/// is mounted.
pub fn takes_context(kind: &str) -> bool {
    !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2")
}

fn wanted(label: &Option<String>) -> Option<&str> {
    label.as_deref().filter(|label| !label.is_empty())
}

fn require(
    path: &str,
    module: SecurityModule,
    presence: ModulePresence,
    label: &str,
) -> Result<()> {
    let name = module.name();
    match presence {
        ModulePresence::InForce => Ok(()),
        ModulePresence::Absent => bail!("{path} {label}: the kernel runs without {name}"),
        ModulePresence::Unknown => bail!(
            "{path} {label}: cannot tell whether the kernel runs with {name} \
             (lsm_list_modules(2), /sys/kernel/security/lsm and /sys give no answer)"
        ),
    }
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
        let presences = [
            ModulePresence::InForce,
            ModulePresence::Absent,
            ModulePresence::Unknown,
        ];
        for presence in presences {
            let apparmor = SecurityLabels::under(|_| presence, &profile, &None);
            let selinux = SecurityLabels::under(|_| presence, &None, &context);
            if presence == ModulePresence::InForce {
                assert_eq!(apparmor.unwrap().apparmor, profile);
                assert_eq!(selinux.unwrap().selinux, context);
            } else {
                for (result, path) in [(apparmor, APPARMOR), (selinux, SELINUX)] {
                    assert!(result.unwrap_err().to_string().starts_with(path));
                }
            }
        }
    }

    #[test]
    fn an_empty_label_is_none_and_nobody_is_asked() {
        let asked = |_| -> ModulePresence { panic!("asked") };
        for empty in [some(""), None] {
            assert!(
                SecurityLabels::under(asked, &empty, &empty)
                    .unwrap()
                    .is_empty()
            );
        }
    }

    #[test]
    fn modules_are_found_in_the_answers_of_the_kernel() {
        use ModulePresence::{Absent, InForce, Unknown};
        use SecurityModule::{AppArmor, Selinux};
        assert_eq!(AppArmor.is_listed(&[100, 104, 110]), InForce);
        assert_eq!(Selinux.is_listed(&[100, 104, 110]), Absent);
        assert_eq!(AppArmor.is_named("capability,yama,apparmor\n"), InForce);
        assert_eq!(Selinux.is_named("lockdown,capability,selinux2"), Absent);
        // A directory that is no sysfs tells nothing, unless the module's own words are there.
        let place = std::env::temp_dir().join(format!("rt-lsm-{}", std::process::id()));
        fs::create_dir_all(place.join("module/apparmor/parameters")).unwrap();
        assert_eq!(AppArmor.in_sysfs(&place), Unknown);
        assert_eq!(Selinux.in_sysfs(&place), Unknown);
        fs::write(place.join("module/apparmor/parameters/enabled"), "N\n").unwrap();
        assert_eq!(AppArmor.in_sysfs(&place), Absent);
        fs::write(place.join("module/apparmor/parameters/enabled"), "Y\n").unwrap();
        assert_eq!(AppArmor.in_sysfs(&place), InForce);
        fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn a_label_that_the_kernel_would_cut_is_refused() {
        assert!(check_label(APPARMOR, &some(&"x".repeat(LABEL_MAX))).is_ok());
        for label in [
            "x".repeat(LABEL_MAX + 1),
            "a\0b".to_owned(),
            "a\nb".to_owned(),
        ] {
            let error = check_label(APPARMOR, &Some(label)).unwrap_err().to_string();
            assert!(error.starts_with("process.apparmorProfile: "), "{error}");
        }
    }

    #[test]
    fn file_systems_of_the_kernel_take_no_context() {
        assert!(
            ["tmpfs", "ramfs", "devpts", "overlay", "ext4"]
                .into_iter()
                .all(takes_context)
        );
        assert!(
            !["proc", "sysfs", "mqueue", "cgroup"]
                .into_iter()
                .any(takes_context)
        );
    }
}
