//! What the tests are written in: bundles, containers, a runtime under a time limit, cgroup views,
//! a search for leftovers, and faults at exact system calls.
//!
//! `RT=/path/to/runtime` puts any other OCI runtime in the place of `rt`.

mod bundle;
mod canary;
mod compile;
mod config;
mod container;
pub(crate) mod corpus;
mod disk;
mod host;
pub(crate) mod inject;
mod leftovers;
mod look;
mod race;
mod rt;
mod schema;
mod syscalls;
mod temp;
pub(crate) mod terminal;
pub(crate) mod user;
mod view;

pub(crate) use bundle::Bundle;
pub(crate) use canary::Canary;
pub(crate) use compile::compile;
pub(crate) use config::ALL_CAPABILITIES;
pub(crate) use container::Container;
pub(crate) use disk::Disk;
pub(crate) use host::{Host, freeze, namespace_of, proc_status, reap, thaw, until, waits_in};
pub(crate) use leftovers::{Leftovers, processes_of};
pub(crate) use look::{Look, assert_looks_as_under_runc, difference_to_runc};
pub(crate) use race::Exchange;
pub(crate) use rt::{Done, MARK, Rt, Running, runc, runtime};
pub(crate) use schema::Schema;
pub(crate) use temp::{TempDir, copy_program, write_program};
pub(crate) use view::View;
