//! What confines the program beyond namespaces and control groups: filters of system calls, labels of
//! security modules, Landlock.

pub(crate) mod landlock;
pub(crate) mod lsm;
pub(crate) mod seccomp;
