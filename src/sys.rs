//! Every `unsafe` block of the crate: the system calls that nix does not wrap, behind safe
//! signatures. A file descriptor comes out as an [`OwnedFd`] or an error, never as -1.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_long, c_ulong};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::stat::Mode;

// <linux/fs.h> and <linux/keyctl.h>, which libc does not have.
const AT_RECURSIVE: u32 = 0x8000;
// <linux/bpf.h>.
const BPF_PROG_LOAD: c_long = 5;
const BPF_PROG_ATTACH: c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
// libc's is cut off at 32 bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const KEYCTL_JOIN_SESSION_KEYRING: c_long = 1;

/// What the C library calls. Does what Rust's start-up would have done and is needed: SIGPIPE is
/// ignored, and standard streams that the caller closed become `/dev/null`, so that no descriptor
/// of ours takes their number and ends up as the output of a container.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code, reason = "the test harness has its own"))]
extern "C" fn main() -> c_int {
    if let Err(errno) = open_standard_streams() {
        eprintln!("rt: /dev/null: {}", errno.desc());
        return 1;
    }
    // It cannot fail with these arguments, and if it did, a broken pipe would end us.
    let _ = set_signal_disposition(Signal::SIGPIPE, true);
    // A caller that ignores it would have the kernel reap our children behind our back.
    let _ = set_signal_disposition(Signal::SIGCHLD, false);
    crate::cli::main()
}

fn open_standard_streams() -> Result<()> {
    let closed = (0..3).filter(|fd| !is_open(*fd)).count();
    for _ in 0..closed {
        // The lowest number that is free is one of the closed ones.
        let null = nix::fcntl::open(c"/dev/null", OFlag::O_RDWR, Mode::empty())?;
        std::mem::forget(null);
    }
    Ok(())
}

fn call(result: c_long) -> Result<c_long> {
    Errno::result(result)
}

fn call_fd(result: c_long) -> Result<OwnedFd> {
    let fd = call(result)?;
    // SAFETY: the callers pass the result of a system call whose success value is a new file
    // descriptor that nothing else in this process owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Which side of [`clone3`] the caller is on.
pub(crate) enum Fork {
    Parent { pid: i32, pidfd: OwnedFd },
    Child,
}

/// clone3(2) without a shared address space: a fork into the namespaces `flags`
/// (`CLONE_NEW*`, `CLONE_PARENT`, `CLONE_FILES`), on cgroup v2 directly into `cgroup`.
pub(crate) fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork> {
    let mut pidfd: c_int = -1;
    // SAFETY: clone_args is a plain structure of integers for which zero means "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // With CLONE_PARENT the kernel takes the exit signal of the caller itself.
    args.exit_signal = match flags & libc::CLONE_PARENT as u64 {
        0 => libc::SIGCHLD as u64,
        _ => 0,
    };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child gets its own copy of this single-threaded process, so
    // no lock can be held by a thread that does not exist there; `args` and `pidfd` outlive the
    // call, and the size is that of the structure passed.
    let pid = call(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        return Ok(Fork::Child);
    }
    // SAFETY: CLONE_PIDFD succeeded, so the kernel stored a new descriptor in `pidfd`.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent { pid: pid as i32, pidfd })
}

/// Ends the process at once, without the destructors and exit handlers that belong to the
/// caller's copy of it.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes any integer and does not return.
    unsafe { libc::_exit(status) }
}

/// open_tree(2).
pub(crate) fn open_tree(dir: BorrowedFd<'_>, path: &CStr, flags: u32) -> Result<OwnedFd> {
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    call_fd(unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags | libc::O_CLOEXEC as u32,
        )
    })
}

/// A detached copy of the mount that `fd` stands on, with everything below if `recursive`.
pub(crate) fn clone_mount(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    open_tree(fd, c"", libc::OPEN_TREE_CLONE | recursive | libc::AT_EMPTY_PATH as u32)
}

/// move_mount(2) of the mount `from` onto the object that `to` refers to.
pub(crate) fn move_mount(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    move_mount_at(from, to, c"")
}

/// move_mount(2) of the mount `from` onto `name` in the directory `to`.
pub(crate) fn move_mount_at(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH
        | if name.is_empty() { libc::MOVE_MOUNT_T_EMPTY_PATH } else { 0 };
    // SAFETY: both paths are NUL-terminated and outlive the call, as the descriptors do.
    call(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from.as_raw_fd(),
            c"".as_ptr(),
            to.as_raw_fd(),
            name.as_ptr(),
            flags,
        )
    })
    .map(drop)
}

/// mount_setattr(2) on the mount `fd` (and all below it if `recursive`): `set` and `clear` are
/// `MOUNT_ATTR_*`, `propagation` is one of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`,
/// `MS_UNBINDABLE` or 0.
pub(crate) fn mount_setattr(
    fd: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
) -> Result<()> {
    let attributes = [set, clear, propagation, 0u64];
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `attributes` has the layout of struct mount_attr (four u64: attr_set, attr_clr,
    // propagation, userns_fd) and its size is passed with it.
    call(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as u32 | recursive,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    })
    .map(drop)
}

