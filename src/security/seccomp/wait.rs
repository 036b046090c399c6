//! Finds a system call with which a process under a filter can wait without a busy loop. Any call
//! may be forbidden, so the filter itself is evaluated to find one that is not.
//!
//! Either the filter allows a call that waits. Or it has a call that an agent is asked about: such
//! a call waits until it is answered. It is never carried out if the answer comes from a thread of
//! the same process that is not under the filter.

use libc::sock_filter;

use crate::security::seccomp::calls::CALLS;
use crate::security::seccomp::evaluate::{EvaluationStep, EvaluationTest};
use crate::security::seccomp::rules::{ARCHITECTURE, ARGUMENTS, NUMBER, SyscallAbi};
use crate::security::seccomp::{SeccompFilter, family};

/// A system call of the native architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitSyscall {
    pub number: u32,
    pub arguments: [u64; 6],
}

/// The call with which a process under the filter waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitCall {
    /// The filter allows the call, which waits by itself.
    Allowed(WaitSyscall),
    /// The call is not carried out before it is answered, which is the wait.
    Notified(WaitSyscall),
}

/// A number that no kernel uses: if the call were carried out, it would have no effect.
const NO_CALL: u32 = 0x0fff_ffff;
/// With this value as arguments nearly every call fails: it is no descriptor, no address and no
/// valid flags.
const NOTHING: u64 = u64::MAX;
/// Calls that have an effect even with such arguments, if a signal interrupts the wait and an agent
/// then sees the call and lets it through. They are used only if there is no other call.
const LAST: [&str; 11] = [
    "alarm",
    "exit",
    "exit_group",
    "munlockall",
    "pause",
    "personality",
    "sched_yield",
    "setsid",
    "sync",
    "umask",
    "vhangup",
];
/// Calls that must not be carried out: afterwards two processes would continue from here, or none.
const NEVER: [&str; 4] = ["fork", "restart_syscall", "rt_sigreturn", "vfork"];

/// The largest number of instructions that are evaluated for one system call number.
const STEPS: usize = 1 << 16;

impl SeccompFilter {
    /// Returns the call with which a process under this filter can wait; `allowed` is a call that
    /// waits by itself. None if the filter decides every call at once, so that no agent can be
    /// asked about any.
    pub fn wait(&self, allowed: WaitSyscall) -> Option<WaitCall> {
        let abi = family().first()?;
        if matches!(
            action(self.verdict_of(allowed)?),
            libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG
        ) {
            return Some(WaitCall::Allowed(allowed));
        }
        let notified = |number| {
            Some(WaitSyscall {
                number,
                arguments: notified(&self.program, abi, number)?,
            })
        };
        let call = numbers(abi).find_map(notified);
        // The result is verified by evaluating the program with it.
        call.filter(|call| self.verdict_of(*call).map(action) == Some(libc::SECCOMP_RET_USER_NOTIF))
            .map(WaitCall::Notified)
    }

    fn verdict_of(&self, call: WaitSyscall) -> Option<u32> {
        self.verdict(call.number, &call.arguments.map(Some))
    }
}

fn action(verdict: u32) -> u32 {
    verdict & libc::SECCOMP_RET_ACTION_FULL
}

/// Returns the numbers to try, the most harmless first.
fn numbers(abi: &SyscallAbi) -> impl Iterator<Item = u32> {
    let of = |wanted: fn(&str) -> bool| {
        CALLS
            .iter()
            .filter(move |call| wanted(call.0))
            .filter_map(|call| abi.number(call))
    };
    let first = of(|name| !LAST.contains(&name) && !NEVER.contains(&name));
    std::iter::once(NO_CALL)
        .chain(first)
        .chain(of(|name| LAST.contains(&name)))
}

/// A condition on a word of the arguments that holds on a path through the program.
#[derive(Clone, Copy)]
struct KnownBits {
    word: u32,
    mask: u32,
    test: EvaluationTest,
    holds: bool,
}

