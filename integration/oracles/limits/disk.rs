//! A disk of a test's own.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::temp::OracleDir;

/// A loop device of 1 MiB.
#[derive(Debug)]
pub(super) struct LoopDisk {
    /// `/dev/loop3`.
    device: String,
    _file: OracleDir,
}

impl LoopDisk {
    pub(super) fn new() -> Self {
        if !Path::new("/dev/loop-control").exists() {
            run("modprobe", &["loop"]);
        }
        let directory = OracleDir::new();
        let file = directory.path().join("disk");
        fs::write(&file, vec![0; 1 << 20]).unwrap();
        let device = run("losetup", &["--find", "--show", file.to_str().unwrap()]);
        Self { device, _file: directory }
    }

    /// Its major and minor number.
    pub(super) fn numbers(&self) -> [u64; 2] {
        let name = self.device.trim_start_matches("/dev/");
        let text = fs::read_to_string(format!("/sys/block/{name}/dev")).unwrap();
        let (major, minor) = text.trim().split_once(':').unwrap();
        [major, minor].map(|number| number.parse().unwrap())
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        run("losetup", &["--detach", &self.device]);
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program} {args:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}
