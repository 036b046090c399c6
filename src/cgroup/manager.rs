//! Who makes the groups of a container.

/// Who makes the groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manager {
    #[default]
    Cgroupfs,
    Systemd,
    /// Nobody: the container stays in its caller's groups.
    Disabled,
}
