//! `linux.resources.devices`: which device nodes the container may make, read and write. The
//! last rule that matches decides, for each of the three accesses by itself.

mod program;

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::{Group, v1};
use crate::sys;

/// By its name an update finds the program among others', such as systemd's.
const PROGRAM: sys::BpfName = *b"rt_devices\0\0\0\0\0\0";

// The bits of `BPF_DEVCG_ACC_*`.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Block,
    Char,
}

/// A set of devices and accesses to them; no number means every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Devices {
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

/// One decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    allow: bool,
    /// None is every access to every device.
    devices: Option<Devices>,
    /// The index in the configuration, or None for a default rule.
    index: Option<usize>,
}

/// What a container may always do: make any node, and use those that every container has.
/// The console and the tun device are there because clients have come to rely on them.
#[rustfmt::skip]
const DEFAULT: [(Kind, Option<u32>, Option<u32>, u8); 12] = [
    (Kind::Char, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Char, Some(1), Some(3), ALL),     // null
    (Kind::Char, Some(1), Some(5), ALL),     // zero
    (Kind::Char, Some(1), Some(7), ALL),     // full
    (Kind::Char, Some(1), Some(8), ALL),     // random
    (Kind::Char, Some(1), Some(9), ALL),     // urandom
    (Kind::Char, Some(5), Some(0), ALL),     // tty
    (Kind::Char, Some(5), Some(2), ALL),     // ptmx
    (Kind::Char, Some(136), None, ALL),      // pts
    (Kind::Char, Some(5), Some(1), ALL),     // console
    (Kind::Char, Some(10), Some(200), ALL),  // net/tun
];

/// The rules of the configuration in their order, then the default ones. Before the first rule
/// everything is denied, also when the configuration has none.
pub(super) fn rules(config: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    let mut rules = Vec::with_capacity(config.len() + DEFAULT.len());
    for (index, device) in config.iter().enumerate() {
        parse(device, index, &mut rules)
            .with_context(|| format!("linux.resources.devices[{index}]"))?;
    }
    rules.extend(DEFAULT.map(|(kind, major, minor, access)| Rule {
        allow: true,
        devices: Some(Devices { kind, major, minor, access }),
        index: None,
    }));
    Ok(rules)
}

fn parse(device: &LinuxDeviceCgroup, index: usize, rules: &mut Vec<Rule>) -> Result<()> {
    let kinds: &[Kind] = match device.typ() {
        None | Some(LinuxDeviceType::A) => &[Kind::Char, Kind::Block],
        Some(LinuxDeviceType::B) => &[Kind::Block],
        Some(LinuxDeviceType::C) => &[Kind::Char],
        Some(kind) => bail!("type: `{}` is none of a, b, c", kind.as_str()),
    };
    let major = number(device.major()).context("major")?;
    let minor = number(device.minor()).context("minor")?;
    let access = access(device.access().as_deref().unwrap_or_default())?;
    let mut push =
        |devices| rules.push(Rule { allow: device.allow(), devices, index: Some(index) });
    if kinds.len() == 2 && (major, minor, access) == (None, None, ALL) {
        push(None);
        return Ok(());
    }
    // The kernel's `a` ignores numbers and accesses: a narrower rule becomes one of each type.
    for kind in kinds {
        push(Some(Devices { kind: *kind, major, minor, access }));
    }
    Ok(())
}

/// A device number; clients write -1 for every number.
fn number(value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => match u32::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => bail!("{value} is not a device number"),
        },
    }
}

fn access(text: &str) -> Result<u8> {
    if text.is_empty() {
        bail!("access: missing");
    }
    text.chars().try_fold(0, |bits, letter| match letter {
        'r' => Ok(bits | READ),
        'w' => Ok(bits | WRITE),
        'm' => Ok(bits | MKNOD),
        _ => bail!("access: `{letter}` is none of r, w, m"),
    })
}

/// The notation of `devices.allow` and `devices.list`.
impl Display for Devices {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        let kind = if self.kind == Kind::Char { 'c' } else { 'b' };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        for (bit, letter) in [(READ, "r"), (WRITE, "w"), (MKNOD, "m")] {
            f.write_str(if self.access & bit == 0 { "" } else { letter })?;
        }
        Ok(())
    }
}

impl Devices {
    fn same_numbers(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let both = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind
            && both(self.major, other.major)
            && both(self.minor, other.minor)
            && self.access & other.access != 0
    }

    /// Whether every device of `other` is one of these.
    fn covers(&self, other: &Self) -> bool {
        self.kind == other.kind
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
    }
}

/// One write to `devices.allow` or `devices.deny`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) allow: bool,
    pub(super) text: String,
    /// The index of the rule in the configuration, or None for a default rule.
    pub(super) rule: Option<usize>,
}

