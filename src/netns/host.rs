//! Where on this host the networks are: their descriptions, and what is remembered of them.

use std::path::PathBuf;

/// Where networks are described, unless an option says something else.
pub(crate) const DEFAULT_NETWORKS: &str = "/etc/rt/networks";
/// Where they are remembered.
pub(crate) const DEFAULT_STATE: &str = "/run/rt-netns";

/// Where networks are described and remembered.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) networks: PathBuf,
    pub(crate) state: PathBuf,
}
