//! The program's first instructions, which run before those of the C library. A command that forks
//! into a container starts twice (`sealed_exe.rs`). The C library's start-up asks the processor for
//! its features about eighty times, and under a hypervisor each answer is a trap: half a
//! millisecond altogether. To save that in the first of the two starts, the usual way to the second
//! one is here.
//!
//! This is the only part of `rt` that is written in assembly and in unsafe code throughout. `cargo
//! build --no-default-features`, or the line `default = ["early-start"]` taken out of `Cargo.toml`,
//! leaves it out, and nothing but that time changes.
//!
//! In any unusual case this code changes nothing, and the C library starts as if it had come first:
//! `sealed_exe.rs` handles every case.
//!
//! No function of the C library can be called, not even a memcpy(3) that the compiler inserts: the
//! functions have no addresses before the library has chosen them for this processor. Therefore
//! buffers are statics, which need no clearing, and accesses are volatile, which the compiler does
//! not turn into a memcpy.
#![allow(unsafe_code)]

#[cfg(any(test, fuzzing))]
std::arch::global_asm!(".globl rt_entry", "rt_entry:", "jmp _start");

#[cfg(not(any(test, fuzzing)))]
mod first {
    use std::arch::{asm, global_asm};
    use std::ffi::CStr;
    use std::ptr::{null, read_volatile, write_volatile};

    use libc::{AT_EMPTY_PATH, AT_FDCWD, PATH_MAX, POLLNVAL, c_long, pollfd, statfs, statx};

    use nix::sys::statfs::FsType;

    use crate::sealed_exe::MARK;
    use crate::sealed_exe::SECOND_LAYER;
    use crate::sealed_exe::SELF;
    use crate::sealed_exe::is_never_written;

    // `_start` has to find the stack and rdx as the kernel, or a dynamic linker, has left them.
    global_asm!(
        ".globl rt_entry",
        "rt_entry:",
        "mov rbx, rsp",
        "mov r12, rdx",
        "mov rdi, rsp",
        "call {begin}",
        "mov rdx, r12",
        "mov rsp, rbx",
        "jmp _start",
        begin = sym begin,
    );

    const VARIABLES_MAX: usize = 4096;
    const WORDS: usize = size_of::<statx>() / 8;
    const PATH_SIZE: usize = PATH_MAX as usize;
    const NAME_SIZE: usize = 256;
    /// Room for the mark, a `=`, the digits of a pid and a NUL.
    const MARK_SIZE: usize = MARK.len() + 24;

    static mut STREAMS: [pollfd; 3] = [
        pollfd {
            fd: 0,
            events: 0,
            revents: 0,
        },
        pollfd {
            fd: 1,
            events: 0,
            revents: 0,
        },
        pollfd {
            fd: 2,
            events: 0,
            revents: 0,
        },
    ];
    /// The struct statx of the executable; [`IMAGE`] is that of the image.
    static mut STATUS: [u64; WORDS] = [0; _];
    static mut IMAGE: [u64; WORDS] = [0; _];
    static mut FILE_SYSTEM: [u64; size_of::<statfs>() / 8] = [0; _];
    static mut LAYERS: [u8; PATH_SIZE + SECOND_LAYER.len() + 2] = [0; _];
    static mut NAME: [u8; NAME_SIZE] = [0; _];
    static mut MARKED: [u8; MARK_SIZE] = [0; _];
    static mut VARIABLES: [*const u8; VARIABLES_MAX + 2] = [null(); _];

    /// Executes the sealed executable if everything is as usual, and does not return then.
    ///
    /// # Safety
    /// `stack` is what execve(2) leaves a new program: argc, argv, a null, envp, a null.
    unsafe extern "C" fn begin(stack: *const usize) {
        // SAFETY: the words follow each other as the function's contract says, and the process has
        // one thread, which owns the statics.
        unsafe {
            let count = *stack;
            let args = stack.add(1).cast::<*const u8>();
            if forks(args, count) && mark(args.add(count + 1)) && streams_are_open() {
                run_again(args);
            }
        }
    }

    /// Whether one of the arguments is the name of a command that forks into a container. If the
    /// word means something else there, the second start is unnecessary but harmless.
    unsafe fn forks(args: *const *const u8, count: usize) -> bool {
        let mut at = 1;
        while at < count {
            // SAFETY: `at` is below argc; arguments are NUL-terminated.
            let is = |name: &[u8]| unsafe { begins(*args.add(at), name) == Some(0) };
            // A table of names would contain no addresses yet in a position-independent executable.
            if is(b"create") || is(b"run") || is(b"exec") {
                return true;
            }
            at += 1;
        }
        false
    }

