//! Runs CRIU, which writes a tree of processes to files and restores it from them. Each request
//! starts one `criu swrk`, which is spoken to over a socket, in the messages of its `rpc.proto`
//! (criu.org/RPC), and which asks back at certain points of its work.
//!
//! | file | what is in it |
//! |---|---|
//! | `rpc` | the messages |
//! | `worker` | one `criu swrk` |
//! | `external` `mounts` | mounts of the container whose source is on the host |
//! | `lost` `seen` | what is refused: settings that CRIU loses, unknown mounts of the host |
//! | `notes` | what the images do not say |
//! | `program` | finds the executable of CRIU |
//! | `options` | the options that `checkpoint` and `restore` share |

mod external;
pub mod lost;
pub mod mounts;
mod notes;
mod options;
mod program;
pub mod rpc;
pub mod seen;
mod worker;

use std::fs;

use anyhow::{Context, Result};

pub use notes::CheckpointNotes;
pub use options::{CONFIG, CriuCommonOptions, ImagesDirectory};
pub use program::CriuProgram;
pub use worker::CriuWorker;

/// Returns the cgroups of process `pid`, one entry for each controller. A restore tells CRIU to put
/// the dumped cgroups there.
pub fn cgroup_roots(pid: i32) -> Result<Vec<rpc::CgroupRoot>> {
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
