//! `rt`, an OCI container runtime: one stateless executable that reads a bundle and gives the
//! process in it its own world. `docs/design.md` is the map.

mod caps;
mod cgroup;
mod cli;
mod create;
mod delete;
mod error;
mod exec;
mod foreground;
mod image;
mod init;
mod kill;
mod launch;
mod list;
mod log;
mod mounts;
mod namespace;
mod netns;
mod plan;
mod procfd;
mod pty;
mod rootfd;
mod spec;
mod spec_cmd;
mod start;
mod state;
mod sync;
mod sys;

/// The version of runtime-spec that `rt` implements.
const OCI_VERSION: &str = "1.3.0";

fn main() -> ! {
    std::process::exit(cli::main())
}
