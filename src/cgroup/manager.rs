//! Who makes the cgroups of a container.

/// Who makes the cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manager {
    #[default]
    Cgroupfs,
    Systemd,
    /// Nobody: the container stays in the cgroups of the `rt` command.
    Disabled,
}
