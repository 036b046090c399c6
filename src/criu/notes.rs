//! What the images do not say.

use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::options::Images;

/// Beside the images. Those of another runtime have none.
const FILE: &str = "rt.json";

#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Notes {
    /// Control groups were left alone, and are to be.
    #[serde(default)]
    pub(crate) ignores_groups: bool,
    /// Files that were masked; `None` if nobody knows.
    pub(crate) masked: Option<Vec<PathBuf>>,
}

impl Notes {
    pub(crate) fn read(images: &Images) -> Result<Self> {
        match images.read(FILE) {
            Ok(bytes) => serde_json::from_slice(&bytes).context(FILE),
            Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(io::ErrorKind::NotFound) => Ok(Self::default()),
                _ => Err(error),
            },
        }
    }

    pub(crate) fn write(&self, images: &Images) -> Result<()> {
        images.write(FILE, &serde_json::to_vec(self)?)
    }
}
