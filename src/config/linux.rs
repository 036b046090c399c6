//! Checks the `linux` object: namespaces, id mappings, devices, resources.

use std::fmt::Arguments;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxIdMapping, LinuxIntelRdt,
    LinuxNamespaceType as Type, LinuxResources,
};

use crate::config::memory_policy::MemoryPolicy;
use crate::config::namespaces::NamespaceList;
use crate::config::text::{absolute, is_root, path_text, text};
use crate::config::{mount_options, seccomp, sysctl};
use crate::security::lsm;

/// The largest number of lines that the kernel accepts in `uid_map` (`UID_GID_MAP_MAX_EXTENTS`).
const MAPPINGS: usize = 340;
/// The kernel's smallest page size, in bytes.
const PAGE: usize = 4096;

/// The kernel's major numbers have 12 bits, its minor numbers 20.
const MAJORS: std::ops::Range<i64> = 0..1 << 12;
const MINORS: std::ops::Range<i64> = 0..1 << 20;

pub(super) fn check_linux(linux: &Linux, namespaces: &NamespaceList<'_>) -> Result<()> {
    linux
        .seccomp()
        .as_ref()
        .map(seccomp::check_seccomp)
        .transpose()?;
    let personality = linux.personality().as_ref();
    if let Some(flag) = personality.and_then(|wanted| wanted.flags().as_ref()?.first()) {
        bail!("linux.personality.flags[0]: {flag:?}: no flag is supported");
    }
    net_devices(linux, namespaces)?;
    lsm::check_mounts(linux)?;

    mappings("linux.uidMappings", linux.uid_mappings(), namespaces)?;
    mappings("linux.gidMappings", linux.gid_mappings(), namespaces)?;
    time_offsets(linux, namespaces)?;
    for (key, value) in linux.sysctl().iter().flatten() {
        sysctl::check_sysctl(key, value, namespaces)?;
    }
    if let Some(path) = linux.cgroups_path() {
        path_text("linux.cgroupsPath", path)?;
    }
    if let Some(resources) = linux.resources() {
        check_resources(resources)?;
    }
    if let Some(policy) = linux.memory_policy() {
        MemoryPolicy::new(policy)?;
    }
    if let Some(rdt) = linux.intel_rdt() {
        check_intel_rdt(rdt)?;
    }
    for (i, device) in linux.devices().iter().flatten().enumerate() {
        check_device(format_args!("linux.devices[{i}]"), device)?;
    }
    if let Some(word) = linux
        .rootfs_propagation()
        .as_deref()
        .filter(|word| !word.is_empty())
    {
        let known = mount_options::propagation(word).is_some();
        ensure!(
            known,
            "linux.rootfsPropagation: {word:?} is not a propagation"
        );
    }
    for (name, paths) in [
        ("maskedPaths", linux.masked_paths()),
        ("readonlyPaths", linux.readonly_paths()),
    ] {
        for (i, path) in paths.iter().flatten().enumerate() {
            absolute(format_args!("linux.{name}[{i}]"), Path::new(path))?;
        }
    }
    if let Some(i) = linux
        .masked_paths()
        .iter()
        .flatten()
        .position(|path| is_root(path.as_ref()))
    {
        bail!("linux.maskedPaths[{i}]: the whole root cannot be masked");
    }
    Ok(())
}

fn mappings(
    path: &str,
    list: &Option<Vec<LinuxIdMapping>>,
    namespaces: &NamespaceList<'_>,
) -> Result<()> {
    let list = list.as_deref().unwrap_or_default();
    if list.is_empty() {
        ensure!(
            !namespaces.is_new(Type::User),
            "{path}: required for a new user namespace"
        );
    } else {
        ensure!(namespaces.has(Type::User), "{path}: needs a user namespace");
    }
    mapping_list(path, list)
}

