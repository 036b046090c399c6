//! What a plan is made from.

use std::path::Path;

use oci_spec::runtime::Spec;

use crate::config::CheckedConfig;

/// The configuration and the directories from which a container is planned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanSource<'a> {
    pub(crate) spec: &'a Spec,
    /// What the checks have parsed of it.
    pub(crate) checked: &'a CheckedConfig,
    /// The resolved bundle directory.
    pub(crate) bundle: &'a Path,
    /// The resolved `root.path`.
    pub(crate) rootfs: &'a Path,
    pub(crate) id: &'a str,
}
