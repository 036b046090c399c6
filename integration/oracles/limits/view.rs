//! The host's control groups as those of one version alone.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Output, Stdio};

const V1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../views/v1.sh");
const V2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../views/v2.sh");

/// The control files of a cgroup with their contents.
pub(super) type ControlFiles = BTreeMap<String, String>;

/// A version of control groups, and the view that shows it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CgroupVersion {
    V1,
    V2,
}

impl CgroupVersion {
    pub(super) fn command(self, program: &str, args: &[&str]) -> Command {
        let script = if self == Self::V1 { V1 } else { V2 };
        let mut command = Command::new("unshare");
        command.args(["-m", script, program]).args(args);
        command
    }

    /// Whether this host can show the version. If it cannot, one loud line says why.
    pub(super) fn is_possible(self) -> bool {
        let done = self.command("true", &[]).output().unwrap();
        let why = String::from_utf8_lossy(&done.stderr);
        match done.status.code() {
            Some(0) => true,
            Some(77) => {
                report(&format!("SKIPPED: cgroup view {self:?}: {}", why.trim()));
                false
            }
            _ => panic!("the script of view {self:?} fails: {}: {why}", done.status),
        }
    }

    /// The controllers of this view, by the names that their files begin with.
    pub(super) fn controllers(self) -> Vec<String> {
        // A link may have the name of a controller that the kernel lacks.
        const LIST: &str = "cd /sys/fs/cgroup
            [ ! -e cgroup.controllers ] || exec cat cgroup.controllers
            find . -mindepth 1 -maxdepth 1 -type d | tr ./, ' '";
        let done = self.command("sh", &["-ec", LIST]).output().unwrap();
        assert!(done.status.success(), "{self:?}: {done:?}");
        let text = String::from_utf8(done.stdout).unwrap();
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// Runs `limits-writer` in this view.
    pub(super) fn writer(self, verb: &str, cgroup: &str, input: &str) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_limits-writer"), &[verb, cgroup]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let written = child.stdin.take().unwrap().write_all(input.as_bytes());
        let done = child.wait_with_output().unwrap();
        assert!(written.is_ok() || !done.status.success(), "{written:?}");
        done
    }

    /// The control files of a cgroup of this view.
    pub(super) fn read(self, cgroup: &str) -> ControlFiles {
        let done = self.writer("read", cgroup, "");
        assert!(done.status.success(), "{self:?}: {done:?}");
        serde_json::from_slice(&done.stdout).unwrap()
    }
}

/// Prints a line past libtest's capture: what is not compared has to be seen.
pub(super) fn report(line: &str) {
    std::io::stderr().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}
