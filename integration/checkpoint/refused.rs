//! What is refused, what fails, and what is left then.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use super::{COUNT, counting, goes_on, has_begun, with_criu};
use crate::harness::terminal::ConsoleSocket;
use crate::harness::{Bundle, until};

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn only_a_container_that_runs_has_a_checkpoint() {
    let c = counting().create();
    c.checkpoint(&[]).says(&["cannot be checkpointed in created state"]);
    c.start();
    c.kill("KILL");
    c.wait();
    c.checkpoint(&[]).says(&["cannot be checkpointed in stopped state"]);
    assert!(!c.bundle().beside("images").exists());
    c.rt(["checkpoint", "nobody"]).run().says(&["nobody: container does not exist"]);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_restore_that_fails_leaves_nothing() {
    let c = counting().start();
    c.checkpoint(&[]).success();
    let images = c.bundle().beside("images");
    let missing = c.bundle().beside("nowhere").display().to_string();
    let restore = |images: &str| {
        let words = ["restore", "--detach", "--image-path", images];
        c.bundle().launch(&words, &c.id).redirections("").run().one_line()
    };
    c.wait();
    restore(&missing).says(&["--image-path", "No such file or directory"]);
    fs::remove_file(images.join("core-1.img")).unwrap();
    let done = restore(images.to_str().unwrap());
    done.says(&["criu failed: type RESTORE errno", "empty-image", "restore.log"]);
    fs::remove_file(images.join("descriptors.json")).unwrap();
    restore(images.to_str().unwrap()).says(&["descriptors.json: No such file or directory"]);
    c.bundle().leftovers().assert_none_since();
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_checkpoint_that_fails_lets_the_container_go_on() {
    let bundle = with_criu(Bundle::busybox().script(COUNT));
    // The host's file that it writes to cannot be dumped.
    let c = bundle.start();
    has_begun(&c);
    let done = c.checkpoint(&[]).one_line();
    done.says(&["criu failed: type DUMP", "Can't lookup mount", "dump.log"]);
    assert_eq!(c.status(), "running");
    goes_on(&c);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn without_criu_the_error_says_what_to_install() {
    let bundle = Bundle::busybox().script(COUNT).behind(&["env", "PATH=/nonexistent"]);
    let c = bundle.start();
    c.checkpoint(&[]).one_line().says(&["criu: executable file not found", "install"]);
    assert_eq!(c.status(), "running");
    let images = c.bundle().beside("images").display().to_string();
    let restore = c.bundle().launch(&["restore", "--image-path", &images], "another").run();
    restore.one_line().says(&["criu: executable file not found"]);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_restore_that_is_killed_is_cleared_by_delete() {
    let c = counting().start();
    has_begun(&c);
    c.checkpoint(&[]).success();
    c.wait();
    let images = c.bundle().beside("images").display().to_string();
    for milliseconds in (5..150).step_by(10) {
        let words = ["restore", "--detach", "--image-path", &images];
        let running = c.bundle().launch(&words, &c.id).spawn();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        running.signal(nix::sys::signal::Signal::SIGKILL);
        running.finish();
        c.rt(["delete", "--force", &c.id]).run().success();
        c.bundle().leftovers().assert_none_since();
    }
    assert!(Path::new(&images).exists());
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn what_criu_would_lose_is_refused_at_both_ends() {
    let c = counting().start();
    let socket = ConsoleSocket::at(c.bundle().beside("agent"));
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket.path(),
        "syscalls": [{ "names": ["acct"], "action": "SCMP_ACT_NOTIFY" }] });
    let cases: [(&str, Value, &str); 4] = [
        ("/annotations", json!({ "org.rt.landlock.read": "/" }), "org.rt.landlock.read"),
        ("/linux/seccomp", profile, "SCMP_ACT_NOTIFY"),
        ("/linux/personality", json!({ "domain": "LINUX32" }), "linux.personality"),
        ("/linux/memoryPolicy", json!({ "mode": "MPOL_LOCAL" }), "linux.memoryPolicy"),
    ];
    c.checkpoint(&["--leave-running"]).success();
    let images = c.bundle().beside("images");
    for (place, value, name) in cases {
        let (object, key) = place.rsplit_once('/').unwrap();
        let bundle = counting().config(|c| c.pointer_mut(object).unwrap()[key] = value);
        let words = ["restore", "--detach", "--image-path", images.to_str().unwrap()];
        let done = bundle.launch(&words, &bundle.id()).redirections("").run().one_line();
        done.says(&[name, "criu does not keep it"]);
    }
    let bundle = counting().config(|c| c["linux"]["personality"] = json!({ "domain": "LINUX32" }));
    let c = bundle.start();
    c.checkpoint(&[]).one_line().says(&["linux.personality: criu does not keep it"]);
    assert_eq!(c.status(), "running");
    let lost = "does not keep nosymfollow";
    for (word, says) in [
        ("copy-symlink", "follows links"),
        ("src-nofollow", "follows links"),
        ("dest-nofollow", "follows links"),
        ("nosymfollow", lost),
        ("rnosymfollow", lost),
    ] {
        let source = c.bundle().beside("");
        let mount = json!({ "destination": "/mnt", "source": source, "options": ["bind", word] });
        let c = counting().mount(mount).start();
        c.checkpoint(&[]).one_line().says(&[&format!("/mnt: criu {says}")]);
        assert_eq!(c.status(), "running");
    }
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn the_configuration_of_a_container_is_that_which_it_was_made_from() {
    let bundle = counting().config(|c| c["linux"]["personality"] = json!({ "domain": "LINUX32" }));
    bundle.write();
    let other = bundle.beside("other.json");
    fs::copy(bundle.path().join("config.json"), &other).unwrap();
    let bundle = bundle.config(|c| c["linux"]["personality"] = Value::Null);
    let c = bundle.options(["--config", &other.display().to_string()]).start();
    c.checkpoint(&[]).one_line().says(&["linux.personality: criu does not keep it"]);
    // Whatever has become of it since.
    fs::write(&other, "").unwrap();
    c.checkpoint(&[]).one_line().says(&["linux.personality: criu does not keep it"]);
    fs::remove_file(&other).unwrap();
    c.checkpoint(&[]).one_line().says(&["linux.personality: criu does not keep it"]);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_criu_that_is_killed_is_an_error_and_what_hooks_made_is_taken_back() {
    let bundle = counting();
    let log = bundle.beside("hooks");
    let hook = |script: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] }]);
    // The first process of the group is CRIU.
    let kill = format!(
        "echo created >>{0}; [ -e {0}.armed ] || exit 0; pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/');
        for other in $(cat /sys/fs/cgroup/pids$(sed -n 's/.*:pids://p' /proc/$pid/cgroup)/cgroup.procs); do
            [ $other = $pid ] || kill -9 $other; done",
        log.display()
    );
    let bundle = bundle.config(|c| {
        c["hooks"] = json!({ "createRuntime": hook(&kill),
            "poststop": hook(&format!("echo removed >>{}", log.display())) });
    });
    let c = bundle.start();
    has_begun(&c);
    c.checkpoint(&[]).success();
    assert_eq!(fs::read_to_string(&log).unwrap(), "created\nremoved\n");
    fs::write(log.with_extension("armed"), "").unwrap();
    c.try_restore(&[]).one_line().says(&["criu was killed by SIGKILL"]);
    assert_eq!(fs::read_to_string(&log).unwrap(), "created\nremoved\n".repeat(2));
    c.bundle().leftovers().assert_none_since();
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn files_in_the_way_of_images_are_not_followed_and_not_waited_for() {
    let c = counting().start();
    has_begun(&c);
    let images = c.bundle().beside("images");
    let victim = c.bundle().beside("victim");
    fs::create_dir(&images).unwrap();
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, images.join("dump.log")).unwrap();
    symlink(&victim, images.join("descriptors.json")).unwrap();
    c.checkpoint(&["--leave-running"]).one_line().says(&["descriptors.json"]);
    fs::remove_file(images.join("descriptors.json")).unwrap();
    c.checkpoint(&[]).success();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    fs::remove_file(images.join("descriptors.json")).unwrap();
    nix::unistd::mkfifo(&images.join("descriptors.json"), Mode::S_IRUSR).unwrap();
    nix::unistd::mkfifo(&images.join("restore.log"), Mode::S_IRUSR).unwrap();
    c.try_restore(&[]).one_line().says(&["descriptors.json"]);
    c.bundle().leftovers().assert_none_since();
}

/// Ctrl-C reaches the whole group of processes; CRIU has to see to it that none stays frozen.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn an_interrupt_from_the_terminal_lets_the_container_go_on() {
    let bundle = counting();
    let files = ["frozen", "interrupted", "alive"].map(|name| bundle.beside(name));
    let [frozen, interrupted, alive] = &files;
    // CRIU asks for it when it has frozen them.
    let script = format!(
        "#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION = network-lock ] || exit 0\n
        echo >{}\nuntil [ -e {} ]; do sleep 0.01; done; echo >{}",
        frozen.display(),
        interrupted.display(),
        alive.display()
    );
    let [program, config] = ["script", "criu.conf"].map(|name| bundle.beside(name));
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&config, format!("action-script {}\n", program.display())).unwrap();
    let bundle = bundle.config(|c| c["annotations"] = json!({ "org.criu.config": config }));
    let c = bundle.start();
    has_begun(&c);
    let images = c.bundle().beside("images").display().to_string();
    let running = c.rt(["checkpoint", "--image-path", &images, &c.id]).spawn();
    until("they are frozen", || frozen.exists());
    // INT itself is ignored by what a shell has started in the background.
    killpg(running.pid(), Signal::SIGTERM).unwrap();
    running.finish().failure();
    fs::write(interrupted, "").unwrap();
    until("criu lives", || alive.exists());
    until("it runs", || c.status() == "running");
    goes_on(&c);
}

/// It is what the caller has open: a socket, or a FIFO that nobody reads any more.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn whatever_the_status_descriptor_is_it_is_not_waited_for() {
    let c = counting().start();
    has_begun(&c);
    let path = c.bundle().beside("fifo");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    let reader =
        File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&path).unwrap();
    let fifo = File::options().write(true).open(&path).unwrap();
    drop(reader);
    let (socket, _other) = UnixStream::pair().unwrap();
    let images = c.bundle().beside("images").display().to_string();
    let words =
        ["checkpoint", "--leave-running", "--status-fd", "0", "--image-path", &images, &c.id];
    for descriptor in [OwnedFd::from(socket), fifo.into()] {
        c.rt(words).spawn_with(descriptor.into()).finish().success();
    }
    let file = File::open(c.bundle().path().join("config.json")).unwrap();
    let done = c.rt(words).spawn_with(file.into()).finish().one_line();
    done.says(&["--status-fd 0: not open for writing"]);
    goes_on(&c);
}
