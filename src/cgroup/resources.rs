//! `linux.resources` decided: checked, converted, and as the writes to control files that it
//! comes to. Nothing is read from the kernel here.
//!
//! | file | what is in it |
//! |---|---|
//! | `conversion` | all of it, for a new container or for a change |
//! | `v1` `v2` | the controllers of one version |
//! | `block_io` `others` | what is nearly the same in both |

mod block_io;
mod conversion;
mod others;
mod v1;
mod v2;

#[cfg(test)]
mod tests;