    /// Returns the byte after `prefix` if `text` begins with `prefix`.
    unsafe fn begins(text: *const u8, prefix: &[u8]) -> Option<u8> {
        let mut at = 0;
        while at < prefix.len() {
            // SAFETY: no byte before `at` was the NUL, since the prefix has none.
            if unsafe { read_volatile(text.add(at)) } != prefix[at] {
                return None;
            }
            at += 1;
        }
        // SAFETY: as above.
        Some(unsafe { read_volatile(text.add(at)) })
    }

    /// Whether the standard streams are open: otherwise a descriptor that is opened here could get
    /// the number of one of them.
    unsafe fn streams_are_open() -> bool {
        let streams = (&raw mut STREAMS).cast::<pollfd>();
        // SAFETY: the static has three elements, and this is the only thread.
        unsafe {
            let closed = |at| read_volatile(streams.add(at)).revents & POLLNVAL != 0;
            call(libc::SYS_poll, streams.addr(), 3, 0, 0, 0) >= 0
                && !(closed(0) || closed(1) || closed(2))
        }
    }

    /// Collects the environment for the second start. False if this is the second one, or if there
    /// are too many variables.
    unsafe fn mark(env: *const *const u8) -> bool {
        let all = (&raw mut VARIABLES).cast::<*const u8>();
        let marked = (&raw mut MARKED).cast::<u8>();
        let mut count = 0;
        // SAFETY: `env` ends with a null, `count` stays below the size of its static, and the mark
        // with at most twenty digits is shorter than its own static.
        unsafe {
            while !(*env.add(count)).is_null() {
                if count == VARIABLES_MAX || begins(*env.add(count), MARK.as_bytes()).is_some() {
                    return false;
                }
                write_volatile(all.add(count), *env.add(count));
                count += 1;
            }
            write_volatile(all.add(count), marked);
            let end = copy(marked, MARK.as_bytes());
            write_volatile(marked.add(end), b'=');
            digits(
                marked.add(end + 1),
                call(libc::SYS_getpid, 0, 0, 0, 0, 0) as usize,
            );
        }
        true
    }

    /// Copies the bytes of `from`; returns their number.
    unsafe fn copy(to: *mut u8, from: &[u8]) -> usize {
        let mut at = 0;
        while at < from.len() {
            // SAFETY: the statics that callers pass have enough room.
            unsafe { write_volatile(to.add(at), from[at]) };
            at += 1;
        }
        at
    }

    unsafe fn digits(to: *mut u8, number: usize) {
        let mut power = 1;
        while number / power >= 10 {
            power *= 10;
        }
        let mut at = 0;
        while power > 0 {
            // SAFETY: the static that the caller passes has enough room: a pid has at most seven
            // digits.
            unsafe { write_volatile(to.add(at), b'0' + (number / power % 10) as u8) };
            power /= 10;
            at += 1;
        }
    }

    /// Whether the executable is write-protected already, or this cannot be found out.
    unsafe fn is_protected() -> bool {
        let status = (&raw mut STATUS).cast::<u64>();
        let kind = (&raw mut FILE_SYSTEM).cast::<u64>();
        // SAFETY: each static has the size of its structure; the first word of struct statfs is the
        // type.
        unsafe {
            !look(AT_FDCWD as usize, SELF, 0, status)
                || read_volatile(status.add(ATTRIBUTES)) & libc::STATX_ATTR_VERITY as u64 != 0
                || call(libc::SYS_statfs, SELF.as_ptr().addr(), kind.addr(), 0, 0, 0) != 0
                || is_never_written(FsType(read_volatile(kind).cast_signed()))
        }
    }

    // Positions in struct statx, in words of eight bytes.
    const ATTRIBUTES: usize = 1;
    const SIZE: usize = 5;
    const CHANGED: usize = 12;
    const CHANGED_NANOSECONDS: usize = 13;

    /// Calls statx(2) and returns whether it succeeded; `status` has to have room for the
    /// structure.
    unsafe fn look(at: usize, path: &CStr, flags: i32, status: *mut u64) -> bool {
        const WANTED: usize = (libc::STATX_SIZE | libc::STATX_CTIME) as usize;
        let path = path.as_ptr().addr();
        // SAFETY: the path is NUL-terminated; the caller guarantees the room.
        unsafe {
            call(
                libc::SYS_statx,
                at,
                path,
                flags as usize,
                WANTED,
                status.addr(),
            ) == 0
        }
    }

