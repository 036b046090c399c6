//! CRIU, which takes a tree of processes apart into files and puts it together again. There is one
//! `criu swrk` for each request; it is spoken to over a socket, in the messages of its `rpc.proto`
//! (criu.org/RPC), and asks back at points of its work.
//!
//! | file | what is in it |
//! |---|---|
//! | `rpc` | the messages |
//! | `worker` | one `criu swrk` |
//! | `external` `mounts` | mounts of the container whose source is the host's |
//! | `lost` `seen` | what is refused: settings that CRIU does not keep, mounts that are not the container's |
//! | `notes` | what the images do not say |
//! | `program` | which file CRIU is |
//! | `options` | what `checkpoint` and `restore` have in common on the command line |

mod external;
pub(crate) mod lost;
pub(crate) mod mounts;
mod notes;
mod options;
mod program;
pub(crate) mod rpc;
pub(crate) mod seen;
mod worker;

use std::fs;

use anyhow::{Context, Result};

pub(crate) use notes::CheckpointNotes;
pub(crate) use options::{CONFIG, CriuCommonOptions, ImagesDirectory};
pub(crate) use program::CriuProgram;
pub(crate) use worker::CriuWorker;

/// The places that the groups of process `pid` have, for what was dumped to go there.
pub(crate) fn cgroup_roots(pid: i32) -> Result<Vec<rpc::CgroupRoot>> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).context(path)?;
    let fields = text
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let roots = fields.flat_map(|(controllers, path)| {
        controllers.split(',').map(|controller| rpc::CgroupRoot {
            controller: Some(controller.to_owned()),
            path: path.to_owned(),
        })
    });
    Ok(roots.collect())
}
