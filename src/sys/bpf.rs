//! bpf(2): loads, attaches and finds the programs that decide about devices in a cgroup.

use std::ffi::c_long;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;

use super::call::{call, call_fd};

// <linux/bpf.h>, which libc does not have.
const BPF_PROG_LOAD: c_long = 5;
const BPF_PROG_ATTACH: c_long = 8;
const BPF_PROG_DETACH: c_long = 9;
const BPF_PROG_GET_FD_BY_ID: c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: c_long = 15;
const BPF_PROG_QUERY: c_long = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// The programs of the cgroups above and below run as well.
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
/// The new program replaces another one.
const BPF_F_REPLACE: u32 = 1 << 2;
/// How many programs a cgroup may have (`BPF_CGROUP_MAX_PROGS` of the kernel).
const MAX_PROGRAMS: usize = 64;

/// The name of a program, `BPF_OBJ_NAME_LEN` bytes with at least one zero at the end.
pub type BpfName = [u8; 16];

/// Loads a program that decides about devices (bpf(2) `BPF_PROG_LOAD`). `instructions` are
/// `struct bpf_insn` in the byte order of this machine; the kernel's verifier refuses a program
/// that is not safe to run.
pub fn bpf_prog_load_cgroup_device(instructions: &[u64], name: BpfName) -> Result<OwnedFd> {
    /// The first fields of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes the others as 0.
    #[repr(C)]
    struct BpfLoad {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: BpfName,
    }
    let attributes = BpfLoad {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(instructions.len()).map_err(|_| Errno::E2BIG)?,
        insns: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: name,
    };
    // SAFETY: the kernel reads `insn_cnt` instructions of eight bytes each and a string that ends
    // with a zero byte, both borrowed until the call returns; the size is that of `attributes`.
    unsafe {
        let size = size_of::<BpfLoad>();
        call_fd(libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attributes,
            size,
        ))
    }
}

/// Attaches a device program to the cgroup with the directory `cgroup` (bpf(2) `BPF_PROG_ATTACH`),
/// in addition to the programs that are attached there, or in place of the program `replaced`, in
/// one step. The cgroup keeps the program loaded: `program` may be closed afterwards.
pub fn bpf_prog_attach_cgroup_device(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let (flags, replaced) = match replaced {
        Some(program) => (
            BPF_F_ALLOW_MULTI | BPF_F_REPLACE,
            program.as_raw_fd() as u32,
        ),
        None => (BPF_F_ALLOW_MULTI, 0),
    };
    numbers(
        BPF_PROG_ATTACH,
        // target_fd, attach_bpf_fd, attach_type, attach_flags, replace_bpf_fd
        [
            cgroup.as_raw_fd() as u32,
            program.as_raw_fd() as u32,
            BPF_CGROUP_DEVICE,
            flags,
            replaced,
        ],
    )
    .map(drop)
}

/// Detaches a device program from a cgroup (bpf(2) `BPF_PROG_DETACH`).
pub fn bpf_prog_detach_cgroup_device(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
) -> Result<()> {
    // target_fd, attach_bpf_fd, attach_type
    let (cgroup, program) = (cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32);
    numbers(BPF_PROG_DETACH, [cgroup, program, BPF_CGROUP_DEVICE]).map(drop)
}

/// Calls bpf(2) with a command whose attributes are only numbers and descriptors.
fn numbers<const N: usize>(command: c_long, attributes: [u32; N]) -> Result<c_long> {
    // SAFETY: the kernel only reads `attributes`, which holds no addresses and has the size passed.
    call(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    })
}

/// Returns the device program called `name` that is attached to the cgroup, if there is one.
pub fn bpf_prog_of_cgroup(cgroup: BorrowedFd<'_>, name: BpfName) -> Result<Option<OwnedFd>> {
    for id in query(cgroup)? {
        let program = match numbers(BPF_PROG_GET_FD_BY_ID, [id]) {
            // It has been detached since the query.
            Err(Errno::ENOENT) => continue,
            // SAFETY: this command returns a new descriptor.
            result => unsafe { call_fd(result?)? },
        };
        if name_of(program.as_fd())? == name {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

/// Returns the ids of the device programs of a cgroup (bpf(2) `BPF_PROG_QUERY`).
fn query(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>> {
    /// The first fields of `union bpf_attr` for BPF_PROG_QUERY.
    #[repr(C)]
    struct BpfQuery {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        padding: u32,
    }
    let mut ids = vec![0u32; MAX_PROGRAMS];
    let mut attributes = BpfQuery {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        padding: 0,
    };
    // SAFETY: the kernel writes at most `prog_cnt` ids, for which `ids` has room, and the counts in
    // `attributes`, whose size is passed; both are borrowed mutably until the call returns.
    call(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            &raw mut attributes,
            size_of::<BpfQuery>(),
        )
    })?;
    ids.truncate(attributes.prog_cnt as usize);
    Ok(ids)
}

/// Returns the name of a program (bpf(2) `BPF_OBJ_GET_INFO_BY_FD`).
fn name_of(program: BorrowedFd<'_>) -> Result<BpfName> {
    /// The first fields of `struct bpf_prog_info`.
    #[repr(C)]
    #[derive(Default)]
    struct BpfInfo {
        before: [u64; 8],
        name: BpfName,
    }
    /// The fields of `union bpf_attr`.
    #[repr(C)]
    struct BpfGet {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut info = BpfInfo::default();
    let mut attributes = BpfGet {
        bpf_fd: program.as_raw_fd() as u32,
        info_len: size_of::<BpfInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes to `info`, which has that size and for
    // which any bytes are valid; the zeros in it ask for no further buffer.
    call(unsafe {
        let size = size_of::<BpfGet>();
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw mut attributes,
            size,
        )
    })?;
    Ok(info.name)
}
