//! The kernel's side: runs a program, instruction by instruction.

use libc::sock_filter;

/// What the kernel shows to a filter (`struct seccomp_data`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Entered {
    pub(super) number: u32,
    pub(super) architecture: u32,
    pub(super) arguments: [u64; 6],
}

impl Entered {
    fn word(&self, offset: u32) -> u32 {
        let half = |of: u64| {
            if offset.is_multiple_of(8) {
                of as u32
            } else {
                (of >> 32) as u32
            }
        };
        match offset {
            0 => self.number,
            4 => self.architecture,
            16..64 if offset.is_multiple_of(4) => half(self.arguments[(offset as usize - 16) / 8]),
            _ => panic!("a load from {offset}"),
        }
    }
}

/// What the program returns, and after how many instructions. Panics where the kernel would have
/// refused the program.
pub(super) fn run(program: &[sock_filter], entered: &Entered) -> (u32, usize) {
    let mut accumulator = 0;
    let mut at = 0;
    for count in 1.. {
        let sock_filter { code, jt, jf, k } = program[at];
        let jump = |yes: bool| {
            if yes {
                usize::from(jt)
            } else {
                usize::from(jf)
            }
        };
        at += 1;
        match code {
            0x20 => accumulator = entered.word(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x45 => at += jump(accumulator & k != 0),
            0x06 => return (k, count),
            _ => panic!("instruction {code:#x}"),
        }
    }
    unreachable!()
}
