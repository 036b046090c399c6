//! The root file system: mounts, devices, and what is hidden of it.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use nix::sys::stat::SFlag;
use nix::unistd::getpid;
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, Mount, Spec};

use super::mount::{MountPoint, mount_points};
use super::source::PlanSource;
use super::strings::c_string;
use crate::cgroup::Cgroup;
use crate::config::is_root;
use crate::config::mount_options::{self, Propagation};
use crate::security::lsm;

/// The root file system.
#[derive(Debug)]
pub struct RootfsPlan {
    pub path: PathBuf,
    pub readonly: bool,
    pub no_pivot: bool,
    /// `linux.rootfsPropagation`.
    pub propagation: Option<Propagation>,
    pub mounts: Vec<MountPoint>,
    /// The SELinux context of new file systems, if the kernel has SELinux.
    pub label: Option<CString>,
    /// `None`: `/dev` is a bind mount and is left alone.
    pub devices: Option<Vec<DeviceNode>>,
    /// Whether the host's device nodes are bound, because a user namespace may not make any.
    pub devices_by_bind: bool,
    /// Whether the kernel shows its memory (`/proc/kcore`). `/dev/core` then leads there, as with
    /// runc.
    pub has_kcore: bool,
    pub masked: Vec<PathBuf>,
    pub read_only: Vec<PathBuf>,
    /// What a mount of type `cgroup` shows.
    pub cgroups: CgroupMounts,
}

/// The container's cgroups, as a `cgroup` mount shows them.
#[derive(Debug)]
pub struct CgroupMounts {
    pub unified: bool,
    /// Whether they are the cgroups of `rt`, because the container has none.
    pub borrowed: bool,
    /// The name of the directory below the mount point, and the cgroup's directory on the host.
    pub directories: Vec<(String, PathBuf)>,
}

/// A device node.
#[derive(Debug)]
pub struct DeviceNode {
    pub path: PathBuf,
    pub kind: SFlag,
    /// makedev(3).
    pub number: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Whether the device is from `linux.devices`: another file in its place is then an error. A
    /// default device replaces whatever the image has put in its place.
    pub configured: bool,
}

impl RootfsPlan {
    /// Plans the root of the container `source`. `has_user` says that it is in a user namespace.
    pub fn new(
        source: &PlanSource<'_>,
        linux: &Linux,
        cgroup: &Cgroup,
        has_user: bool,
        no_pivot: bool,
    ) -> Result<Self> {
        let spec = source.spec;
        let read_only = paths(linux.readonly_paths());
        let label = lsm::mount_label(linux)?;
        let propagation = linux.rootfs_propagation().as_deref();
        // A private root can be moved again: away from the host's root, over which MS_MOVE has put
        // it.
        if let (true, Some(word @ ("private" | "rprivate"))) = (no_pivot, propagation) {
            bail!("linux.rootfsPropagation: {word} is not safe without pivot_root (--no-pivot)");
        }
        let readonly = spec
            .root()
            .as_ref()
            .and_then(|root| root.readonly())
            .unwrap_or(false);
        Ok(Self {
            path: source.rootfs.to_owned(),
            // `/` in `linux.readonlyPaths` makes the root itself read-only: nobody would see a copy
            // that is mounted over it.
            readonly: readonly || read_only.iter().any(|path| is_root(path)),
            no_pivot,
            propagation: propagation.and_then(mount_options::propagation),
            mounts: mount_points(
                spec,
                &source.checked.mount_options,
                source.bundle,
                label.as_deref(),
            )?,
            label: label
                .as_deref()
                .map(|label| c_string(label, "linux.mountLabel"))
                .transpose()?,
            devices: devices(spec, linux),
            devices_by_bind: has_user,
            has_kcore: Path::new("/proc/kcore").exists(),
            masked: paths(linux.masked_paths()),
            read_only,
            cgroups: CgroupMounts::from_cgroup(cgroup)?,
        })
    }
}

impl CgroupMounts {
    fn from_cgroup(cgroup: &Cgroup) -> Result<Self> {
        let borrowed = cgroup.is_nowhere();
        let own = if borrowed {
            Cgroup::of_process(getpid().as_raw())?
        } else {
            Cgroup::default()
        };
        let cgroup = if borrowed { &own } else { cgroup };
        let directories = cgroup
            .views()
            // As in runc, the version 2 tree of a hybrid host is not shown.
            .filter(|view| cgroup.is_unified() || !view.is_v2)
            .map(|view| (view.name.to_string(), view.directory.to_owned()))
            .collect();
        Ok(Self {
            unified: cgroup.is_unified(),
            borrowed,
            directories,
        })
    }
}

fn paths(list: &Option<Vec<String>>) -> Vec<PathBuf> {
    list.iter().flatten().map(PathBuf::from).collect()
}

/// Returns the devices that config-linux.md demands in every container, then those of the
/// configuration. `None` if `/dev` is a bind mount.
fn devices(spec: &Spec, linux: &Linux) -> Option<Vec<DeviceNode>> {
    let bound = |mount: &Mount| {
        let options = mount.options().as_deref().unwrap_or_default();
        let bind = mount.typ().as_deref() == Some("bind")
            || options.iter().any(|word| word == "bind" || word == "rbind");
        bind && Path::new("/").join(mount.destination()) == Path::new("/dev")
    };
    if spec.mounts().iter().flatten().any(bound) {
        return None;
    }
    let configured = linux.devices().iter().flatten().filter_map(device);
    // `/dev/ptmx` is left out: as in runc, the multiplexer is that of the container's own devpts.
    let configured: Vec<DeviceNode> = configured
        .filter(|device| device.path != Path::new("/dev/ptmx"))
        .collect();
    let default = [
        ("null", 3),
        ("random", 8),
        ("full", 7),
        ("tty", 0),
        ("zero", 5),
        ("urandom", 9),
    ]
    .map(|(name, minor)| DeviceNode {
        path: Path::new("/dev").join(name),
        kind: SFlag::S_IFCHR,
        number: nix::sys::stat::makedev(if name == "tty" { 5 } else { 1 }, minor),
        mode: 0o666,
        uid: 0,
        gid: 0,
        configured: false,
    });
    let given: BTreeSet<PathBuf> = configured
        .iter()
        .map(|device| device.path.clone())
        .collect();
    let missing = default
        .into_iter()
        .filter(|device| !given.contains(&device.path));
    Some(missing.chain(configured).collect())
}

fn device(device: &LinuxDevice) -> Option<DeviceNode> {
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
        LinuxDeviceType::B => SFlag::S_IFBLK,
        LinuxDeviceType::P => SFlag::S_IFIFO,
        // "all" stands in rules for cgroups and names no node.
        LinuxDeviceType::A => return None,
    };
    // A FIFO has no device number, whatever the configuration says.
    let number = match kind {
        SFlag::S_IFIFO => 0,
        _ => nix::sys::stat::makedev(device.major() as u64, device.minor() as u64),
    };
    Some(DeviceNode {
        path: device.path().clone(),
        kind,
        number,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        configured: true,
    })
}