/// Checks what the kernel accepts as an id map, which is one write of less than a page.
pub(super) fn mapping_list(path: &str, list: &[LinuxIdMapping]) -> Result<()> {
    let lines = list
        .iter()
        .map(|m| format!("{} {} {} ", m.container_id(), m.host_id(), m.size()));
    let length: usize = lines.map(|line| line.len()).sum();
    ensure!(
        length < PAGE,
        "{path}: {length} bytes as a map, the kernel takes less than {PAGE}"
    );
    ensure!(list.len() <= MAPPINGS, "{path}: more than {MAPPINGS}");
    for (i, mapping) in list.iter().enumerate() {
        ensure!(mapping.size() > 0, "{path}[{i}].size: 0");
        for (name, first) in [
            ("containerID", mapping.container_id()),
            ("hostID", mapping.host_id()),
        ] {
            let end = first.checked_add(mapping.size());
            ensure!(
                end.is_some(),
                "{path}[{i}].{name}: ends beyond {}",
                u32::MAX
            );
        }
        for (j, other) in list[..i].iter().enumerate() {
            let container = overlap(mapping.container_id(), mapping, other.container_id(), other);
            let host = overlap(mapping.host_id(), mapping, other.host_id(), other);
            ensure!(!container && !host, "{path}[{i}]: overlaps {path}[{j}]");
        }
    }
    Ok(())
}

fn overlap(a: u32, a_size: &LinuxIdMapping, b: u32, b_size: &LinuxIdMapping) -> bool {
    if a <= b {
        b - a < a_size.size()
    } else {
        a - b < b_size.size()
    }
}

/// Checks that an id of the container is mapped in its new user namespace. For a joined namespace
/// the configuration may leave the mappings out.
pub(super) fn mapped(
    path: &str,
    id: u32,
    list: &Option<Vec<LinuxIdMapping>>,
    namespaces: &NamespaceList<'_>,
) -> Result<()> {
    let within = |mapping: &LinuxIdMapping| {
        id.checked_sub(mapping.container_id())
            .is_some_and(|offset| offset < mapping.size())
    };
    let known = !namespaces.is_new(Type::User) || list.iter().flatten().any(within);
    // The error for `process.user` has runc's wording, which users of runc know.
    let kind = path.strip_prefix("process.user.");
    ensure!(
        known || kind.is_some(),
        "{path}: {id} is not mapped in the user namespace"
    );
    let kind = kind.unwrap_or_default();
    ensure!(
        known,
        "{path}: cannot set{kind} to unmapped {kind} {id} in user namespace"
    );
    Ok(())
}

fn time_offsets(linux: &Linux, namespaces: &NamespaceList<'_>) -> Result<()> {
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let path = format_args!("linux.timeOffsets.{clock}");
        ensure!(
            namespaces.is_new(Type::Time),
            "{path}: needs a new time namespace"
        );
        ensure!(
            matches!(clock.as_str(), "monotonic" | "boottime"),
            "{path}: no such clock"
        );
        let nanosecs = offset.nanosecs().unwrap_or(0);
        ensure!(
            nanosecs < 1_000_000_000,
            "{path}.nanosecs: {nanosecs} is a second or more"
        );
    }
    Ok(())
}

fn check_device(path: Arguments<'_>, device: &LinuxDevice) -> Result<()> {
    absolute(format_args!("{path}.path"), device.path())?;
    // For fchownat(2) -1 means "unchanged".
    ensure!(
        device.uid() != Some(u32::MAX),
        "{path}.uid: {} is no user",
        u32::MAX
    );
    ensure!(
        device.gid() != Some(u32::MAX),
        "{path}.gid: {} is no group",
        u32::MAX
    );
    match device.typ() {
        LinuxDeviceType::A => bail!("{path}.type: a is not a type of device"),
        // A fifo has no number, so `major` and `minor` are ignored.
        LinuxDeviceType::P => return Ok(()),
        LinuxDeviceType::B | LinuxDeviceType::C | LinuxDeviceType::U => {}
    }
    let (major, minor) = (device.major(), device.minor());
    ensure!(
        MAJORS.contains(&major),
        "{path}.major: {major} is not a major number"
    );
    ensure!(
        MINORS.contains(&minor),
        "{path}.minor: {minor} is not a minor number"
    );
    Ok(())
}

/// Checks interfaces that move into a network namespace. Their names must be valid for the kernel
/// (`dev_valid_name`).
fn net_devices(linux: &Linux, namespaces: &NamespaceList<'_>) -> Result<()> {
    let mut seen = Vec::new();
    for (name, device) in linux.net_devices().iter().flatten() {
        let path = format_args!("linux.netDevices.{name:?}");
        ensure!(
            namespaces.has(Type::Network),
            "{path}: needs a network namespace"
        );
        let new = device
            .name()
            .as_deref()
            .filter(|new| !new.is_empty())
            .unwrap_or(name);
        for name in [name, new] {
            let known = !matches!(name, "" | "." | "..")
                && name.len() < libc::IFNAMSIZ
                && !name.contains(|c: char| "/:\0".contains(c) || c.is_whitespace());
            ensure!(known, "{path}: {name:?} is not the name of an interface");
        }
        ensure!(
            !seen.contains(&new) || new.contains("%d"),
            "{path}: {new} is given twice"
        );
        seen.push(new);
    }
    Ok(())
}