/// A path through the program, up to the instruction `at`.
#[derive(Clone)]
struct CallPath {
    at: usize,
    accumulator: KnownAccumulator,
    known: Vec<KnownBits>,
}

#[derive(Clone, Copy)]
enum KnownAccumulator {
    Value(u32),
    /// A word of the arguments by its offset, masked.
    Word(u32, u32),
}

/// Returns arguments with which the agent is asked about the call `number`.
fn notified(program: &[sock_filter], abi: &SyscallAbi, number: u32) -> Option<[u64; 6]> {
    let mut paths = vec![CallPath {
        at: 0,
        accumulator: KnownAccumulator::Value(0),
        known: Vec::new(),
    }];
    let mut steps = 0;
    while let Some(mut path) = paths.pop() {
        loop {
            steps += 1;
            let step = EvaluationStep::of(program.get(path.at)?)?;
            path.at += 1;
            match step {
                _ if steps > STEPS => return None,
                EvaluationStep::Load(NUMBER) => path.accumulator = KnownAccumulator::Value(number),
                EvaluationStep::Load(ARCHITECTURE) => {
                    path.accumulator = KnownAccumulator::Value(abi.audit)
                }
                EvaluationStep::Load(offset) => {
                    path.accumulator = KnownAccumulator::Word(offset, u32::MAX)
                }
                EvaluationStep::And(mask) => path.accumulator.mask(mask),
                EvaluationStep::Jump(distance) => path.at += distance,
                EvaluationStep::If(test, yes, no) => match path.accumulator {
                    KnownAccumulator::Value(value) => {
                        path.at += if test.holds(value) { yes } else { no }
                    }
                    KnownAccumulator::Word(word, mask) => {
                        let fork = |holds| {
                            path.with(
                                KnownBits {
                                    word,
                                    mask,
                                    test,
                                    holds,
                                },
                                if holds { yes } else { no },
                            )
                        };
                        paths.extend([fork(false), fork(true)].into_iter().flatten());
                        break;
                    }
                },
                EvaluationStep::Return(value) if action(value) == libc::SECCOMP_RET_USER_NOTIF => {
                    return path.arguments();
                }
                EvaluationStep::Return(_) => break,
            }
        }
    }
    None
}

impl KnownAccumulator {
    fn mask(&mut self, with: u32) {
        match self {
            Self::Value(value) => *value &= with,
            Self::Word(_, mask) => *mask &= with,
        }
    }
}

impl CallPath {
    /// Returns this path with one more condition, unless no value can meet all of them.
    fn with(&self, known: KnownBits, distance: usize) -> Option<Self> {
        let mut path = self.clone();
        path.at += distance;
        path.known.push(known);
        path.word(known.word).is_some().then_some(path)
    }

    /// Returns a value of the word at `offset` that meets all conditions of the path.
    fn word(&self, offset: u32) -> Option<u32> {
        let known = || self.known.iter().filter(|known| known.word == offset);
        let near = known().flat_map(|KnownBits { mask, test, .. }| {
            let constant = test.constant;
            let lowest = mask & mask.wrapping_neg();
            let values = [constant, constant.wrapping_add(1), constant.wrapping_sub(1)];
            let masked = [
                constant | !mask,
                (constant ^ lowest) | !mask,
                constant ^ lowest,
            ];
            values.into_iter().chain(masked)
        });
        let fits = |value: &u32| known().all(|k| k.test.holds(value & k.mask) == k.holds);
        [u32::MAX, 0].into_iter().chain(near).find(fits)
    }

