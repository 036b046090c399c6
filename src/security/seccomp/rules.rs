//! Turns the rules of a profile into an action for each system call number of each architecture.

use std::collections::BTreeMap;

use libc::sock_filter;
use oci_spec::runtime::{Arch, LinuxSeccompArg, LinuxSeccompOperator};

use crate::security::seccomp::bpf::{BpfProgram, JumpIf, Label};
use crate::security::seccomp::calls::{self, Call};

// The offsets in `struct seccomp_data` of <linux/seccomp.h>, in bytes. The two words of an argument
// are in the order of a little-endian machine; `rt` supports no others.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
pub(super) const ARGUMENTS: u32 = 16;

/// The bit that marks an x32 call (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;
/// The mask of a block of numbers that grows on its own: x32 and arm's private calls have their own
/// blocks.
const BLOCK: u32 = !0xffff;

/// An architecture with its system call numbers (ABI).
#[derive(Clone, Copy, Debug)]
pub(super) struct SyscallAbi {
    pub(super) arch: Arch,
    /// `AUDIT_ARCH_*` of <linux/audit.h>, the kernel's number for it.
    pub(super) audit: u32,
    /// The index of its number in a [`Call`].
    column: usize,
    /// The number that is added to those in the table.
    pub(super) base: u32,
    /// Whether arguments have 64 bits.
    pub(super) is_wide: bool,
    /// Whether socketcall(2) and ipc(2) make other calls.
    pub(super) multiplexes: bool,
}

const fn abi(arch: Arch, audit: u32, column: usize, is_wide: bool) -> SyscallAbi {
    SyscallAbi {
        arch,
        audit,
        column,
        base: 0,
        is_wide,
        multiplexes: false,
    }
}

/// The ABIs of an x86 kernel, the native one first; those with the same `AUDIT_ARCH_*` are
/// adjacent.
pub(super) const X86: [SyscallAbi; 3] = [
    abi(Arch::ScmpArchX86_64, 0xc000_003e, 0, true),
    SyscallAbi {
        base: X32_BIT,
        ..abi(Arch::ScmpArchX32, 0xc000_003e, 2, false)
    },
    SyscallAbi {
        multiplexes: true,
        ..abi(Arch::ScmpArchX86, 0x4000_0003, 1, false)
    },
];

/// The ABIs of an arm kernel, the native one first.
pub(super) const ARM: [SyscallAbi; 2] = [
    abi(Arch::ScmpArchAarch64, 0xc000_00b7, 3, true),
    abi(Arch::ScmpArchArm, 0x4000_0028, 4, false),
];

/// A profile with its names resolved. Actions are `SECCOMP_RET_*`.
#[derive(Debug)]
pub(super) struct SeccompProfile {
    pub(super) default: u32,
    /// The action for calls that are newer than all calls that the profile knows.
    pub(super) newer: u32,
    pub(super) entries: Vec<ProfileEntry>,
}

/// An entry of `linux.seccomp.syscalls`.
#[derive(Debug)]
pub(super) struct ProfileEntry {
    pub(super) calls: Vec<&'static Call>,
    pub(super) action: u32,
    /// The rule applies if all conditions of one alternative are met.
    pub(super) alternatives: Vec<Vec<ArgumentCondition>>,
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArgumentCondition {
    argument: u32,
    test: JumpIf,
    negated: bool,
    value: u64,
    mask: u64,
}

/// The answer for a range of numbers.
#[derive(Debug)]
enum CallVerdict {
    Return(u32),
    /// The first rule whose conditions are met, else the default action.
    Rules(Vec<SeccompRule>),
}

#[derive(Debug)]
struct SeccompRule {
    conditions: Vec<ArgumentCondition>,
    is_wide: bool,
    action: u32,
}

/// Returns the conditions of one entry. As in runc and crun, an entry with two conditions on the
/// same argument makes each of its conditions an alternative.
pub(super) fn alternatives(arguments: &[LinuxSeccompArg]) -> Vec<Vec<ArgumentCondition>> {
    let all: Vec<ArgumentCondition> = arguments.iter().map(ArgumentCondition::new).collect();
    let twice =
        |(i, one): (usize, &ArgumentCondition)| all[..i].iter().any(|o| o.argument == one.argument);
    match all.iter().enumerate().any(twice) {
        true => all.into_iter().map(|condition| vec![condition]).collect(),
        false => vec![all],
    }
}

impl ArgumentCondition {
    fn new(argument: &LinuxSeccompArg) -> Self {
        use LinuxSeccompOperator as Op;
        let (test, negated) = match argument.op() {
            Op::ScmpCmpEq | Op::ScmpCmpMaskedEq => (JumpIf::Equal, false),
            Op::ScmpCmpNe => (JumpIf::Equal, true),
            Op::ScmpCmpGe => (JumpIf::GreaterOrEqual, false),
            Op::ScmpCmpLt => (JumpIf::GreaterOrEqual, true),
            Op::ScmpCmpGt => (JumpIf::Greater, false),
            Op::ScmpCmpLe => (JumpIf::Greater, true),
        };
        let (mask, value) = match argument.op() {
            Op::ScmpCmpMaskedEq => (
                argument.value(),
                argument.value_two().unwrap_or(0) & argument.value(),
            ),
            _ => (u64::MAX, argument.value()),
        };
        Self {
            argument: argument.index() as u32,
            test,
            negated,
            value,
            mask,
        }
    }