/// Checks `closID`, which becomes the name of a directory, and the schemas, which become lines of
/// one file. Used for an update, too.
pub fn check_intel_rdt(rdt: &LinuxIntelRdt) -> Result<()> {
    let class = rdt.clos_id().as_deref().unwrap_or_default();
    text("linux.intelRdt.closID", class)?;
    let named = class == "/" || !class.contains(['/', '\n']) && !matches!(class, "." | "..");
    ensure!(
        named,
        "linux.intelRdt.closID: {class:?} is not the name of a class"
    );
    let bandwidth = rdt.mem_bw_schema().as_deref().unwrap_or_default();
    let known = bandwidth.is_empty() || bandwidth.starts_with("MB:");
    ensure!(
        known,
        "linux.intelRdt.memBwSchema: {bandwidth:?} does not begin with MB:"
    );
    for (i, line) in rdt.schemata().iter().flatten().enumerate() {
        ensure!(!line.is_empty(), "linux.intelRdt.schemata[{i}]: empty");
    }
    let lines = rdt.schemata().iter().flatten().map(String::as_str);
    let cache = rdt.l3_cache_schema().as_deref().unwrap_or_default();
    for line in lines.chain([cache, bandwidth]) {
        text("linux.intelRdt", line)?;
        ensure!(
            !line.contains('\n'),
            "linux.intelRdt: {line:?} is more than one line"
        );
    }
    Ok(())
}

/// Refuses limits that cannot be valid; used for an update, too.
pub fn check_resources(resources: &LinuxResources) -> Result<()> {
    for (i, rule) in resources.devices().iter().flatten().enumerate() {
        device_rule(format_args!("linux.resources.devices[{i}]"), rule)?;
    }
    if let Some(cpu) = resources.cpu() {
        text(
            "linux.resources.cpu.cpus",
            cpu.cpus().as_deref().unwrap_or_default(),
        )?;
        text(
            "linux.resources.cpu.mems",
            cpu.mems().as_deref().unwrap_or_default(),
        )?;
    }
    // `pageSize` and the keys of `unified` become names of files in the cgroup.
    for (i, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = limit.page_size();
        let digits = size.trim_start_matches(|c: char| c.is_ascii_digit());
        let known = digits.len() < size.len() && matches!(digits, "KB" | "MB" | "GB");
        ensure!(
            known,
            "linux.resources.hugepageLimits[{i}].pageSize: {size:?} is not a size"
        );
    }
    for (key, value) in resources.unified().iter().flatten() {
        let path = format_args!("linux.resources.unified[{key:?}]");
        let file = !key.contains('/') && !matches!(key.as_str(), "" | "." | "..");
        ensure!(file, "{path}: not the name of a file");
        text(path, key)?;
        text(path, value)?;
    }
    for (name, limit) in resources.rdma().iter().flatten() {
        let path = format_args!("linux.resources.rdma[{name:?}]");
        ensure!(
            !name.contains(char::is_whitespace),
            "{path}: not the name of a device"
        );
        let some = limit.hca_handles().is_some() || limit.hca_objects().is_some();
        ensure!(some, "{path}: needs hcaHandles or hcaObjects");
        text(path, name)?;
    }
    let network = resources.network().as_ref();
    for priority in network
        .and_then(|net| net.priorities().as_ref())
        .into_iter()
        .flatten()
    {
        text("linux.resources.network.priorities", priority.name())?;
    }
    Ok(())
}

fn device_rule(path: Arguments<'_>, rule: &LinuxDeviceCgroup) -> Result<()> {
    if let Some(typ @ (LinuxDeviceType::U | LinuxDeviceType::P)) = rule.typ() {
        bail!("{path}.type: {} is not a type of rule", typ.as_str());
    }
    let access = rule.access().as_deref().unwrap_or_default();
    let known = access.chars().all(|c| "rwm".contains(c));
    ensure!(known, "{path}.access: {access:?} is not of r, w and m");
    // -1 stands for every number, as an absent one does.
    for (name, number) in [("major", rule.major()), ("minor", rule.minor())] {
        let known = number.is_none_or(|n| (-1..=i64::from(u32::MAX)).contains(&n));
        ensure!(known, "{path}.{name}: not a device number");
    }
    Ok(())
}
