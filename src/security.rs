//! Confinement of the program beyond namespaces and cgroups: seccomp filters, labels of security
//! modules, Landlock.

pub mod landlock;
pub mod lsm;
pub mod seccomp;