    fn is_always_true(&self, is_wide: bool) -> bool {
        let mask = if is_wide {
            self.mask
        } else {
            self.mask & u64::from(u32::MAX)
        };
        self.test == JumpIf::Equal && mask == 0
    }

    fn write(&self, program: &mut BpfProgram, is_wide: bool, yes: Label, no: Label) -> Label {
        let (yes, no) = if self.negated { (no, yes) } else { (yes, no) };
        let offset = ARGUMENTS + 8 * self.argument;
        let low = word(
            program,
            self.test,
            offset,
            (self.mask, self.value),
            (yes, no),
        );
        if !is_wide {
            // As in libseccomp, only the lower half of a constant counts.
            return low;
        }
        let upper = (self.mask >> 32, self.value >> 32);
        if self.test == JumpIf::Equal {
            return word(program, JumpIf::Equal, offset + 4, upper, (low, no));
        }
        let equal = program.jump(JumpIf::Equal, upper.1 as u32, low, no);
        program.jump(JumpIf::Greater, upper.1 as u32, yes, equal);
        program.load(offset + 4)
    }
}

/// Writes a test of the word at `offset` against the lower halves of mask and value.
fn word(
    program: &mut BpfProgram,
    test: JumpIf,
    offset: u32,
    (mask, value): (u64, u64),
    (yes, no): (Label, Label),
) -> Label {
    let mask = mask as u32;
    if mask == 0 {
        return yes;
    }
    program.jump(test, value as u32, yes, no);
    if mask != u32::MAX {
        program.and(mask);
    }
    program.load(offset)
}

impl SyscallAbi {
    /// Returns the number of a call.
    pub(super) fn number(&self, call: &Call) -> Option<u32> {
        u32::try_from(call.1[self.column])
            .ok()
            .map(|number| self.base + number)
    }

    /// Returns the number of the call that can make `call`, and the mask and value of its first
    /// argument.
    fn stands_for(&self, call: &Call) -> Option<(u32, u64, u64)> {
        let (by, mask, value) = calls::multiplexed(call.0).filter(|_| self.multiplexes)?;
        Some((self.number(calls::find_call(by)?)?, mask, value))
    }

    /// Adds the rules of `entry` for `call`: for its own number, and for that of the call that can
    /// make it. The arguments in that case are in memory, where a filter cannot look, so only the
    /// conditions on registers other than the first are kept, as in libseccomp.
    fn rules(&self, entry: &ProfileEntry, call: &Call, all: &mut BTreeMap<u32, Vec<SeccompRule>>) {
        let keep = |condition: &&ArgumentCondition| !condition.is_always_true(self.is_wide);
        let mut add = |number, conditions| {
            let rule = SeccompRule {
                conditions,
                is_wide: self.is_wide,
                action: entry.action,
            };
            all.entry(number).or_default().push(rule);
        };
        for conditions in &entry.alternatives {
            if let Some(number) = self.number(call) {
                add(number, conditions.iter().filter(keep).copied().collect());
            }
            let Some((number, mask, value)) = self.stands_for(call) else {
                continue;
            };
            let which = ArgumentCondition {
                argument: 0,
                test: JumpIf::Equal,
                negated: false,
                value,
                mask,
            };
            let others = conditions
                .iter()
                .filter(keep)
                .filter(|other| other.argument != 0);
            add(
                number,
                std::iter::once(&which).chain(others).copied().collect(),
            );
        }
    }
}

impl SeccompProfile {
    /// Returns the program for the ABIs in `abis`, whose first is the native one. A call of another
    /// ABI ends the process.
    pub(super) fn program(&self, abis: &[SyscallAbi]) -> Vec<sock_filter> {
        let mut program = BpfProgram::default();
        let mut next = program.ret(libc::SECCOMP_RET_KILL_PROCESS);
        // The native ABI is written last, so that it is near the beginning of the program.
        let mut starts = Vec::new();
        for group in abis.chunk_by(|a, b| a.audit == b.audit).rev() {
            // `start` need not be the instruction written last: it may be an earlier `return`, if
            // all calls lead to it.
            let start = self.search(&mut program, &self.ranges(group));
            starts.push((group[0].audit, program.load_for(NUMBER, start)));
        }
        for (audit, start) in starts {
            next = program.jump(JumpIf::Equal, audit, start, next);
        }
        program.load(ARCHITECTURE);
        program.finish()
    }

