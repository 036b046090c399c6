//! `rt spec`: writes a `config.json` as a template.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Error, Result, anyhow};
use nix::unistd::{getegid, geteuid};
use serde::{Deserialize, Serialize};
use serde_json::ser::PrettyFormatter;
use serde_json::{Serializer, Value, json};

use crate::netns::{NamespaceChoice, SpecParts};

/// The configuration for root on a host with version 1 cgroups.
const TEMPLATE: &str = include_str!("spec_template/template.json");

/// A configuration whose properties stand in the order in which a person reads them. What `rt spec`
/// never changes is any JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigTemplate {
    oci_version: String,
    process: ProcessTemplate,
    root: Value,
    hostname: String,
    mounts: Vec<MountTemplate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hooks: Option<Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    linux: LinuxTemplate,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProcessTemplate {
    terminal: bool,
    user: Value,
    args: Value,
    env: Value,
    cwd: Value,
    capabilities: Value,
    rlimits: Value,
    no_new_privileges: bool,
}

/// One mount of a configuration.
#[derive(Debug, Serialize, Deserialize)]
struct MountTemplate {
    destination: PathBuf,
    #[serde(rename = "type")]
    kind: String,
    source: PathBuf,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    options: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LinuxTemplate {
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid_mappings: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid_mappings: Option<Value>,
    namespaces: Vec<NamespaceTemplate>,
    masked_paths: Value,
    readonly_paths: Value,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct NamespaceTemplate {
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
}

/// Writes `config.json` into `bundle`: for root, or with `rootless` for an ordinary user, whose id
/// is the only one in a user namespace. `cgroup_v2` says that the host has only the unified
/// hierarchy; `network` has the parts of the configuration that a network needs.
///
/// # Errors
/// `BUNDLE/config.json: …` if it cannot be written, `File … exists. Remove it first` if it exists.
pub fn spec(
    bundle: &Path,
    rootless: bool,
    cgroup_v2: bool,
    network: Option<SpecParts>,
) -> Result<()> {
    let path = bundle.join("config.json");
    let mut config = ConfigTemplate::new(rootless, cgroup_v2)?;
    if let Some(network) = network {
        config.add_network(network);
    }
    let json = config.to_json()?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(&json))
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                let path = path.strip_prefix(".").unwrap_or(&path);
                anyhow!("File {} exists. Remove it first", path.display())
            }
            _ => Error::new(error).context(path.display().to_string()),
        })
}

impl ConfigTemplate {
    fn new(rootless: bool, cgroup_v2: bool) -> Result<Self> {
        let mut config: Self = serde_json::from_str(TEMPLATE)?;
        if cgroup_v2 {
            config.linux.add_namespace("cgroup");
        }
        if rootless {
            config.make_rootless();
        }
        Ok(config)
    }

    fn make_rootless(&mut self) {
        // In a user namespace with one id the group tty is not mapped.
        for mount in &mut self.mounts {
            mount.options.retain(|option| option != "gid=5");
        }
        // A new sysfs can be mounted only by the owner of the network namespace, so the host's is
        // bound.
        for mount in self.mounts.iter_mut().filter(|mount| mount.kind == "sysfs") {
            mount.kind = "none".to_owned();
            mount.source = mount.destination.clone();
            mount.options.insert(0, "rbind".to_owned());
        }
        let linux = &mut self.linux;
        linux.resources = None;
        let only = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
        linux.uid_mappings = Some(only(geteuid().as_raw()));
        linux.gid_mappings = Some(only(getegid().as_raw()));
        linux
            .namespaces
            .retain(|namespace| namespace.kind != "network");
        linux.add_namespace("user");
    }

