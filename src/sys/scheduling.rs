//! How the kernel schedules a process: its policy, its place among those that read and write,
//! its CPUs and the nodes of its memory.

use std::ffi::c_int;

use nix::Result;
use nix::errno::Errno;

use super::call::call;

// <linux/ioprio.h>, which libc does not have.
const IOPRIO_WHO_PROCESS: c_int = 1;

/// `struct sched_attr` of sched_setattr(2) as it is since Linux 5.3; libc has the older one.
/// Times are in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct SchedAttr {
    /// Set by [`sched_setattr`].
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
    pub(crate) util_min: u32,
    pub(crate) util_max: u32,
}

/// set_mempolicy(2): the mode `MPOL_*` with its flags, the nodes as bits.
pub(crate) fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<()> {
    let mask = if nodes.is_empty() {
        std::ptr::null()
    } else {
        nodes.as_ptr()
    };
    // The kernel takes one bit less than it is told.
    let bits = nodes.len() * 64 + 1;
    // SAFETY: the kernel reads `bits - 1` bits, which is the length of `nodes`; null means none.
    call(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// sched_setattr(2) of process `pid`.
pub(crate) fn sched_setattr(pid: i32, attr: &SchedAttr) -> Result<()> {
    let mut attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        ..attr.clone()
    };
    // SAFETY: the kernel reads as many bytes as `size` says, which is the size of `attr`, and
    // writes nothing but `size`, where it knows a shorter structure only.
    call(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw mut attr, 0) }).map(drop)
}

/// ioprio_set(2) of process `pid`: the class in the bits from 13 on, the level below.
pub(crate) fn ioprio_set(pid: i32, priority: u16) -> Result<()> {
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

/// sched_setaffinity(2) of this process: the CPUs as bits, the lowest number first.
pub(crate) fn set_affinity(mask: &[u64]) -> Result<()> {
    // Not the C library's, some versions of which refuse a mask longer than the kernel's.
    // SAFETY: the kernel reads no more bytes than it is told, which is the length of the mask.
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

/// personality(2): the execution domain of this process.
pub(crate) fn set_personality(domain: u32) -> Result<()> {
    // SAFETY: an integer only. No domain that is set here changes what addresses mean.
    Errno::result(unsafe { libc::personality(domain.into()) }).map(drop)
}
