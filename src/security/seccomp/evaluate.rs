//! Evaluates a compiled filter as the kernel would, to find out its answer to a system call.

use libc::sock_filter;

use crate::security::seccomp::rules::{ARCHITECTURE, ARGUMENTS, NUMBER};
use crate::security::seccomp::{SeccompFilter, family};

impl SeccompFilter {
    /// Returns the action (`SECCOMP_RET_*`) for a call of the native architecture by its number.
    /// `first` is the first argument, if it is known. `None` if the action depends on an argument
    /// that is not known.
    pub fn action_of(&self, number: i64, first: Option<u64>) -> Option<u32> {
        let number = u32::try_from(number).ok()?;
        let arguments = [first, None, None, None, None, None];
        self.verdict(number, &arguments)
    }

    /// Returns the action for a call with those arguments that are known.
    pub(super) fn verdict(&self, number: u32, arguments: &[Option<u64>; 6]) -> Option<u32> {
        let architecture = family().first()?.audit;
        let word = |offset| match offset {
            NUMBER => Some(number),
            ARCHITECTURE => Some(architecture),
            _ => {
                let word = usize::try_from(offset.checked_sub(ARGUMENTS)? / 4).ok()?;
                let argument = (*arguments.get(word / 2)?)?;
                let half = if word.is_multiple_of(2) {
                    argument
                } else {
                    argument >> 32
                };
                Some(half as u32)
            }
        };
        let (mut at, mut accumulator) = (0, 0);
        // Jumps only go forward, so every program ends.
        loop {
            let step = self.program.get(at)?;
            match EvaluationStep::of(step)? {
                EvaluationStep::Load(offset) => accumulator = word(offset)?,
                EvaluationStep::And(mask) => accumulator &= mask,
                EvaluationStep::Jump(distance) => at += distance,
                EvaluationStep::If(test, yes, no) => {
                    at += if test.holds(accumulator) { yes } else { no }
                }
                EvaluationStep::Return(value) => return Some(value),
            }
            at += 1;
        }
    }
}

/// An instruction of a kind that `bpf.rs` writes.
#[derive(Clone, Copy)]
pub(super) enum EvaluationStep {
    Load(u32),
    And(u32),
    Jump(usize),
    If(EvaluationTest, usize, usize),
    Return(u32),
}

/// The condition of a jump.
#[derive(Clone, Copy, Debug)]
pub(super) struct EvaluationTest {
    code: u16,
    pub(super) constant: u32,
}

impl EvaluationStep {
    pub(super) fn of(step: &sock_filter) -> Option<Self> {
        let sock_filter { code, jt, jf, k } = *step;
        match code {
            0x20 => Some(Self::Load(k)),
            0x54 => Some(Self::And(k)),
            0x05 => Some(Self::Jump(usize::try_from(k).ok()?)),
            0x15 | 0x25 | 0x35 | 0x45 => Some(Self::If(
                EvaluationTest { code, constant: k },
                jt.into(),
                jf.into(),
            )),
            0x06 => Some(Self::Return(k)),
            _ => None,
        }
    }
}

impl EvaluationTest {
    pub(super) fn holds(self, word: u32) -> bool {
        match self.code {
            0x15 => word == self.constant,
            0x25 => word > self.constant,
            0x35 => word >= self.constant,
            _ => word & self.constant != 0,
        }
    }
}
