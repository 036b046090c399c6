//! The stack that the program runs on. The kernel lets the first thread's grow up to the limit that
//! the caller has set (`ulimit -s`), and ends a process that needs more by SIGSEGV. A limit below
//! what `rt` needs is the caller's good right: it is meant for the program in the container, which
//! gets it unchanged. `rt` then runs on memory of its own.

use std::ffi::c_int;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, Ordering};

/// What `rt` may need at most, in bytes. Less than the C library takes for "unlimited".
const ENOUGH: usize = 1 << 20;
/// Its own stack, in bytes, of which only what is touched takes memory.
const SIZE: usize = 8 << 20;
/// At the end of the own stack, in bytes: a multiple of every page size.
const GUARD: usize = 64 << 10;

/// What [`main`](super::main) returns.
static STATUS: AtomicI32 = AtomicI32::new(1);

/// Runs the program; its exit status.
pub(super) fn run() -> c_int {
    if !is_small() || run_on_own().is_none() {
        begin();
    }
    STATUS.load(Ordering::Relaxed)
}

extern "C" fn begin() {
    STATUS.store(super::begin(), Ordering::Relaxed);
}

/// Whether the limit is below what may be needed. The C library has read it as the default size of a
/// thread's stack, so that no system call is made.
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

/// Runs [`begin`] on memory of its own; None, and nothing has happened, if there is none.
fn run_on_own() -> Option<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    // SAFETY: a new mapping at an address of the kernel's choice, whose lower end becomes the guard;
    // it is never unmapped, so that whatever stands in it lives as long as the process. The contexts
    // outlive the switch: `back` is where `own` ends.
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
