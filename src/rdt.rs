//! Intel RDT, through the resctrl file system. A directory of it is either a class of service,
//! which determines how much of the caches and of the memory bandwidth its tasks get, or a
//! monitoring group. Sources: config-linux.md "IntelRdt", the kernel's
//! Documentation/filesystems/resctrl.rst.

mod stats;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::statfs::statfs;
use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use crate::sys::mount_table;

/// The mount point that resctrl.rst uses.
const USUAL_PLACE: &str = "/sys/fs/resctrl";
/// <linux/magic.h>; nix does not have this constant.
const RDTGROUP_SUPER_MAGIC: i64 = 0x0765_5821;

/// What a container uses of resctrl, as its record stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rdt {
    /// The mount point.
    root: PathBuf,
    /// The directory of the class of service.
    class: PathBuf,
    /// Whether the class is made for this container. It is removed with the container if the
    /// container gave it its name.
    is_new: bool,
    /// The directory of the monitoring group, made for this container.
    monitoring: Option<PathBuf>,
    /// Whether `closID` is absent, so that the class is named after the container.
    is_own: bool,
    /// `l3CacheSchema`, `memBwSchema`, `schemata`, each for one write(2).
    #[serde(skip)]
    schemata: Vec<String>,
    /// Schemata that an existing class must have already.
    #[serde(skip)]
    expected: Vec<String>,
}

impl Rdt {
    /// Decides which class and monitoring group the tasks of container `id` enter, without any side
    /// effect.
    ///
    /// # Errors
    /// No resctrl is mounted; or `closID` names a class that does not exist and no schema is given;
    /// or an existing class has another schema than the configuration.
    pub fn plan(wanted: &LinuxIntelRdt, id: &str) -> Result<Self> {
        let root = mount_point().context("linux.intelRdt")?;
        Self::below(&root, wanted, id)
    }

    fn below(root: &Path, wanted: &LinuxIntelRdt, id: &str) -> Result<Self> {
        let given = wanted.clos_id().as_deref().filter(|name| !name.is_empty());
        let class = match given {
            Some("/") => root.to_owned(),
            name => root.join(name.unwrap_or(id)),
        };
        let text = |schema: &Option<String>| schema.clone().filter(|schema| !schema.is_empty());
        let expected: Vec<String> = [wanted.l3_cache_schema(), wanted.mem_bw_schema()]
            .into_iter()
            .filter_map(text)
            .collect();
        let lines = wanted.schemata().as_deref().unwrap_or_default();
        let mut schemata = expected.clone();
        if !lines.is_empty() {
            schemata.push(lines.join("\n"));
        }
        let is_new = !class.is_dir();
        if is_new && given.is_some() && schemata.is_empty() {
            bail!(
                "linux.intelRdt.closID: {} does not exist, and no schema is given",
                class.display()
            );
        }
        let monitored = wanted.enable_monitoring().unwrap_or(false);
        let this = Self {
            root: root.to_owned(),
            monitoring: monitored.then(|| class.join("mon_groups").join(id)),
            is_own: given.is_none(),
            is_new,
            class,
            schemata,
            expected,
        };
        if !is_new && given.is_some() {
            this.compare()?;
        }
        Ok(this)
    }

    /// Makes the directories and writes the schemata.
    pub fn create(&mut self) -> Result<()> {
        self.make()?;
        self.configure()
    }

    /// Makes the directories. One that could not be made is not recorded for removal, since it
    /// belongs to somebody else.
    fn make(&mut self) -> Result<()> {
        if self.is_new
            && let Err(error) = fs::create_dir(&self.class)
        {
            (self.is_new, self.monitoring) = (false, None);
            return Err(self.explain(error.into(), &self.class));
        }
        let Some(monitoring) = &self.monitoring else {
            return Ok(());
        };
        if let Err(error) = fs::create_dir(monitoring) {
            let error = self.explain(error.into(), monitoring);
            self.monitoring = None;
            return Err(error).context("linux.intelRdt.enableMonitoring");
        }
        Ok(())
    }

