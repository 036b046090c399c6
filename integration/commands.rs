//! What is the same for every command: options, errors, the log, silence, and the small commands.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Bundle, Container, MARK, Rt, Schema, runc, runtime};

#[test]
fn ids_that_are_not_names_are_refused() {
    for id in ["", ".", "..", "../x", "a/b", "a b", "a\nb", "/"] {
        let bundle = Bundle::busybox();
        bundle.write();
        let path = bundle.path();
        let done = bundle.rt(["create", "--bundle", path.to_str().unwrap(), id]).run().failure();
        assert!(!bundle.beside("x").exists(), "{done}");
    }
}

#[test]
fn commands_on_an_unknown_id_say_that_it_does_not_exist() {
    let bundle = Bundle::busybox();
    for args in [&["state", "nobody"][..], &["start", "nobody"], &["kill", "nobody"]] {
        bundle.rt(args).run().says(&["does not exist"]);
    }
    bundle.rt(["delete", "nobody"]).run().says(&["does not exist"]);
    let done = bundle.rt(["exec", "nobody", "true"]).run().says(&["does not exist"]);
    assert_eq!(done.status, 255);
}

#[test]
fn options_may_stand_after_the_id() {
    let c = Bundle::busybox().args(["sleep", "100"]).start();
    c.rt(["delete", &c.id, "--force"]).run().success();
    c.rt(["state", &c.id]).run().failure();
    let bundle = Bundle::busybox().args(["echo", "after"]);
    bundle.write();
    let path = bundle.path();
    let done = bundle.rt(["run", &bundle.id(), "--bundle", path.to_str().unwrap()]).run();
    assert_eq!(done.success().stdout, "after\n");
}

/// As with crun: from the working directory on, but for the usual name.
#[test]
fn another_file_can_be_the_configuration() {
    let bundle = Bundle::busybox().args(["echo", "usual"]);
    bundle.write();
    let usual = fs::read_to_string(bundle.path().join("config.json")).unwrap();
    let other = bundle.beside("other.json");
    fs::write(&other, usual.replace("usual", "other")).unwrap();
    let directory = other.parent().unwrap();
    for (option, seen) in [
        (["--config", other.to_str().unwrap()], "other\n"),
        (["-f", "other.json"], "other\n"),
        (["--config", "config.json"], "usual\n"),
        (["-f", ""], "usual\n"),
    ] {
        let (path, id) = (bundle.path().display().to_string(), bundle.id());
        let args = [&["run", "--bundle", &path][..], &option, &[&id]].concat();
        let done = bundle.rt(args).directory(directory).run();
        assert_eq!(done.success().stdout, seen, "{option:?}");
    }
    for (text, cause) in [("{", "EOF"), ("{\"ociVersion\":1}", "ociVersion")] {
        fs::write(&other, text).unwrap();
        let path = other.to_str().unwrap();
        let rt = bundle.launch(&["create", "--config", path], &bundle.id());
        rt.run().says(&[&format!("--config {path}: "), cause]).one_line();
    }
    let rt = bundle.launch(&["create", "--config", "/no/such"], &bundle.id());
    rt.run().says(&["--config /no/such: No such file or directory"]).one_line();
}

#[test]
fn the_log_is_chosen_in_the_words_of_crun() {
    let bundle = Bundle::busybox();
    let log = bundle.beside("log");
    let file = format!("file:{}", log.display());
    let of = |args: &[&str]| {
        let _ = fs::remove_file(&log);
        let args = [&["--log", &file][..], args, &["state", "nobody"]].concat();
        bundle.rt(args).run().failure();
        fs::read_to_string(&log).unwrap_or_default()
    };
    assert!(of(&[]).contains("does not exist"));
    for level in ["error", "warning", "debug"] {
        assert!(of(&["--log-level", level]).contains("does not exist"), "{level}");
    }
    let done = bundle.rt(["--log-level", "verbose", "list"]).run();
    done.says(&["--log-level", "verbose", "debug"]).one_line();
    for log in ["journald:box", "syslog:box"] {
        let done = bundle.rt(["--log", log, "list"]).run();
        done.says(&[&format!("--log {log}: only a file")]).one_line();
    }
    let bundle = Bundle::busybox().args(["true"]).global_options(&["--log-level=debug"]);
    let done = bundle.launch(&["run"], &bundle.id()).run().success();
    assert!(done.stderr.contains("level=debug"), "{done}");
}

