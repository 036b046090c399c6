//! The device filter of version 2: a BPF_PROG_TYPE_CGROUP_DEVICE program. The kernel runs it with
//! `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`, in which the upper half
//! of `access_type` is the access and the lower half the type. The program returns 1 to allow, 0 to
//! deny.

use super::rule::{ALL, DeviceKind, DeviceRule, Devices};

// <linux/bpf.h> and <linux/bpf_common.h>: operation | source | class. All operations have 32 bits,
// as the device numbers do.
const LOAD_WORD: u8 = 0x61;
const SET: u8 = 0xb7;
const COPY: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

// Registers. The context is in r1 at the start, the result in r0 at the end.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
/// The accesses that no rule has decided yet.
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// BPF_DEVCG_DEV_* of <linux/bpf.h>.
const BLOCK: u32 = 1;
const CHAR: u32 = 2;

/// Encodes a `struct bpf_insn` as it is in memory.
fn instruction(code: u8, (to, from): (u8, u8), offset: i16, value: u32) -> u64 {
    // The registers are bit fields, whose order follows the machine's byte order.
    let registers = if cfg!(target_endian = "little") {
        to | from << 4
    } else {
        to << 4 | from
    };
    let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
    bytes[4..].copy_from_slice(&value.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

fn load(to: u8, offset: i16) -> u64 {
    instruction(LOAD_WORD, (to, CONTEXT), offset, 0)
}

fn result(allow: bool) -> [u64; 2] {
    [
        instruction(SET, (RESULT, 0), 0, allow.into()),
        instruction(EXIT, (0, 0), 0, 0),
    ]
}

/// Returns the program for `rules`, or None if it would allow everything. The program tries the
/// last rule first, and ends as soon as one access is denied or all of them are allowed.
pub(super) fn assemble(rules: &[DeviceRule]) -> Option<Vec<u64>> {
    // Rules before one for everything would be unreachable code, which the verifier refuses.
    let start = rules.iter().rposition(|rule| rule.devices.is_none());
    let default = start.is_some_and(|i| rules[i].allow);
    let rules = &rules[start.map_or(0, |i| i + 1)..];
    if default && rules.iter().all(|rule| rule.allow) {
        return None;
    }
    let mut program = vec![
        load(TYPE, 0),
        instruction(COPY, (ACCESS, TYPE), 0, 0),
        instruction(AND, (TYPE, 0), 0, 0xffff),
        instruction(SHIFT_RIGHT, (ACCESS, 0), 0, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        if let Some(devices) = &rule.devices {
            program.extend(block(devices, rule.allow));
        }
    }
    program.extend(result(default));
    Some(program)
}

/// Returns the instructions of one rule; if the rule does not decide, execution continues behind
/// them.
fn block(devices: &Devices, allow: bool) -> Vec<u64> {
    let kind = if devices.kind == DeviceKind::Char {
        CHAR
    } else {
        BLOCK
    };
    let access = u32::from(devices.access);
    // Jumps to the end of the block, as (place, code, register, value).
    let mut jumps = Vec::new();
    let mut block = Vec::new();
    let mut jump = |block: &mut Vec<u64>, code, register, value| {
        jumps.push((block.len(), code, register, value));
        block.push(0);
    };
    jump(&mut block, JUMP_UNLESS_EQUAL, TYPE, kind);
    for (register, number) in [(MAJOR, devices.major), (MINOR, devices.minor)] {
        if let Some(number) = number {
            jump(&mut block, JUMP_UNLESS_EQUAL, register, number);
        }
    }
    if devices.access != ALL && allow {
        block.push(instruction(AND, (ACCESS, 0), 0, !access));
        jump(&mut block, JUMP_UNLESS_EQUAL, ACCESS, 0);
    } else if devices.access != ALL {
        block.push(instruction(COPY, (RESULT, ACCESS), 0, 0));
        block.push(instruction(AND, (RESULT, 0), 0, access));
        jump(&mut block, JUMP_IF_EQUAL, RESULT, 0);
    }
    block.extend(result(allow));
    for (place, code, register, value) in jumps {
        // A block has at most ten instructions, so the distance fits.
        let distance = (block.len() - place - 1) as i16;
        block[place] = instruction(code, (register, 0), distance, value);
    }
    block
}

#[cfg(test)]
pub(super) mod tests;
