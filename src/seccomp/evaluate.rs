//! What a compiled filter says of a call, found by running the program as the kernel would.

use libc::sock_filter;

use super::Filter;
use super::rules::{ARCHITECTURE, ARGUMENTS, NUMBER};

// Instructions of <linux/bpf_common.h> that the compiler writes.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

impl Filter {
    /// The action (`SECCOMP_RET_*`) for a call of this machine's own architecture by its number,
    /// whatever its arguments are but for the first, where that is given. `None` if it depends on
    /// an argument that is not given, or on an instruction that is not known here.
    pub(crate) fn action_of(&self, number: i64, first: Option<u64>) -> Option<u32> {
        let architecture = super::family().first()?.audit;
        let load = |offset: u32| match (offset, first) {
            (NUMBER, _) => u32::try_from(number).ok(),
            (ARCHITECTURE, _) => Some(architecture),
            (ARGUMENTS, Some(value)) => Some(value as u32),
            (offset, Some(value)) if offset == ARGUMENTS + 4 => Some((value >> 32) as u32),
            _ => None,
        };
        run(&self.program, load)
    }
}

fn run(program: &[sock_filter], load: impl Fn(u32) -> Option<u32>) -> Option<u32> {
    let mut accumulator = 0;
    let mut at = 0;
    // Jumps go forward only, so the program ends.
    loop {
        let sock_filter { code, jt, jf, k } = *program.get(at)?;
        at += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            LOAD => accumulator = load(k)?,
            AND => accumulator &= k,
            JUMP => at += k as usize,
            EQUAL => at += jump(accumulator == k),
            GREATER => at += jump(accumulator > k),
            GREATER_OR_EQUAL => at += jump(accumulator >= k),
            RETURN => return Some(k),
            _ => return None,
        }
    }
}
