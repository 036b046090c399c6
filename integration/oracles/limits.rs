//! The limits of a configuration, written by `rt` and by cgroups-rs: the control files have to be
//! the same in both cgroups afterwards.

mod table;
mod view;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::json;

use crate::disk::Disk;
use crate::temp::TempDir;
use table::{
    APPLIED, LimitCase, REFUSED, RESULT, RIGHT_DIFFERENCES, RightDifference, STATED, cases,
};
use view::{CgroupVersion, ControlFiles, report};

#[test]
fn limits_are_those_that_cgroups_rs_writes() {
    let possible = [CgroupVersion::V1, CgroupVersion::V2].into_iter().filter(|v| v.is_possible());
    let compared: BTreeSet<&str> = possible.flat_map(compare).collect();
    // What the Makefile knows to be there, in a guest.
    let stated = std::env::var("RT_CONTROL_FILES").unwrap_or_default();
    let left: Vec<_> = stated.split_whitespace().filter(|file| !compared.contains(file)).collect();
    assert!(!compared.is_empty() && left.is_empty(), "not compared: {left:?}");
}

/// Compares all limits that the view of a version has. Returns their control files.
fn compare(version: CgroupVersion) -> BTreeSet<&'static str> {
    let disk = Disk::new();
    let new = files_of_new_cgroup(version);
    let cases = cases(disk.numbers());
    let has_case = |name| cases.iter().any(|case| case.name == name);
    assert!(RIGHT_DIFFERENCES.iter().all(|right| has_case(right.case)), "a row without its case");
    let (mut compared, mut left_out, mut wrong) = (BTreeSet::new(), vec![], vec![]);
    for case in &cases {
        let files = case.files(version);
        match files.iter().find(|file| !new.contains_key(**file)) {
            None if files.is_empty() => left_out.push(format!("{} (no such limit)", case.name)),
            Some(file) => left_out.push(format!("{} (no {file})", case.name)),
            None => {
                compared.extend(files.iter().copied());
                wrong.extend(unexpected(version, case, &new));
            }
        }
    }
    report(&format!("not compared on {version:?}: {}", left_out.join(", ")));
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_stated(version, &compared);
    compared
}

/// What the control files are that a cgroup has in this view.
fn files_of_new_cgroup(version: CgroupVersion) -> ControlFiles {
    let pair = Pair::new(version);
    let done = version.writer("write", &pair.of_cgroups_rs, "{}");
    assert!(done.status.success(), "{version:?}: {done:?}");
    version.read(&pair.of_cgroups_rs)
}

/// Every controller of the view was compared, and there is one.
fn assert_stated(version: CgroupVersion, compared: &BTreeSet<&str>) {
    let controllers = version.controllers();
    let is_here = |name: &str| controllers.iter().any(|controller| controller == name);
    let stated: Vec<&str> = STATED
        .iter()
        .filter(|(of, controller, _)| *of == version && is_here(controller))
        .map(|(_, _, file)| *file)
        .collect();
    assert!(!stated.is_empty(), "{version:?}: {controllers:?}: nothing to compare");
    let left: Vec<_> = stated.iter().filter(|file| !compared.contains(**file)).collect();
    assert!(left.is_empty(), "{version:?}: not compared: {left:?}");
    let files = Vec::from_iter(compared.iter().copied()).join(" ");
    report(&format!("compared on {version:?}: {files}"));
}

/// Lines about the differences of a case that are not listed, and about those that are listed and
/// are not there. `new` are the files of a new cgroup.
fn unexpected(version: CgroupVersion, case: &LimitCase, new: &ControlFiles) -> Vec<String> {
    let pair = Pair::new(version);
    let [(rt, rt_says), (other, other_says)] =
        [pair.write_by_rt(case), pair.write_by_cgroups_rs(case)];
    let names: BTreeSet<&String> = rt.keys().chain(other.keys()).collect();
    let listed = |file: &str| {
        let of = |one: &&RightDifference| {
            one.version == version && one.case == case.name && one.file == file
        };
        RIGHT_DIFFERENCES.iter().find(of)
    };
    let mut lines = vec![];
    for file in names {
        let values @ [mine, its] =
            [&rt, &other].map(|files| files.get(file).map_or("", String::as_str));
        let right = listed(file).map(|one| one.values(new));
        if right.map_or(mine != its, |right| values != right) {
            let says = if file == RESULT { &*format!("{rt_says}{other_says}") } else { "" };
            lines.push(format!(
                "{version:?} {}: {file}: rt {mine:?}, cgroups-rs {its:?}, listed {right:?} {says}",
                case.name
            ));
        }
    }
    lines
}

/// Two cgroups beside each other.
struct Pair {
    version: CgroupVersion,
    directory: TempDir,
    of_rt: String,
    of_cgroups_rs: String,
}

impl Pair {
    fn new(version: CgroupVersion) -> Self {
        let directory = TempDir::new();
        let mark = directory.mark();
        let (of_rt, of_cgroups_rs) = (format!("{mark}-rt"), format!("{mark}-cgroups-rs"));
        Self { version, of_rt, of_cgroups_rs, directory }
    }

    fn rt(&self, words: &[&str]) -> Command {
        let program =
            std::env::var("RT").expect("RT: the program to test, as make test-oracles sets it");
        let mut command = self.version.command(&program, &["--root"]);
        command.arg(self.directory.path().join("state")).args(words);
        command
    }

    /// Creates a container without a process: init waits in its cgroup and needs nothing else.
    fn write_by_rt(&self, case: &LimitCase) -> (ControlFiles, String) {
        let bundle = self.directory.path();
        fs::create_dir(bundle.join("rootfs")).unwrap();
        let config = json!({
            "ociVersion": "1.2.0",
            "root": { "path": "rootfs" },
            "linux": {
                "cgroupsPath": format!("/{}", self.of_rt),
                "namespaces": [{ "type": "mount" }, { "type": "pid" }],
                "resources": case.resources,
            },
        });
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let says = bundle.join("says");
        let mut command = self.rt(&["create", "--bundle", bundle.to_str().unwrap(), &self.of_rt]);
        let file = fs::File::create(&says).unwrap();
        let status = command.stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
        if !status.success() {
            return (refused(), fs::read_to_string(&says).unwrap());
        }
        (self.applied(&self.of_rt), String::new())
    }

    fn write_by_cgroups_rs(&self, case: &LimitCase) -> (ControlFiles, String) {
        let text = case.resources.to_string();
        let done = self.version.writer("write", &self.of_cgroups_rs, &text);
        let mut files = self.applied(&self.of_cgroups_rs);
        if !done.status.success() {
            files.extend(refused());
        }
        (files, String::from_utf8_lossy(&done.stderr).into_owned())
    }

    fn applied(&self, cgroup: &str) -> ControlFiles {
        let mut files = self.version.read(cgroup);
        files.insert(RESULT.to_owned(), APPLIED.to_owned());
        files
    }
}

fn refused() -> ControlFiles {
    ControlFiles::from([(RESULT.to_owned(), REFUSED.to_owned())])
}

impl Drop for Pair {
    fn drop(&mut self) {
        let state = self.directory.path().join("state").join(&self.of_rt);
        let deleted = !state.exists()
            || self.rt(&["delete", "--force", &self.of_rt]).status().unwrap().success();
        let removed = self.version.writer("remove", &self.of_cgroups_rs, "");
        if !std::thread::panicking() {
            assert!(deleted && removed.status.success(), "{removed:?}");
        }
    }
}
