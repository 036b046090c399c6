//! `agent.c` as a process beside the bundle.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Bundle, compile, until};

/// Ended, with all that it has forked, when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Agent {
    process: Child,
    output: PathBuf,
}

impl Agent {
    /// Listens on [`socket`], and answers calls with this number with this errno.
    pub(super) fn start(bundle: &Bundle, number: i64, errno: i32) -> Self {
        let program = bundle.beside("agent");
        compile("seccomp/agent.c", &program);
        let output = bundle.beside("agent.out");
        let process = Command::new(&program)
            .arg(socket(bundle))
            .args([number.to_string(), errno.to_string()])
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let agent = Self { process, output };
        until("the agent listens", || agent.output().starts_with("listening\n"));
        agent
    }

    pub(super) fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    /// The states that it has been sent.
    pub(super) fn states(&self) -> Vec<Value> {
        let output = self.output();
        let states = output.lines().filter(|line| line.starts_with('{'));
        states.map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        killpg(Pid::from_raw(self.process.id() as i32), Signal::SIGKILL).unwrap();
        self.process.wait().unwrap();
    }
}

/// Where the agent of a bundle listens.
pub(super) fn socket(bundle: &Bundle) -> PathBuf {
    bundle.beside("agent.sock")
}
