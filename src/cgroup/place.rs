//! Decides where the cgroups of a container are, without any side effect.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::cgroup_dir::CgroupDir;
use super::cgroups::Cgroup;
use super::finder::{self, Finder};
use super::hierarchy::{self, Version};
use super::limits::Limits;
use super::systemd::Unit;
use crate::annotations::{self, Annotations as _};
use crate::config::clean;

impl Cgroup {
    /// Decides where the cgroups of container `id` are, without any side effect. `path` is
    /// `linux.cgroupsPath`. An absolute path starts at the mount point of each hierarchy. A
    /// relative one, or `id` if there is none, is below rt's own cgroup on version 1 and beside it
    /// on version 2, also on a hybrid host.
    pub fn plan(path: Option<&Path>, id: &str) -> Result<Self> {
        let path = normalise(path.unwrap_or(Path::new(id))).with_context(|| {
            format!(
                "linux.cgroupsPath: {}",
                path.unwrap_or(Path::new(id)).display()
            )
        })?;
        Self::place(&path)
    }

    /// Decides where the cgroups are that systemd makes; `path` is `slice:prefix:name`. Asks the
    /// user's systemd manager for its cgroup, unless `rt` runs as root outside of a user namespace.
    pub fn plan_unit(
        path: Option<&Path>,
        id: &str,
        annotations: &HashMap<String, String>,
    ) -> Result<Self> {
        let (unit, path) = Unit::plan(path, id)?;
        let mut cgroup = Self {
            unit: Some(unit),
            ..Self::place(&path)?
        };
        let sub = annotations.cgroup(annotations::SUBGROUP)?;
        if sub.is_some() {
            annotations::needs_v2(annotations::SUBGROUP, cgroup.unified)?;
        }
        for placed in &mut cgroup.cgroups {
            // Slices belong to systemd, also those that it makes for this scope. In hierarchies
            // where systemd makes none, the last container in them removes them.
            let above = if placed.is_managed() {
                1
            } else {
                path.iter().count() - 1
            };
            let existing = placed.directory.ancestors().nth(above);
            placed.existing = existing.unwrap_or(Path::new("/")).to_owned();
            placed.directory.extend(&sub);
        }
        Ok(cgroup)
    }

    fn place(path: &Path) -> Result<Self> {
        if hierarchy::host_is_unified()? {
            let own = if path.is_absolute() {
                vec![]
            } else {
                hierarchy::memberships("self")?
            };
            let own = own.iter().find(|own| own.version() == Version::V2);
            let cgroups = vec![finder::place_unified(own, path)?];
            return Ok(Self {
                unified: true,
                cgroups,
                ..Self::default()
            });
        }
        let finder = Finder::default();
        let mut cgroups = Vec::new();
        for own in hierarchy::memberships("self")? {
            cgroups.extend(finder.place(&own, path)?);
        }
        Ok(Self {
            cgroups,
            ..Self::default()
        })
    }

    /// Returns the cgroups that process `pid` is in now; a systemd in a container moves itself, for
    /// instance. They can be entered and read, but nothing in them is ever killed, and none is
    /// removed.
    pub fn of_process(pid: i32) -> Result<Self> {
        let unified = hierarchy::host_is_unified()?;
        let finder = Finder::default();
        let mut cgroups = Vec::new();
        for membership in hierarchy::memberships(&pid.to_string())? {
            match (unified, membership.version()) {
                (true, Version::V2) => cgroups.push(finder::existing_unified(&membership)?),
                (true, Version::V1) => {}
                (false, _) => cgroups.extend(finder.existing(&membership)?),
            }
        }
        Ok(Self {
            unified,
            cgroups,
            ..Self::default()
        })
    }

    /// For a user without rights on the host: leaves out the cgroups that may not be made or
    /// entered, and the device rules, which the user could not set anyway. `is_named` says whether
    /// the configuration has a path for the cgroups.
    /// # Errors
    /// The configuration names a path that cannot be used, or sets a limit in a cgroup that is left
    /// out.
    pub fn leave_out_unwritable(&mut self, is_named: bool, limits: &mut Limits) -> Result<()> {
        const WHO: &str =
            "container could not join or create cgroup (one that is delegated to the user)";
        limits.devices = None;
        let own = hierarchy::memberships("self")?;
        let (unified, is_unit) = (self.unified, self.unit.is_some());
        let (kept, lost): (Vec<_>, Vec<_>) =
            self.cgroups.drain(..).partition(|cgroup| match is_unit {
                // systemd makes the cgroup and moves the process. On version 1 it can give a user
                // no other cgroups than those of its own hierarchy.
                true => unified || cgroup.is_systemds(),
                false => cgroup.may_be_made(&own),
            });
        self.cgroups = kept;
        for cgroup in &lost {
            let directory = cgroup.directory.display();
            if is_named && !is_unit {
                bail!("linux.cgroupsPath: {directory}: {WHO}");
            }
            if let Some(field) = limits.field_of(cgroup) {
                let limit = field
                    .trim_start_matches("linux.resources.")
                    .split('.')
                    .next();
                let limit = limit.unwrap_or_default();
                bail!("{field}: {directory}: cannot set {limit} limit: {WHO}");
            }
        }
        Ok(())
    }

    /// Leaves out every cgroup, and the device rules with them.
    ///
    /// # Errors
    /// The configuration asks for a limit.
    pub fn leave_out_all(&mut self, limits: &mut Limits) -> Result<()> {
        limits.devices = None;
        for cgroup in self.cgroups.drain(..) {
            if let Some(field) = limits.field_of(&cgroup) {
                bail!("{field}: not with --cgroup-manager disabled");
            }
        }
        Ok(())
    }

    /// Keeps only the cgroups on hierarchies where `other` has one.
    pub fn where_also(mut self, other: &Self) -> Self {
        let has = |cgroup: &CgroupDir| {
            other
                .cgroups
                .iter()
                .any(|o| o.controllers == cgroup.controllers)
        };
        self.cgroups.retain(has);
        self
    }
}

/// Removes `.`, doubled slashes and `..` from a path, where `..` stops at the root or at the
/// beginning of a relative path. Refuses a path that then names no cgroup.
pub(super) fn normalise(path: &Path) -> Result<PathBuf> {
    let clean = clean(path);
    if clean.file_name().is_none() {
        bail!("names no cgroup");
    }
    Ok(match clean.strip_prefix("/") {
        Ok(relative) if path.is_relative() => relative.to_owned(),
        _ => clean,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_its_hierarchy() {
        assert_eq!(normalise(Path::new("/a//./b/")).unwrap(), Path::new("/a/b"));
        assert_eq!(normalise(Path::new("a/b")).unwrap(), Path::new("a/b"));
        assert_eq!(
            normalise(Path::new("system.slice:rt:1"))
                .unwrap()
                .as_os_str(),
            "system.slice:rt:1"
        );
        for (path, normal) in [
            ("/a/../b", "/b"),
            ("/../../x", "/x"),
            ("../../x", "x"),
            ("a/../../b/c/..", "b"),
        ] {
            assert_eq!(
                normalise(Path::new(path)).unwrap(),
                Path::new(normal),
                "{path}"
            );
        }
        for bad in ["/..", "..", "/a/..", "a/../..", "/", ".", ""] {
            assert!(normalise(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
