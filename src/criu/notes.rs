//! What `restore` needs to know about a checkpoint and CRIU's images do not say.

use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::options::ImagesDirectory;

/// The file among the images. A checkpoint of another runtime has none.
const FILE: &str = "rt.json";

#[derive(Debug, Default, Deserialize, Serialize)]
pub struct CheckpointNotes {
    /// Whether cgroups were left alone at the checkpoint; `restore` then leaves them alone, too.
    #[serde(default)]
    pub ignores_groups: bool,
    /// Files that were masked; `None` if that is not known.
    pub masked: Option<Vec<PathBuf>>,
}

impl CheckpointNotes {
    pub fn read(images: &ImagesDirectory) -> Result<Self> {
        match images.read(FILE) {
            Ok(bytes) => serde_json::from_slice(&bytes).context(FILE),
            Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(io::ErrorKind::NotFound) => Ok(Self::default()),
                _ => Err(error),
            },
        }
    }

    pub fn write(&self, images: &ImagesDirectory) -> Result<()> {
        images.write(FILE, &serde_json::to_vec(self)?)
    }
}
