//! The list `linux.namespaces` of the configuration.

use std::path::Path;

use anyhow::{Result, ensure};
use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType as Type};

use crate::config::text::absolute;

/// The list `linux.namespaces`, which has each type at most once.
pub(super) struct NamespaceList<'a>(&'a [LinuxNamespace]);

impl<'a> NamespaceList<'a> {
    pub(super) fn new(linux: &'a Linux) -> Result<Self> {
        let list = linux.namespaces().as_deref().unwrap_or_default();
        for (i, namespace) in list.iter().enumerate() {
            let path = format_args!("linux.namespaces[{i}]");
            let typ = namespace.typ();
            let twice = list[..i].iter().any(|other| other.typ() == typ);
            ensure!(!twice, "{path}: duplicated ns \"{typ}\"");
            if let Some(joined) = joined(namespace) {
                absolute(format_args!("{path}.path"), joined)?;
            }
        }
        let namespaces = Self(list);
        // `rt` never mounts anything in the host's mount namespace.
        ensure!(
            namespaces.has(Type::Mount),
            "linux.namespaces: a mount namespace is required"
        );
        Ok(namespaces)
    }

    fn get(&self, typ: Type) -> Option<&'a LinuxNamespace> {
        self.0.iter().find(|namespace| namespace.typ() == typ)
    }

    pub(super) fn has(&self, typ: Type) -> bool {
        self.get(typ).is_some()
    }

    pub(super) fn is_new(&self, typ: Type) -> bool {
        self.get(typ)
            .is_some_and(|namespace| joined(namespace).is_none())
    }

    /// Returns the path of a namespace that is joined.
    pub(super) fn path(&self, typ: Type) -> Option<&'a Path> {
        self.get(typ).and_then(joined)
    }
}

fn joined(namespace: &LinuxNamespace) -> Option<&Path> {
    namespace
        .path()
        .as_deref()
        .filter(|path| !path.as_os_str().is_empty())
}
