//! The stack that the program runs on. The kernel lets the stack of the first thread grow up to the
//! limit that the engine has set (`ulimit -s`), and ends a process that needs more with SIGSEGV.
//! The engine may set a limit below what `rt` needs: it is meant for the program in the container,
//! which gets it unchanged. `rt` then runs on a stack that it has mapped itself.

use std::ffi::c_int;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, Ordering};

/// The most that `rt` may need, in bytes. It is less than the size that the C library uses for
/// "unlimited".
const ENOUGH: usize = 1 << 20;
/// The size of the mapped stack, in bytes. Only the pages that are used take memory.
const SIZE: usize = 8 << 20;
/// The size of the guard at the end of the mapped stack, in bytes: a multiple of every page size.
const GUARD: usize = 64 << 10;

/// The exit status that [`main`](super::main) returns.
static STATUS: AtomicI32 = AtomicI32::new(1);

/// Runs [`begin`] on a stack that is large enough, if possible; returns the exit status.
pub(super) fn run() -> c_int {
    if !is_small() || run_on_own().is_none() {
        begin();
    }
    STATUS.load(Ordering::Relaxed)
}

extern "C" fn begin() {
    STATUS.store(super::command::run(), Ordering::Relaxed);
}

/// Whether the limit of the stack is below [`ENOUGH`]. The C library has read the limit already, as
/// the default size of a thread's stack, so that no system call is needed.
fn is_small() -> bool {
    let mut size = usize::MAX;
    // SAFETY: the attributes are written before they are read, both calls succeed for any default,
    // and no thread exists that could change it.
    unsafe {
        let mut attributes: libc::pthread_attr_t = zeroed();
        if libc::pthread_attr_init(&raw mut attributes) == 0 {
            libc::pthread_attr_getstacksize(&raw const attributes, &raw mut size);
            libc::pthread_attr_destroy(&raw mut attributes);
        }
    }
    size < ENOUGH
}

/// Runs [`begin`] on a mapped stack. Returns `None`, without having run it, if that cannot be
/// mapped.
fn run_on_own() -> Option<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    // SAFETY: the mapping is new, at an address that the kernel chooses, and its lower end becomes
    // the guard; it is never unmapped, so that everything on it lives as long as the process. Both
    // contexts outlive the switch: when `own` ends, `back` continues.
    unsafe {
        let memory = libc::mmap(null_mut(), SIZE, protection, flags, -1, 0);
        if memory == libc::MAP_FAILED || libc::mprotect(memory, GUARD, libc::PROT_NONE) != 0 {
            return None;
        }
        let (mut own, mut back): (libc::ucontext_t, libc::ucontext_t) = (zeroed(), zeroed());
        if libc::getcontext(&raw mut own) != 0 {
            return None;
        }
        own.uc_stack.ss_sp = memory;
        own.uc_stack.ss_size = SIZE;
        own.uc_link = &raw mut back;
        libc::makecontext(&raw mut own, begin, 0);
        (libc::swapcontext(&raw mut back, &raw const own) == 0).then_some(())
    }
}