    fn configure(&self) -> Result<()> {
        self.schemata
            .iter()
            .try_for_each(|schema| self.write(schema))
    }

    /// Writes `schema` with one write(2), of which the kernel takes all lines or none.
    pub fn write(&self, schema: &str) -> Result<()> {
        let path = self.class.join("schemata");
        let written = open_file(&path)?.write_all(format!("{schema}\n").as_bytes());
        written
            .map_err(|error| self.explain(error.into(), &path))
            .with_context(|| format!("linux.intelRdt {schema:?}"))
    }

    /// Returns the lines for [`Self::write`] that undo a write of `schema`.
    pub fn undo_of(&self, schema: &str) -> Result<String> {
        let path = self.class.join("schemata");
        let now = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let name = |line: &str| resource(line).map(|(name, _)| name.to_owned());
        let wanted: Vec<_> = schema.lines().map(name).collect();
        let lines = now.lines().filter(|line| wanted.contains(&name(line)));
        Ok(lines.map(str::trim).collect::<Vec<_>>().join("\n"))
    }

    /// Puts process `pid` into the class, then into the monitoring group, which accepts only tasks
    /// of its class.
    pub fn enter(&self, pid: i32) -> Result<()> {
        for directory in [Some(&self.class), self.monitoring.as_ref()]
            .into_iter()
            .flatten()
        {
            let path = directory.join("tasks");
            open_file(&path)?
                .write_all(pid.to_string().as_bytes())
                .map_err(|error| self.explain(error.into(), &path))
                .context("linux.intelRdt")?;
        }
        Ok(())
    }

    /// Removes the class or the monitoring group that was made for this container alone.
    pub fn remove(&self) -> Result<()> {
        // Removing a class also removes its monitoring groups.
        let made = match (self.is_own && self.is_new, &self.monitoring) {
            (true, _) => &self.class,
            (false, Some(monitoring)) => monitoring,
            (false, None) => return Ok(()),
        };
        match fs::remove_dir(made) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| made.display().to_string())
            }
            _ => Ok(()),
        }
    }

    /// Refuses an existing class whose schemata differ from those of the configuration.
    fn compare(&self) -> Result<()> {
        if self.expected.is_empty() {
            return Ok(());
        }
        let path = self.class.join("schemata");
        let current = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for line in self.expected.iter().flat_map(|schema| schema.lines()) {
            ensure!(
                agrees(line, &current),
                "linux.intelRdt {line:?}: {} has another schema",
                self.class.display()
            );
        }
        Ok(())
    }

    /// Adds the text of resctrl's `info/last_cmd_status`, which says more than an errno.
    fn explain(&self, error: anyhow::Error, path: &Path) -> anyhow::Error {
        let status = fs::read_to_string(self.root.join("info/last_cmd_status")).unwrap_or_default();
        match status.trim() {
            "" | "ok" => error.context(path.display().to_string()),
            status => error.context(format!("{}: {status}", path.display())),
        }
    }
}

fn mount_point() -> Result<PathBuf> {
    let usual = Path::new(USUAL_PLACE);
    if statfs(usual).is_ok_and(|stat| stat.filesystem_type().0 == RDTGROUP_SUPER_MAGIC) {
        return Ok(usual.to_owned());
    }
    let mounts = mount_table::of_process("self")?;
    let found = mounts.iter().find(|mount| mount.fs_type == "resctrl");
    found
        .map(mount_table::point_of)
        .context("no resctrl file system is mounted")
}

fn open_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .with_context(|| path.display().to_string())
}

/// Whether each domain of `line`, such as `L3:0=7f0;1=1f`, has the same value in the file
/// `schemata`. The kernel may write the same numbers in another order and with leading zeros.
fn agrees(line: &str, schemata: &str) -> bool {
    let Some((name, wanted)) = resource(line) else {
        return false;
    };
    let current = schemata
        .lines()
        .filter_map(resource)
        .find(|(current, _)| *current == name);
    current.is_some_and(|(_, current)| wanted.iter().all(|domain| current.contains(domain)))
}

