//! `rt spec`: writes a `config.json` as a template.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Error, Result, anyhow};
use nix::unistd::{getegid, geteuid};

use crate::netns::{NamespaceChoice, Parts};

const PROCESS: &str = r#"{
"ociVersion":"1.3.0",
"process":{
"terminal":true,
"user":{"uid":0,"gid":0},
"args":["sh"],
"env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","TERM=xterm"],
"cwd":"/",
"capabilities":{
"bounding":["CAP_AUDIT_WRITE","CAP_KILL","CAP_NET_BIND_SERVICE"],
"effective":["CAP_AUDIT_WRITE","CAP_KILL","CAP_NET_BIND_SERVICE"],
"permitted":["CAP_AUDIT_WRITE","CAP_KILL","CAP_NET_BIND_SERVICE"]
},
"rlimits":[{"type":"RLIMIT_NOFILE","hard":1024,"soft":1024}],
"noNewPrivileges":true
},
"root":{"path":"rootfs","readonly":true},
"hostname":"rt",
"mounts":[
{"destination":"/proc","type":"proc","source":"proc"},
{"destination":"/dev","type":"tmpfs","source":"tmpfs",
"options":["nosuid","strictatime","mode=755","size=65536k"]},
{"destination":"/dev/pts","type":"devpts","source":"devpts",
"options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620""#;

const SHM: &str = r#"]},
{"destination":"/dev/shm","type":"tmpfs","source":"shm",
"options":["nosuid","noexec","nodev","mode=1777","size=65536k"]},
{"destination":"/dev/mqueue","type":"mqueue","source":"mqueue",
"options":["nosuid","noexec","nodev"]},"#;

const SYS: &str = r#"
{"destination":"/sys","type":"sysfs","source":"sysfs",
"options":["nosuid","noexec","nodev","ro"]},"#;

/// The mount of `/sys` for an ordinary user: a new sysfs can be mounted only by the owner of the
/// network namespace, so the host's is bound.
const ROOTLESS_SYS: &str = r#"
{"destination":"/sys","type":"none","source":"/sys",
"options":["rbind","nosuid","noexec","nodev","ro"]},"#;

const CGROUP: &str = r#"
{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup",
"options":["nosuid","noexec","nodev","relatime","ro"]}
],
"linux":{"#;

const RESOURCES: &str = r#"
"resources":{"devices":[{"allow":false,"access":"rwm"}]},"#;

const PATHS: &str = r#"],
"maskedPaths":["/proc/acpi","/proc/asound","/proc/kcore","/proc/keys","/proc/latency_stats",
"/proc/timer_list","/proc/timer_stats","/proc/sched_debug","/sys/firmware","/proc/scsi"],
"readonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]
}
}"#;

/// Writes `config.json` into `bundle`: for root, or with `rootless` for an ordinary user, whose id
/// is the only one in a user namespace. `cgroup_v2` says that the host has only the unified
/// hierarchy; `network` has the parts of the configuration that a network needs.
///
/// # Errors
/// `BUNDLE/config.json: …` if it cannot be written, `File … exists. Remove it first` if it exists.
pub(crate) fn spec(
    bundle: &Path,
    rootless: bool,
    cgroup_v2: bool,
    network: Option<&Parts>,
) -> Result<()> {
    let path = bundle.join("config.json");
    let mut json = document(rootless, cgroup_v2);
    if let Some(network) = network {
        json = networked(json, network);
    }
    json = indent(&json);
    json.push('\n');
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(json.as_bytes()))
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                let path = path.strip_prefix(".").unwrap_or(&path);
                anyhow!("File {} exists. Remove it first", path.display())
            }
            _ => Error::new(error).context(path.display().to_string()),
        })
}

fn document(rootless: bool, cgroup_v2: bool) -> String {
    let mappings = format!(
        r#"
"uidMappings":[{{"containerID":0,"hostID":{},"size":1}}],
"gidMappings":[{{"containerID":0,"hostID":{},"size":1}}],"#,
        geteuid(),
        getegid()
    );
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    if cgroup_v2 {
        namespaces.push("cgroup");
    }
    if rootless {
        namespaces.retain(|name| *name != "network");
        namespaces.push("user");
    }
    let namespaces = namespaces
        .iter()
        .map(|name| format!(r#"{{"type":"{name}"}}"#));
    let namespaces = namespaces.collect::<Vec<_>>().join(",");
    [
        PROCESS,
        // In a user namespace with one id the group tty is not mapped.
        if rootless { "" } else { r#","gid=5""# },
        SHM,
        if rootless { ROOTLESS_SYS } else { SYS },
        CGROUP,
        if rootless { &mappings } else { RESOURCES },
        "\n\"namespaces\":[",
        &namespaces,
        PATHS,
    ]
    .concat()
}

/// Returns the document with the parts of the network inserted.
fn networked(mut json: String, network: &Parts) -> String {
    const END_OF_MOUNTS: &str = "\n],\n\"linux\":{";
    let mounts = match network.mounts.as_str() {
        "" => String::new(),
        mounts => format!(",\n{mounts}"),
    };
    let properties = &network.properties;
    let end = format!("{mounts}\n],\n{properties}\n\"linux\":{{");
    json = json.replacen(END_OF_MOUNTS, &end, 1);
    if let Some(hostname) = &network.hostname {
        json = json.replacen(
            r#""hostname":"rt""#,
            &format!(r#""hostname":"{hostname}""#),
            1,
        );
    }
    const NETWORK: &str = r#"{"type":"network"}"#;
    match &network.namespace {
        NamespaceChoice::New => json,
        // The comma in front belongs to the pid namespace, which is always the first entry.
        NamespaceChoice::Host => json.replacen(&format!(",{NETWORK}"), "", 1),
        NamespaceChoice::Path(path) => {
            let joined = format!(r#"{{"type":"network","path":"{}"}}"#, path.display());
            json.replacen(NETWORK, &joined, 1)
        }
    }
}

/// Returns `json` with one value per line, indented by tabs, without the line breaks of the source.
/// Works on the text, because a parsed tree would lose the order of the properties.
fn indent(json: &str) -> String {
    let (mut out, mut depth, mut quoted) = (String::new(), 0, false);
    let line = |out: &mut String, depth| {
        out.push('\n');
        out.extend(std::iter::repeat_n('\t', depth));
    };
    for c in json.chars() {
        match c {
            '"' => quoted = !quoted,
            '\n' => continue,
            '}' | ']' if !quoted => {
                depth -= 1;
                line(&mut out, depth);
            }
            _ => {}
        }
        out.push(c);
        match c {
            _ if quoted => {}
            '{' | '[' => {
                depth += 1;
                line(&mut out, depth);
            }
            ',' => line(&mut out, depth),
            ':' => out.push(' '),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxNamespaceType as Type, Spec};

    fn parsed(rootless: bool, cgroup_v2: bool) -> (String, Spec) {
        let json = indent(&document(rootless, cgroup_v2));
        let spec = serde_json::from_str(&json).unwrap();
        crate::config::check(&spec).unwrap();
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
    fn indentation_is_by_tabs() {
        let json = indent("{\"a\":[1,\n\"x:{,\"],\"b\":{\"c\":true}}");
        let expected =
            "{\n\t\"a\": [\n\t\t1,\n\t\t\"x:{,\"\n\t],\n\t\"b\": {\n\t\t\"c\": true\n\t}\n}";
        assert_eq!(json, expected);
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