/// fsopen(2).
pub(crate) fn fsopen(file_system: &CStr) -> Result<OwnedFd> {
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    call_fd(unsafe { libc::syscall(libc::SYS_fsopen, file_system.as_ptr(), libc::FSOPEN_CLOEXEC) })
}

/// fsconfig(2): sets the option `key`, to `value` if it has one.
pub(crate) fn fsconfig(fs: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> Result<()> {
    let (command, value) = match value {
        Some(value) => (libc::FSCONFIG_SET_STRING, value.as_ptr()),
        None => (libc::FSCONFIG_SET_FLAG, std::ptr::null()),
    };
    // SAFETY: the strings are NUL-terminated and outlive the call; SET_FLAG wants a null value.
    call(unsafe {
        libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, key.as_ptr(), value, 0)
    })
    .map(drop)
}

/// fsconfig(2) `FSCONFIG_CMD_CREATE`, then fsmount(2) with the attributes `MOUNT_ATTR_*`.
pub(crate) fn fsmount(fs: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    let null = std::ptr::null::<u8>();
    // SAFETY: CMD_CREATE takes no key and no value.
    call(unsafe {
        libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), libc::FSCONFIG_CMD_CREATE, null, null, 0)
    })?;
    // SAFETY: integers only.
    call_fd(unsafe {
        libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), libc::FSMOUNT_CLOEXEC, attributes as u32)
    })
}

/// pidfd_open(2).
pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: integers only.
    call_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// pidfd_send_signal(2): `ESRCH` when the process has ended.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks the kernel to fill it in as kill(2) does.
    call(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, null, 0) })
        .map(drop)
}

/// close_range(2) of the descriptors `first..=last`.
fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: close_all_but is called by the child, which closes what its copy of the caller's
    // objects owned and never runs their destructors, and once at the start of a command, when
    // only the log and what the caller of `rt` left open exist.
    call(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Closes every descriptor from `first` on but those in `keep`.
pub(crate) fn close_all_but(mut keep: Vec<RawFd>, mut first: u32) -> Result<()> {
    keep.sort_unstable();
    for fd in keep.into_iter().filter_map(|fd| u32::try_from(fd).ok()) {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

/// Whether the inherited descriptor `fd` is open.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads the descriptor's flags and fails with EBADF where there is none.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// sigaction(2) with one of the two dispositions that run no code.
pub(crate) fn set_signal_disposition(signal: Signal, ignore: bool) -> Result<()> {
    let handler = if ignore { SigHandler::SigIgn } else { SigHandler::SigDfl };
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: neither disposition is a function that could run in a signal's context.
    unsafe { sigaction(signal, &action) }.map(drop)
}

/// The default action for the signal of that number, also for the two that the C library keeps
/// to itself; one that cannot be changed is left alone.
pub(crate) fn restore_signal(signal: i32) {
    // The kernel's sigaction (handler, flags, restorer, mask): all zero is SIG_DFL.
    let default = [0u64; 4];
    let null = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads `default`, which has the size of its structure, and writes nothing
    // back; SIG_DFL is no function that could run in a signal's context.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), null, 8) };
}

/// Raises the hard limit of process `pid` to `hard` if it is lower; the soft one stays.
pub(crate) fn raise_hard_limit(pid: i32, resource: u32, hard: u64) -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let null = std::ptr::null();
    // SAFETY: a null new limit only reads into `limit`, which outlives the call.
    Errno::result(unsafe { libc::prlimit(pid, resource as _, null, &raw mut limit) })?;
    if limit.rlim_max >= hard {
        return Ok(());
    }
    limit.rlim_max = hard;
    // SAFETY: a null old limit asks for nothing back; `limit` is only read.
    Errno::result(unsafe {
        libc::prlimit(pid, resource as _, &raw const limit, std::ptr::null_mut())
    })
    .map(drop)
}

/// capset(2) for this thread: the effective, permitted and inheritable sets as bit masks.
pub(crate) fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [0u32; 6];
    for (i, set) in [effective, permitted, inheritable].into_iter().enumerate() {
        data[i] = set as u32;
        data[i + 3] = (set >> 32) as u32;
    }
    // SAFETY: version 3 reads one header and two triples of u32, which `data` is.
    call(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// The permitted set of this thread as a bit mask (capget(2)).
pub(crate) fn permitted_capabilities() -> Result<u64> {
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [0u32; 6];
    // SAFETY: version 3 writes two triples of u32, for which `data` has the room.
    call(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    Ok(u64::from(data[1]) | u64::from(data[4]) << 32)
}

fn prctl(option: c_int, argument: c_ulong, second: c_ulong) -> Result<c_int> {
    // SAFETY: the options used in this file take integers only and expect zero for the rest.
    Errno::result(unsafe { libc::prctl(option, argument, second, 0, 0) })
}

/// Takes `capability` out of the bounding set for good.
pub(crate) fn bounding_drop(capability: u8) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

/// Adds `capability` to the ambient set.
pub(crate) fn ambient_raise(capability: u8) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as c_ulong, capability.into()).map(drop)
}

/// Empties the ambient set.
pub(crate) fn ambient_clear() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong, 0).map(drop)
}

