//! How the kernel schedules a process: its policy, its priority for input and output, its CPUs, and
//! the nodes that its memory comes from. Also its execution domain.

use std::ffi::c_int;

use nix::Result;
use nix::sys::personality::{self, Persona};

use super::call::call;

// <linux/ioprio.h>, which libc does not have.
const IOPRIO_WHO_PROCESS: c_int = 1;

/// `struct sched_attr` of sched_setattr(2) as it is since Linux 5.3 (libc has the older one). Times
/// are in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SchedAttr {
    /// Set by [`sched_setattr`].
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub util_min: u32,
    pub util_max: u32,
}

/// Sets the memory policy of this thread (set_mempolicy(2)): `mode` is `MPOL_*` with its flags,
/// `nodes` has one bit for each node.
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<()> {
    let mask = if nodes.is_empty() {
        std::ptr::null()
    } else {
        nodes.as_ptr()
    };
    // The kernel reads one bit less than this number.
    let bits = nodes.len() * 64 + 1;
    // SAFETY: the kernel reads `bits - 1` bits, which is the length of `nodes`; null means none.
    call(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// Sets the scheduling policy of process `pid` (sched_setattr(2)).
pub fn sched_setattr(pid: i32, attr: &SchedAttr) -> Result<()> {
    let mut attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        ..attr.clone()
    };
    // SAFETY: the kernel reads `size` bytes, which is the size of `attr`; it writes only to `size`,
    // if it knows only a shorter structure.
    call(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw mut attr, 0) }).map(drop)
}

/// Sets the I/O priority of process `pid` (ioprio_set(2)): the class is in the bits from 13 on, the
/// level in the bits below.
pub fn ioprio_set(pid: i32, priority: u16) -> Result<()> {
    // SAFETY: integers only.
    call(unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            pid,
            c_int::from(priority),
        )
    })
    .map(drop)
}

/// Sets the CPUs of this process (sched_setaffinity(2)): one bit for each, the lowest number first.
pub fn set_affinity(mask: &[u64]) -> Result<()> {
    // Not the C library's function: some versions refuse a mask that is longer than the kernel's.
    // SAFETY: the kernel reads at most as many bytes as the size that is passed, that of the mask.
    call(unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            0,
            size_of_val(mask),
            mask.as_ptr(),
        )
    })
    .map(drop)
}

/// Sets the execution domain of this process (personality(2)).
pub fn set_personality(domain: u32) -> Result<()> {
    personality::set(Persona::from_bits_retain(domain as _)).map(drop)
}
