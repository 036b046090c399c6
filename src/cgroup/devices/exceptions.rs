//! Rules as version 1 has them: one default, and a list of exceptions to it.

use anyhow::{Result, bail};

use super::rule::{DeviceRule, Devices};

/// One write to `devices.allow` or `devices.deny`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(super) allow: bool,
    pub(super) text: String,
    /// The index of the rule in the configuration, or None for a default rule.
    pub(super) rule: Option<usize>,
}

/// An exception to a version 1 group's default, and the rule that it is from.
pub(super) type Exception = (Devices, Option<usize>);

/// The writes that bring a version 1 group to `rules`. What a later rule takes back is not written
/// at all: not for a moment may a process have it.
pub(crate) fn v1_writes(rules: &[DeviceRule]) -> Result<Vec<Write>> {
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