/// A new session keyring of that name for this process (keyctl(2)).
pub(crate) fn join_session_keyring(name: &CStr) -> Result<()> {
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    call(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
        .map(drop)
}

/// setdomainname(2).
pub(crate) fn set_domain_name(name: &str) -> Result<()> {
    // SAFETY: pointer and length are those of `name`.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// setrlimit(2) of `resource` (`RLIMIT_*`) for this process.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` outlives the call, which only reads it.
    Errno::result(unsafe { libc::setrlimit(resource as _, &raw const limit) }).map(drop)
}

/// The kind of namespace behind `fd` as its `CLONE_NEW*` flag (ioctl_ns(2)); `ENOTTY` if it is
/// no namespace.
pub(crate) fn namespace_kind(fd: BorrowedFd<'_>) -> Result<i32> {
    // SAFETY: NS_GET_NSTYPE takes no argument.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE as _) })
}

/// The other end of the pseudoterminal `master`, without going through its name
/// (ioctl_tty(2) `TIOCGPTPEER`).
pub(crate) fn terminal_peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is an integer of open(2) flags.
    call_fd(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) }.into())
}

/// Unlocks the pseudoterminal `master` (`TIOCSPTLCK`).
pub(crate) fn unlock_terminal(master: BorrowedFd<'_>) -> Result<()> {
    let unlock: c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })
        .map(drop)
}

/// Makes `terminal` the controlling terminal of this session (`TIOCSCTTY`).
pub(crate) fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the argument is the integer 0: do not steal.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Rows and columns of `terminal`, in characters.
pub(crate) fn window_size(terminal: BorrowedFd<'_>) -> Result<libc::winsize> {
    // SAFETY: winsize is four integers for which zero is valid.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(size)
}

/// Sets rows and columns of `terminal`.
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, size: &libc::winsize) -> Result<()> {
    // SAFETY: TIOCSWINSZ reads one winsize.
    Errno::result(unsafe {
        libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(size))
    })
    .map(drop)
}

/// Brings the interface `name` of this network namespace up (netdevice(7)).
pub(crate) fn bring_interface_up(socket: BorrowedFd<'_>, name: &str) -> Result<()> {
    // SAFETY: ifreq is integers and a union of such, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads the name and the flags of one ifreq.
    Errno::result(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request)
    })
    .map(drop)
}

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

/// Whether the file behind `fd` is protected by fs-verity, so that nobody can change it.
pub(crate) fn has_verity(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: statx is a plain structure of integers; the call fills it.
    let mut data: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an empty path with AT_EMPTY_PATH means `fd` itself; `data` outlives the call.
    let result =
        unsafe { libc::statx(fd.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, 0, &raw mut data) };
    result == 0 && data.stx_attributes & libc::STATX_ATTR_VERITY as u64 != 0
}

/// accept4(2), close-on-exec.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    let null = std::ptr::null_mut();
    // SAFETY: null address and length ask for no peer address.
    call_fd(c_long::from(unsafe {
        libc::accept4(listener.as_raw_fd(), null, null.cast(), libc::SOCK_CLOEXEC)
    }))
}

/// recvmsg(2) of one message into `buffer`: its length (0 = end of file) and the descriptor that
/// came with it. A message longer than `buffer` is `EMSGSIZE`.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!(RawFd);
    let mut vectors = [std::io::IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut vectors,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: SCM_RIGHTS put these new descriptors into this process, each once.
            received.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let first = received.into_iter().next();
    Ok((message.bytes, first))
}

/// Takes ownership of the descriptor `fd` that another process put into our shared table.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller has read the number from the process that made the descriptor for it,
    // and that process has ended, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The standard streams as something to borrow.
pub(crate) fn stdio(fd: RawFd) -> BorrowedFd<'static> {
    debug_assert!((0..3).contains(&fd));
    // SAFETY: `main` sees to it that 0, 1 and 2 are open, and nobody closes them.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// waitpid(2) for any child without waiting: its pid, and its exit status or 128 + the signal,
/// real-time signals included, which nix has no names for. `None`: none has ended yet.
pub(crate) fn reap_child() -> Result<Option<(i32, i32)>> {
    let mut status: c_int = 0;
    // SAFETY: `status` outlives the call, which writes it.
    let pid = Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) })?;
    let code = match libc::WIFSIGNALED(status) {
        true => 128 + libc::WTERMSIG(status),
        false => libc::WEXITSTATUS(status),
    };
    Ok((pid != 0).then_some((pid, code)))
}

/// kill(2) of a child that has not been reaped; signals without a name in nix as well.
pub(crate) fn kill(process: nix::unistd::Pid, signal: i32) {
    // SAFETY: integers only. A process that has ended meanwhile needs no signal.
    unsafe { libc::kill(process.as_raw(), signal) };
}
