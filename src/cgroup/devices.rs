//! `linux.resources.devices`: which device nodes the container may make, read and write. Of the
//! rules that match, the last one decides, separately for each of the three accesses.
//!
//! | file | what is in it |
//! |---|---|
//! | `rule` | one rule, and the set of devices that it is for |
//! | `policy` | the rules of a configuration, and the default ones |
//! | `exceptions` `control_files` | the rules as version 1 has them, and writing them |
//! | `program` | the rules as a program for version 2 |
//! | `filter` | puts the rules into force for a container |
//! | `allow_list` | the rules as systemd has them |

mod allow_list;
mod control_files;
mod exceptions;
mod filter;
mod policy;
mod program;
mod rule;

pub(super) use allow_list::allow_list;
pub(super) use control_files::try_on_version_1;
pub(super) use exceptions::v1_writes;
pub(super) use filter::apply;
pub(super) use policy::rules;
pub(super) use rule::DeviceRule;

#[cfg(test)]
mod tests;