#[test]
fn create_takes_the_option_of_run_about_orphans() {
    Bundle::busybox().options(["--no-subreaper"]).create();
}

#[test]
fn a_signal_that_does_not_exist_is_refused() {
    let c = Bundle::busybox().args(["sleep", "100"]).start();
    for signal in ["NOSUCH", "1000", "-1", "9x"] {
        c.rt(["kill", &c.id, signal]).run().failure();
    }
    assert_eq!(c.status(), "running");
}

#[test]
fn list_shows_the_containers_of_its_root() {
    let c = Bundle::busybox().create();
    let table = c.rt(["list"]).run().success().stdout;
    let head: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..3], [&*c.id, &*c.pid().to_string(), "created"]);
    let columns: Vec<_> = table.lines().map(beginnings).collect();
    assert_eq!(columns[0], columns[1], "{table}");
    assert_eq!(c.rt(["list", "--quiet"]).run().success().stdout, format!("{}\n", c.id));
    let json = c.rt(["list", "--format", "json"]).run().success().stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json, serde_json::json!([c.state()]), "as `state` shows it");
}

/// Where the words of a line begin.
fn beginnings(line: &str) -> Vec<usize> {
    let words = line.split_whitespace();
    words.map(|word| word.as_ptr().addr() - line.as_ptr().addr()).collect()
}

/// `list` as JSON and as the words of its table and the fields of `state`, without what differs
/// between two containers: a mark, a pid, a time, and the version that the runtime implements; and
/// the columns, which are as wide as these are.
fn shown(c: &Container) -> (Value, String, Vec<String>) {
    let json = c.rt(["list", "-f", "json"]).run().success().stdout;
    let mut json: Value = serde_json::from_str(&json.replace(c.bundle.mark(), "MARK")).unwrap();
    let table = c.rt(["list"]).run().success().stdout.replace(c.bundle.mark(), "MARK");
    let table = table.replace(json[0]["created"].as_str().unwrap(), "TIME");
    let table = table.replace(&format!(" {} ", c.pid()), " PID ");
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let table = lines.map(|line| line + "\n").collect();
    for own in ["created", "pid", "ociVersion"] {
        json[0][own] = Value::Null;
    }
    (json, table, c.state().as_object().unwrap().keys().cloned().collect())
}

#[test]
fn list_and_state_show_what_runc_shows() {
    let bundle = || Bundle::busybox().config(|c| c["annotations"] = serde_json::json!({"k": "v"}));
    let ours = shown(&bundle().create());
    assert_eq!(ours, shown(&bundle().for_runtime(runc()).create()));
    assert!(ours.1.contains("TIME") && ours.1.contains("PID"), "{}", ours.1);
}

#[test]
fn list_of_a_root_that_does_not_exist_fails() {
    Bundle::busybox().rt(["list"]).run().failure();
}

/// podman looks whether there is such a thing.
#[test]
fn checkpoint_and_restore_have_help() {
    for command in ["checkpoint", "restore"] {
        let done = Rt::bare([command, "--help"]).run().success();
        assert!(done.stdout.contains("--image-path"), "{done}");
    }
}

/// As docker reads it: the name and the number stand around the word, the rest has keys.
#[test]
fn version_is_a_name_the_word_version_a_number_and_the_specifications() {
    let done = Rt::bare(["--version"]).run().success();
    assert_eq!(Rt::bare(["-v"]).run().success().stdout, done.stdout);
    let lines: Vec<_> = done.stdout.lines().collect();
    let (name, version) = lines[0].split_once(" version ").unwrap_or_else(|| panic!("{done}"));
    assert_eq!((name, version), ("rt", env!("CARGO_PKG_VERSION")));
    let spec = lines.iter().find_map(|line| line.strip_prefix("spec: "));
    let features = Rt::bare(["features"]).run().success().stdout;
    let features: Value = serde_json::from_str(&features).unwrap();
    assert_eq!(spec, features["ociVersionMax"].as_str(), "{done}");
    let rest: Vec<_> = lines[1..].iter().filter_map(|line| line.split(": ").next()).collect();
    assert!(matches!(rest[..], ["spec"] | ["commit", "spec"]), "{done}");
}

