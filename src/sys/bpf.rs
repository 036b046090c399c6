//! bpf(2).

use std::ffi::c_long;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;

use super::{call, call_fd};

// <linux/bpf.h>, which libc does not have.
const BPF_PROG_LOAD: c_long = 5;
const BPF_PROG_ATTACH: c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;

/// bpf(2) `BPF_PROG_LOAD` of a program that decides about devices: `instructions` are `struct
/// bpf_insn` in the byte order of this machine. The verifier refuses what is not safe to run.
pub(crate) fn bpf_prog_load_cgroup_device(instructions: &[u64]) -> Result<OwnedFd> {
    /// The first fields of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes the rest as zero.
    #[repr(C)]
    struct Load {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
    }
    let attributes = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(instructions.len()).map_err(|_| Errno::E2BIG)?,
        insns: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    // SAFETY: the kernel reads `insn_cnt` instructions of eight bytes each and a string that ends
    // with a zero byte, both borrowed until the call returns; the size is that of `attributes`.
    call_fd(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<Load>())
    })
}

/// bpf(2) `BPF_PROG_ATTACH` of a device program to the group that the directory `cgroup` is. The
/// group keeps the program: `program` may be closed after. `flags` are `BPF_F_*`.
pub(crate) fn bpf_prog_attach_cgroup_device(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    flags: u32,
) -> Result<()> {
    // The first fields of `union bpf_attr` for BPF_PROG_ATTACH: target_fd, attach_bpf_fd,
    // attach_type, attach_flags.
    let (cgroup, program) = (cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32);
    let attributes = [cgroup, program, BPF_CGROUP_DEVICE, flags];
    // SAFETY: the kernel only reads `attributes`, which holds numbers alone and has the size
    // passed; both descriptors are borrowed for the length of the call.
    call(unsafe {
        let size = size_of_val(&attributes);
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, attributes.as_ptr(), size)
    })
    .map(drop)
}
