//! The six points of a container's life at which hooks run (runtime-spec, config.md "POSIX-platform
//! Hooks").

use oci_spec::runtime::Hook;

/// A point of the container's life at which hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

/// The kinds of hooks that the parent runs while it creates or restores a container.
pub const CALLERS: [HookKind; 2] = [HookKind::Prestart, HookKind::CreateRuntime];

impl HookKind {
    /// All kinds, in the order in which they run.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// Returns the name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// Returns the status in the state that the hook reads. Prestart hooks have always been given
    /// `created`; the others get the status that runtime.md has for that point.
    pub fn status(self) -> &'static str {
        match self {
            Self::CreateRuntime | Self::CreateContainer => "creating",
            Self::Prestart | Self::StartContainer => "created",
            Self::Poststart => "running",
            Self::Poststop => "stopped",
        }
    }

    /// Returns the hooks of this kind.
    pub fn of(self, hooks: &oci_spec::runtime::Hooks) -> &[Hook] {
        #[allow(deprecated, reason = "docker's network is a prestart hook")]
        let list = match self {
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }
}
