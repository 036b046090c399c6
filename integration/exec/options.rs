//! Each option of `exec`, by what the process sees of it.

use std::fs;
use std::io::Write;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use super::sleeper;
use crate::harness::{Bundle, Container, View, freeze, thaw, until, waits_in};

/// A container whose own process has users, groups, a directory and an environment.
fn configured() -> Container {
    let bundle = Bundle::busybox().args(["sleep", "1000"]).config(|c| {
        let process = &mut c["process"];
        process["cwd"] = "/tmp".into();
        process["user"] = json!({ "uid": 7, "gid": 8, "additionalGids": [9] });
        process["env"].as_array_mut().unwrap().push("GREETING=hello".into());
        process["noNewPrivileges"] = false.into();
    });
    bundle.start()
}

fn status_of(c: &Container, options: &[&str], field: &str) -> String {
    let done = c.exec_with(options, ["grep", &format!("^{field}:"), "/proc/self/status"]);
    done.success().stdout.split_once(':').unwrap().1.trim().to_owned()
}

#[test]
fn cwd_is_the_directory_of_the_process() {
    let c = configured();
    assert_eq!(c.exec_with(&["--cwd", "/bin"], ["pwd"]).success().stdout, "/bin\n");
    assert_eq!(c.exec(["pwd"]).success().stdout, "/tmp\n");
    c.exec_with(&["--cwd", "bin"], ["pwd"]).one_line().says(&["cwd"]);
    c.exec_with(&["--cwd", "/no/such"], ["pwd"]).one_line().says(&["cwd", "No such file"]);
}

#[test]
fn env_adds_and_replaces_variables() {
    let c = configured();
    let options = ["-e", "GREETING=bye", "--env", "LIST=a,b=c", "--env=EMPTY="];
    let script = "echo $GREETING $LIST ${EMPTY-unset}; env | grep -c GREETING";
    let done = c.exec_with(&options, ["sh", "-c", script]).success();
    assert_eq!(done.stdout, "bye a,b=c\n1\n");
    c.exec_with(&["-e", "NAME"], ["true"]).one_line().says(&["env"]);
}

#[test]
fn home_and_path_are_those_of_the_process() {
    let bundle = Bundle::busybox()
        .file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nseven:x:7:7::/home/seven:/bin/sh\n")
        .file("/opt/greet", "#!/bin/sh\necho hello\n")
        .args(["sleep", "1000"]);
    let c = bundle.start();
    let home = |options: &[&str]| c.exec_with(options, ["sh", "-c", "echo $HOME"]).success().stdout;
    assert_eq!(home(&[]), "/root\n");
    assert_eq!(home(&["-u", "7"]), "/home/seven\n");
    assert_eq!(home(&["-u", "8"]), "/\n");
    assert_eq!(home(&["-e", "HOME="]), "/root\n");
    assert_eq!(home(&["-e", "HOME=/own", "-u", "7"]), "/own\n");
    let path = ["-e", "PATH=/bin:/opt"];
    assert_eq!(c.exec_with(&path, ["greet"]).success().stdout, "hello\n");
    c.exec(["greet"]).says(&["executable file not found in $PATH"]);
}

#[test]
fn user_changes_the_user_and_only_with_a_colon_the_group() {
    let c = configured();
    let ids = |options: &[&str]| {
        c.exec_with(options, ["sh", "-c", "echo $(id -u) $(id -g) $(id -G)"]).success().stdout
    };
    assert_eq!(ids(&[]), "7 8 8 9\n");
    assert_eq!(ids(&["-u", "0"]), "0 8 8 9\n");
    assert_eq!(ids(&["--user", "1"]), "1 8 8 9\n");
    assert_eq!(ids(&["--user=1:2"]), "1 2 2 9\n");
    assert_eq!(ids(&["-u", "4294967294:0"]), "4294967294 0 0 9\n");
    assert_eq!(ids(&["-u", "1:2", "-g", "3", "--additional-gids", "4"]), "1 2 2 3 4 9\n");
}

