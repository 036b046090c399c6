//! `linux.resources.devices`: which device nodes the container may make, read and write. The
//! last rule that matches decides, for each of the three accesses by itself.
//!
//! | file | what is in it |
//! |---|---|
//! | `rule` | one rule, and the set of devices that it is about |
//! | `policy` | the rules of a configuration, and the default ones |
//! | `exceptions` `control_files` | the rules on version 1, and writing them |
//! | `program` | the rules on version 2 |
//! | `filter` | the rules made those of a container |
//! | `allow_list` | the rules for systemd |

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
