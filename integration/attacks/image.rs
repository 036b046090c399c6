//! The runtime's own file, reached through `/proc/PID/exe` by a container with every capability.
//! CVE-2019-5736 (runc), and crun's and youki's versions of it.
//!
//! The file under attack is a copy that only this test executes: a file that another test executes
//! would be safe for the wrong reason (ETXTBSY).

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::try_run;
use crate::harness::{
    ALL_CAPABILITIES, Bundle, Container, Done, copy_program, runtime, until, user,
};

/// A copy of the runtime, its bytes and its identity.
struct Target {
    path: PathBuf,
    bytes: Vec<u8>,
    identity: (u64, u64),
}

impl Target {
    fn beside(bundle: Bundle) -> (Self, Bundle) {
        let path = bundle.beside("runtime");
        copy_program(runtime(), &path);
        let bytes = fs::read(&path).unwrap();
        let identity = identity(&path).unwrap();
        let bundle = bundle.for_runtime(&path).with_capabilities(ALL_CAPABILITIES).writable();
        (Self { path, bytes, identity }, bundle)
    }

    #[track_caller]
    fn assert_unchanged(&self) {
        assert_eq!(identity(&self.path), Some(self.identity), "the file has been replaced");
        assert!(fs::read(&self.path).unwrap() == self.bytes, "the file has been written");
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Looks at every process of the container, as fast as it can, until `stop`: whose image is it, and
/// can it be opened for writing? What the container's root can do, the host's root can too.
fn watch(init: i32, target: &Target, stop: &AtomicBool) -> Vec<String> {
    let inside = PathBuf::from(format!("/proc/{init}/root/proc"));
    let mut found = vec![];
    while !stop.load(Ordering::Relaxed) {
        for entry in fs::read_dir(&inside).into_iter().flatten().flatten() {
            let exe = entry.path().join("exe");
            if identity(&exe) == Some(target.identity) {
                found.push(format!("{} is the host's file", exe.display()));
                if OpenOptions::new().append(true).open(&exe).is_ok() {
                    found.push(format!("{} could be opened for writing", exe.display()));
                }
            }
        }
    }
    found.dedup();
    found
}

const WRITE_ALL: &str = "for p in /proc/[0-9]*; do
    { echo pwned >> $p/exe; } 2>/dev/null && echo wrote $p
done; true";

#[test]
fn a_script_whose_interpreter_is_proc_self_exe_gets_no_hold_of_the_runtime() {
    let bundle = Bundle::busybox().file("/evil", "#!/proc/self/exe\n").args(["/evil"]);
    let (target, bundle) = Target::beside(bundle);
    try_run(&bundle);
    target.assert_unchanged();
}

#[test]
fn an_exec_of_a_script_whose_interpreter_is_proc_self_exe_gets_no_hold_of_the_runtime() {
    let bundle = Bundle::busybox().file("/evil", "#!/proc/self/exe\n").args(["sleep", "1000"]);
    let (target, bundle) = Target::beside(bundle);
    let c = bundle.start();
    c.exec(["/evil"]);
    c.exec(["sh", "-c", WRITE_ALL]).success();
    target.assert_unchanged();
}

#[test]
fn the_init_of_a_created_container_cannot_be_written_through_proc() {
    let (target, bundle) = Target::beside(Bundle::busybox().args(["sleep", "1000"]));
    let c = bundle.create();
    let done = c.exec(["sh", "-c", WRITE_ALL]).success();
    assert_eq!(done.stdout, "", "nothing could be written");
    target.assert_unchanged();
    let own = identity(Path::new(&format!("/proc/{}/exe", c.pid())));
    assert_ne!(own, Some(target.identity), "init executes the host's file");
}

#[test]
fn no_process_in_a_container_ever_executes_the_hosts_file() {
    let (target, bundle) = Target::beside(Bundle::busybox().args(["sleep", "1000"]));
    let c = bundle.start();
    let stop = AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        let (shared, target) = (&stop, &target);
        let init = c.pid();
        let watcher = scope.spawn(move || watch(init, target, shared));
        let failed = (0..100).find_map(|_| Some(c.exec(["true"])).filter(|done| done.status != 0));
        // Before any panic: the scope waits for the watcher.
        stop.store(true, Ordering::Relaxed);
        failed.map(Done::success);
        watcher.join().unwrap()
    });
    target.assert_unchanged();
    assert!(found.is_empty(), "{found:?}");
}

