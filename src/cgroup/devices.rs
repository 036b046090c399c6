//! `linux.resources.devices`: which device nodes the container may make, read and write. The
//! last rule that matches decides, for each of the three accesses by itself.

mod program;

use std::fmt::{self, Display, Formatter};
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

/// What a container may do unless the configuration denies the device by its number: make any node,
/// and use those that every container has. The tun device is there because clients have come to rely
/// on it. The console is not, since that of the host is meant by its number; a container's own is a
/// pseudo terminal.
#[rustfmt::skip]
const DEFAULT: [(Kind, Option<u32>, Option<u32>, u8); 11] = [
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
    let default = |devices| Rule {
        allow: true,
        devices: Some(devices),
        index: None,
    };
    let left: Vec<Rule> = default_devices()
        .filter_map(|devices| not_denied(devices, &rules))
        .map(default)
        .collect();
    rules.extend(left);
    Ok(rules)
}

/// What is left of `devices`, which are allowed by default, where `rules` deny some by number. The
/// right to make any node stays whole: it gives no access, and docker denies the number of one
/// device to every container.
fn not_denied(devices: Devices, rules: &[Rule]) -> Option<Devices> {
    if devices.major.is_none() {
        return Some(devices);
    }
    let by_number = rules
        .iter()
        .filter_map(|rule| Some((rule.allow, rule.devices?)));
    let by_number = by_number.filter(|(_, named)| named.major.is_some() || named.minor.is_some());
    let access = by_number.fold(devices.access, |access, (allow, named)| match allow {
        true if named.covers(&devices) => access | named.access & devices.access,
        false if named.overlaps(&devices) => access & !named.access,
        _ => access,
    });
    (access != 0).then_some(Devices { access, ..devices })
}

fn default_devices() -> impl Iterator<Item = Devices> {
    let devices = |(kind, major, minor, access)| Devices {
        kind,
        major,
        minor,
        access,
    };
    DEFAULT.into_iter().map(devices)
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
    let mut push = |devices| {
        rules.push(Rule {
            allow: device.allow(),
            devices,
            index: Some(index),
        })
    };
    if kinds.len() == 2 && (major, minor, access) == (None, None, ALL) {
        push(None);
        return Ok(());
    }
    // The kernel's `a` ignores numbers and accesses: a narrower rule becomes one of each type.
    for kind in kinds {
        push(Some(Devices {
            kind: *kind,
            major,
            minor,
            access,
        }));
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
    /// That notation back; None for `a *:* rwm`, which stands for every device.
    fn read(line: &str) -> Option<Self> {
        let mut parts = line.split([' ', ':']);
        let kind = match parts.next()? {
            "c" => Kind::Char,
            "b" => Kind::Block,
            _ => return None,
        };
        let mut number = || match parts.next()? {
            "*" => Some(None),
            digits => digits.parse().ok().map(Some),
        };
        let (major, minor) = (number()?, number()?);
        Some(Self {
            kind,
            major,
            minor,
            access: access(parts.next()?).ok()?,
        })
    }

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) allow: bool,
    pub(super) text: String,
    /// The index of the rule in the configuration, or None for a default rule.
    pub(super) rule: Option<usize>,
}

/// An exception to a version 1 group's default, and the rule that it is from.
type Exception = (Devices, Option<usize>);

/// The writes that bring a version 1 group to `rules`. What a later rule takes back is not written
/// at all: not for a moment may a process have it.
pub(super) fn v1_writes(rules: &[Rule]) -> Result<Vec<Write>> {
    let (default, exceptions) = v1_state(rules)?;
    let allow = !default.allow;
    let exceptions = exceptions.into_iter();
    let writes = exceptions.map(|(devices, rule)| Write {
        allow,
        text: devices.to_string(),
        rule,
    });
    Ok(std::iter::once(default).chain(writes).collect())
}

/// `rules` as that kernel interface has them: one default and a list of exceptions to it, which are
/// matched by equality when they are taken away again, so that a rule may need several exceptions,
/// none, or be impossible.
fn v1_state(rules: &[Rule]) -> Result<(Write, Vec<Exception>)> {
    let all = |allow, rule| Write {
        allow,
        text: "a".to_owned(),
        rule,
    };
    let mut default = all(false, rules.first().and_then(|rule| rule.index));
    let mut exceptions: Vec<Exception> = Vec::new();
    for rule in rules {
        match rule.devices {
            None => {
                default = all(rule.allow, rule.index);
                exceptions.clear();
            }
            Some(devices) if rule.allow == default.allow => {
                take_away(&mut exceptions, &devices, rule.index)?;
            }
            Some(devices) => add(&mut exceptions, devices, rule.index),
        }
    }
    Ok((default, exceptions))
}

