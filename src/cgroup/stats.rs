//! What a container uses, as `events` prints it: the shape is that of runc's `types/events.go`,
//! with `memory.events` added. A file that a kernel does not have leaves its field out or at 0.
//!
//! | file | what is in it |
//! |---|---|
//! | `summary` | all of it, each controller's from the version that has it |
//! | `v1` `v2` | the controllers of one version |
//! | `files` `object` | control files in; JSON out |

mod files;
mod object;
mod summary;
mod v1;
mod v2;

#[cfg(test)]
mod tests;
