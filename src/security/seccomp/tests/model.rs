//! What a profile says, read rule by rule.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator};

use crate::security::seccomp::calls;
use crate::security::seccomp::rules::SyscallAbi;

/// A rule that speaks about a call: about the call itself, or one that comes by way of it.
#[derive(Debug)]
struct Rule<'a> {
    action: u32,
    /// Mask and value of the first argument that lead to the other one.
    by_way: Option<(u64, u64)>,
    arguments: Vec<&'a LinuxSeccompArg>,
}

/// All that a profile says about one call.
#[derive(Debug)]
pub(super) struct Said<'a> {
    default: u32,
    width: u64,
    rules: Vec<Rule<'a>>,
}

impl<'a> Said<'a> {
    pub(super) fn new(profile: &'a LinuxSeccomp, abi: &SyscallAbi, name: &str) -> Self {
        let default = profile.default_action().as_u32(profile.default_errno_ret());
        let width = if abi.is_wide {
            u64::MAX
        } else {
            u64::from(u32::MAX)
        };
        let mut rules = Vec::new();
        for entry in profile.syscalls().iter().flatten() {
            let action = entry.action().as_u32(entry.errno_ret());
            for named in entry.names().iter().filter(|_| action != default) {
                let by_way = calls::multiplexed(named).filter(|_| abi.multiplexes);
                let by_way = by_way.filter(|(by, ..)| *by == name);
                if named != name && by_way.is_none() {
                    continue;
                }
                let by_way = by_way.map(|(_, mask, value)| (mask, value));
                let asks = |argument: &&LinuxSeccompArg| {
                    let masked = argument.op() == LinuxSeccompOperator::ScmpCmpMaskedEq;
                    let says_nothing = masked && argument.value() & width == 0;
                    !says_nothing && (by_way.is_none() || argument.index() != 0)
                };
                for arguments in alternatives(entry.args().as_deref().unwrap_or_default()) {
                    let arguments = arguments.into_iter().filter(asks).collect();
                    rules.push(Rule {
                        action,
                        by_way,
                        arguments,
                    });
                }
            }
        }
        Self {
            default,
            width,
            rules,
        }
    }

    /// The action for a call with these arguments.
    pub(super) fn about(&self, entered: &[u64; 6]) -> u32 {
        let always = |rule: &&Rule<'_>| rule.by_way.is_none() && rule.arguments.is_empty();
        let rule = self.rules.iter().find(always);
        let rule = rule.or_else(|| self.rules.iter().find(|rule| self.holds(rule, entered)));
        rule.map_or(self.default, |rule| rule.action)
    }

    fn holds(&self, rule: &Rule<'_>, entered: &[u64; 6]) -> bool {
        let first = entered[0] & self.width;
        rule.by_way
            .is_none_or(|(mask, value)| first & mask == value)
            && rule
                .arguments
                .iter()
                .all(|argument| self.compare(argument, entered))
    }

    fn compare(&self, argument: &LinuxSeccompArg, entered: &[u64; 6]) -> bool {
        let value = argument.value() & self.width;
        let second = argument.value_two().unwrap_or(0) & self.width;
        let entered = entered[argument.index()] & self.width;
        match argument.op() {
            LinuxSeccompOperator::ScmpCmpNe => entered != value,
            LinuxSeccompOperator::ScmpCmpLt => entered < value,
            LinuxSeccompOperator::ScmpCmpLe => entered <= value,
            LinuxSeccompOperator::ScmpCmpEq => entered == value,
            LinuxSeccompOperator::ScmpCmpGe => entered >= value,
            LinuxSeccompOperator::ScmpCmpGt => entered > value,
            LinuxSeccompOperator::ScmpCmpMaskedEq => entered & value == second & value,
        }
    }
}

/// Each on its own if two are about the same argument, as runc and crun have it.
pub(super) fn alternatives(arguments: &[LinuxSeccompArg]) -> Vec<Vec<&LinuxSeccompArg>> {
    let same = |one: &LinuxSeccompArg| {
        arguments
            .iter()
            .filter(|a| a.index() == one.index())
            .count()
    };
    match arguments.iter().any(|argument| same(argument) > 1) {
        true => arguments.iter().map(|argument| vec![argument]).collect(),
        false => vec![arguments.iter().collect()],
    }
}