/// One process of the container, which may trace, reaches for the image of every other one that
/// comes in, while `exec` brings in a hundred.
#[track_caller]
fn attack_from_a_second_process(target: &Target, c: &Container) {
    until("the payload attacks", || c.output().contains("ready"));
    for _ in 0..20 {
        c.exec(["true"]).success();
    }
    assert_eq!(c.output(), "ready\n");
    target.assert_unchanged();
}

const WRITE_FOR_EVER: &str = "echo ready; while :; do for p in /proc/[0-9]*; do
    { echo pwned >> $p/exe; } 2>/dev/null && echo wrote $p
done; done";

#[test]
fn a_second_process_that_may_trace_writes_to_no_image() {
    let (target, bundle) = Target::beside(Bundle::busybox().script(WRITE_FOR_EVER));
    let bundle = bundle.config(|c| c["process"]["noNewPrivileges"] = false.into());
    attack_from_a_second_process(&target, &bundle.start());
}

#[test]
fn a_second_process_of_an_ordinary_users_container_writes_to_no_image() {
    let bundle = Bundle::busybox().script(WRITE_FOR_EVER).of_user();
    let (target, bundle) = Target::beside(bundle);
    // He owns the file: only the image keeps him from it.
    std::os::unix::fs::chown(&target.path, Some(user::ID), Some(user::ID)).unwrap();
    attack_from_a_second_process(&target, &bundle.start());
}

/// The kernel stacks two overlays and no third: from there the runtime cannot make its own.
/// Words that run `runtime` so.
fn without_overlay(bundle: &Bundle) -> [OsString; 8] {
    let layers = bundle.beside("layers");
    for name in ["a", "b", "c", "one", "two"] {
        fs::create_dir_all(layers.join(name)).unwrap();
    }
    copy_program(runtime(), &layers.join("a/rt"));
    let layers = layers.display();
    let script = format!(
        "cd {layers} && mount -t overlay o -o lowerdir=a:b one &&
        mount -t overlay o -o lowerdir=one:c two && cd / && shift && exec {layers}/two/rt \"$@\""
    );
    ["unshare", "-m", "timeout", "20", "sh", "-c", &script, "sh"].map(OsString::from)
}

#[test]
fn where_no_overlay_can_be_had_the_image_is_a_sealed_memfd() {
    let bundle = Bundle::busybox().args(["true"]);
    let words = without_overlay(&bundle);
    let created = bundle.launch(&["create"], &bundle.id()).command(&words).status().unwrap();
    assert!(created.success());

    let c = Container::of(bundle);
    let exe = format!("/proc/{}/exe", c.pid());
    let image = fs::read_link(&exe).unwrap();
    assert_eq!(image.to_str(), Some("/memfd:rt (deleted)"));
    assert!(OpenOptions::new().write(true).open(&exe).is_err());
    c.start();
    assert_eq!(c.wait(), 0);
}

#[test]
fn a_second_process_that_may_trace_writes_to_no_memfd() {
    let bundle = Bundle::busybox().script(WRITE_FOR_EVER).with_capabilities(ALL_CAPABILITIES);
    let words = without_overlay(&bundle);
    let c = bundle.start();
    until("the payload attacks", || c.output().contains("ready"));
    let file = c.bundle().beside("layers/a/rt");
    let before = fs::read(&file).unwrap();
    for _ in 0..10 {
        let exec = c.exec_rt(&[], ["true"]).command(&words).status().unwrap();
        assert!(exec.success());
    }
    assert_eq!(c.output(), "ready\n");
    assert!(fs::read(&file).unwrap() == before, "the file has been written");
}

/// As under `podman run -v /usr/bin/rt:/usr/bin/rt`: an overlay of the directory shows what lies below
/// the mount.
#[test]
fn a_file_mounted_over_another_one_runs_again_as_itself() {
    let bundle = Bundle::busybox().args(["echo", "itself"]);
    let below = bundle.beside("below");
    fs::write(&below, "#!/bin/sh\necho the file below >&2\nexit 1\n").unwrap();
    fs::set_permissions(&below, fs::Permissions::from_mode(0o755)).unwrap();
    let (runtime, below) = (runtime().display(), below.display());
    let script = format!("mount --bind {runtime} {below} && shift && exec {below} \"$@\"");
    let done = bundle.behind(&["unshare", "-m", "sh", "-c", &script, "sh"]).run().success();
    assert_eq!(done.stdout, "itself\n");
}
