//! A bundle for the oracles of `tests/`, and the containers that `rt` makes of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// A bundle with busybox. It is removed when it is dropped, with the container that was made of it.
pub struct Bundle {
    pub id: String,
    directory: PathBuf,
}

impl Bundle {
    /// `name` is one of the test's own.
    pub fn new(name: &str) -> Self {
        let id = format!("rt-test-{}-{name}", std::process::id());
        let directory = PathBuf::from("/var/tmp").join(&id);
        let bundle = Self { id, directory };
        fs::create_dir_all(bundle.rootfs().join("bin")).unwrap();
        fs::copy("/bin/busybox", bundle.rootfs().join("bin/busybox")).unwrap();
        for applet in ["cat", "sleep"] {
            symlink("busybox", bundle.rootfs().join("bin").join(applet)).unwrap();
        }
        bundle
    }

    pub fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    /// Writes the configuration of `rt spec` with `args` as its program and what `change` does to it.
    pub fn configure(&self, args: &[&str], change: impl FnOnce(&mut Value)) {
        let file = self.directory.join("config.json");
        if !file.exists() {
            let bundle = self.directory.to_str().unwrap();
            assert!(rt(&["spec", "--bundle", bundle]).status.success());
        }
        let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        config["process"]["args"] = json!(args);
        config["process"]["terminal"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(format!("/{}", self.id));
        change(&mut config);
        fs::write(&file, config.to_string()).unwrap();
    }

    /// Runs `rt COMMAND --bundle … ID`.
    pub fn rt(&self, command: &str) -> Output {
        rt(&[command, "--bundle", self.directory.to_str().unwrap(), &self.id])
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        rt(&["delete", "--force", &self.id]);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Runs the program that `RT` names. Standard output is a file, because a created container keeps
/// its standard streams.
fn rt(args: &[&str]) -> Output {
    let program = std::env::var_os("RT").expect("RT names the program to test: make test-oracles");
    let mut command = Command::new(Path::new("timeout"));
    command.arg("30").arg(program).arg("--root").arg("/run/rt-test-oracles").args(args);
    if args[0] == "create" {
        let status = command.stdout(std::process::Stdio::null()).status().unwrap();
        return Output { status, stdout: vec![], stderr: vec![] };
    }
    command.output().unwrap()
}
