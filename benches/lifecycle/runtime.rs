//! A runtime of this machine, and one command of it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Longer than any command may take, in milliseconds.
const LIMIT_MS: u16 = 30_000;

#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) name: &'static str,
    /// The first line of `--version`.
    pub(crate) version: String,
    program: PathBuf,
    /// Its state, and what its commands say.
    directory: PathBuf,
}

impl Runtime {
    /// `rt`, and those of the others that are there; one line for each that is not.
    pub(crate) fn all(directory: &Path) -> Result<Vec<Self>> {
        let mut all = vec![Self::new("rt", env!("CARGO_BIN_EXE_rt").into(), directory)?];
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places: Vec<PathBuf> = std::env::split_paths(&path)
            .chain([PathBuf::from("/usr/sbin")])
            .collect();
        for name in ["crun", "runc"] {
            match places
                .iter()
                .map(|place| place.join(name))
                .find(|program| program.is_file())
            {
                Some(program) => all.push(Self::new(name, program, directory)?),
                None => println!("{name}: not on this machine"),
            }
        }
        Ok(all)
    }

    fn new(name: &'static str, program: PathBuf, directory: &Path) -> Result<Self> {
        let output = Command::new(&program).arg("--version").output();
        let output = output.with_context(|| program.display().to_string())?;
        let version = String::from_utf8_lossy(&output.stdout);
        let version = version.lines().next().unwrap_or_default().to_owned();
        let directory = directory.join(name);
        fs::create_dir(&directory)?;
        Ok(Self {
            name,
            version,
            program,
            directory,
        })
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.directory.join("pid")
    }

    pub(crate) fn words<S: AsRef<OsStr>>(&self, args: &[S]) -> Vec<OsString> {
        let root = self.directory.join("state");
        let mut words = vec![self.program.clone().into(), "--root".into(), root.into()];
        words.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        words
    }

    /// How long a command takes, from its start to its end.
    pub(crate) fn time<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Duration> {
        self.time_words(&self.words(args))
    }

    fn time_words(&self, words: &[OsString]) -> Result<Duration> {
        let said = self.directory.join("said");
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.stderr(File::create(&said)?);
        let start = Instant::now();
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(LIMIT_MS))? == 0 {
            child.kill()?;
        }
        let status = child.wait()?;
        let time = start.elapsed();
        if status.success() {
            return Ok(time);
        }
        let said = fs::read_to_string(&said).unwrap_or_default();
        bail!("{status}: {}", said.lines().last().unwrap_or_default());
    }

    /// Runs a command under strace(1), which counts the system calls of all its processes and
    /// writes the sum to the file that comes back. It may do so long after the command: `create`
    /// leaves a process behind, for which only a strace of its own process waits (-D).
    pub(crate) fn count<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<PathBuf> {
        let file = self
            .directory
            .join(format!("calls-{}", args[0].as_ref().display()));
        let mut words: Vec<OsString> = ["strace", "-D", "-f", "-qq", "-c", "-o"]
            .map(Into::into)
            .into();
        words.extend([file.clone().into(), "--".into()]);
        words.extend(self.words(args));
        self.time_words(&words)?;
        Ok(file)
    }

    /// The peak memory of the largest process of a command's tree, in KiB.
    pub(crate) fn peak<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<u64> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("--peak")
            .args(self.words(args))
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let output = command.output()?;
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }
}
