//! Finds the directories of cgroups, without reading the mount table where possible: the cost of
//! reading it grows with everything that the host has mounted.

use std::cell::OnceCell;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};
use procfs::process::MountInfo;

use super::cgroup_dir::CgroupDir;
use super::hierarchy::{
    Membership, ROOT, UNIFIED, Version, existing_ancestor, mount_names, version,
};
use crate::sys::mount_table;

/// A mounted hierarchy: the cgroup `root` of it is visible at `point`.
#[derive(Clone, Debug)]
struct Mount {
    point: PathBuf,
    root: PathBuf,
}

/// Finds the directories of cgroups. Reads the mount table at most once, and only for a version 1
/// hierarchy that is not mounted where its name suggests.
#[derive(Default)]
pub(super) struct Finder {
    mounts: OnceCell<Vec<MountInfo>>,
}

impl Finder {
    /// Returns the cgroup `path`: absolute from the root of the hierarchy, or relative. A relative
    /// path begins at the cgroup `own` on version 1, and at the one above it on version 2, where a
    /// cgroup with processes cannot have limited cgroups below it. None if the hierarchy is mounted
    /// nowhere.
    pub(super) fn place(&self, own: &Membership, path: &Path) -> Result<Option<CgroupDir>> {
        self.first(own, |mount| {
            let mut inside = mount.inside(&own.path).unwrap_or_default();
            if own.version() == Version::V2 {
                inside.pop();
            }
            let mut bases = vec![PathBuf::new()];
            if path.is_relative() && inside != bases[0] {
                bases.insert(0, inside);
            }
            for base in bases {
                let base = mount.point.join(base);
                let directory = base.join(path.strip_prefix("/").unwrap_or(path));
                if let Some(existing) = existing_ancestor(&directory, &base, own.version())? {
                    let controllers = own.controllers.clone();
                    return Ok(Some(CgroupDir {
                        controllers,
                        directory,
                        existing,
                    }));
                }
            }
            Ok(None)
        })
    }

    /// Returns the existing cgroup that `membership` names. None if the hierarchy is mounted
    /// nowhere.
    pub(super) fn existing(&self, membership: &Membership) -> Result<Option<CgroupDir>> {
        refuse_outside(membership)?;
        self.first(membership, |mount| {
            let Some(inside) = mount.inside(&membership.path) else {
                return Ok(None);
            };
            let directory = mount.point.join(inside);
            Ok(
                (version(&directory)? == Some(membership.version())).then(|| CgroupDir {
                    controllers: membership.controllers.clone(),
                    existing: directory.clone(),
                    directory,
                }),
            )
        })
    }

    /// Tries `find` on each mount of a hierarchy, beginning with the places that its name suggests.
    fn first(
        &self,
        membership: &Membership,
        find: impl Fn(&Mount) -> Result<Option<CgroupDir>>,
    ) -> Result<Option<CgroupDir>> {
        let controllers = &membership.controllers;
        let unified = membership.version() == Version::V2;
        let names = if unified {
            vec![UNIFIED.to_owned()]
        } else {
            mount_names(controllers)
        };
        for name in names {
            let found = find(&Mount {
                point: Path::new(ROOT).join(name),
                root: "/".into(),
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        if unified {
            return Ok(None);
        }
        for info in self
            .mounts()?
            .iter()
            .filter(|info| shows(info, controllers))
        {
            let mount = Mount {
                point: mount_table::point_of(info),
                root: mount_table::root_of(info),
            };
            let found = find(&mount)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn mounts(&self) -> Result<&[MountInfo]> {
        if let Some(mounts) = self.mounts.get() {
            return Ok(mounts);
        }
        let mounts = mount_table::of_process("self")?;
        Ok(self.mounts.get_or_init(|| mounts))
    }
}

impl Mount {
    /// Returns `path` of the hierarchy relative to the mount point; None if it is not visible
    /// there.
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.root).ok().map(Path::to_owned)
    }
}

fn shows(info: &MountInfo, controllers: &str) -> bool {
    let has = |option: &str| match option.split_once('=') {
        Some((key, value)) => info.super_options.get(key) == Some(&Some(value.to_owned())),
        None => info.super_options.contains_key(option),
    };
    info.fs_type == "cgroup" && controllers.split(',').all(has)
}

/// Returns the cgroup `path` on a host with version 2 alone. A relative path makes a sibling of the
/// cgroup `own`: no controller could be enabled below `own`, since it has processes.
pub(super) fn place_unified(own: Option<&Membership>, path: &Path) -> Result<CgroupDir> {
    let root = Path::new(ROOT);
    let above = own
        .and_then(|own| own.path.parent())
        .unwrap_or(Path::new("/"));
    let above = root.join(above.strip_prefix("/").unwrap_or(above));
    for base in [above.as_path(), root] {
        let directory = base.join(path.strip_prefix("/").unwrap_or(path));
        if let Some(existing) = existing_ancestor(&directory, base, Version::V2)? {
            return Ok(CgroupDir {
                controllers: String::new(),
                directory,
                existing,
            });
        }
    }
    bail!("{ROOT}: not a cgroup2 file system")
}

/// Returns the existing cgroup that `membership` names on a host with version 2 alone.
pub(super) fn existing_unified(membership: &Membership) -> Result<CgroupDir> {
    refuse_outside(membership)?;
    let path = &membership.path;
    let directory = Path::new(ROOT).join(path.strip_prefix("/").unwrap_or(path));
    Ok(CgroupDir {
        controllers: String::new(),
        existing: directory.clone(),
        directory,
    })
}

/// Refuses the path of a process in another cgroup namespace, which leads out of this namespace's
/// root.
fn refuse_outside(membership: &Membership) -> Result<()> {
    if membership
        .path
        .components()
        .any(|part| part == Component::ParentDir)
    {
        bail!(
            "{}: outside of this cgroup namespace",
            membership.path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_mounted_part_of_a_hierarchy() {
        let mount = Mount {
            point: "/c".into(),
            root: "/docker/x".into(),
        };
        assert_eq!(mount.inside(Path::new("/docker/x/rt")), Some("rt".into()));
        assert_eq!(mount.inside(Path::new("/docker/xy")), None);
    }
}
