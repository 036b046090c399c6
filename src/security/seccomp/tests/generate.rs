//! Profiles at random.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::security::seccomp::rules::SyscallAbi;
use crate::security::seccomp::tests::{LinuxSeccomp, LinuxSeccompAction, VALUES, parse};
use crate::security::seccomp::{ACTIONS, OPERATORS, calls};

/// Anything goes.
pub(super) fn profiles(family: &'static [SyscallAbi]) -> impl Strategy<Value = LinuxSeccomp> {
    values(family, action().boxed()).prop_map(parse)
}

/// For the comparison with libseccomp: different actions for one call under conditions that overlap
/// are not among them, since there each version of libseccomp decides in its own way.
pub(super) fn undisputed_profiles(
    family: &'static [SyscallAbi],
) -> impl Strategy<Value = LinuxSeccomp> {
    values(family, action().boxed()).prop_map(|mut profile| {
        let mut actions = BTreeMap::new();
        for entry in profile["syscalls"].as_array_mut().unwrap() {
            if entry["names"].as_array().unwrap().len() == 1 {
                let same = actions
                    .entry(entry["names"].to_string())
                    .or_insert(entry.clone());
                for property in ["action", "errnoRet"] {
                    entry[property] = same[property].clone();
                }
            }
        }
        parse(profile)
    })
}

/// Every rule has the same action, which is not the default.
pub(super) fn simple_profiles(
    family: &'static [SyscallAbi],
) -> impl Strategy<Value = LinuxSeccomp> {
    let both = prop::sample::select(vec![
        ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"),
        ("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"),
        ("SCMP_ACT_LOG", "SCMP_ACT_KILL_PROCESS"),
        ("SCMP_ACT_TRAP", "SCMP_ACT_TRACE"),
    ]);
    both.prop_flat_map(move |(default, other)| {
        let action = Just((other.to_string(), None)).boxed();
        values(family, action).prop_map(move |mut profile| {
            profile["defaultAction"] = json!(default);
            parse(profile)
        })
    })
}

type Action = (String, Option<u32>);

fn values(
    family: &'static [SyscallAbi],
    action: BoxedStrategy<Action>,
) -> impl Strategy<Value = Value> {
    let architectures = prop::sample::subsequence(family, 0..=family.len());
    let entries = prop::collection::vec(entry(action.clone()), 0..40);
    (architectures, action, entries).prop_map(|(architectures, (default, errno), entries)| {
        let names: Vec<String> = architectures
            .iter()
            .map(|abi| abi.arch.to_string())
            .collect();
        json!({
            "defaultAction": default,
            "defaultErrnoRet": errno,
            "architectures": names,
            "syscalls": entries,
        })
    })
}

fn action() -> impl Strategy<Value = Action> {
    prop::sample::select(ACTIONS.as_slice()).prop_flat_map(|action| {
        let errno = match action {
            LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace => {
                prop::option::of(1u32..100).boxed()
            }
            _ => Just(None).boxed(),
        };
        errno.prop_map(move |errno| (action.to_string(), errno))
    })
}

/// socketcall and ipc are not among them: their own rules would meet those of the calls that they
/// stand for.
fn name() -> impl Strategy<Value = &'static str> {
    let few = vec![
        "socket",
        "accept",
        "shmat",
        "semtimedop",
        "clone",
        "read",
        "write",
    ];
    let name = prop_oneof![
        3 => prop::sample::select(calls::CALLS).prop_map(|call| call.0),
        1 => prop::sample::select(few),
    ];
    name.prop_filter("stands for others", |name| {
        !["socketcall", "ipc"].contains(name)
    })
}

fn argument() -> impl Strategy<Value = Value> {
    let operator = prop::sample::select(OPERATORS.as_slice());
    let value = || prop::sample::select(VALUES.as_slice());
    (0..6usize, operator, value(), value()).prop_map(|(index, operator, one, two)| {
        json!({ "index": index, "op": operator, "value": one, "valueTwo": two })
    })
}

fn entry(action: BoxedStrategy<Action>) -> impl Strategy<Value = Value> {
    let direct = name().prop_filter("has two rules on x86", |n| calls::multiplexed(n).is_none());
    let plain = (prop::collection::vec(direct, 2..9), action.clone()).prop_map(
        |(names, action)| json!({ "names": names, "action": action.0, "errnoRet": action.1 }),
    );
    let arguments = prop::collection::vec(argument(), 0..4);
    let conditional = (name(), action, arguments).prop_map(|(name, action, arguments)| {
        json!({ "names": [name], "action": action.0, "errnoRet": action.1, "args": arguments })
    });
    prop_oneof![plain, conditional]
}