    /// Whether the image is the executable. A layer shows no mounts: if another file is mounted on
    /// the executable's path, the image is the file below the mount.
    unsafe fn is_same(image: usize) -> bool {
        let one = (&raw const STATUS).cast::<u64>();
        let other = (&raw mut IMAGE).cast::<u64>();
        // SAFETY: the words are within the statics.
        unsafe {
            let same = |word| read_volatile(one.add(word)) == read_volatile(other.add(word));
            look(image, c"", AT_EMPTY_PATH, other)
                && same(SIZE)
                && same(CHANGED)
                && same(CHANGED_NANOSECONDS)
        }
    }

    /// Fills [`LAYERS`] with the list of layers and [`NAME`] with the name of the executable. False
    /// if the path is unusual: in the root directory, too long, or with `:` or `\`.
    unsafe fn find() -> bool {
        let (layers, name) = ((&raw mut LAYERS).cast::<u8>(), (&raw mut NAME).cast::<u8>());
        // SAFETY: all positions are below the length of the path, which is below the sizes of the
        // statics.
        unsafe {
            let size = call(
                libc::SYS_readlink,
                SELF.as_ptr().addr(),
                layers.addr(),
                PATH_SIZE,
                0,
                0,
            );
            let Ok(length @ 1..PATH_SIZE) = usize::try_from(size) else {
                return false;
            };
            let mut slash = length - 1;
            while slash > 0 && read_volatile(layers.add(slash)) != b'/' {
                slash -= 1;
            }
            if slash == 0 || length - slash > NAME_SIZE {
                return false;
            }
            let mut at = 0;
            while at < length {
                let byte = read_volatile(layers.add(at));
                if byte == b':' || byte == b'\\' {
                    return false;
                }
                if at > slash {
                    write_volatile(name.add(at - slash - 1), byte);
                }
                at += 1;
            }
            write_volatile(layers.add(slash), b':');
            let end = slash + 1 + copy(layers.add(slash + 1), SECOND_LAYER.as_bytes());
            write_volatile(layers.add(end), 0);
        }
        true
    }

    /// Creates the overlay and executes the image in it, as `overlay` and `run_again` in
    /// `sealed_exe.rs` do. Returns if that is not necessary or has failed.
    unsafe fn run_again(args: *const *const u8) {
        const CREATE: usize = libc::FSCONFIG_CMD_CREATE as usize;
        const STRING: usize = libc::FSCONFIG_SET_STRING as usize;
        const MODE: u64 =
            libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID;
        let text = |text: &CStr| text.as_ptr().addr();
        // SAFETY: strings and lists end with a NUL or a null and outlive the calls; the descriptors
        // that are closed were opened here.
        unsafe {
            if is_protected() || !find() {
                return;
            }
            let cloexec = libc::FSOPEN_CLOEXEC as usize;
            let fs = call(libc::SYS_fsopen, text(c"overlay"), cloexec, 0, 0, 0);
            let Ok(fs) = usize::try_from(fs) else { return };
            let (layers, key) = ((&raw const LAYERS).addr(), text(c"lowerdir"));
            call(libc::SYS_fsconfig, fs, STRING, key, layers, 0);
            call(libc::SYS_fsconfig, fs, CREATE, 0, 0, 0);
            let cloexec = libc::FSMOUNT_CLOEXEC as usize;
            if let mount @ 0.. = call(libc::SYS_fsmount, fs, cloexec, MODE as usize, 0, 0) {
                execute(mount as usize, args);
                call(libc::SYS_close, mount as usize, 0, 0, 0, 0);
            }
            call(libc::SYS_close, fs, 0, 0, 0, 0);
        }
    }

    unsafe fn execute(mount: usize, args: *const *const u8) {
        const FLAGS: usize = (libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) as usize;
        let (name, env) = ((&raw const NAME).addr(), (&raw const VARIABLES).addr());
        // SAFETY: as in `run_again`.
        unsafe {
            let image = call(libc::SYS_openat, mount, name, FLAGS, 0, 0);
            let Ok(image) = usize::try_from(image) else {
                return;
            };
            let (empty, flags) = (c"".as_ptr().addr(), AT_EMPTY_PATH as usize);
            if is_same(image) {
                call(libc::SYS_execveat, image, empty, args.addr(), env, flags);
            }
            call(libc::SYS_close, image, 0, 0, 0, 0);
        }
    }

    /// Makes a system call; returns the kernel's own result, an error as its negative number.
    #[allow(clippy::too_many_arguments, reason = "the kernel's")]
    unsafe fn call(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
        let result: isize;
        // SAFETY: the instruction changes rcx and r11 in addition to its result; the caller
        // guarantees that the arguments are valid for the system call.
        unsafe {
            asm!("syscall", inlateout("rax") number as isize => result,
                in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
                lateout("rcx") _, lateout("r11") _);
        }
        result
    }
}
