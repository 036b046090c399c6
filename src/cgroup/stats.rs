//! What a container uses, as `events` prints it. The JSON has the shape of runc's
//! `types/events.go`, with `memory.events` added. If the kernel does not have a file, its field is
//! left out or 0.
//!
//! | file | what is in it |
//! |---|---|
//! | `summary` | all statistics, those of each controller from the version that has it |
//! | `v1` `v2` | the controllers of one version |
//! | `files` | reading control files |
//! | `types` | the statistics as types: the shape of the JSON |

mod files;
mod summary;
mod types;
mod v1;
mod v2;

pub use types::CgroupStats;

#[cfg(test)]
mod tests;
