//! seccompiler, which knows one architecture and two actions.

use std::collections::BTreeMap;

use libc::sock_filter;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::security::seccomp::calls;
use crate::security::seccomp::tests::X86;
use crate::security::seccomp::tests::model::alternatives;

/// The program for x86_64 of a profile whose rules have all the same action.
pub(super) fn program(profile: &LinuxSeccomp) -> Vec<sock_filter> {
    let mut rules: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
    let mut other = SeccompAction::KillThread;
    for entry in profile.syscalls().iter().flatten() {
        other = action(entry.action());
        let numbers = entry
            .names()
            .iter()
            .filter_map(|name| X86[0].number(calls::find_call(name)?));
        for number in numbers {
            let chain = rules.entry(number.into()).or_insert(Some(Vec::new()));
            for conditions in alternatives(entry.args().as_deref().unwrap_or_default()) {
                match (conditions.is_empty(), &mut *chain) {
                    // Without conditions, so that nothing else matters.
                    (true, _) | (_, None) => *chain = None,
                    (false, Some(chain)) => chain.push(rule(&conditions)),
                }
            }
        }
    }
    let rules = rules
        .into_iter()
        .map(|(number, chain)| (number, chain.unwrap_or_default()));
    let default = action(profile.default_action());
    let filter = SeccompFilter::new(rules.collect(), default, other, TargetArch::x86_64).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    let ours = |theirs: &seccompiler::sock_filter| sock_filter {
        code: theirs.code,
        jt: theirs.jt,
        jf: theirs.jf,
        k: theirs.k,
    };
    program.iter().map(ours).collect()
}

fn rule(conditions: &[&LinuxSeccompArg]) -> SeccompRule {
    SeccompRule::new(
        conditions
            .iter()
            .map(|argument| condition(argument))
            .collect(),
    )
    .unwrap()
}

fn condition(argument: &LinuxSeccompArg) -> SeccompCondition {
    let (operator, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (SeccompCmpOp::Ne, argument.value()),
        LinuxSeccompOperator::ScmpCmpLt => (SeccompCmpOp::Lt, argument.value()),
        LinuxSeccompOperator::ScmpCmpLe => (SeccompCmpOp::Le, argument.value()),
        LinuxSeccompOperator::ScmpCmpEq => (SeccompCmpOp::Eq, argument.value()),
        LinuxSeccompOperator::ScmpCmpGe => (SeccompCmpOp::Ge, argument.value()),
        LinuxSeccompOperator::ScmpCmpGt => (SeccompCmpOp::Gt, argument.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => (
            SeccompCmpOp::MaskedEq(argument.value()),
            argument.value_two().unwrap_or(0),
        ),
    };
    let index = argument.index() as u8;
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, operator, value).unwrap()
}

fn action(action: LinuxSeccompAction) -> SeccompAction {
    let errno = libc::EPERM as u32;
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            SeccompAction::KillThread
        }
        LinuxSeccompAction::ScmpActKillProcess => SeccompAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => SeccompAction::Trap,
        LinuxSeccompAction::ScmpActErrno => SeccompAction::Errno(errno),
        LinuxSeccompAction::ScmpActTrace => SeccompAction::Trace(errno),
        LinuxSeccompAction::ScmpActAllow => SeccompAction::Allow,
        LinuxSeccompAction::ScmpActLog => SeccompAction::Log,
        LinuxSeccompAction::ScmpActNotify => panic!("seccompiler has no NOTIFY"),
    }
}
