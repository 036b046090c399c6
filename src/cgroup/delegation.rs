//! Delegation: giving the payload control of a cgroup while its limits stay out of its reach. The
//! cgroup is the container's own, or one below it in which the process starts. Both need a host
//! with version 2 alone: on version 1 delegation is not safe (cgroups(7) "Delegation").

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Mount, Spec};

use super::cgroup_dir::CgroupDir;
use super::cgroups::Cgroup;
use super::directory::Made;
use super::{controllers, file};
use crate::annotations::{self, Annotations as _};
use crate::config::clean;
use crate::namespace::{IdMap, is_root_of_host};

/// The kernel's list of the files that must be given away with a cgroup, one name a line (Linux
/// 4.15).
const KERNELS_LIST: &str = "/sys/kernel/cgroup/delegate";
/// The files to give away if the kernel has no such list (config-linux.md "Cgroup ownership").
const FILES: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// Which cgroup is given to whom. User and group ids are those of the host.
#[derive(Debug)]
pub enum Delegation {
    /// The container's own cgroup (config-linux.md "Cgroup ownership").
    Own { uid: u32 },
    /// A cgroup below it, in which the process starts (`run.oci.delegate-cgroup`). It is given to
    /// the user who is root in the container's user namespace.
    Below {
        path: PathBuf,
        owner: Option<[u32; 2]>,
    },
}

impl Delegation {
    /// Decides what a configuration asks for.
    pub fn plan(
        spec: &Spec,
        annotations: &HashMap<String, String>,
        cgroup: &Cgroup,
    ) -> Result<Option<Self>> {
        let is_v2 = cgroup.is_unified() && !cgroup.is_nowhere();
        let Some(path) = annotations.cgroup(annotations::DELEGATE)? else {
            let owner = owner(spec).filter(|uid| *uid != 0 && is_v2 && is_root_of_host());
            return Ok(owner.map(|uid| Self::Own { uid }));
        };
        annotations::needs_v2(annotations::DELEGATE, is_v2)?;
        let root = |ids| IdMap::new(ids).outside(0);
        let linux = spec.linux().as_ref();
        let owner = linux
            .and_then(|linux| Some([root(linux.uid_mappings())?, root(linux.gid_mappings())?]));
        Ok(Some(Self::Below { path, owner }))
    }
}

/// Returns the user who executes the process if the cgroup is to be given to them: if the container
/// has a new cgroup namespace and its cgroups are mounted writable.
fn owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let namespaces = linux.namespaces().iter().flatten();
    let find = |kind| namespaces.clone().find(|namespace| namespace.typ() == kind);
    let is_new = |namespace: &LinuxNamespace| namespace.path().is_none();
    let mut mounts = spec.mounts().iter().flatten();
    let sees_them = find(LinuxNamespaceType::Cgroup).is_some_and(is_new);
    if !sees_them || !mounts.any(shows_groups_to_write) {
        return None;
    }
    let uid = spec.process().as_ref()?.user().uid();
    match find(LinuxNamespaceType::User) {
        None => Some(uid),
        Some(_) => IdMap::new(linux.uid_mappings()).outside(uid),
    }
}

fn shows_groups_to_write(mount: &Mount) -> bool {
    let is_cgroup = mount.source().as_deref() == Some(Path::new("cgroup"));
    let mut options = mount.options().iter().flatten();
    is_cgroup
        && clean(mount.destination()) == Path::new("/sys/fs/cgroup")
        && !options.any(|word| word == "ro" || word == "rro")
}

impl Cgroup {
    /// Gives away the cgroup of `delegation`, once process `pid` is in the container's cgroup.
    pub fn delegate(&self, delegation: &Delegation, pid: i32) -> Result<()> {
        let own = self.v2().context("the container has no cgroup")?;
        match delegation {
            // A cgroup that existed before the container keeps its owner.
            Delegation::Own { .. } if own.existing == own.directory => Ok(()),
            Delegation::Own { uid } => give(&own.directory, *uid, None),
            Delegation::Below { path, owner } => {
                let directory = own.enclose(path, pid)?;
                owner.map_or(Ok(()), |[uid, gid]| give(&directory, uid, Some(gid)))
            }
        }
    }
}

impl CgroupDir {
    /// Makes the cgroup `path` below this one, moves process `pid` into it, and enables the
    /// available controllers there.
    fn enclose(&self, path: &Path, pid: i32) -> Result<PathBuf> {
        let directory = self.directory.join(path);
        let cgroup = Self {
            directory: directory.clone(),
            existing: self.directory.clone(),
            ..self.clone()
        };
        let mut made = Made::default();
        cgroup.make_missing(&mut made)?;
        let entered = file::write(&directory.join("cgroup.procs"), &pid.to_string());
        entered.with_context(|| directory.display().to_string())?;
        // It is removed with the container's cgroup.
        made.keep();
        controllers::enable_all(&directory)?;
        Ok(directory)
    }
}

/// Changes the owner of the directory and of the files that go with it.
fn give(directory: &Path, uid: u32, gid: Option<u32>) -> Result<()> {
    let list = fs::read_to_string(KERNELS_LIST).unwrap_or_else(|_| FILES.to_owned());
    for path in [directory.to_owned()]
        .into_iter()
        .chain(list.lines().map(|f| directory.join(f)))
    {
        match chown(&path, Some(uid), gid) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(namespaces: &[&str], options: &[&str], ids: serde_json::Value) -> Spec {
        let namespaces: Vec<_> = namespaces
            .iter()
            .map(|kind| json!({ "type": kind }))
            .collect();
        let mount = json!({
            "source": "cgroup", "type": "cgroup", "destination": "/sys/fs/cgroup/", "options": options
        });
        let spec = json!({
            "ociVersion": "1.3.0",
            "process": { "cwd": "/", "user": { "uid": 7, "gid": 8 } },
            "mounts": [mount],
            "linux": { "namespaces": namespaces, "uidMappings": ids }
        });
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn a_group_is_its_users_where_he_sees_nothing_else_and_may_write() {
        let ids = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
        let few = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
        let own = ["cgroup", "user"];
        assert_eq!(
            owner(&spec(&own, &["nosuid", "rw"], ids.clone())),
            Some(1007)
        );
        assert_eq!(owner(&spec(&own, &[], few)), None);
        assert_eq!(owner(&spec(&own, &["ro"], ids.clone())), None);
        assert_eq!(owner(&spec(&["user"], &[], ids)), None);
        assert_eq!(owner(&spec(&["cgroup"], &[], json!([]))), Some(7));
        // The id maps of a user namespace that is joined are not known.
        assert_eq!(owner(&spec(&own, &[], json!([]))), None);
    }
}