/// The writes that bring a version 1 group to `rules`. That kernel interface has one default and
/// a list of exceptions to it, which are matched by equality when they are taken away again, so
/// that a rule may need several writes, none, or be impossible.
pub(super) fn v1_writes(rules: &[Rule]) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    let all = |allow, rule| Write { allow, text: "a".to_owned(), rule };
    if rules.first().is_none_or(|rule| rule.devices.is_some()) {
        writes.push(all(false, rules.first().and_then(|rule| rule.index)));
    }
    let mut default = false;
    let mut exceptions: Vec<Devices> = Vec::new();
    for rule in rules {
        let Some(devices) = rule.devices else {
            writes.push(all(rule.allow, rule.index));
            default = rule.allow;
            exceptions.clear();
            continue;
        };
        let changed = if rule.allow == default {
            take_away(&mut exceptions, &devices, rule.index)?
        } else {
            add(&mut exceptions, devices)
        };
        writes.extend(changed.into_iter().map(|devices| Write {
            allow: rule.allow,
            text: devices.to_string(),
            rule: rule.index,
        }));
    }
    Ok(writes)
}

/// Adds an exception; returns what is to be written.
fn add(exceptions: &mut Vec<Devices>, devices: Devices) -> Vec<Devices> {
    match exceptions.iter_mut().find(|exception| exception.same_numbers(&devices)) {
        Some(exception) if exception.access | devices.access == exception.access => return vec![],
        Some(exception) => exception.access |= devices.access,
        None => exceptions.push(devices),
    }
    vec![devices]
}

/// Takes `devices` away from the exceptions; returns what is to be written.
fn take_away(
    exceptions: &mut Vec<Devices>,
    devices: &Devices,
    index: Option<usize>,
) -> Result<Vec<Devices>> {
    let wider = exceptions.iter().find(|e| e.overlaps(devices) && !devices.covers(e));
    match (wider, index) {
        // A default rule gives way to what the user has written.
        (Some(_), None) => return Ok(vec![]),
        (Some(wider), Some(index)) => bail!(
            "linux.resources.devices[{index}]: cgroup v1 cannot take `{devices}` out of `{wider}`, \
             which an earlier rule sets"
        ),
        (None, _) => {}
    }
    let mut changed = Vec::new();
    for exception in exceptions.iter_mut().filter(|exception| exception.overlaps(devices)) {
        changed.push(Devices { access: exception.access & devices.access, ..*exception });
        exception.access &= !devices.access;
    }
    exceptions.retain(|exception| exception.access != 0);
    Ok(changed)
}

/// The rules as systemd's `DeviceAllow`, as far as it can say them; None if what they deny are
/// exceptions, which it cannot say at all.
pub(super) fn allow_list(rules: &[Rule]) -> Option<Vec<(String, String)>> {
    let mut list: Vec<Devices> = Vec::new();
    let mut everything = false;
    for rule in rules {
        match rule.devices {
            None => {
                everything = rule.allow;
                list.clear();
            }
            Some(devices) if rule.allow => list.push(devices),
            Some(devices) => {
                let covered = list.iter_mut().filter(|allowed| devices.covers(allowed));
                covered.for_each(|allowed| allowed.access &= !devices.access);
            }
        }
    }
    let known = fs::read_to_string("/proc/devices").unwrap_or_default();
    let entry = |devices: &Devices| {
        let kind = if devices.kind == Kind::Char { "char" } else { "block" };
        let device = match (devices.major, devices.minor) {
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            (Some(major), None) => format!("{kind}-{}", driver(&known, devices.kind, major)?),
            (None, None) => format!("{kind}-*"),
            (None, Some(_)) => return None,
        };
        let access = devices.to_string();
        Some((device, access.rsplit(' ').next().unwrap_or_default().to_owned()))
    };
    list.retain(|devices| devices.access != 0);
    (!everything).then(|| list.iter().filter_map(entry).collect())
}

/// The name that `/proc/devices` has for a major number.
fn driver(known: &str, kind: Kind, major: u32) -> Option<&str> {
    let block = known.find("Block devices:").unwrap_or(known.len());
    let part = if kind == Kind::Char { &known[..block] } else { &known[block..] };
    part.lines().find_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        (number.parse() == Ok(major)).then_some(name)
    })
}

/// Makes `rules` those of the container; on version 2 in one step, also if there are some.
pub(super) fn apply(groups: &[Group], rules: &[Rule], is_update: bool) -> Result<()> {
    if let Some(group) = v1::with_controller(groups, "devices") {
        return v1::apply_devices(&group.directory, rules);
    }
    let instructions = program::assemble(rules);
    if instructions.is_none() && !is_update {
        return Ok(());
    }
    let group = groups.iter().find(|group| group.is_v2());
    let group = group.context("linux.resources.devices: no cgroup hierarchy can filter devices")?;
    attach(group, instructions.as_deref(), is_update)
        .with_context(|| format!("linux.resources.devices: {}", group.directory.display()))
}

/// Attaches the program to a version 2 group, or takes away the one that is there.
fn attach(group: &Group, instructions: Option<&[u64]>, is_update: bool) -> Result<()> {
    const FILTER: &str = "eBPF device filter";
    let directory = group.open()?;
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

#[cfg(test)]
mod tests;
