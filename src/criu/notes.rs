//! What the images do not say.

use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::options::ImagesDirectory;

/// Beside the images. Those of another runtime have none.
const FILE: &str = "rt.json";

#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct CheckpointNotes {
    /// Control groups were left alone, and are to be.
    #[serde(default)]
    pub(crate) ignores_groups: bool,
    /// Files that were masked; `None` if nobody knows.
    pub(crate) masked: Option<Vec<PathBuf>>,
}

impl CheckpointNotes {
    pub(crate) fn read(images: &ImagesDirectory) -> Result<Self> {
        match images.read(FILE) {
            Ok(bytes) => serde_json::from_slice(&bytes).context(FILE),
            Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(io::ErrorKind::NotFound) => Ok(Self::default()),
                _ => Err(error),
            },
        }
    }

    pub(crate) fn write(&self, images: &ImagesDirectory) -> Result<()> {
        images.write(FILE, &serde_json::to_vec(self)?)
    }
}
