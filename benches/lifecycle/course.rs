//! What is raced. Every runtime gets the same bundle: the configuration of `rt spec`, which is that
//! of `runc spec`, in version 1.0.0 since old runtimes refuse later ones, without a terminal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::runtime::Runtime;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Run,
    /// The sum of the three; the end of init between the last two does not count.
    CreateStartDelete,
    Exec,
    State,
}

impl Verb {
    pub(crate) const ALL: [Self; 4] = [Self::Run, Self::CreateStartDelete, Self::Exec, Self::State];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::CreateStartDelete => "create, start, delete",
            Self::Exec => "exec",
            Self::State => "state",
        }
    }
}

/// The bundles, removed when dropped.
#[derive(Debug)]
pub(crate) struct Course {
    directory: PathBuf,
}

impl Course {
    pub(crate) fn new() -> Result<Self> {
        let course = Self {
            directory: format!("/run/rt-bench-{}", std::process::id()).into(),
        };
        let directory = &course.directory;
        for (bundle, args) in [
            ("true", json!(["/bin/true"])),
            ("held", json!(["sleep", "1000"])),
        ] {
            let bundle = directory.join(bundle);
            fs::create_dir_all(&bundle).context("as root, please")?;
            let mut spec = Command::new(env!("CARGO_BIN_EXE_rt"));
            if !spec.arg("spec").current_dir(&bundle).status()?.success() {
                bail!("rt spec fails");
            }
            let path = bundle.join("config.json");
            let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
            config["ociVersion"] = json!("1.0.0");
            config["process"]["terminal"] = json!(false);
            config["process"]["args"] = args;
            config["root"]["path"] = json!(directory.join("true/rootfs"));
            fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/bundles/rootfs.sh");
        if !Command::new("sh")
            .arg(script)
            .arg(directory.join("true"))
            .status()?
            .success()
        {
            bail!("{script} fails");
        }
        Ok(course)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What must be there before the race.
    pub(crate) fn prepare(&self, verb: Verb, runtime: &Runtime) -> Result<()> {
        if matches!(verb, Verb::Exec | Verb::State) {
            let bundle = self.bundle("held");
            runtime.time(&["run", "--detach", "--bundle", &bundle, &id(runtime, "held")])?;
        }
        Ok(())
    }

    /// After the race.
    pub(crate) fn clear(&self, runtime: &Runtime) {
        for bundle in ["true", "held"] {
            let _ = runtime.time(&["delete", "--force", &id(runtime, bundle)]);
        }
    }

    /// One turn.
    pub(crate) fn run(&self, verb: Verb, runtime: &Runtime) -> Result<Duration> {
        let mut all = Duration::ZERO;
        self.steps(verb, runtime, |args| {
            all += runtime.time(args)?;
            Ok(())
        })?;
        Ok(all)
    }

    /// The number of system calls.
    pub(crate) fn calls(&self, verb: Verb, runtime: &Runtime) -> Result<u64> {
        let mut files = vec![];
        self.steps(verb, runtime, |args| {
            files.push(runtime.count(args)?);
            Ok(())
        })?;
        files.iter().map(|file| total(file)).sum()
    }

    /// The peak memory of the largest process, in KiB.
    pub(crate) fn peak(&self, verb: Verb, runtime: &Runtime) -> Result<u64> {
        let mut largest = 0;
        self.steps(verb, runtime, |args| {
            largest = largest.max(runtime.peak(args)?);
            Ok(())
        })?;
        Ok(largest)
    }

    /// Calls `step` with each command of `verb`.
    fn steps(
        &self,
        verb: Verb,
        runtime: &Runtime,
        mut step: impl FnMut(&[&str]) -> Result<()>,
    ) -> Result<()> {
        let (bundle, held) = (self.bundle("true"), id(runtime, "held"));
        let id = id(runtime, "true");
        match verb {
            Verb::Run => step(&["run", "--bundle", &bundle, &id]),
            Verb::CreateStartDelete => {
                let pid_file = runtime.pid_file();
                let file = pid_file.to_string_lossy();
                step(&["create", "--bundle", &bundle, "--pid-file", &file, &id])?;
                step(&["start", &id])?;
                // It has become a child of ours.
                waitpid(
                    Pid::from_raw(fs::read_to_string(&pid_file)?.trim().parse()?),
                    None,
                )?;
                step(&["delete", &id])
            }
            Verb::Exec => step(&["exec", &held, "/bin/true"]),
            Verb::State => step(&["state", &held]),
        }
    }

    fn bundle(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }
}

/// The sum in a summary of strace's, once it is written.
fn total(file: &Path) -> Result<u64> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let summary = fs::read_to_string(file).unwrap_or_default();
        // % time, seconds, microseconds a call, calls, errors if there are any, "total".
        let line = summary.lines().find(|line| line.ends_with(" total"));
        if let Some(calls) = line.and_then(|line| line.split_ascii_whitespace().nth(3)) {
            return Ok(calls.parse()?);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("{}: no summary", file.display())
}

/// Also the name of its cgroups, so that no two runtimes may have the same.
fn id(runtime: &Runtime, bundle: &str) -> String {
    format!("rt-bench-{}-{bundle}-{}", runtime.name, std::process::id())
}

impl Drop for Course {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