/// CVE-2026-30892 (crun).
#[test]
fn a_user_that_is_not_a_number_is_refused() {
    let c = sleeper();
    for user in
        ["1:", ":1", "1x", "1:2x", "root", "1:root", "4294967295", "4294967296", "", " 1", "+1"]
    {
        let done = c.exec_with(&["-u", user], ["id"]).one_line().says(&["--user"]);
        assert_eq!((done.status, &*done.stdout), (255, ""), "{user:?}");
    }
    for option in ["--user=-1", "-u-1", "-g=-1", "-g4294967296"] {
        let done = c.exec_with(&[option], ["id"]).one_line();
        assert_eq!((done.status, &*done.stdout), (255, ""), "{option:?}");
    }
    assert_eq!(c.exec_with(&["-u", "-1"], ["id"]).one_line().status, 255);
}

/// CVE-2022-29162 (runc), CVE-2022-27650 (crun), CVE-2025-27612 (youki).
#[test]
fn cap_adds_a_capability_but_never_an_inheritable_one() {
    let c = sleeper();
    let options = ["--cap", "CAP_NET_RAW", "-c", "sys_chroot"];
    let added = 1 << 13 | 1 << 18;
    for set in ["CapBnd", "CapEff", "CapPrm"] {
        let before = u64::from_str_radix(&status_of(&c, &[], set), 16).unwrap();
        let after = u64::from_str_radix(&status_of(&c, &options, set), 16).unwrap();
        assert_eq!(after, before | added, "{set}");
        assert_ne!(after, before, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status_of(&c, &options, set), "0000000000000000", "{set}");
    }
    c.exec_with(&["--cap", "CAP_NO_SUCH"], ["true"]).one_line().says(&["CAP_NO_SUCH"]);
}

#[test]
fn cap_works_for_a_container_without_capabilities() {
    let bundle = Bundle::busybox().args(["sleep", "1000"]).config(|c| {
        c["process"].as_object_mut().unwrap().remove("capabilities");
    });
    let c = bundle.start();
    assert_eq!(status_of(&c, &["-c", "KILL"], "CapEff"), "0000000000000020");
    assert_eq!(status_of(&c, &["-c", "KILL"], "CapInh"), "0000000000000000");
}

#[test]
fn no_new_privs_is_set_or_not() {
    let c = configured();
    assert_eq!(status_of(&c, &[], "NoNewPrivs"), "0");
    assert_eq!(status_of(&c, &["--no-new-privs"], "NoNewPrivs"), "1");
    let bundle = Bundle::busybox().args(["sleep", "1000"]);
    let c = bundle.config(|c| c["process"]["noNewPrivileges"] = true.into()).start();
    assert_eq!(status_of(&c, &[], "NoNewPrivs"), "1");
    assert_eq!(status_of(&c, &["--no-new-privs=false"], "NoNewPrivs"), "0");
    let maybe = c.exec_with(&["--no-new-privs=maybe"], ["true"]);
    maybe.one_line().says(&["--no-new-privs", "maybe"]);
}

