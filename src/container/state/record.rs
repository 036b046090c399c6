//! The record of a container: what `state.json` contains.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use nix::unistd::getuid;
use oci_spec::runtime::{Hooks, Spec};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::config::OCI_VERSION;
use crate::config::memory_policy::MemoryPolicy;
use crate::process::Process;
use crate::rdt::Rdt;
use crate::security::seccomp;

/// How far `create` has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CreateProgress {
    /// The intent is recorded: everything named here may exist or not.
    Creating,
    /// Init waits for `start`, or has been started.
    Created,
}

/// The status in runtime-spec's state, and `paused`, which runc has added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerStatus {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl std::fmt::Display for ContainerStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// Everything that `rt` remembers of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRecord {
    /// The version of the specification for the state, not that of the configuration.
    pub oci_version: String,
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    /// The user id that created it.
    pub owner: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// For `start` and `delete`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    pub progress: CreateProgress,
    pub init: Option<Process>,
    pub cgroup: Cgroup,
    /// `CLONE_NEW*` of the namespaces that `exec` joins.
    pub namespaces: i32,
    /// Whether its processes have a session keyring of their own.
    pub keyring: bool,
    /// `linux.personality` as personality(2) takes it, for `exec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personality: Option<u32>,
    /// For `exec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<Rdt>,
    /// What belongs to the filter of the container's processes, if they have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<seccomp::FilterTerms>,
}

impl ContainerRecord {
    /// Returns the record of the intent to create `id` from `spec`. Paths, cgroups and namespaces
    /// are still to be filled in.
    pub fn new(id: &str, spec: &Spec) -> Self {
        let annotations = spec.annotations().iter().flatten();
        Self {
            created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
            owner: getuid().as_raw(),
            annotations: annotations
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            hooks: spec.hooks().clone(),
            ..Self::empty(id)
        }
    }

    pub fn has_user_namespace(&self) -> bool {
        self.namespaces & libc::CLONE_NEWUSER != 0
    }

    pub(super) fn empty(id: &str) -> Self {
        Self {
            oci_version: OCI_VERSION.to_string(),
            id: id.to_string(),
            bundle: PathBuf::new(),
            rootfs: PathBuf::new(),
            created: String::new(),
            owner: 0,
            annotations: BTreeMap::new(),
            hooks: None,
            progress: CreateProgress::Creating,
            init: None,
            cgroup: Cgroup::default(),
            namespaces: 0,
            keyring: false,
            personality: None,
            memory_policy: None,
            rdt: None,
            seccomp: None,
        }
    }
}
