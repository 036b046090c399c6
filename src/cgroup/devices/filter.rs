//! Puts device rules into force for a container: as exceptions on version 1, as a program on
//! version 2.

use std::os::fd::AsFd;

use anyhow::{Context, Result};

use super::super::cgroup_dir::{CgroupDir, with_controller};
use super::rule::DeviceRule;
use super::{control_files, program};
use crate::sys;

/// The name by which an update finds rt's program among others, such as systemd's.
const PROGRAM: sys::BpfName = *b"rt_devices\0\0\0\0\0\0";

/// Replaces the device rules of the container with `rules`; on version 2 in one step.
pub fn apply(cgroups: &[CgroupDir], rules: &[DeviceRule], is_update: bool) -> Result<()> {
    if let Some(cgroup) = with_controller(cgroups, "devices") {
        return control_files::write(&cgroup.directory, rules, is_update);
    }
    let instructions = program::assemble(rules);
    if instructions.is_none() && !is_update {
        return Ok(());
    }
    let cgroup = cgroups.iter().find(|cgroup| cgroup.is_v2());
    let cgroup =
        cgroup.context("linux.resources.devices: no cgroup hierarchy can filter devices")?;
    attach(cgroup, instructions.as_deref(), is_update)
        .with_context(|| format!("linux.resources.devices: {}", cgroup.directory.display()))
}

/// Attaches the program to a version 2 cgroup, or detaches the present one if there are no
/// instructions.
fn attach(cgroup: &CgroupDir, instructions: Option<&[u64]>, is_update: bool) -> Result<()> {
    const FILTER: &str = "eBPF device filter";
    let directory = cgroup.open()?;
    let directory = directory.as_fd();
    let present = match is_update {
        true => sys::bpf_prog_of_cgroup(directory, PROGRAM).context(FILTER)?,
        false => None,
    };
    let present = present.as_ref().map(AsFd::as_fd);
    match (instructions, present) {
        (Some(instructions), present) => {
            let program = sys::bpf_prog_load_cgroup_device(instructions, PROGRAM);
            let program = program.context("BPF_PROG_LOAD").context(FILTER)?;
            sys::bpf_prog_attach_cgroup_device(directory, program.as_fd(), present)
                .context("BPF_PROG_ATTACH")
                .context(FILTER)
        }
        (None, Some(present)) => {
            sys::bpf_prog_detach_cgroup_device(directory, present).context(FILTER)
        }
        (None, None) => Ok(()),
    }
}
