//! `--version` and `features`: what this version supports, as the structure of features.md and
//! features-linux.md of runtime-spec. The lists are made from the tables that the code works with,
//! so that they cannot differ.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::config::hooks::HookKind;
use crate::config::{OCI_VERSION, capabilities, memory_policy, mount_options};
use crate::security::{landlock, seccomp};
use crate::{annotations, cgroup, criu, namespace, netns};

/// The structure of features.md. Later versions of `rt` may add fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: [&'static str; 6],
    mount_options: Vec<&'static str>,
    linux: LinuxFeatures,
    /// Annotations of a configuration that change what `rt` does. A name with a dot at the end
    /// stands for all annotations that begin with it.
    potentially_unsafe_config_annotations: Vec<&'static str>,
    /// Features that runtime-spec has no field for.
    annotations: BTreeMap<&'static str, &'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LinuxFeatures {
    namespaces: Vec<&'static str>,
    capabilities: Vec<String>,
    cgroup: CgroupFeatures,
    seccomp: SeccompFeatures,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicyFeatures,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CgroupFeatures {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SeccompFeatures {
    enabled: bool,
    actions: Vec<String>,
    operators: Vec<String>,
    archs: Vec<String>,
    known_flags: Vec<String>,
    supported_flags: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

/// The supported names of modes and flags of set_mempolicy(2).
#[derive(Debug, Serialize)]
struct MemoryPolicyFeatures {
    modes: [&'static str; 7],
    flags: [&'static str; 3],
}

#[derive(Debug, Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Debug, Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

/// Returns the text of `rt --version`, with the lines that docker reads. The commit is included if
/// the build has set `RT_COMMIT`.
pub fn version(name: &str) -> String {
    let mut text = format!("{name} version {}\n", env!("CARGO_PKG_VERSION"));
    if let Some(commit) = option_env!("RT_COMMIT").filter(|commit| !commit.is_empty()) {
        text += &format!("commit: {commit}\n");
    }
    text + &format!("spec: {OCI_VERSION}\n")
}

/// Runs `rt features`; returns the text for standard output.
pub fn features() -> Result<String> {
    let (mut modes, flags) = memory_policy::names();
    modes.sort_unstable();
    let mut namespaces: Vec<_> = namespace::words_of_all().collect();
    namespaces.sort_unstable();
    let features = Features {
        oci_version_min: "1.0.0",
        oci_version_max: OCI_VERSION,
        hooks: HookKind::ALL.map(HookKind::name),
        mount_options: mount_options::words().collect(),
        linux: LinuxFeatures {
            namespaces,
            capabilities: capabilities::known(),
            cgroup: CgroupFeatures {
                v1: true,
                v2: true,
                systemd: true,
                systemd_user: true,
                rdma: true,
            },
            seccomp: SeccompFeatures {
                enabled: seccomp::architectures().next().is_some(),
                actions: words(seccomp::ACTIONS),
                operators: words(seccomp::OPERATORS),
                archs: words(seccomp::architectures()),
                known_flags: words(seccomp::FLAGS.map(|(flag, _)| flag)),
                supported_flags: words(seccomp::supported_flags()),
            },
            apparmor: Enabled { enabled: true },
            selinux: Enabled { enabled: true },
            intel_rdt: IntelRdt {
                enabled: true,
                schemata: true,
                monitoring: true,
            },
            memory_policy: MemoryPolicyFeatures { modes, flags },
            mount_extensions: MountExtensions {
                idmap: Enabled { enabled: true },
            },
            net_devices: Enabled { enabled: true },
        },
        potentially_unsafe_config_annotations: [
            cgroup::UNIT_PROPERTIES,
            landlock::PREFIX,
            netns::ANNOTATION,
            criu::CONFIG,
        ]
        .into_iter()
        .chain(annotations::ALL)
        .collect(),
        // Whether the kernel of this host supports Landlock does not matter here; of all fields
        // only `supported_flags` depends on the kernel.
        annotations: BTreeMap::from([
            ("org.rt.landlock", "true"),
            // Engines look for this one.
            ("org.opencontainers.runc.checkpoint.enabled", "true"),
        ]),
    };
    Ok(serde_json::to_string_pretty(&features)? + "\n")
}

fn words<T: ToString>(of: impl IntoIterator<Item = T>) -> Vec<String> {
    of.into_iter().map(|one| one.to_string()).collect()
}
