//! Confinement of the program beyond namespaces and cgroups: seccomp filters, labels of security
//! modules, Landlock.

pub(crate) mod landlock;
pub(crate) mod lsm;
pub(crate) mod seccomp;
