//! The numbers of the system calls, from the table `syscalls.tbl`, and the calls that others
//! multiplex.

include!(concat!(env!("OUT_DIR"), "/syscalls.rs"));

/// The name of a call and its numbers on x86_64, x86, x32 (without the bit that marks x32), aarch64
/// and arm; -1 where it does not exist.
pub(super) type Call = (&'static str, [i32; 5]);

/// Returns the call of that name.
pub(super) fn find_call(name: &str) -> Option<&'static Call> {
    CALLS
        .binary_search_by_key(&name, |call| call.0)
        .ok()
        .map(|i| &CALLS[i])
}

/// Whether a kernel of another architecture has a call of that name; profiles are written for all
/// architectures.
pub(super) fn is_elsewhere(name: &str) -> bool {
    ELSEWHERE.binary_search(&name).is_ok()
}

/// The calls that socketcall(2) selects by its first argument, which counts from 1.
const SOCKETCALL: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];

/// The calls that ipc(2) selects by the lower half of its first argument.
const IPC: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// Returns how a 32-bit x86 program can make the call `name` through another call: the name of that
/// one, and the mask and value of its first argument.
pub(super) fn multiplexed(name: &str) -> Option<(&'static str, u64, u64)> {
    if let Some(i) = SOCKETCALL.iter().position(|call| *call == name) {
        return Some(("socketcall", u64::MAX, i as u64 + 1));
    }
    // The upper half of the argument is a version, which does not change the call.
    let (_, value) = IPC.iter().find(|(call, _)| *call == name)?;
    Some(("ipc", 0xffff, *value))
}
