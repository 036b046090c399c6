use super::*;

/// Runs a program as the kernel would: type, access, major, minor.
pub fn run(program: &[u64], context: (u32, u32, u32, u32)) -> bool {
    let (kind, access, major, minor) = context;
    let memory = [kind | access << 16, major, minor];
    let mut registers = [u64::MAX; 11];
    let mut at = 0;
    loop {
        let bytes = program[at].to_ne_bytes();
        let offset = i16::from_ne_bytes([bytes[2], bytes[3]]);
        let value = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let (to, from) = match cfg!(target_endian = "little") {
            true => (bytes[1] & 15, bytes[1] >> 4),
            false => (bytes[1] >> 4, bytes[1] & 15),
        };
        let (to, from) = (usize::from(to), usize::from(from));
        let word = registers[to] as u32;
        at += 1;
        let jump = match bytes[0] {
            LOAD_WORD => {
                assert_eq!(from, 1);
                registers[to] = memory[offset as usize / 4].into();
                false
            }
            SET => {
                registers[to] = value.into();
                false
            }
            COPY => {
                registers[to] = u64::from(registers[from] as u32);
                false
            }
            AND => {
                registers[to] = u64::from(word & value);
                false
            }
            SHIFT_RIGHT => {
                registers[to] = u64::from(word >> value);
                false
            }
            JUMP_IF_EQUAL => word == value,
            JUMP_UNLESS_EQUAL => word != value,
            EXIT => {
                assert!(registers[0] <= 1);
                return registers[0] == 1;
            }
            code => panic!("instruction {code:#x}"),
        };
        if jump {
            assert!(offset > 0);
            at += offset as usize;
        }
    }
}

#[test]
fn an_instruction_is_laid_out_as_the_kernel_reads_it() {
    // BPF_JMP_IMM32(BPF_JNE, BPF_REG_4, 0x0a0b0c0d, 3)
    let bytes = instruction(JUMP_UNLESS_EQUAL, (MAJOR, 0), 3, 0x0a0b_0c0d).to_ne_bytes();
    if cfg!(target_endian = "little") {
        assert_eq!(bytes, [0x56, 0x04, 3, 0, 0x0d, 0x0c, 0x0b, 0x0a]);
    } else {
        assert_eq!(bytes, [0x56, 0x40, 0, 3, 0x0a, 0x0b, 0x0c, 0x0d]);
    }
}
