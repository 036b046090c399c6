//! Classic BPF (<linux/filter.h>) as seccomp(2) takes it. Programs are written from their end to
//! their beginning: jumps only go forward, so the target of a jump has been written before the
//! jump.

use libc::sock_filter;

/// The target of a jump: the index of an instruction, counted from the end of the program.
pub(super) type Label = usize;

// <linux/bpf_common.h>; libc's constants have a wider type than the field.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// The condition of a jump: how the loaded word compares with the constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JumpIf {
    Equal = 0x15,
    Greater = 0x25,
    GreaterOrEqual = 0x35,
}

/// How far a conditional jump may go, in instructions: the range of its eight bits, less the two
/// instructions that [`BpfProgram::near`] may insert.
const NEAR: usize = 253;

/// A program that is being written, last instruction first.
#[derive(Debug, Default)]
pub(super) struct BpfProgram {
    reversed: Vec<sock_filter>,
    /// For each value the `return` that is nearest to the beginning.
    returns: Vec<(u32, Label)>,
}

impl BpfProgram {
    /// Returns the program in the order of execution.
    pub(super) fn finish(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }

    /// Writes `return value`, or reuses one within reach.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        let known = self.returns.iter().position(|(of, _)| *of == value);
        if let Some(i) = known
            && self.distance(self.returns[i].1) < NEAR
        {
            return self.returns[i].1;
        }
        let label = self.push(RETURN, 0, 0, value);
        match known {
            Some(i) => self.returns[i].1 = label,
            None => self.returns.push((value, label)),
        }
        label
    }

    /// Writes a load of the word of `struct seccomp_data` at `offset`, for the instruction that was
    /// written last.
    pub(super) fn load(&mut self, offset: u32) -> Label {
        self.push(LOAD, 0, 0, offset)
    }

    /// Writes a load of the word at `offset` that continues at `label`.
    pub(super) fn load_for(&mut self, offset: u32, label: Label) -> Label {
        let distance = self.distance(label);
        if distance > 0 {
            self.push(JUMP, 0, 0, distance as u32);
        }
        self.load(offset)
    }

    /// Writes an instruction that clears the bits not in `mask`, for the instruction that was
    /// written last.
    pub(super) fn and(&mut self, mask: u32) -> Label {
        self.push(AND, 0, 0, mask)
    }

    /// Writes a conditional jump to `yes` or `no`.
    pub(super) fn jump(&mut self, condition: JumpIf, value: u32, yes: Label, no: Label) -> Label {
        let yes = self.near(yes);
        let no = self.near(no);
        let (yes, no) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.push(condition as u16, yes, no, value)
    }

    /// Returns `label`, or an equivalent instruction within the reach of a conditional jump.
    fn near(&mut self, label: Label) -> Label {
        let distance = self.distance(label);
        if distance < NEAR {
            return label;
        }
        match self.reversed[label] {
            sock_filter {
                code: RETURN, k, ..
            } => self.push(RETURN, 0, 0, k),
            _ => self.push(JUMP, 0, 0, distance as u32),
        }
    }

    /// Returns the number of instructions between the next one to be written and `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - 1 - label
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(sock_filter { code, jt, jf, k });
        self.reversed.len() - 1
    }
}
