//! What a plan is made from.

use std::path::Path;

use oci_spec::runtime::Spec;

use crate::config::CheckedConfig;

/// The configuration and the directories from which a container is planned.
#[derive(Clone, Copy, Debug)]
pub struct PlanSource<'a> {
    pub spec: &'a Spec,
    /// What the checks have parsed of it.
    pub checked: &'a CheckedConfig,
    /// The resolved bundle directory.
    pub bundle: &'a Path,
    /// The resolved `root.path`.
    pub rootfs: &'a Path,
    pub id: &'a str,
}