    fn arguments(&self) -> Option<[u64; 6]> {
        let mut arguments = [NOTHING; 6];
        for (i, argument) in (0..).zip(&mut arguments) {
            let offset = ARGUMENTS + 8 * i;
            *argument = u64::from(self.word(offset)?) | u64::from(self.word(offset + 4)?) << 32;
        }
        Some(arguments)
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxSeccomp;
    use serde_json::{Value, json};

    use super::super::{FilterTerms, program};
    use super::*;

    const FUTEX: WaitSyscall = WaitSyscall {
        number: libc::SYS_futex as u32,
        arguments: [0x1000, 128, 0, 0, 0, 0],
    };

    fn wait(profile: Value) -> Option<WaitCall> {
        let profile: LinuxSeccomp = serde_json::from_value(profile).unwrap();
        let program = program(family(), &profile);
        SeccompFilter {
            program,
            terms: FilterTerms {
                flags: 0,
                agent: None,
            },
        }
        .wait(FUTEX)
    }

    fn notified(default: &str, names: &[&str], args: Value) -> Option<WaitCall> {
        wait(json!({ "defaultAction": default, "syscalls":
            [{ "names": names, "action": "SCMP_ACT_NOTIFY", "args": args }] }))
    }

    #[track_caller]
    fn is_notified(wait: Option<WaitCall>, number: i64) -> [u64; 6] {
        let Some(WaitCall::Notified(call)) = wait else {
            panic!("{wait:?}")
        };
        assert_eq!(i64::from(call.number), number);
        call.arguments
    }

    #[test]
    fn a_wait_that_is_let_through_is_taken_first() {
        for default in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"] {
            assert_eq!(
                notified(default, &["mkdirat"], json!([])),
                Some(WaitCall::Allowed(FUTEX))
            );
        }
    }

    #[test]
    fn else_a_call_that_is_notified_and_does_nothing() {
        let all = wait(json!({ "defaultAction": "SCMP_ACT_NOTIFY" }));
        assert_eq!(is_notified(all, NO_CALL.into()), [NOTHING; 6]);
        let harmless = notified(
            "SCMP_ACT_ERRNO",
            &["exit_group", "umask", "openat"],
            json!([]),
        );
        assert_eq!(is_notified(harmless, libc::SYS_openat), [NOTHING; 6]);
        let only = notified("SCMP_ACT_KILL", &["exit_group"], json!([]));
        is_notified(only, libc::SYS_exit_group);
    }

    #[test]
    fn arguments_are_found_that_the_agent_is_asked_about() {
        let argument =
            |index: u32, value: u64, op: &str| json!({ "index": index, "value": value, "op": op });
        let found = notified(
            "SCMP_ACT_ERRNO",
            &["mknodat"],
            json!([
                argument(0, 5, "SCMP_CMP_EQ"),
                argument(1, u64::MAX, "SCMP_CMP_NE"),
                argument(2, 1 << 40, "SCMP_CMP_LT"),
                argument(3, 1 << 40, "SCMP_CMP_GT"),
                { "index": 4, "value": 0xff_0000_000f_u64, "valueTwo": 0x12_0000_0003_u64,
                  "op": "SCMP_CMP_MASKED_EQ" },
            ]),
        );
        let [a, b, c, d, e, f] = is_notified(found, libc::SYS_mknodat);
        assert!(a == 5 && b != u64::MAX && c < 1 << 40 && d > 1 << 40);
        assert_eq!(e & 0xff_0000_000f, 0x12_0000_0003);
        assert_eq!(f, NOTHING);
    }

    #[test]
    fn where_nothing_is_ever_notified_there_is_no_wait() {
        assert_eq!(
            notified("SCMP_ACT_ERRNO", &["fork", "vfork"], json!([])),
            None
        );
        let foreign = notified("SCMP_ACT_ERRNO", &["swapcontext"], json!([]));
        assert_eq!(foreign, None);
        let impossible = notified(
            "SCMP_ACT_ERRNO",
            &["mkdirat"],
            json!([
                { "index": 0, "value": 0, "op": "SCMP_CMP_LT" },
            ]),
        );
        assert_eq!(impossible, None);
    }
}