/// Tools look at the name that they find, and for the state where the runtime of that name has it.
#[test]
fn called_by_the_name_of_another_runtime_it_has_that_name_and_its_directory() {
    for name in ["runc", "crun", "other"] {
        let bundle = Bundle::busybox().args(["sleep", "100"]);
        bundle.write();
        let link = bundle.beside(name);
        symlink(runtime(), &link).unwrap();
        let known = if name == "other" { "rt" } else { name };
        let script = format!(
            "mount -t tmpfs tmpfs /run && {0} run -d -b {1} {2} >/run/log 2>&1 </dev/null;
            ls -d /run/{known}/{2}; {0} --version | head -1; {0} delete -f {2}",
            link.display(),
            bundle.path().display(),
            bundle.id(),
        );
        let words = ["-m", "timeout", "20", "sh", "-c", &script];
        let done = Command::new("unshare").args(words).env(MARK, bundle.mark()).output().unwrap();
        let seen = String::from_utf8(done.stdout).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(seen, format!("/run/{known}/{}\n{known} version {version}\n", bundle.id()));
        bundle.leftovers().assert_none_since();
    }
}

#[test]
fn help_is_a_success() {
    let done = Rt::bare(["--help"]).run().success();
    assert!(done.stdout.contains("create"), "{done}");
}

#[test]
fn the_log_ends_with_the_error() {
    let bundle = Bundle::busybox();
    let log = bundle.beside("log");
    let path = log.to_str().unwrap();
    bundle.rt(["--log", path, "--log-format", "json", "state", "nobody"]).run().failure();
    let text = fs::read_to_string(&log).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error", "{text}");
    assert!(last["msg"].as_str().unwrap().contains("does not exist"), "{text}");
    assert!(last["time"].as_str().unwrap().contains('T'), "{text}");
    fs::remove_file(&log).unwrap();
    bundle.rt(["--log", path, "state", "nobody"]).run().failure();
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.lines().last().unwrap().contains("level=error msg="), "{text}");
}

#[test]
fn the_log_has_what_is_wrong_with_the_command_line() {
    let bundle = Bundle::busybox();
    let log = bundle.beside("log");
    let log = log.to_str().unwrap();
    for wrong in [&["exec", "--bogus", "x"][..], &["nothing"], &["state"], &["--bogus", "list"]] {
        let args = ["--log", log, "--log-format=json"].into_iter().chain(wrong.iter().copied());
        bundle.rt(args).run().failure().one_line();
        let text = fs::read_to_string(log).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["level"], "error", "{wrong:?}: {text}");
        fs::remove_file(log).unwrap();
    }
}

#[test]
fn debug_tells_what_is_done() {
    let bundle = Bundle::busybox();
    let log = bundle.beside("log");
    let c = bundle.args(["sleep", "100"]).start();
    for args in [&["exec", &c.id, "true"][..], &["delete", "--force", &c.id]] {
        let with = ["--debug", "--log", log.to_str().unwrap()];
        c.rt(with.iter().chain(args)).run().success();
        let text = fs::read_to_string(&log).unwrap();
        let line = format!("level=debug msg=\"{}: ", c.id);
        assert!(text.lines().all(|one| one.contains(&line)) && text.contains(&line), "{text}");
        fs::remove_file(&log).unwrap();
    }
    let bundle = Bundle::busybox().args(["true"]);
    bundle.write();
    let path = bundle.path();
    let done = bundle.rt(["--debug", "run", "-b", path.to_str().unwrap(), &bundle.id()]).run();
    assert!(done.success().stderr.lines().all(|line| line.contains("level=debug")));
}

