//! What a user gets wrong: one line that names it, a status that is not 0, and nothing left behind.

mod config;
mod programs;

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::harness::{Bundle, Rt, runtime};

/// One runtime, one bundle, many attempts.
struct Attempts {
    bundle: Bundle,
    config: Value,
}

impl Attempts {
    fn new() -> Self {
        Self::with(Bundle::busybox())
    }

    fn with(bundle: Bundle) -> Self {
        let mut config = Value::Null;
        let bundle = bundle.config(|c| config = c.clone());
        Self { bundle, config }
    }

    fn create(&self) -> Rt {
        let path = self.bundle.path();
        self.bundle.rt(["create", "--bundle", path.to_str().unwrap(), &self.bundle.id()])
    }

    fn write(&self, config: &Value) {
        let text = serde_json::to_vec(config).unwrap();
        fs::write(self.bundle.path().join("config.json"), text).unwrap();
    }

    #[track_caller]
    fn refused(&self, rt: Rt, words: &[&str]) {
        let done = rt.run().failure().one_line().says(words);
        assert_eq!(done.stdout, "", "{done}");
        self.bundle.leftovers().assert_none_since();
    }
}

#[test]
fn a_configuration_that_is_no_configuration_is_refused() {
    let attempts = Attempts::new();
    let path = attempts.bundle.path().join("config.json");
    let good = serde_json::to_string(&attempts.config).unwrap();
    let deep = "[".repeat(100_000);
    let blank = " ".repeat(16 << 20);
    for (what, text, words) in [
        ("empty", "", &["config.json"][..]),
        ("cut", &good[..good.len() - 1], &["config.json", "line 1"]),
        ("two", &good.repeat(2), &["config.json", "line 1"]),
        ("not an object", "[]", &["config.json"]),
        ("null", "null", &["config.json"]),
        ("deep", &deep, &["config.json"]),
        ("huge", &(good.clone() + &blank), &["config.json", "16 MiB"]),
        ("control characters", "{\n\"a\n\u{1b}\": 1}", &["config.json"]),
    ] {
        println!("{what}");
        fs::write(&path, text).unwrap();
        attempts.refused(attempts.create(), words);
    }
    fs::write(&path, good.as_bytes().iter().map(|b| b | 0x80).collect::<Vec<_>>()).unwrap();
    attempts.refused(attempts.create(), &["config.json"]);
    fs::remove_file(&path).unwrap();
    attempts.refused(attempts.create(), &["config.json", "No such file"]);
    fs::create_dir(&path).unwrap();
    attempts.refused(attempts.create(), &["config.json", "not a regular file"]);
    fs::remove_dir(&path).unwrap();
    for target in ["/dev/zero", "config.json"] {
        symlink(target, &path).unwrap();
        attempts.refused(attempts.create(), &["config.json"]);
        fs::remove_file(&path).unwrap();
    }
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    attempts.refused(attempts.create(), &["config.json", "not a regular file"]);
}

#[test]
fn a_bundle_that_cannot_be_read_is_refused() {
    let attempts = Attempts::new();
    let id = attempts.bundle.id();
    let file = attempts.bundle.beside("file");
    fs::write(&file, "").unwrap();
    let nowhere = attempts.bundle.beside("nowhere");
    let long = "x/".repeat(4096);
    for (path, words) in [
        (file.to_str().unwrap(), &["/file", "Not a directory"][..]),
        (nowhere.to_str().unwrap(), &["/nowhere", "No such file"]),
        (&long, &["x/x", "File name too long"]),
        ("", &["--bundle"]),
    ] {
        attempts.refused(attempts.bundle.rt(["create", "--bundle", path, &id]), words);
    }
    attempts.bundle.write();
    let mark = attempts.bundle.mark();
    attempts.refused(attempts.create().root(&file, mark), &["/file", "Not a directory"]);
}

#[test]
fn an_id_that_is_no_name_is_refused() {
    let attempts = Attempts::new();
    attempts.bundle.write();
    let path = attempts.bundle.path();
    let long = "x".repeat(1025);
    for id in ["", ".", "..", "../x", "a/b", "/", "a b", "a\nb", "\u{e4}", &long] {
        for verb in ["create", "run"] {
            let rt = attempts.bundle.rt([verb, "--bundle", path.to_str().unwrap(), id]);
            attempts.refused(rt, &["container"]);
        }
        for verb in ["start", "state", "kill", "delete"] {
            attempts.refused(attempts.bundle.rt([verb, id]), &["container"]);
        }
    }
    assert!(!attempts.bundle.beside("x").exists());
}

#[test]
fn an_id_in_use_is_refused_in_one_line() {
    let c = Bundle::busybox().args(["sleep", "100"]).create();
    let path = c.bundle.path();
    let done = c.rt(["create", "--bundle", path.to_str().unwrap(), &c.id]).run();
    done.one_line().says(&[&c.id, "already exists"]);
    assert_eq!(c.status(), "created");
}

#[test]
fn a_root_for_the_state_that_cannot_be_written_is_refused() {
    let attempts = Attempts::new();
    attempts.bundle.write();
    let state = attempts.bundle.beside("read-only");
    fs::create_dir(&state).unwrap();
    let script = "mount -t tmpfs -o ro tmpfs \"$1\"; shift; exec \"$@\"";
    let words = ["-m", "sh", "-c", script, "sh", state.to_str().unwrap()].map(str::to_owned);
    let (path, id) = (attempts.bundle.path(), attempts.bundle.id());
    let command = [runtime(), "--root".as_ref(), &state, "create".as_ref(), "-b".as_ref(), &path];
    let command = command.into_iter().map(|word| word.to_str().unwrap().to_owned());
    let unshare = Rt::bare(words.into_iter().chain(command).chain([id]));
    attempts.refused(
        unshare.program("/usr/bin/unshare".as_ref()),
        &["read-only", "Read-only file system"],
    );
}

#[test]
fn an_option_without_sense_is_refused() {
    let attempts = Attempts::new();
    attempts.bundle.write();
    let (path, id) = (attempts.bundle.path(), attempts.bundle.id());
    let socket = attempts.bundle.beside("socket");
    for (option, value, words) in [
        ("--no-such-option", "", &["--no-such-option"][..]),
        ("--preserve-fds", "1", &["--preserve-fds 1"]),
        ("--preserve-fds", "x", &["--preserve-fds", "x"]),
        ("--console-socket", socket.to_str().unwrap(), &["--console-socket"]),
        ("--pidfd-socket", socket.to_str().unwrap(), &["--pidfd-socket", "/socket"]),
        ("--pid-file", "/no/such/directory/pid", &["--pid-file", "No such file"]),
    ] {
        let mut args = vec!["create", "--bundle", path.to_str().unwrap(), option];
        args.extend([value, &id].into_iter().filter(|word| !word.is_empty()));
        attempts.refused(attempts.bundle.rt(args), words);
    }
    let global = |args: &[&str], words: &[&str]| attempts.refused(attempts.bundle.rt(args), words);
    global(&["--log-format", "xml", "list"], &["--log-format", "xml"]);
    global(&["--log", "/no/such/log", "list"], &["/no/such/log", "No such file"]);
    global(&["no-such-command"], &["no-such-command"]);
    global(&["create", "--bundle", path.to_str().unwrap()], &["ID"]);
    global(&["start"], &["ID"]);
}
