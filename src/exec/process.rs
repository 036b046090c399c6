//! The process that `exec` runs. It is the container's own with what the options change, or the one
//! of `--process`, in which no option changes anything, as in runc and crun.

use std::collections::HashSet;

use anyhow::{Context, Result};
use oci_spec::runtime::{Capability, LinuxCapabilities, Process};

use super::options::{ExecOptions, ExecRequest};
use crate::config::{self, LoadedProcess};
use crate::container::state::Container;

/// Decides which process to run, and refuses one that could not be started.
pub(super) fn decide(request: &ExecRequest, container: &Container) -> Result<LoadedProcess> {
    let options = &request.options;
    let loaded = match (&options.process, &request.process) {
        (Some(path), Some(bytes)) => {
            let mut given =
                config::process(bytes).with_context(|| format!("--process {}", path.display()))?;
            // A container that was created without a process has left nothing to inherit.
            if let Ok(own) = container.process() {
                inherit(&mut given.process, &config::process(&own)?.process);
            }
            given
        }
        _ => {
            let mut own = config::process(&container.process()?)?;
            change(&mut own.process, options);
            own
        }
    };
    config::check_process(&loaded.process)?;
    Ok(loaded)
}

/// Takes the capabilities, scheduling, limits, labels and umask that `--process` does not name from
/// the container's own process, as runc does.
fn inherit(process: &mut Process, own: &Process) {
    let umask = process.user().umask().or(own.user().umask());
    process.user_mut().set_umask(umask);
    if process.capabilities().is_none() {
        process.set_capabilities(own.capabilities().clone());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(own.scheduler().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*own.io_priority());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(own.exec_cpu_affinity().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(own.oom_score_adj());
    }
    if process
        .apparmor_profile()
        .as_ref()
        .is_none_or(String::is_empty)
    {
        process.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if process
        .selinux_label()
        .as_ref()
        .is_none_or(String::is_empty)
    {
        process.set_selinux_label(own.selinux_label().clone());
    }
    if process.rlimits().as_ref().is_none_or(Vec::is_empty) {
        process.set_rlimits(own.rlimits().clone());
    }
}

fn change(process: &mut Process, options: &ExecOptions) {
    process.set_args(Some(options.args.clone()));
    process.set_terminal(Some(options.tty));
    if let Some(directory) = &options.cwd {
        process.set_cwd(directory.clone());
    }
    if !options.env.is_empty() {
        process
            .env_mut()
            .get_or_insert_default()
            .extend(options.env.iter().cloned());
    }
    if let Some(set) = options.no_new_privs {
        process.set_no_new_privileges(Some(set));
    }
    if let Some(profile) = &options.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &options.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    change_user(process, options);
    if !options.cap.is_empty() {
        let capabilities = process
            .capabilities()
            .clone()
            .unwrap_or_else(no_capabilities);
        process.set_capabilities(Some(add_capabilities(capabilities, &options.cap)));
    }
}

fn change_user(process: &mut Process, options: &ExecOptions) {
    let user = process.user_mut();
    if let Some(changed) = options.user {
        user.set_uid(changed.uid);
        user.set_gid(changed.gid.unwrap_or(user.gid()));
    }
    if !options.additional_gids.is_empty() {
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(&options.additional_gids);
        user.set_additional_gids(Some(groups));
    }
}

/// Returns capability sets that are empty, which oci-spec's default is not.
fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(None)
        .set_effective(None)
        .set_permitted(None);
    none.set_inheritable(None).set_ambient(None);
    none
}

/// Adds capabilities, but never to the inheritable set (CVE-2022-29162). Those that are inheritable
/// already are added to the ambient set as well; otherwise a process that is not root would not
/// have them.
fn add_capabilities(mut sets: LinuxCapabilities, names: &[Capability]) -> LinuxCapabilities {
    let more = |set: &Option<HashSet<Capability>>| {
        Some(
            set.iter()
                .flatten()
                .chain(names)
                .copied()
                .collect::<HashSet<_>>(),
        )
    };
    sets.set_bounding(more(sets.bounding()));
    sets.set_effective(more(sets.effective()));
    sets.set_permitted(more(sets.permitted()));
    let heritable = sets
        .inheritable()
        .iter()
        .flatten()
        .filter(|one| names.contains(one));
    let ambient: HashSet<_> = sets
        .ambient()
        .iter()
        .flatten()
        .chain(heritable)
        .copied()
        .collect();
    sets.set_ambient(Some(ambient));
    sets
}
