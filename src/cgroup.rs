//! The cgroups of a container on every hierarchy of the host: version 1, hybrid and version 2.
//!
//! The table goes from low to high: a file imports only those above its own line, or beside it.
//!
//! | file | what is in it |
//! |---|---|
//! | `file` `walk` | reading and writing control files; visiting all cgroups below a cgroup |
//! | `hierarchy` | the hierarchies of the host, and the cgroups of a process |
//! | `cgroup_dir` | the cgroup of a container on one hierarchy |
//! | `finder` | finds the directory of a cgroup |
//! | `devices` | rules for devices, on both versions and for systemd |
//! | `setting` `limits` | one write to a control file; all limits of a container |
//! | `systemd` | cgroups that systemd makes |
//! | `cgroups` | `Cgroup`: the cgroups of a container on every hierarchy |
//! | `manager` `view` | who makes the cgroups; what mounts in the container show of them |
//! | `place` | decides where the cgroups of a container are |
//! | `resources` | `linux.resources` as limits |
//! | `members` `directory` | the processes in a cgroup; making and removing its directory |
//! | `cpuset` `controllers` | what a new cgroup needs before a process or a limit |
//! | `freezer` | freezing and thawing all processes |
//! | `unburden` `signals` | lifting limits that keep killed processes alive; signals, killing |
//! | `open` | cgroups held open while a process enters them |
//! | `creation` `removal` | making and removing all cgroups |
//! | `enforcement` `update` | putting limits into force, for a new container or an existing one |
//! | `stats` `oom` | resource usage, and notification when memory runs out |
//! | `sub` | cgroups below the container's that the process of `exec` chooses |
//! | `delegation` | cgroups that are given to the container's user |
//! | `trust` `remains` | which cgroups of a record are the container's; those of a lost record |

mod cgroup_dir;
mod cgroups;
mod controllers;
mod cpuset;
mod creation;
mod delegation;
mod devices;
mod directory;
mod enforcement;
mod file;
mod finder;
mod freezer;
mod hierarchy;
mod limits;
mod manager;
mod members;
mod oom;
mod open;
mod place;
mod remains;
mod removal;
mod resources;
mod setting;
mod signals;
mod stats;
mod sub;
mod systemd;
mod trust;
mod unburden;
mod update;
mod view;
mod walk;

pub use cgroups::Cgroup;
pub use delegation::Delegation;
pub use limits::Limits;
pub use manager::Manager;
pub use oom::OomWatch;
pub use open::OpenCgroup;
pub use stats::CgroupStats;
pub use sub::SubCgroup;
pub use systemd::{Property, UNIT_PROPERTIES, UnitConnection};
pub use trust::Expected;