    /// Returns the answer for every number of an architecture, as ranges with their first number.
    fn ranges(&self, abis: &[SyscallAbi]) -> Vec<(u32, CallVerdict)> {
        let mut rules = BTreeMap::new();
        let mut known = Vec::new();
        // The actions for numbers without rules.
        let mut gaps = BTreeMap::from([(0, self.default)]);
        for abi in abis {
            if abi.arch == Arch::ScmpArchX86_64 {
                // x32 calls end the process, unless x32 is in the profile, too. A tracer skips a
                // call by setting its number to -1, so that number gets the action for newer calls.
                gaps.insert(X32_BIT, libc::SECCOMP_RET_KILL_PROCESS);
                gaps.insert(u32::MAX, self.newer);
            }
            gaps.insert(abi.base, self.default);
            for entry in &self.entries {
                known.extend(entry.calls.iter().filter_map(|call| abi.number(call)));
                known.extend(
                    entry
                        .calls
                        .iter()
                        .filter_map(|call| Some(abi.stands_for(call)?.0)),
                );
                // libseccomp refuses such rules, and runc leaves them out, so a later rule for the
                // call counts.
                if entry.action != self.default {
                    entry
                        .calls
                        .iter()
                        .for_each(|call| abi.rules(entry, call, &mut rules));
                }
            }
        }
        known.sort_unstable();
        for block in known.chunk_by(|a, b| a & BLOCK == b & BLOCK) {
            gaps.insert(block[0] & BLOCK, self.default);
            gaps.insert(block[block.len() - 1] + 1, self.newer);
        }
        merge(&gaps, rules)
    }

    /// Writes a balanced search through `ranges`, which begin at number 0.
    fn search(&self, program: &mut BpfProgram, ranges: &[(u32, CallVerdict)]) -> Label {
        if let [(_, verdict)] = ranges {
            return self.verdict(program, verdict);
        }
        let (left, right) = ranges.split_at(ranges.len() / 2);
        let yes = self.search(program, right);
        let no = self.search(program, left);
        program.jump(JumpIf::GreaterOrEqual, right[0].0, yes, no)
    }

    fn verdict(&self, program: &mut BpfProgram, verdict: &CallVerdict) -> Label {
        match verdict {
            CallVerdict::Return(action) => program.ret(*action),
            CallVerdict::Rules(rules) => {
                let otherwise = program.ret(self.default);
                rules.iter().rev().fold(otherwise, |next, rule| {
                    let action = program.ret(rule.action);
                    rule.conditions.iter().rev().fold(action, |yes, condition| {
                        condition.write(program, rule.is_wide, yes, next)
                    })
                })
            }
        }
    }
}

/// Returns the ranges in order, with equal neighbours merged.
fn merge(
    gaps: &BTreeMap<u32, u32>,
    rules: BTreeMap<u32, Vec<SeccompRule>>,
) -> Vec<(u32, CallVerdict)> {
    let gap = |(start, action): (&u32, &u32)| (*start, CallVerdict::Return(*action));
    let mut ranges: BTreeMap<u32, CallVerdict> = gaps.iter().map(gap).collect();
    for (number, rules) in rules {
        // As in libseccomp, a rule without conditions wins over all other rules for the call.
        let verdict = match rules.iter().find(|rule| rule.conditions.is_empty()) {
            Some(rule) => CallVerdict::Return(rule.action),
            None => CallVerdict::Rules(rules),
        };
        ranges.insert(number, verdict);
        if let Some((_, action)) = gaps.range(..=number + 1).next_back() {
            ranges
                .entry(number + 1)
                .or_insert(CallVerdict::Return(*action));
        }
    }
    let mut ranges: Vec<(u32, CallVerdict)> = ranges.into_iter().collect();
    ranges.dedup_by(|(_, next), (_, last)| match (next, last) {
        (CallVerdict::Return(next), CallVerdict::Return(last)) => next == last,
        _ => false,
    });
    ranges
}
