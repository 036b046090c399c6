//! Cgroups that a container has made below its own, as chosen with `exec --cgroup`.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};

use super::cgroup_dir::CgroupDir;
use super::cgroups::Cgroup;

/// `[CTRL[,CTRL]:]PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubCgroup {
    controllers: Vec<String>,
    /// Relative, without `..`; empty for the container's cgroup itself.
    path: PathBuf,
}

impl FromStr for SubCgroup {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (controllers, path) = match text.split_once(':') {
            Some((list, path)) => (list.split(',').map(str::to_owned).collect(), path),
            None => (vec![], text),
        };
        ensure!(
            !controllers.iter().any(String::is_empty),
            "a controller without a name"
        );
        ensure!(!path.is_empty(), "no path");
        let mut relative = PathBuf::new();
        for component in Path::new(path).components() {
            match component {
                Component::ParentDir => bail!("`..` is not allowed"),
                Component::Normal(name) => relative.push(name),
                _ => {}
            }
        }
        Ok(Self {
            controllers,
            path: relative,
        })
    }
}

impl Cgroup {
    /// Returns `current`, the cgroups of a process of this container, with those that `chosen`
    /// names in place of its own. The paths in `chosen` are below this container's cgroups. A path
    /// without controllers applies to all hierarchies.
    pub fn choose(&self, mut current: Self, chosen: &[SubCgroup]) -> Result<Self> {
        let mut seen: Vec<&str> = Vec::new();
        for sub in chosen {
            if sub.controllers.is_empty() {
                ensure!(
                    chosen.len() == 1,
                    "--cgroup: one path for all controllers is the only one"
                );
                for own in &self.cgroups {
                    replace(&mut current, &sub.path, own).context("--cgroup")?;
                }
            }
            for name in &sub.controllers {
                let context = || format!("--cgroup {name:?}");
                ensure!(
                    !self.unified,
                    "--cgroup: version 2 has one cgroup for all controllers"
                );
                ensure!(
                    !seen.contains(&&**name),
                    "--cgroup: {name:?} is given twice"
                );
                seen.push(name);
                let own = self
                    .cgroups
                    .iter()
                    .find(|cgroup| cgroup.has_controller(name));
                let own = own.context("the container has no cgroup of this controller");
                replace(&mut current, &sub.path, own.with_context(context)?)
                    .with_context(context)?;
            }
        }
        Ok(current)
    }
}

fn replace(current: &mut Cgroup, path: &Path, own: &CgroupDir) -> Result<()> {
    let directory = own.directory.join(path);
    ensure!(
        directory.is_dir(),
        "{}: no such cgroup",
        directory.display()
    );
    let same = |cgroup: &&mut CgroupDir| cgroup.controllers == own.controllers;
    let cgroup = current
        .cgroups
        .iter_mut()
        .find(same)
        .context("the container has left it")?;
    cgroup.directory.clone_from(&directory);
    cgroup.existing = directory;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_group_has_a_path_and_on_version_1_controllers() {
        let sub = |text: &str| {
            text.parse::<SubCgroup>()
                .ok()
                .map(|sub| (sub.controllers, sub.path))
        };
        assert_eq!(sub("a/b"), Some((vec![], "a/b".into())));
        assert_eq!(sub("/"), Some((vec![], "".into())));
        assert_eq!(
            sub("cpu,cpuacct:/x"),
            Some((vec!["cpu".into(), "cpuacct".into()], "x".into()))
        );
        assert_eq!(sub("pids:a:b"), Some((vec!["pids".into()], "a:b".into())));
        for bad in ["", ":x", "cpu,:x", "cpu:", "..", "a/../../b", "cpu:../x"] {
            assert_eq!(sub(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_controller_is_chosen_once_and_only_where_there_are_several_groups() {
        let subs = |list: &[&str]| {
            list.iter()
                .map(|text| text.parse().unwrap())
                .collect::<Vec<_>>()
        };
        let choose = |unified, list: &[&str]| {
            let cgroup = Cgroup {
                unified,
                ..Cgroup::default()
            };
            cgroup
                .choose(Cgroup::default(), &subs(list))
                .unwrap_err()
                .to_string()
        };
        assert!(choose(true, &["cpu:x"]).contains("one cgroup"));
        assert!(choose(false, &["x", "y"]).contains("the only one"));
        assert!(choose(false, &["cpu:x"]).contains("\"cpu\""));
    }
}
