//! A disk of a test's own.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::TempDir;

/// A loop device of 1 MiB.
#[derive(Debug)]
pub(crate) struct Disk {
    /// `/dev/loop3`.
    device: String,
    _file: TempDir,
}

impl Disk {
    pub(crate) fn new() -> Self {
        if !Path::new("/dev/loop-control").exists() {
            run("modprobe", &["loop"]);
        }
        let directory = TempDir::new();
        let file = directory.path().join("disk");
        fs::write(&file, vec![0; 1 << 20]).unwrap();
        let device = run("losetup", &["--find", "--show", file.to_str().unwrap()]);
        Self { device, _file: directory }
    }

    /// `major:minor`, as the kernel writes it.
    pub(crate) fn number(&self) -> String {
        let name = self.device.trim_start_matches("/dev/");
        fs::read_to_string(format!("/sys/block/{name}/dev")).unwrap().trim().to_owned()
    }

    /// Its major and minor number.
    pub(crate) fn numbers(&self) -> [u64; 2] {
        let number = self.number();
        let (major, minor) = number.split_once(':').unwrap();
        [major, minor].map(|number| number.parse().unwrap())
    }

    /// The scheduler whose weights groups of both versions can have.
    pub(crate) fn divided_by_bfq(&self) {
        let name = self.device.trim_start_matches("/dev/");
        fs::write(format!("/sys/block/{name}/queue/scheduler"), "bfq").unwrap();
    }

    /// What version 2 has on its own.
    pub(crate) fn divided_by_iocost(&self) {
        fs::write("/sys/fs/cgroup/io.cost.qos", format!("{} enable=1", self.number())).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("losetup", &["--detach", &self.device]);
    }
}

#[track_caller]
fn run(program: &str, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program} {args:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}
