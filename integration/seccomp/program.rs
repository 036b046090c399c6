//! Programs of a few instructions, which make exactly the system calls that they are asked for. No
//! compiler and no C library comes in between.

use crate::harness::{Bundle, write_program};

/// Where programs are loaded.
const BASE: u32 = 0x40_0000;
/// What stands before the code, in bytes.
const HEADERS_64: u32 = 64 + 56;
#[cfg(target_arch = "x86_64")]
const HEADERS_32: u32 = 52 + 32;

/// Exits with this status, and makes no other call.
pub(super) fn exits(status: u8) -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    let code = [
        &[0xbf, status, 0, 0, 0], // mov edi, status
        EXIT,
    ];
    #[cfg(target_arch = "aarch64")]
    let code = [&movz(0, status.into())[..], EXIT];
    elf_64(&code.concat())
}

/// Makes the call without arguments that matter, and exits with its errno.
pub(super) fn calls(number: u16) -> Vec<u8> {
    let [low, high] = number.to_le_bytes();
    #[cfg(target_arch = "x86_64")]
    let code = [
        &[0xb8, low, high, 0, 0][..], // mov eax, number
        &[0x0f, 0x05],                // syscall
        &[0xf7, 0xd8],                // neg eax
        &[0x89, 0xc7],                // mov edi, eax
        EXIT,
    ];
    #[cfg(target_arch = "aarch64")]
    let code = [
        &movz(8, u16::from_le_bytes([low, high]))[..],
        &0xd400_0001_u32.to_le_bytes(), // svc #0
        &0xcb00_03e0_u32.to_le_bytes(), // neg x0, x0
        EXIT,
    ];
    elf_64(&code.concat())
}

#[cfg(target_arch = "x86_64")]
const EXIT: &[u8] = &[
    0xb8, 60, 0, 0, 0, // mov eax, SYS_exit
    0x0f, 0x05, // syscall
];
#[cfg(target_arch = "aarch64")]
const EXIT: &[u8] = &[
    0xa8, 0x0b, 0x80, 0xd2, // mov x8, SYS_exit
    0x01, 0x00, 0x00, 0xd4, // svc #0
];

#[cfg(target_arch = "aarch64")]
fn movz(register: u32, value: u16) -> [u8; 4] {
    (0xd280_0000 | u32::from(value) << 5 | register).to_le_bytes()
}

/// A 32-bit program that writes `text` to standard output and exits with status 7.
#[cfg(target_arch = "x86_64")]
pub(super) fn writes_32(text: &str) -> Vec<u8> {
    const CODE: u32 = 34;
    let text_at = (BASE + HEADERS_32 + CODE).to_le_bytes();
    let length = (text.len() as u32).to_le_bytes();
    let code = [
        &[0xb8, 4, 0, 0, 0][..], // mov eax, SYS_write
        &[0xbb, 1, 0, 0, 0],     // mov ebx, 1
        &[0xb9],                 // mov ecx, text
        &text_at,
        &[0xba], // mov edx, length
        &length,
        &[0xcd, 0x80],       // int 0x80
        &[0xb8, 1, 0, 0, 0], // mov eax, SYS_exit
        &[0xbb, 7, 0, 0, 0], // mov ebx, 7
        &[0xcd, 0x80],       // int 0x80
    ]
    .concat();
    assert_eq!(code.len(), CODE as usize);
    elf_32(&[&code, text.as_bytes()].concat())
}

/// One segment, loaded whole; elf(5).
fn elf_64(code: &[u8]) -> Vec<u8> {
    let machine: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    let size = u64::from(HEADERS_64) + code.len() as u64;
    let (base, entry) = (u64::from(BASE), u64::from(BASE + HEADERS_64));
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2u16, machine].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    file.extend([entry, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 1, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
    file.extend([1u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    file.extend([0, base, base, size, size, 0x1000].iter().flat_map(|word| word.to_le_bytes()));
    assert_eq!(file.len(), HEADERS_64 as usize);
    file.extend(code);
    file
}

#[cfg(target_arch = "x86_64")]
fn elf_32(code: &[u8]) -> Vec<u8> {
    let size = HEADERS_32 + code.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2u16, 3].iter().flat_map(|word| word.to_le_bytes()));
    let words = [1, BASE + HEADERS_32, 52, 0, 0];
    file.extend(words.iter().flat_map(|word: &u32| word.to_le_bytes()));
    file.extend([52u16, 32, 1, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
    let segment = [1, 0, BASE, BASE, size, size, 5, 0x1000];
    file.extend(segment.iter().flat_map(|word: &u32| word.to_le_bytes()));
    assert_eq!(file.len(), HEADERS_32 as usize);
    file.extend(code);
    file
}

/// A container whose program is this.
pub(super) fn container(program: &[u8]) -> Bundle {
    let bundle = Bundle::busybox();
    write_program(&bundle.rootfs().join("program"), program);
    bundle.args(["/program"])
}
