//! The groups of a container on every hierarchy of the host: version 1, hybrid and version 2.
//!
//! From low to high; a file imports only those above its own line, or beside it.
//!
//! | file | what is in it |
//! |---|---|
//! | `file` `walk` | reading and writing control files; the groups below a group, however deep |
//! | `hierarchy` | the hierarchies of the host, and the groups of a process |
//! | `group` | the group of a container on one hierarchy |
//! | `finder` | the directory of a group, found |
//! | `devices` | rules for devices, on both versions and for systemd |
//! | `setting` `limits` | one write to a control file; all limits of a container |
//! | `systemd` | groups that systemd makes |
//! | `groups` | `Cgroup`: the groups of a container on every hierarchy |
//! | `manager` `view` | who makes them; what mounts in the container show of them |
//! | `place` | where they go |
//! | `resources` | `linux.resources` as limits |
//! | `members` `directory` | the processes in a group; its directory made and removed |
//! | `cpuset` `controllers` | what a new group needs before a process or a limit gets in |
//! | `freezer` | stopping all processes, and letting them go on |
//! | `unburden` `signals` | limits that keep killed processes from dying; signal, kill |
//! | `open` | groups held open while a process gets into them |
//! | `creation` `removal` | all groups made and removed |
//! | `enforcement` `update` | limits put into force, of a new container and of an old one |
//! | `stats` `oom` | what a container uses, and when it has too little memory |
//! | `sub` | groups below a container's own that a process chooses |
//! | `delegation` | groups that the container's user may do with as he likes |
//! | `trust` `remains` | which groups of a record are the container's; those of a lost record |

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
mod group;
mod groups;
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

pub(crate) use delegation::Delegation;
pub(crate) use groups::Cgroup;
pub(crate) use limits::Limits;
pub(crate) use manager::Manager;
pub(crate) use oom::OomWatch;
pub(crate) use open::OpenCgroup;
pub(crate) use sub::SubGroup;
pub(crate) use systemd::UNIT_PROPERTIES;
pub(crate) use trust::Expected;
