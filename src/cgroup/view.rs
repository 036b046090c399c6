//! The cgroups of a container as `cgroup` mounts inside it show them.

use std::path::Path;

use super::cgroups::Cgroup;

/// One cgroup as a `cgroup` mount in the container shows it.
pub struct CgroupView<'a> {
    /// The directory below `/sys/fs/cgroup` in the container: `cpu,cpuacct`, `systemd`, `unified`;
    /// empty on a host with version 2 alone.
    pub name: &'a str,
    /// The absolute path on the host.
    pub directory: &'a Path,
    pub is_v2: bool,
}

impl Cgroup {
    /// Returns the cgroups for `cgroup` mounts in the container.
    pub fn views(&self) -> impl Iterator<Item = CgroupView<'_>> {
        self.cgroups.iter().map(|cgroup| {
            let controllers = cgroup.controllers.as_str();
            let named = controllers.strip_prefix("name=");
            let name = if self.unified {
                ""
            } else {
                named.unwrap_or(controllers)
            };
            CgroupView {
                name: if cgroup.is_v2() && !self.unified {
                    "unified"
                } else {
                    name
                },
                directory: &cgroup.directory,
                is_v2: cgroup.is_v2(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::cgroup_dir::CgroupDir;
    use super::*;

    fn directory(controllers: &str, directory: &str, existing: &str) -> CgroupDir {
        CgroupDir {
            controllers: controllers.into(),
            directory: directory.into(),
            existing: existing.into(),
        }
    }

    #[test]
    fn views_for_mounts() {
        let cgroups = vec![
            directory(
                "cpu,cpuacct",
                "/sys/fs/cgroup/cpu,cpuacct/x",
                "/sys/fs/cgroup/cpu,cpuacct",
            ),
            directory(
                "name=systemd",
                "/sys/fs/cgroup/systemd/x",
                "/sys/fs/cgroup/systemd",
            ),
            directory("", "/sys/fs/cgroup/unified/x", "/sys/fs/cgroup/unified"),
        ];
        let cgroup = Cgroup {
            cgroups,
            ..Cgroup::default()
        };
        let views: Vec<_> = cgroup.views().map(|v| (v.name, v.is_v2)).collect();
        assert_eq!(views[0], ("cpu,cpuacct", false));
        assert_eq!(views[1], ("systemd", false));
        assert_eq!(views[2], ("unified", true));
        let unified = Cgroup {
            unified: true,
            cgroups: vec![directory("", "/sys/fs/cgroup/x", "/")],
            ..Cgroup::default()
        };
        assert_eq!(
            unified.views().map(|view| view.name).collect::<Vec<_>>(),
            [""]
        );
    }
}
