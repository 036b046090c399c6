//! Integration tests. They drive the `rt` binary, or with `RT=PATH` any other OCI runtime, and need
//! root. `harness.rs` says what the tests are written in.

#[cfg(test)]
mod annotations;
#[cfg(test)]
mod attacks;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod budget;
#[cfg(test)]
mod bundles;
#[cfg(test)]
mod caller;
#[cfg(test)]
mod cgroups;
#[cfg(test)]
mod checkpoint;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod cves;
#[cfg(test)]
mod delete;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod exec;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod features;
#[cfg(test)]
mod fields;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hooks;
#[cfg(test)]
mod ids;
#[cfg(test)]
mod landlock;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod lsm;
#[cfg(test)]
mod mounts;
#[cfg(test)]
mod namespaces;
#[cfg(test)]
mod net_devices;
#[cfg(test)]
mod netns;
#[cfg(test)]
mod pairs;
#[cfg(test)]
mod parity;
#[cfg(test)]
mod paths;
#[cfg(test)]
mod process;
#[cfg(test)]
mod rootless;
#[cfg(test)]
mod scheduling;
#[cfg(test)]
mod seccomp;
#[cfg(test)]
mod spec_coverage;
#[cfg(test)]
mod stress;
#[cfg(test)]
mod systemd;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod tour;
#[cfg(test)]
mod warnings;