/// Returns the resource and the domains of a line of `schemata`.
fn resource(line: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let (name, domains) = line.trim().split_once(':')?;
    let domains = domains
        .split(';')
        .filter_map(|domain| domain.split_once('='));
    Some((
        name.trim(),
        domains
            .map(|(id, value)| (number(id), number(value)))
            .collect(),
    ))
}

/// Returns the digits without leading zeros.
fn number(text: &str) -> &str {
    let digits = text.trim();
    let bare = digits.trim_start_matches('0');
    if bare.is_empty() {
        &digits[digits.len().saturating_sub(1)..]
    } else {
        bare
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A directory that looks like a resctrl file system with one class, `gold`.
    pub(super) struct Made(pub(super) PathBuf);

    impl Made {
        pub(super) fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("rt-rdt-{name}-{}", std::process::id()));
            let made = Self(root);
            made.class("");
            made.class("gold");
            fs::create_dir(made.0.join("info")).unwrap();
            fs::write(made.0.join("info/last_cmd_status"), "ok\n").unwrap();
            made
        }

        /// Makes a class with the files that the kernel puts into a new directory.
        fn class(&self, name: &str) -> PathBuf {
            let class = self.0.join(name);
            fs::create_dir_all(class.join("mon_groups")).unwrap();
            fs::write(class.join("tasks"), "").unwrap();
            fs::write(
                class.join("schemata"),
                "    MB:0= 20;1=070\n    L3:0=007f0;1=0001f\n",
            )
            .unwrap();
            class
        }

        pub(super) fn plan(&self, config: serde_json::Value) -> Result<Rdt> {
            let wanted = serde_json::from_str(&config.to_string()).unwrap();
            Rdt::below(&self.0, &wanted, "box")
        }

        fn refusal(&self, config: serde_json::Value) -> String {
            format!("{:#}", self.plan(config).unwrap_err())
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap()
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn without_a_class_the_container_gets_one_of_its_own_which_goes_with_it() {
        let made = Made::new("own");
        let mut rdt = made
            .plan(json!({ "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=50" }))
            .unwrap();
        rdt.make().unwrap();
        made.class("box");
        rdt.configure().unwrap();
        // A file keeps the end of the longer first write; resctrl reads each write separately.
        assert!(
            made.read("box/schemata").starts_with("MB:0=50\n"),
            "the last one written"
        );
        rdt.enter(4711).unwrap();
        assert_eq!(made.read("box/tasks"), "4711");
        assert_eq!(made.read("tasks"), "");
        fs::remove_dir_all(made.0.join("box")).unwrap();
        fs::create_dir(made.0.join("box")).unwrap();
        rdt.remove().unwrap();
        assert!(!made.0.join("box").exists());
        rdt.remove().unwrap();
    }

    #[test]
    fn the_schemata_are_written_last_and_line_by_line() {
        let made = Made::new("lines");
        let lines = json!({ "closID": "gold", "schemata": ["L3:0=7f0;1=1f", "L2:0=f", "MB:0=20"] });
        made.plan(lines).unwrap().configure().unwrap();
        assert!(
            made.read("gold/schemata")
                .starts_with("L3:0=7f0;1=1f\nL2:0=f\nMB:0=20\n")
        );
    }

    #[test]
    fn a_class_of_the_administrators_stays_and_must_be_as_configured() {
        let made = Made::new("gold");
        let same =
            json!({ "closID": "gold", "l3CacheSchema": "L3:1=1f;0=7f0", "memBwSchema": "MB:1=70" });
        let mut rdt = made.plan(same).unwrap();
        rdt.create().unwrap();
        rdt.remove().unwrap();
        assert!(made.0.join("gold/tasks").exists());
        let other = made.refusal(json!({ "closID": "gold", "l3CacheSchema": "L3:0=7f0;1=1e" }));
        assert!(other.contains("another schema"), "{other}");
        let none = made.refusal(json!({ "closID": "silver" }));
        assert!(none.contains("silver does not exist"), "{none}");
        assert!(made.plan(json!({ "closID": "gold" })).is_ok());
    }

    #[test]
    fn a_new_class_with_a_name_stays_when_the_container_goes() {
        let made = Made::new("named");
        let mut rdt = made
            .plan(json!({ "closID": "silver", "memBwSchema": "MB:0=50" }))
            .unwrap();
        rdt.make().unwrap();
        rdt.remove().unwrap();
        assert!(made.0.join("silver").exists());
    }

    #[test]
    fn the_root_is_the_default_class() {
        let made = Made::new("root");
        let mut rdt = made.plan(json!({ "closID": "/" })).unwrap();
        rdt.create().unwrap();
        rdt.enter(42).unwrap();
        assert_eq!(made.read("tasks"), "42");
        rdt.remove().unwrap();
    }

    #[test]
    fn monitoring_is_a_group_in_the_class_which_goes_with_the_container() {
        let made = Made::new("monitoring");
        let mut rdt = made
            .plan(json!({ "closID": "gold", "enableMonitoring": true }))
            .unwrap();
        rdt.make().unwrap();
        let group = made.0.join("gold/mon_groups/box");
        fs::write(group.join("tasks"), "").unwrap();
        rdt.enter(42).unwrap();
        assert_eq!(made.read("gold/tasks"), "42");
        assert_eq!(made.read("gold/mon_groups/box/tasks"), "42");
        fs::remove_file(group.join("tasks")).unwrap();
        rdt.remove().unwrap();
        assert!(!group.exists() && made.0.join("gold").exists());
    }

    #[test]
    fn what_somebody_else_has_made_is_not_taken_away() {
        let made = Made::new("race");
        let mut rdt = made.plan(json!({ "enableMonitoring": true })).unwrap();
        made.class("box");
        assert!(rdt.make().is_err());
        fs::remove_dir_all(made.0.join("box")).unwrap();
        fs::create_dir(made.0.join("box")).unwrap();
        rdt.remove().unwrap();
        assert!(made.0.join("box").exists());
    }

    #[test]
    fn a_change_of_schemata_can_be_undone() {
        let made = Made::new("change");
        let rdt = made.plan(json!({ "closID": "gold" })).unwrap();
        let before = "MB:0= 20;1=070\nL3:0=007f0;1=0001f";
        assert_eq!(rdt.undo_of("L3:0=f\nMB:0=50").unwrap(), before);
        assert_eq!(rdt.undo_of("L3:1=f").unwrap(), "L3:0=007f0;1=0001f");
        assert_eq!(rdt.undo_of("L2:0=f").unwrap(), "");
        rdt.write("L3:0=f\nMB:0=50").unwrap();
        assert!(made.read("gold/schemata").starts_with("L3:0=f\nMB:0=50\n"));
    }

    #[test]
    fn a_refusal_of_the_kernel_is_quoted() {
        let made = Made::new("quote");
        fs::write(
            made.0.join("info/last_cmd_status"),
            "Mask f1 has non-consecutive 1-bits\n",
        )
        .unwrap();
        let rdt = made.plan(json!({ "closID": "gold" })).unwrap();
        let error = rdt.explain(nix::errno::Errno::EINVAL.into(), Path::new("schemata"));
        assert_eq!(
            crate::error::line(&error),
            "schemata: Mask f1 has non-consecutive 1-bits: Invalid argument"
        );
    }

    #[test]
    fn numbers_are_compared_and_not_their_spelling() {
        let file = "    L3:0=00ff;1=0000\nL2:0=f\n";
        for same in ["L3:0=ff", "L3:1=0;0=0ff", "L2:00=f", "L3:0=ff;"] {
            assert!(agrees(same, file), "{same}");
        }
        for other in ["L3:0=fe", "L3:2=ff", "MB:0=20", "L3", ""] {
            assert!(!agrees(other, file), "{other}");
        }
    }
}