#[test]
fn options_are_taken_as_runc_takes_them() {
    let c = Bundle::busybox().args(["sleep", "100"]).start();
    for args in [
        &["--debug=false", "--log", "", "--log-format=", "state", &c.id][..],
        &["-log", "/dev/null", "--debug=true", "--debug", "list", "-format", "json"],
        &["exec", "--cwd", "", "--pid-file=", "--no-new-privs=false", &c.id, "true"],
        &["ps", &c.id, "-e", "-f"],
        &["kill", &c.id, ""],
    ] {
        c.rt(args).run().success();
    }
    let done = c.exec(["-x"]).failure();
    assert!(done.stderr.contains("exec: \"-x\""), "{done}");
    Rt::bare(["--root", "/", "list"]).run().failure().says(&["--root"]);
    let done = Rt::bare(["--help"]).run().success();
    assert!(
        done.stdout.starts_with("NAME:\n   rt - An OCI container runtime\n\nUSAGE:\n"),
        "{done}"
    );
}

#[test]
fn an_error_is_one_line() {
    let bundle = Bundle::busybox();
    bundle.rt(["state", "nobody"]).run().failure().one_line();
    Bundle::busybox().args(["/no/such/program"]).run().failure().one_line();
    Bundle::busybox().config(|c| c["root"]["path"] = "nowhere".into()).refused().one_line();
}

#[test]
fn a_missing_program_is_named_as_clients_expect() {
    let done = Bundle::busybox().args(["no-such-program"]).run();
    done.says(&["no-such-program", "executable file not found in $PATH"]);
    Bundle::busybox().args(["/no/such"]).run().says(&["/no/such", "no such file or directory"]);
    let bundle = Bundle::busybox().file("/plain", "data").args(["/plain"]);
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(bundle.rootfs().join("plain"), mode).unwrap();
    bundle.run().says(&["/plain", "permission denied"]);
}

#[test]
fn success_is_silent() {
    let c = Bundle::busybox().args(["sleep", "100"]).create();
    for args in [&["start", &c.id][..], &["kill", &c.id, "KILL"], &["delete", "--force", &c.id]] {
        let done = c.rt(args).run();
        assert_eq!((&*done.stdout, &*done.stderr), ("", ""), "{done}");
    }
    assert_eq!(c.errors(), "");
}

/// The time limit of every command is what ends them else.
#[test]
fn commands_do_not_wait_for_a_container_that_is_not_theirs_to_wait_for() {
    let c = Bundle::busybox().create();
    c.rt(["state", &c.id]).run().success();
    c.rt(["list"]).run().success();
}

#[test]
fn spec_writes_a_configuration_that_runs() {
    let bundle = Bundle::busybox();
    let path = bundle.path();
    let spec = ["spec", "--bundle", path.to_str().unwrap()];
    let done = Rt::bare(spec).run().success();
    assert_eq!((&*done.stdout, &*done.stderr), ("", ""));
    Rt::bare(spec).run().failure();
    let mut text = String::new();
    fs::File::open(path.join("config.json")).unwrap().read_to_string(&mut text).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["process"]["args"], serde_json::json!(["sh"]));
    assert_eq!(config["process"]["terminal"], true);
    assert_eq!(config["root"]["readonly"], true);
    assert_eq!(Schema::config().faults(&config), [""; 0]);
    let done = bundle
        .config(|c| {
            *c = config;
            c["process"]["terminal"] = false.into();
            c["process"]["args"] = serde_json::json!(["echo", "from spec"]);
        })
        .run()
        .success();
    assert_eq!(done.stdout, "from spec\n");
}

#[test]
fn what_is_not_supported_yet_is_refused_and_never_ignored() {
    let refused = |change: fn(&mut Value), path: &str| {
        Bundle::busybox().config(change).refused().says(&[path]);
    };
    refused(|c| c["ociVersion"] = "7.0.0".into(), "ociVersion");
    refused(|c| c["process"]["args"] = serde_json::json!([]), "process.args");
    refused(|c| c["process"]["cwd"] = "relative".into(), "process.cwd");
    let seccomp = |c: &mut Value| {
        c["linux"]["seccomp"] = serde_json::json!({ "defaultAction": "SCMP_ACT_FUTURE" });
    };
    refused(seccomp, "seccomp");
}