    fn add_network(&mut self, network: SpecParts) {
        let files = network.files.into_iter();
        self.mounts
            .extend(files.map(|(destination, source)| MountTemplate::of_data(destination, source)));
        self.hooks = network.hooks;
        self.annotations = network.annotations;
        if let Some(hostname) = network.hostname {
            self.hostname = hostname;
        }
        let namespaces = &mut self.linux.namespaces;
        match network.namespace {
            NamespaceChoice::New => {}
            NamespaceChoice::Host => namespaces.retain(|namespace| namespace.kind != "network"),
            NamespaceChoice::Path(path) => {
                let joined = namespaces
                    .iter_mut()
                    .find(|namespace| namespace.kind == "network");
                joined
                    .into_iter()
                    .for_each(|namespace| namespace.path = Some(path.clone()));
            }
        }
    }

    /// Returns the configuration with one value per line, indented by tabs.
    fn to_json(&self) -> Result<Vec<u8>> {
        let mut json = Vec::new();
        let format = PrettyFormatter::with_indent(b"\t");
        self.serialize(&mut Serializer::with_formatter(&mut json, format))?;
        json.push(b'\n');
        Ok(json)
    }
}

impl MountTemplate {
    /// Returns a bind mount of a file that holds data only.
    fn of_data(destination: PathBuf, source: PathBuf) -> Self {
        let options = ["bind", "rw", "nosuid", "nodev", "noexec"];
        Self {
            destination,
            kind: "bind".to_owned(),
            source,
            options: options.map(str::to_owned).into(),
        }
    }
}

impl LinuxTemplate {
    fn add_namespace(&mut self, kind: &str) {
        let kind = kind.to_owned();
        self.namespaces.push(NamespaceTemplate { kind, path: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxNamespaceType as Type, Spec};

    fn parsed(rootless: bool, cgroup_v2: bool) -> (String, Spec) {
        let json = ConfigTemplate::new(rootless, cgroup_v2).unwrap().to_json();
        let json = String::from_utf8(json.unwrap()).unwrap();
        let spec = serde_json::from_str(&json).unwrap();
        crate::config::check_spec(&spec).unwrap();
        (json, spec)
    }

    fn types(spec: &Spec) -> Vec<Type> {
        let linux = spec.linux().as_ref().unwrap();
        linux
            .namespaces()
            .iter()
            .flatten()
            .map(|namespace| namespace.typ())
            .collect()
    }

    #[test]
    fn what_is_written_is_accepted() {
        let base = [Type::Pid, Type::Network, Type::Ipc, Type::Uts, Type::Mount];
        let (_, spec) = parsed(false, false);
        assert_eq!(types(&spec), base);
        assert_eq!(spec.mounts().as_ref().unwrap().len(), 7);
        assert_eq!(types(&parsed(false, true).1).last(), Some(&Type::Cgroup));
    }

    #[test]
    fn a_rootless_one_asks_for_nothing_that_needs_root() {
        let (json, spec) = parsed(true, true);
        assert_eq!(
            types(&spec),
            [
                Type::Pid,
                Type::Ipc,
                Type::Uts,
                Type::Mount,
                Type::Cgroup,
                Type::User
            ]
        );
        assert!(!json.contains("gid=5") && !json.contains("sysfs"), "{json}");
        let linux = spec.linux().as_ref().unwrap();
        assert!(linux.resources().is_none());
        assert_eq!(linux.uid_mappings().as_ref().unwrap()[0].size(), 1);
    }

    #[test]
    fn the_template_is_written_as_it_is() {
        assert_eq!(parsed(false, false).0, TEMPLATE);
    }

    #[test]
    fn nothing_is_overwritten() {
        let bundle = std::env::temp_dir().join(format!("rt-spec-{}", std::process::id()));
        std::fs::create_dir(&bundle).unwrap();
        let first = spec(&bundle, false, false, None);
        let second = spec(&bundle, false, false, None);
        let text = std::fs::read_to_string(bundle.join("config.json"));
        std::fs::remove_dir_all(&bundle).unwrap();
        first.unwrap();
        assert!(format!("{:#}", second.unwrap_err()).contains("config.json exists"));
        assert!(text.unwrap().ends_with("}\n"));
    }
}
