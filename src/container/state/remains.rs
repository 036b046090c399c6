//! Finds out what can be known of a container whose record cannot be read: enough to remove it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;
use oci_spec::runtime::Hooks;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cgroup::{Cgroup, Expected};
use crate::container::state::{
    CONFIG_FILE, Container, ContainerRecord, FILES, LISTENER, NOTIFY_DIRECTORY,
};
use crate::sys;

/// The part of the copy of `config.json` that matters here. Invalid values count as absent: nothing
/// is created from them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigCopy {
    linux: Option<LinuxPart>,
    hooks: Option<serde_json::Value>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LinuxPart {
    cgroups_path: Option<String>,
}

impl ConfigCopy {
    fn read(directory: &OwnedFd) -> Option<Self> {
        serde_json::from_slice(&sys::read_file_at(directory, CONFIG_FILE).ok()?).ok()
    }

    fn cgroups_path(&self) -> Option<&str> {
        self.linux
            .as_ref()?
            .cgroups_path
            .as_deref()
            .filter(|path| !path.is_empty())
    }
}

impl ContainerRecord {
    /// Makes a record of container `id` from what is left: `bytes`, a record that was cut, and the
    /// copy of the configuration beside it.
    pub(super) fn from_remains(directory: &OwnedFd, id: &str, bytes: &[u8]) -> Self {
        let copy = ConfigCopy::read(directory).unwrap_or_default();
        let hooks = copy.hooks.clone();
        Self {
            bundle: field(bytes, "bundle").unwrap_or_default(),
            rootfs: field(bytes, "rootfs").unwrap_or_default(),
            created: field(bytes, "created").unwrap_or_default(),
            annotations: copy.annotations.clone().unwrap_or_default(),
            hooks: hooks.and_then(|hooks| serde_json::from_value::<Hooks>(hooks).ok()),
            init: field(bytes, "init"),
            namespaces: field(bytes, "namespaces").unwrap_or_default(),
            rdt: field(bytes, "rdt"),
            cgroup: field(bytes, "cgroup")
                .unwrap_or_else(|| cgroups_of_remains(directory, id, &copy)),
            ..Self::empty(id)
        }
    }
}

/// Returns the value of a key of a JSON object that need not be complete. A key inside a string has
/// its quotes escaped, so that it is never found.
fn field<T: DeserializeOwned>(bytes: &[u8], key: &str) -> Option<T> {
    let text = std::str::from_utf8(bytes).ok()?;
    let name = format!("{key:?}:");
    // An annotation may have the same name; its value is a string.
    text.match_indices(&name).find_map(|(at, _)| {
        let rest = &text[at + name.len()..];
        serde_json::Deserializer::from_str(rest)
            .into_iter::<T>()
            .next()?
            .ok()
    })
}

/// Returns the container's cgroups at the place that the configuration names.
fn cgroups_of_remains(directory: &OwnedFd, id: &str, copy: &ConfigCopy) -> Cgroup {
    let stat = |name: &str| fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok();
    // The copy is written once, when the id has just been claimed.
    let config = stat(CONFIG_FILE).map(|stat| Duration::from_secs(stat.st_mtime.unsigned_abs()));
    let claimed = config.map_or(SystemTime::now(), |since| SystemTime::UNIX_EPOCH + since);
    // The start socket exists as soon as the cgroups have been made.
    let is_made = stat(LISTENER).is_some();
    Cgroup::of_remains(copy.cgroups_path().map(Path::new), id, claimed, is_made)
}

impl Container {
    /// Returns where the container's cgroups have to be by its configuration, or by its id alone if
    /// the copy is lost.
    pub fn expected_cgroups(&self) -> Expected {
        let copy = ConfigCopy::read(&self.directory).unwrap_or_default();
        Expected::new(copy.cgroups_path(), &self.record.id)
    }

    /// Returns the container's cgroups by the configuration, whatever the record says.
    pub fn cgroups_by_config(&self) -> Cgroup {
        let copy = ConfigCopy::read(&self.directory).unwrap_or_default();
        cgroups_of_remains(&self.directory, &self.record.id, &copy)
    }

    /// Refuses a directory with files that `rt` does not make: it is not a container's.
    pub fn refuse_strange_files(&self) -> Result<()> {
        let context = || self.path().display().to_string();
        for entry in sys::list_open_directory(&self.directory).with_context(context)? {
            let name = entry.name.to_string_lossy();
            if !FILES.contains(&&*name) && *name != *NOTIFY_DIRECTORY {
                bail!(
                    "{}: {name:?} is not a container's, nothing is removed",
                    context()
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;

    #[test]
    fn what_was_written_of_a_record_before_it_was_cut_is_found() {
        let text = br#"{"id":"x","bundle":"/b","annotations":{"init":"no","a":"\"init\":{\"pid\":9,\"startTime\":9}"},"init":{"pid":7,"startTime":8},"cgroup":{"unif"#;
        let init = field::<Process>(text, "init");
        assert_eq!(
            init,
            Some(Process {
                pid: 7,
                start_time: 8
            })
        );
        assert_eq!(field::<String>(text, "bundle").as_deref(), Some("/b"));
        assert!(field::<Cgroup>(text, "cgroup").is_none());
        assert!(field::<Process>(b"", "init").is_none());
        assert!(field::<Process>(b"\xff\"init\":{", "init").is_none());
    }
}
