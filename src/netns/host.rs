//! Where on this host networks are described, and where their state is stored.

use std::path::PathBuf;

/// The directory with descriptions of networks, unless an option names another.
pub const DEFAULT_NETWORKS: &str = "/etc/rt/networks";
/// The directory with the state of networks, unless an option names another.
pub const DEFAULT_STATE: &str = "/run/rt-netns";

/// The directories of networks: their descriptions and their state.
#[derive(Clone, Debug)]
pub struct Host {
    pub networks: PathBuf,
    pub state: PathBuf,
}
