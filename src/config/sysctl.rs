//! Decides which entries of `linux.sysctl` may be written: those of a namespace that the container
//! has for itself. All others would change the host.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use oci_spec::runtime::LinuxNamespaceType as Type;

use crate::config::namespaces::NamespaceList;
use crate::config::text::text;

const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shm_rmid_forced",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
];

/// Returns the file below `/proc/sys` for a key in the notation of `sysctl(8)`. If the first
/// separator is a slash, the key is the path. Otherwise dots separate the names, and a slash stands
/// for a dot within a name: `net.ipv4.conf.eno2/100.rp_filter`.
pub fn file(key: &str) -> String {
    if key
        .find(['.', '/'])
        .is_some_and(|first| key.as_bytes()[first] == b'/')
    {
        return key.to_owned();
    }
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    key.chars().map(swap).collect()
}

pub(super) fn check_sysctl(key: &str, value: &str, namespaces: &NamespaceList<'_>) -> Result<()> {
    let path = format_args!("linux.sysctl[{key:?}]");
    text(path, key)?;
    text(path, value)?;
    let file = file(key);
    let strange = file.split('/').any(|name| matches!(name, "" | "." | ".."));
    ensure!(!strange, "{path}: not the name of a sysctl");
    let (typ, name) = match file.as_str() {
        file if IPC.contains(&file) || file.starts_with("fs/mqueue/") => (Type::Ipc, "ipc"),
        file if file.starts_with("net/") => (Type::Network, "net"),
        file if file.starts_with("user/") => (Type::User, "user"),
        "kernel/domainname" => (Type::Uts, "uts"),
        "kernel/hostname" => bail!("{path}: stands in conflict with hostname"),
        _ => bail!("{path}: sysctl {key:?} is not in a separate kernel namespace"),
    };
    let separate = namespaces.has(typ);
    ensure!(
        separate,
        "{path}: sysctl {key:?} is not in a separate kernel namespace ({name})"
    );
    let joined = namespaces.path(typ);
    let own = joined.is_some_and(|joined| is_same(joined, &format!("/proc/self/ns/{name}")));
    ensure!(
        !own,
        "{path}: sysctl {key:?} not allowed in host {name} namespace"
    );
    Ok(())
}

/// Whether two paths lead to the same namespace. False if one cannot be read: joining the namespace
/// will report the reason.
fn is_same(a: &Path, b: &str) -> bool {
    match (a.metadata(), Path::new(b).metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_name_the_same_file() {
        for (key, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            (
                "net.ipv4.conf.eno2/100.rp_filter",
                "net/ipv4/conf/eno2.100/rp_filter",
            ),
            (
                "net/ipv4/conf/eno2.100/rp_filter",
                "net/ipv4/conf/eno2.100/rp_filter",
            ),
            ("net.//.x", "net/../x"),
            ("", ""),
        ] {
            assert_eq!(file(key), path, "{key}");
        }
    }
}