/// The same for a group whose `devices.list` is `list`: what is allowed before and after is
/// allowed all the time, as far as the kernel lets us see what is there.
pub(super) fn v1_changes(list: &str, writes: Vec<Write>) -> Vec<Write> {
    let Some(present) = list.lines().map(Devices::read).collect::<Option<Vec<_>>>() else {
        return writes;
    };
    let (Some(first), wanted) = (writes.first(), writes.get(1..).unwrap_or_default()) else {
        return writes;
    };
    if first.allow {
        return writes;
    }
    let bits = |all: &[Devices], one: &Devices| {
        all.iter()
            .filter(|other| other.same_numbers(one))
            .fold(0, |bits, other| bits | other.access)
    };
    let parsed: Vec<_> = wanted
        .iter()
        .filter_map(|write| Devices::read(&write.text))
        .collect();
    let missing = wanted
        .iter()
        .zip(&parsed)
        .filter(|(_, devices)| devices.access & !bits(&present, devices) != 0);
    let mut changes: Vec<_> = missing.map(|(write, _)| write.clone()).collect();
    changes.extend(present.iter().filter_map(|devices| {
        let access = devices.access & !bits(&parsed, devices);
        let text = Devices { access, ..*devices }.to_string();
        (access != 0).then_some(Write {
            allow: false,
            text,
            rule: None,
        })
    }));
    changes
}

fn add(exceptions: &mut Vec<Exception>, devices: Devices, index: Option<usize>) {
    let same = exceptions
        .iter_mut()
        .filter(|(exception, _)| exception.same_numbers(&devices));
    for (exception, rule) in same {
        if devices.access & !exception.access == 0 {
            return;
        }
        // The group above may forbid a default rule, and not what the user asks for.
        if rule.is_none() == index.is_none() {
            exception.access |= devices.access;
            return;
        }
    }
    exceptions.push((devices, index));
}

fn take_away(
    exceptions: &mut Vec<Exception>,
    devices: &Devices,
    index: Option<usize>,
) -> Result<()> {
    let overlaps = |exception: &Devices| exception.overlaps(devices);
    let wider = exceptions
        .iter()
        .find(|(e, _)| overlaps(e) && !devices.covers(e));
    match (wider, index) {
        // A default rule gives way to what the user has written.
        (Some(_), None) => return Ok(()),
        (Some((wider, _)), Some(index)) => bail!(
            "linux.resources.devices[{index}]: cgroup v1 cannot take `{devices}` out of `{wider}`, \
             which an earlier rule sets"
        ),
        (None, _) => {}
    }
    for (exception, _) in exceptions
        .iter_mut()
        .filter(|(exception, _)| overlaps(exception))
    {
        exception.access &= !devices.access;
    }
    exceptions.retain(|(exception, _)| exception.access != 0);
    Ok(())
}

/// The rules as systemd's `DeviceAllow`, as far as it can say them; None if everything is allowed.
/// Exceptions to that it cannot say: it gets the default rules then, and no more than `rules` allow.
pub(super) fn allow_list(rules: &[Rule]) -> Result<Option<Vec<(String, String)>>> {
    let (default, exceptions) = v1_state(rules)?;
    let mut list: Vec<Devices> = exceptions.into_iter().map(|(devices, _)| devices).collect();
    if default.allow {
        if list.is_empty() {
            return Ok(None);
        }
        let denied = std::mem::replace(&mut list, default_devices().collect());
        list.retain(|devices| !denied.iter().any(|denied| denied.overlaps(devices)));
    }
    let entry = |devices: &Devices| {
        let kind = if devices.kind == Kind::Char {
            "char"
        } else {
            "block"
        };
        let device = match (devices.major, devices.minor) {
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            // Since systemd 240; its names of drivers stand for more than one number.
            (Some(major), None) => format!("{kind}-{major}"),
            (None, None) => format!("{kind}-*"),
            (None, Some(_)) => return None,
        };
        let access = devices.to_string();
        Some((
            device,
            access.rsplit(' ').next().unwrap_or_default().to_owned(),
        ))
    };
    Ok(Some(list.iter().filter_map(entry).collect()))
}

/// Makes `rules` those of the container; on version 2 in one step, also if it has some already.
pub(super) fn apply(groups: &[Group], rules: &[Rule], is_update: bool) -> Result<()> {
    if let Some(group) = v1::with_controller(groups, "devices") {
        return v1::apply_devices(&group.directory, rules, is_update);
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