/// Others than root have of it what is in the ambient set, which takes nothing else.
#[test]
fn cap_gives_a_user_a_capability_that_the_container_makes_inheritable() {
    let bundle = Bundle::busybox().args(["sleep", "1000"]).config(|c| {
        c["process"]["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
    });
    let c = bundle.start();
    let options = ["-u", "7", "-c", "CAP_KILL", "-c", "CAP_NET_RAW"];
    for set in ["CapEff", "CapAmb", "CapInh"] {
        assert_eq!(status_of(&c, &options, set), "0000000000000020", "{set}");
    }
}

/// Without the module there is nobody who would act on it, and with it nobody knows this one.
#[test]
fn a_label_that_cannot_be_had_is_refused() {
    let c = sleeper();
    for (option, word) in
        [("--apparmor", "process.apparmorProfile"), ("--process-label", "process.selinuxLabel")]
    {
        let done = c.exec_with(&[option, "no_such_label"], ["echo", "ran"]);
        assert_eq!((done.status, &*done.stdout), (255, ""), "{done}");
        done.one_line().says(&[word]);
        // An empty one is none.
        assert_eq!(c.exec_with(&[option, ""], ["echo", "ran"]).success().stdout, "ran\n");
    }
}

/// A file with a `process` object that differs from the container's own.
fn process_file(c: &Container, change: impl FnOnce(&mut Value)) -> String {
    let mut process = json!({
        "cwd": "/bin", "args": ["sh", "-c", "pwd; id -u; echo $WORD"],
        "env": ["PATH=/bin", "WORD=from the file"], "user": { "uid": 5, "gid": 6 }
    });
    change(&mut process);
    let path = c.bundle().beside("process.json");
    fs::write(&path, process.to_string()).unwrap();
    path.display().to_string()
}

const NO_COMMAND: [&str; 0] = [];

#[test]
fn process_is_run_instead_of_the_containers_own() {
    let c = configured();
    let file = process_file(&c, |_| {});
    let done = c.exec_with(&["--process", &file], NO_COMMAND).success();
    assert_eq!(done.stdout, "/bin\n5\nfrom the file\n");
    let own = c.exec(["sh", "-c", EFFECTIVE]).success().stdout;
    let rights = |process: &mut Value| process["args"] = json!(["sh", "-c", EFFECTIVE]);
    let file = process_file(&c, rights);
    assert_eq!(effective(&c, &file), own.trim(), "it does not say, so that they are the same");
    let none = process_file(&c, |process| {
        rights(process);
        process["capabilities"] = json!({});
    });
    assert_eq!(effective(&c, &none), "0000000000000000");
}

const EFFECTIVE: &str = "grep CapEff /proc/self/status | cut -f2";

fn effective(c: &Container, file: &str) -> String {
    c.exec_with(&["--process", file], NO_COMMAND).success().stdout.trim().to_owned()
}

/// As with runc and crun.
#[test]
fn what_process_says_is_what_no_other_option_changes() {
    let c = configured();
    let script = "pwd; id; echo $WORD; tty; grep -E 'CapEff|NoNewPrivs' /proc/self/status";
    let file = process_file(&c, |process| process["args"] = json!(["sh", "-c", script]));
    let alone = c.exec_with(&["--process", &file], NO_COMMAND).success().stdout;
    assert!(alone.starts_with("/bin\nuid=5 gid=6"), "{alone}");
    assert!(alone.contains("\nfrom the file\nnot a tty\n"), "{alone}");
    let options = ["-tp", &file, "--cwd", "/tmp", "-u", "3:4", "-e", "WORD=changed", "-g", "77"];
    let rights = ["--cap", "CAP_SYS_ADMIN", "--no-new-privs", "--apparmor", "no-such"];
    let options = [&options[..], &rights].concat();
    assert_eq!(c.exec_with(&options, ["echo", "own"]).success().stdout, alone);
}

#[test]
fn process_may_be_a_descriptor_which_is_not_passed_on() {
    let c = sleeper();
    let script = ["sh", "-c", "ls /proc/$$/fd; true"];
    let file = process_file(&c, |process| process["args"] = json!(script));
    let rt = c.exec_rt(&["--process", "/dev/fd/7"], NO_COMMAND);
    let done = rt.redirections(&format!("7<{file}")).run().success();
    assert_eq!(done.stdout, "0\n1\n2\n");
    let rt = c.exec_rt(&["--process", "/dev/stdin"], NO_COMMAND);
    let done = rt.redirections(&format!("<{file}")).run().success();
    assert_eq!(done.stdout, "0\n1\n2\n");
}

#[test]
fn process_may_be_a_pipe_that_is_still_being_written() {
    let c = sleeper();
    let file = process_file(&c, |process| process["args"] = json!(["echo", "late"]));
    let rt = c.exec_rt(&["--process", "/dev/fd/9"], NO_COMMAND);
    let pipe = c.bundle().beside("pipe").display().to_string();
    mkfifo(pipe.as_str(), Mode::S_IRWXU).unwrap();
    let rt = rt.redirections(&format!("9<{pipe}"));
    let running = rt.spawn();
    let text = fs::read(&file).unwrap();
    // Opens once the runtime's shell has opened its end; the runtime then waits for the text.
    let mut writer = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    let (first, second) = text.split_at(text.len() / 2);
    writer.write_all(first).unwrap();
    until("it waits for the rest", || waits_in(running.pid(), "read"));
    writer.write_all(second).unwrap();
    drop(writer);
    assert_eq!(running.finish().success().stdout, "late\n");
}

#[test]
fn a_process_file_that_is_none_is_refused() {
    let c = sleeper();
    let path = c.bundle().beside("bad.json").display().to_string();
    let cases = [
        "",
        "{",
        "[]",
        "{}",
        "null",
        "{\"args\":[]}",
        "{\"cwd\":\"/\"}",
        "{\"cwd\":\"/\",\"args\":[\"true\"],\"user\":{\"uid\":-1}}",
        "{\"cwd\":\"/\",\"args\":[\"true\"],\"user\":{\"uid\":4294967296}}",
        "{\"cwd\":\"/\",\"args\":[\"true\"]} and more",
        "{\"cwd\":\"here\",\"args\":[\"true\"]}",
    ];
    for text in cases {
        fs::write(&path, text).unwrap();
        let done = c.exec_with(&["--process", &path], NO_COMMAND).one_line();
        assert_eq!(done.status, 255, "{text:?}");
    }
    for path in ["/no/such", "/", "/dev/null", "/dev/fd/9"] {
        let done = c.exec_with(&["--process", path], NO_COMMAND).one_line().says(&[path]);
        assert_eq!(done.status, 255, "{path}");
    }
}

#[test]
fn preserved_descriptors_reach_the_process_and_no_others() {
    let c = sleeper();
    let script = "ls /proc/$$/fd; cat <&3; cat <&4";
    let files = ["three", "four"].map(|name| {
        let path = c.bundle().beside(name);
        fs::write(&path, name).unwrap();
        path.display().to_string()
    });
    let redirections = format!("3<{} 4<{} 5</proc 6</ 8</", files[0], files[1]);
    for (option, seen) in [
        ("0", "0\n1\n2\n"),
        ("1", "0\n1\n2\n3\nthree"),
        ("2", "0\n1\n2\n3\n4\nthreefour"),
        ("3", "0\n1\n2\n3\n4\n5\nthreefour"),
    ] {
        let rt = c.exec_rt(&["--preserve-fds", option], ["sh", "-c", script]);
        let done = rt.redirections(&redirections).run();
        assert_eq!(done.stdout, seen, "--preserve-fds {option}");
    }
}

/// runc#5474: descriptors of the runtime's own took the place of those that were not there.
#[test]
fn a_preserved_descriptor_that_is_closed_is_an_error() {
    let c = sleeper();
    for (option, redirections) in
        [("3", "3<&- 4<&- 5<&-"), ("1", "3<&-"), ("3", "3</etc 4<&- 5</etc"), ("4294967295", "")]
    {
        let rt = c.exec_rt(&["--preserve-fds", option], ["ls", "/proc/self/fd"]);
        let done = rt.redirections(redirections).run().one_line().says(&["--preserve-fds"]);
        assert_eq!((done.status, &*done.stdout), (255, ""), "{option} {redirections}");
    }
    c.exec_with(&["--preserve-fds=-1"], ["true"]).one_line();
    c.exec_with(&["--preserve-fds", "4294967296"], ["true"]).one_line();
}

#[test]
fn options_end_at_the_command() {
    let c = sleeper();
    let id = &*c.id;
    for args in [
        vec!["exec", "-e", "A=1", id, "echo", "-t", "--cwd", "/no"],
        vec!["exec", id, "--", "echo", "-t", "--cwd", "/no"],
        vec!["exec", "--", id, "echo", "-t", "--cwd", "/no"],
    ] {
        assert_eq!(c.rt(&args).run().success().stdout, "-t --cwd /no\n", "{args:?}");
    }
    assert_eq!(c.exec(["echo", "--", "-e"]).success().stdout, "-- -e\n");
}

/// Sub-groups of a container, made on the host: one for each of the controllers.
fn with_sub_groups(view: View, controllers: &[&str]) -> Container {
    let c = Bundle::busybox().in_view(view).args(["sleep", "1000"]).start();
    for controller in controllers {
        let script = format!(
            "line=$(grep -E '^[0-9]+:([^:]*,)?{controller}(,[^:]*)?:' /proc/{pid}/cgroup)
            mkdir -p /sys/fs/cgroup/{controller}${{line##*:}}/sub/deep",
            pid = c.pid()
        );
        let done = view.command("sh").args(["-c", &script]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    c
}

#[test]
fn cgroup_is_a_group_below_the_containers() {
    for view in View::all() {
        if view == View::V2 {
            let c = with_sub_groups(view, &[""]);
            let done = c.exec_with(&["--cgroup", "sub/deep"], ["cat", "/proc/self/cgroup"]);
            assert!(done.success().stdout.trim_end().ends_with("/sub/deep"));
            let done = c.exec_with(&["--cgroup", "pids:sub"], ["true"]).one_line();
            assert_eq!(done.status, 255);
            continue;
        }
        let c = with_sub_groups(view, &["pids", "memory"]);
        // Where it is not in every hierarchy, a path for all of them is none; their own group is.
        c.exec_with(&["--cgroup", "sub"], ["true"])
            .one_line()
            .says(&["--cgroup", "no such cgroup"]);
        c.exec_with(&["--cgroup", "/"], ["true"]).success();
        c.exec_with(&["--cgroup", ""], ["true"]).success();
        let options = ["--cgroup", "pids:sub/deep", "--cgroup", "memory:/sub"];
        let seen = c.exec_with(&options, ["cat", "/proc/self/cgroup"]).success().stdout;
        let init = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
        let wanted = init.lines().map(|line| match line.split(':').nth(1).unwrap() {
            "pids" => format!("{line}/sub/deep"),
            "memory" => format!("{line}/sub"),
            _ => line.to_owned(),
        });
        let wanted: Vec<String> = wanted.collect();
        assert_eq!(seen.lines().collect::<Vec<_>>(), wanted, "{view:?}");
        for bad in [
            &["--cgroup", "nowhere"][..],
            &["--cgroup", "sub", "--cgroup", "pids:sub"],
            &["--cgroup", "pids:no-such"],
            &["--cgroup", "nothing:sub"],
            &["--cgroup", "pids:sub", "--cgroup", "pids:sub"],
            &["--cgroup", "pids:sub,memory:sub"],
            &["--cgroup", "pids:.."],
            &["--cgroup", ":sub"],
        ] {
            let done = c.exec_with(bad, ["true"]).one_line().says(&["--cgroup"]);
            assert_eq!(done.status, 255, "{bad:?}");
        }
    }
}

#[test]
fn exec_in_a_paused_container_is_refused() {
    let c = sleeper();
    freeze(c.pid());
    until("it is frozen", || c.status() == "paused");
    let done = c.exec(["true"]).one_line().says(&["cannot exec in a paused container"]);
    assert_eq!(done.status, 255);
    thaw(c.pid());
    c.exec(["true"]).success();
}

#[test]
fn with_ignore_paused_exec_waits_for_the_container() {
    let c = sleeper();
    freeze(c.pid());
    until("it is frozen", || c.status() == "paused");
    let exec = c.exec_rt(&["--ignore-paused"], ["echo", "resumed"]).spawn();
    until("it waits", || waits_in(exec.pid(), "clock_nanosleep"));
    assert_eq!(exec.output_so_far(), "");
    thaw(c.pid());
    assert_eq!(exec.finish().success().stdout, "resumed\n");
    assert_eq!(c.exec_with(&["--ignore-paused"], ["echo", "ran"]).success().stdout, "ran\n");
}
