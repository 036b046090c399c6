//! The host of a test and what can be seen of it from outside the container.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{TempDir, syscalls, user};

/// A host made for one test.
#[derive(Debug)]
pub(crate) struct Host;

impl Host {
    /// Runs `test` in a thread with a net namespace of its own, which everything it starts inherits.
    pub(crate) fn isolated<T: Send>(test: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                test()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `test` in a thread with a mount namespace of its own, in which the ordinary user has
    /// subordinate ids.
    pub(crate) fn with_more_ids<T: Send>(test: impl FnOnce() -> T + Send) -> T {
        let run = |program: &str, args: &[&str]| {
            assert!(Command::new(program).args(args).status().unwrap().success(), "{program}");
        };
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                run("mount", &["--make-rprivate", "/"]);
                run(user::WITH_MORE_IDS, &["true"]);
                test()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `test` in a thread with a mount namespace of its own, in which file systems are mounted
    /// on `number` directories with all that a name can have in it. The table of mounts comes from
    /// the kernel in pieces of a page: this one has many.
    pub(crate) fn with_mounts<T: Send>(number: usize, test: impl FnOnce() -> T + Send) -> T {
        let place = TempDir::new();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                let none = None::<&str>;
                mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
                for i in 0..number {
                    let mut name = b"m \t\n\\#,\xff\xc3\xa4".to_vec();
                    name.extend(i.to_string().bytes());
                    let long = "x".repeat(if i % 50 == 7 { 200 } else { 1 });
                    let point = place.path().join(OsStr::from_bytes(&name)).join(long);
                    fs::create_dir_all(&point).unwrap();
                    mount(Some("t"), &point, Some("tmpfs"), MsFlags::empty(), none).unwrap();
                }
                test()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `test` in a thread that is bound to one CPU, which everything it starts inherits.
    pub(crate) fn bound_to<T: Send>(cpu: usize, test: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let mut cpus = CpuSet::new();
                cpus.set(cpu).unwrap();
                sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
                test()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// The identity of a process's namespace, as `pid:[4026531836]`. `"self"` is the calling thread.
#[track_caller]
pub(crate) fn namespace_of(pid: impl ToString, kind: &str) -> String {
    let pid = match pid.to_string() {
        own if own == "self" => "thread-self".to_owned(),
        other => other,
    };
    let link = PathBuf::from(format!("/proc/{pid}/ns/{kind}"));
    let target = fs::read_link(&link).unwrap_or_else(|error| panic!("{}: {error}", link.display()));
    target.to_string_lossy().into_owned()
}

/// A field of `/proc/PID/status`, without white space around it.
#[track_caller]
pub(crate) fn proc_status(pid: i32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("/proc/{pid}/status has no {field}")).trim().to_owned()
}

/// Freezes the cgroup of a process, through version 1's freezer or version 2's own switch.
#[track_caller]
pub(crate) fn freeze(pid: i32) {
    switch_freezer(pid, "FROZEN", "1");
}

#[track_caller]
pub(crate) fn thaw(pid: i32) {
    switch_freezer(pid, "THAWED", "0");
}

#[track_caller]
fn switch_freezer(pid: i32, v1: &str, v2: &str) {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    for line in groups.lines() {
        let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>()[..] else { panic!() };
        if controllers == "freezer" {
            fs::write(format!("/sys/fs/cgroup/freezer{path}/freezer.state"), v1).unwrap();
            return;
        }
    }
    let path = groups.trim().strip_prefix("0::").expect("version 2 alone");
    fs::write(format!("/sys/fs/cgroup{path}/cgroup.freeze"), v2).unwrap();
}

/// Whether the process waits in this system call now.
pub(crate) fn waits_in(pid: Pid, call: &str) -> bool {
    let now = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = now.split(' ').next().and_then(|word| word.parse().ok());
    number.is_some_and(|number| syscalls::name(number) == call)
}

/// Waits for one child of this process by its id: `None` when it is alive after the time limit or
/// is nobody's child here. Never for any child: tests share the process.
pub(crate) fn reap(pid: i32, limit: Duration) -> Option<i32> {
    let deadline = Instant::now() + limit;
    loop {
        match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return Some(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Some(128 + signal as i32),
            Err(Errno::EINTR) | Ok(_) => {}
            Err(_) => return None,
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Asks until the answer is yes, for at most ten seconds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "waited ten seconds until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
