//! `linux.resources`: checked, and converted to writes to control files. Nothing is read from the
//! kernel here.
//!
//! | file | what is in it |
//! |---|---|
//! | `conversion` | all limits, for a new container or for an update |
//! | `v1` `v2` | the controllers of one version |
//! | `block_io` `others` | what is nearly the same in both versions |

mod block_io;
mod conversion;
mod others;
mod v1;
mod v2;

#[cfg(test)]
mod tests;
