//! The cgroups of a container as `cgroup` mounts inside it show them.

use std::path::Path;

use super::groups::Cgroup;

/// One cgroup as a `cgroup` mount in the container shows it.
pub struct GroupView<'a> {
    /// The directory below `/sys/fs/cgroup` in the container: `cpu,cpuacct`, `systemd`, `unified`;
    /// empty on a host with version 2 alone.
    pub name: &'a str,
    /// The absolute path on the host.
    pub directory: &'a Path,
    pub is_v2: bool,
}

impl Cgroup {
    /// Returns the cgroups for `cgroup` mounts in the container.
    pub fn groups(&self) -> impl Iterator<Item = GroupView<'_>> {
        self.groups.iter().map(|group| {
            let controllers = group.controllers.as_str();
            let named = controllers.strip_prefix("name=");
            let name = if self.unified {
                ""
            } else {
                named.unwrap_or(controllers)
            };
            GroupView {
                name: if group.is_v2() && !self.unified {
                    "unified"
                } else {
                    name
                },
                directory: &group.directory,
                is_v2: group.is_v2(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::group::Group;
    use super::*;

    fn group(controllers: &str, directory: &str, existing: &str) -> Group {
        Group {
            controllers: controllers.into(),
            directory: directory.into(),
            existing: existing.into(),
        }
    }

    #[test]
    fn views_for_mounts() {
        let groups = vec![
            group(
                "cpu,cpuacct",
                "/sys/fs/cgroup/cpu,cpuacct/x",
                "/sys/fs/cgroup/cpu,cpuacct",
            ),
            group(
                "name=systemd",
                "/sys/fs/cgroup/systemd/x",
                "/sys/fs/cgroup/systemd",
            ),
            group("", "/sys/fs/cgroup/unified/x", "/sys/fs/cgroup/unified"),
        ];
        let cgroup = Cgroup {
            groups,
            ..Cgroup::default()
        };
        let views: Vec<_> = cgroup.groups().map(|v| (v.name, v.is_v2)).collect();
        assert_eq!(views[0], ("cpu,cpuacct", false));
        assert_eq!(views[1], ("systemd", false));
        assert_eq!(views[2], ("unified", true));
        let unified = Cgroup {
            unified: true,
            groups: vec![group("", "/sys/fs/cgroup/x", "/")],
            ..Cgroup::default()
        };
        assert_eq!(
            unified.groups().map(|view| view.name).collect::<Vec<_>>(),
            [""]
        );
    }
}
