//! The other side of `limits.rs`: a program that runs in a view of the host's control groups and
//! gives limits to a cgroup with cgroups-rs, which finds the hierarchies of its own process only.
//!
//!     limits-writer write CGROUP <RESOURCES    makes the cgroup and applies `linux.resources`
//!     limits-writer read CGROUP                prints its control files as a JSON object
//!     limits-writer remove CGROUP

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::{Cgroup, hierarchies};
use cgroups_rs::manager::{FsManager, Manager};
use oci_spec::runtime::{LinuxCpu, LinuxResources};

/// Where every view has its hierarchies.
const TOP: &str = "/sys/fs/cgroup";

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["write", name] => write(name, &serde_json::from_reader(io::stdin())?),
        ["read", name] => Ok(serde_json::to_writer(io::stdout(), &read(name)?)?),
        ["remove", name] => Ok(Cgroup::load(hierarchies::auto(), name).delete()?),
        _ => Err("limits-writer write|read|remove CGROUP".into()),
    }
}

fn write(name: &str, resources: &LinuxResources) -> Result<(), Box<dyn Error>> {
    let cgroup = Cgroup::new(hierarchies::auto(), name)?;
    let mut resources = resources.clone();
    let has_cpuset = cgroup.controller_of::<CpuSetController>().is_some();
    // Without the controller cpuset `FsManager::set` takes no limit of the CPU at all.
    if let Some(cpu) = resources.cpu().clone().filter(|_| !has_cpuset) {
        resources.set_cpu(None);
        write_cpu(&cgroup, &cpu)?;
    }
    Ok(FsManager::new(name)?.set(&resources)?)
}

/// The calls of `FsManager::set`. The conversion of `shares` to a weight cannot be called.
fn write_cpu(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<(), Box<dyn Error>> {
    let controller: &CpuController = cgroup.controller_of().ok_or("no controller cpu")?;
    if cpu.shares().is_some() || cpu.cpus().is_some() || cpu.mems().is_some() {
        return Err("not without the controller cpuset".into());
    }
    controller.set_cfs_quota_and_period(cpu.quota(), cpu.period())?;
    Ok(())
}

/// The control files of the cgroup that can be read and written, by their names, which are
/// different in all hierarchies. Left out are the files that say what the processes have used, and
/// those about the cgroup itself.
fn read(name: &str) -> io::Result<BTreeMap<String, String>> {
    const LEFT_OUT: [&str; 7] =
        ["cgroup.", "notify_on_release", "tasks", "usage", "failcnt", ".peak", ".pressure"];
    let mut files = BTreeMap::new();
    for directory in directories(name)? {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let file = entry.file_name().into_string().unwrap_or_default();
            let mode = entry.metadata()?.permissions().mode();
            let is_control = entry.file_type()?.is_file() && mode & 0o600 == 0o600;
            if !is_control || LEFT_OUT.iter().any(|word| file.contains(word)) {
                continue;
            }
            if let Ok(text) = fs::read_to_string(entry.path()) {
                files.insert(file, text.trim_end().to_owned());
            }
        }
    }
    Ok(files)
}

/// The directories of a cgroup: one on a host with version 2 alone, else one in each hierarchy.
fn directories(name: &str) -> io::Result<Vec<PathBuf>> {
    if Path::new(TOP).join("cgroup.procs").exists() {
        return Ok(vec![Path::new(TOP).join(name)]);
    }
    let mut directories = vec![];
    for entry in fs::read_dir(TOP)? {
        let entry = entry?;
        let directory = entry.path().join(name);
        // A link is a second name of a hierarchy.
        if !entry.file_type()?.is_symlink() && directory.is_dir() {
            directories.push(directory);
        }
    }
    Ok(directories)
}
