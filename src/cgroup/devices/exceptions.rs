//! Device rules as version 1 has them: one default, and a list of exceptions to it.

use anyhow::{Result, bail};

use super::rule::{DeviceRule, Devices};

/// One write to `devices.allow` or `devices.deny`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub(super) allow: bool,
    pub(super) text: String,
    /// The index of the rule in the configuration, or None for a default rule.
    pub(super) rule: Option<usize>,
}

/// An exception to the default of a version 1 cgroup, and the index of the rule that it comes from.
pub(super) type Exception = (Devices, Option<usize>);

/// Returns the writes that bring a version 1 cgroup to `rules`. An access that a later rule takes
/// back is not written at all, so that no process has it even for a moment.
pub fn v1_writes(rules: &[DeviceRule]) -> Result<Vec<Write>> {
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

/// Converts `rules` to what the kernel has: one default and a list of exceptions to it. The kernel
/// removes an exception only by an exact match, so a rule may need several exceptions or none, or
/// may be impossible.
pub(super) fn v1_state(rules: &[DeviceRule]) -> Result<(Write, Vec<Exception>)> {
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

/// Returns the writes that bring a version 1 cgroup whose `devices.list` is `list` to the same
/// rules as `writes`. What is allowed before and after stays allowed all the time, as far as the
/// kernel shows what there is.
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
        // Default rules and rules of the user stay apart: the cgroup above may forbid the former
        // without an error, but not the latter.
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
        // A default rule is dropped where it conflicts with a rule of the user.
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
