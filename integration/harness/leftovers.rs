//! What a container may leave on the host, looked for everywhere by a name that only it has.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::View;
use super::rt::MARK;

/// The search for what one test's containers leave behind.
#[derive(Clone, Debug)]
pub(crate) struct Leftovers {
    root: PathBuf,
    mark: String,
    view: View,
    before: Vec<String>,
}

impl Leftovers {
    /// `mark` is part of every id and path of the test and the value of its processes' `RT_TEST`.
    pub(crate) fn before(root: &Path, mark: &str, view: View) -> Self {
        let mut this = Self { root: root.to_owned(), mark: mark.to_owned(), view, before: vec![] };
        this.before = this.find();
        this
    }

    #[track_caller]
    pub(crate) fn assert_none_since(&self) {
        let left = self.since();
        assert!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
    }

    /// What is there now and was not before. A process that has been killed may take a moment.
    pub(crate) fn since(&self) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let mut left = self.find();
            left.retain(|one| !self.before.contains(one));
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// So that one broken test does not spoil the host for those after it.
    pub(crate) fn clear_away(&self, left: &[String]) {
        let of = |kind: &str| -> Vec<&str> {
            left.iter().filter_map(|one| one.strip_prefix(kind)?.strip_prefix(": ")).collect()
        };
        for process in of("process") {
            let pid = process.split(' ').next().and_then(|pid| pid.parse().ok());
            let _ = pid.map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        }
        let cgroups = of("cgroup");
        for path in &cgroups {
            for pid in
                fs::read_to_string(format!("{path}/cgroup.procs")).unwrap_or_default().lines()
            {
                let _ = pid.parse().map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
            }
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        // Children come after their parents.
        for path in cgroups.iter().rev() {
            while fs::remove_dir(path).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy) {
                if Instant::now() > deadline {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        for path in of("state") {
            let _ = fs::remove_dir_all(path);
        }
    }

    fn find(&self) -> Vec<String> {
        let mut found = vec![];
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            found.push(format!("state: {}", entry.path().display()));
        }
        self.mounts(&mut found);
        self.cgroups(&mut found);
        self.processes(&mut found);
        found
    }

    fn mounts(&self, found: &mut Vec<String>) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = table.lines().filter(|line| line.contains(&self.mark));
        found.extend(ours.map(|line| format!("mount: {line}")));
    }

    fn cgroups(&self, found: &mut Vec<String>) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut unified = false;
        for line in table.lines() {
            let (place, kind) = line.split_once(" - ").unwrap_or_default();
            let kind = kind.split(' ').next().unwrap_or_default();
            unified |= kind == "cgroup2";
            if kind == "cgroup" || kind == "cgroup2" {
                let top = place.split(' ').nth(4).unwrap_or_default();
                walk(Path::new(top), &self.mark, found);
            }
        }
        if self.view == View::V2 && !unified {
            let find = ["/sys/fs/cgroup", "-type", "d", "-name", &format!("*{}*", self.mark)];
            let done = View::V2.command("find").args(find).output().unwrap();
            let paths = String::from_utf8_lossy(&done.stdout);
            found.extend(paths.lines().map(|path| format!("cgroup: {path} of view V2")));
        }
    }

    fn processes(&self, found: &mut Vec<String>) {
        for pid in processes_of(&self.mark) {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            found.push(format!("process: {pid} {line}"));
        }
    }
}

/// The processes of a test, by its mark: what it has started has that in its environment. Init and
/// its like have cleared theirs up to their program; what is mounted for them and what they have
/// open tells whose they are.
pub(crate) fn processes_of(mark: &str) -> Vec<i32> {
    let variable = format!("{MARK}={mark}");
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let read = |file| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let environment = read("environ");
        if environment.iter().any(|byte| *byte != 0) {
            return environment.split(|byte| *byte == 0).any(|one| one == variable.as_bytes());
        }
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        exe.to_string_lossy().contains("rt")
            && (String::from_utf8_lossy(&read("mountinfo")).contains(mark) || has_open(*pid, mark))
    })
    .collect()
}

fn has_open(pid: i32, mark: &str) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut targets = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
    targets.any(|target| target.to_string_lossy().contains(mark))
}

fn walk(directory: &Path, mark: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().contains(mark) {
                found.push(format!("cgroup: {}", entry.path().display()));
            }
            walk(&entry.path(), mark, found);
        }
    }
}
