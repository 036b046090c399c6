//! What `rt spec` writes into a configuration for a container with a network: the two hooks, the
//! options as annotations, and three files beside the configuration that are bound into the
//! container.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::host::{DEFAULT_NETWORKS, DEFAULT_STATE, Host};
use super::request::{ANNOTATION, NetworkRequest};
use crate::container::state::Container;

/// The directory in the bundle with the three files, unless an option names another.
const FILES: &str = "etc";
const NAMES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Which network namespace a configuration asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum NamespaceChoice {
    New,
    /// The host's: the configuration asks for none.
    Host,
    Path(PathBuf),
}

/// What a network adds to the configuration that `rt spec` writes.
#[derive(Debug)]
pub struct SpecParts {
    pub namespace: NamespaceChoice,
    pub hostname: Option<String>,
    /// Files that are bound into the container: their places there, and in the bundle.
    pub files: Vec<(PathBuf, PathBuf)>,
    pub hooks: Option<Value>,
    pub annotations: BTreeMap<String, String>,
}

/// Returns what the options mean for a configuration; `root` is where containers' states are.
pub fn parts(host: &Host, root: &Path, options: &[(String, String)]) -> Result<SpecParts> {
    let request = NetworkRequest::new(options.iter().map(|(name, value)| (&**name, &**value)))?;
    let hostname = request.hostname.clone();
    let mode = request.networks.first().map_or("", String::as_str);
    let alone = |namespace| -> Result<SpecParts> {
        let only = options
            .iter()
            .find(|(name, _)| name != "network" && name != "hostname");
        if let Some((name, _)) = only {
            bail!("{name}: not with --network {mode}");
        }
        Ok(SpecParts {
            namespace,
            hostname: hostname.clone(),
            files: Vec::new(),
            hooks: None,
            annotations: BTreeMap::new(),
        })
    };
    match mode.strip_prefix("container:") {
        Some(id) => return alone(NamespaceChoice::Path(of_container(root, id)?)),
        None if mode == "host" => return alone(NamespaceChoice::Host),
        None if mode == "none" && request.point_to_point.is_empty() => {
            return alone(NamespaceChoice::New);
        }
        None => {}
    }
    let files = request.files.unwrap_or_else(|| FILES.into());
    check_files(&files)?;
    let place = |name| (Path::new("/etc").join(name), files.join(name));
    Ok(SpecParts {
        namespace: NamespaceChoice::New,
        hostname,
        files: NAMES.iter().map(place).collect(),
        hooks: Some(hooks(host)?),
        annotations: annotations(options, &files),
    })
}

/// Refuses a directory that is not a relative path within the bundle. The hook is less strict: it
/// takes an absolute path to such a directory, too.
fn check_files(files: &Path) -> Result<()> {
    let is_plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    match files.components().all(is_plain) {
        true => Ok(()),
        false => bail!("files: {}: not a path within the bundle", files.display()),
    }
}

fn of_container(root: &Path, id: &str) -> Result<PathBuf> {
    let context = || format!("network: container:{id}");
    let container = Container::open_existing(root, id).with_context(context)?;
    match container.status()? {
        (_, Some(_)) => {}
        (status, None) => bail!("network: container:{id}: {status}"),
    }
    let init = container.record.init.with_context(context)?;
    Ok(format!("/proc/{}/ns/net", init.pid).into())
}

/// Returns the options as annotations; several values of one option are separated by spaces.
fn annotations(options: &[(String, String)], files: &Path) -> BTreeMap<String, String> {
    let mut annotations: BTreeMap<String, String> = BTreeMap::new();
    let files = ("files".to_owned(), files.display().to_string());
    let others = options.iter().filter(|(name, _)| name != "files");
    for (name, value) in others.chain([&files]) {
        let all = annotations
            .entry(format!("{ANNOTATION}{name}"))
            .or_default();
        if !all.is_empty() {
            all.push(' ');
        }
        all.push_str(value);
    }
    annotations
}

/// Returns the two hooks, which run this program.
fn hooks(host: &Host) -> Result<Value> {
    let program = fs::read_link("/proc/self/exe").context("/proc/self/exe")?;
    let mut args = vec!["rt".to_owned(), "netns".to_owned()];
    for (option, path, default) in [
        ("--networks", &host.networks, DEFAULT_NETWORKS),
        ("--state", &host.state, DEFAULT_STATE),
    ] {
        if path != Path::new(default) {
            args.extend([option.to_owned(), path.display().to_string()]);
        }
    }
    let hook = json!([{ "path": program, "args": args }]);
    Ok(json!({ "createRuntime": hook, "poststop": hook }))
}

/// Makes the files that are to be bound, if they are missing: they have to exist before the
/// container does.
pub fn make_files(bundle: &Path, options: &[(String, String)]) -> Result<()> {
    let files = options.iter().rev().find(|(name, _)| name == "files");
    let directory = bundle.join(files.map_or(FILES, |(_, value)| value));
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    for name in NAMES {
        let path = directory.join(name);
        let mut open = OpenOptions::new();
        open.append(true)
            .create(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            networks: DEFAULT_NETWORKS.into(),
            state: DEFAULT_STATE.into(),
        }
    }

    fn parts_of(options: &[(&str, &str)]) -> Result<SpecParts> {
        let options: Vec<_> = options
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        parts(&host(), Path::new("/nonexistent"), &options)
    }

    #[test]
    fn options_become_annotations_and_hooks() {
        let parts = parts_of(&[
            ("publish", "80:80"),
            ("publish", "53:53/udp"),
            ("network", "web"),
        ])
        .unwrap();
        let publish = &parts.annotations["org.rt.network.publish"];
        assert_eq!(publish, "80:80 53:53/udp");
        let hooks = parts.hooks.unwrap();
        assert_eq!(hooks["createRuntime"], hooks["poststop"]);
        assert_eq!(hooks["poststop"][0]["args"], json!(["rt", "netns"]));
        assert_eq!(parts.namespace, NamespaceChoice::New);
    }

    #[test]
    fn modes_that_need_no_hook_take_no_options() {
        assert_eq!(
            parts_of(&[("network", "host")]).unwrap().namespace,
            NamespaceChoice::Host
        );
        let none = parts_of(&[("network", "none")]).unwrap();
        assert!(none.annotations.is_empty() && none.hooks.is_none());
        assert!(parts_of(&[("network", "host"), ("publish", "80:80")]).is_err());
        assert!(parts_of(&[("network", "container:nobody")]).is_err());
        assert!(parts_of(&[("publish", "x")]).is_err());
        assert!(parts_of(&[("files", "/etc")]).is_err());
        assert!(parts_of(&[("files", "a/../../b")]).is_err());
    }
}
