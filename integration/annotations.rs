//! Annotations of a configuration that change what is done, as under crun.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::terminal::ConsoleSocket;
use crate::harness::{Bundle, View, proc_status};

fn sleeper() -> Bundle {
    Bundle::busybox().args(["sleep", "1000"])
}

fn annotated(bundle: Bundle, annotations: &[(&str, &str)]) -> Bundle {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    bundle.config(|c| c["annotations"] = json!(annotations))
}

fn hook(bundle: Bundle, kind: &str, script: &str) -> Bundle {
    let env = ["PATH=/bin:/usr/bin"];
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": env }]);
    bundle.config(|c| c["hooks"][kind] = hook)
}

#[test]
fn the_callers_groups_stay_if_that_is_asked_for() {
    let groups = ["setpriv", "--groups=4321,4322", "--"];
    let with = |value: &str| {
        annotated(sleeper().behind(&groups), &[("run.oci.keep_original_groups", value)])
            .config(|c| c["process"]["user"]["additionalGids"] = json!([7]))
            .start()
    };
    let c = with("1");
    assert_eq!(proc_status(c.pid(), "Groups"), "4321 4322");
    assert_eq!(c.exec(["id", "-G"]).success().stdout, "0 4321 4322\n");
    assert_eq!(proc_status(with("0").pid(), "Groups"), "7");
}

#[test]
fn a_user_keeps_the_groups_that_his_namespace_does_not_know() {
    let bundle = Bundle::busybox().of_user_in_group(4321);
    let shared = bundle.beside("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "for the group\n").unwrap();
    chown(&shared, Some(0), Some(4321)).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o050)).unwrap();
    let bundle = bundle.mount(json!({ "destination": "/tmp", "type": "none",
        "source": shared, "options": ["bind"] }));
    let bundle = annotated(bundle, &[("run.oci.keep_original_groups", "1")]);
    let done = bundle.args(["cat", "/tmp/file"]).run().success();
    assert_eq!(done.stdout, "for the group\n");
}

#[test]
fn hooks_write_where_the_configuration_says() {
    let bundle = Bundle::busybox().args(["sleep", "1000"]);
    let files = ["hooks.out", "hooks.err"].map(|name| bundle.beside(name));
    let [out, err] = files.each_ref().map(|file| file.to_str().unwrap().to_owned());
    let kinds =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let bundle = kinds.into_iter().fold(bundle, |bundle, kind| {
        hook(bundle, kind, &format!("echo {kind}; echo {kind} of $$ >&2"))
    });
    let outputs = [("run.oci.hooks.stdout", &*out), ("run.oci.hooks.stderr", &*err)];
    fs::write(&files[0], "was there\n").unwrap();
    let c = annotated(bundle, &outputs).start();
    c.kill("KILL");
    c.wait();
    c.delete();
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let written = lines(fs::read_to_string(&files[0]).unwrap());
    assert_eq!(written, [&["was there"][..], &kinds].concat(), "it is appended");
    let errors = lines(fs::read_to_string(&files[1]).unwrap());
    assert_eq!(errors.len(), kinds.len(), "{errors:?}");
}

/// The rest of what a failed hook wrote is in its error, also why there is none.
#[test]
fn a_hook_that_fails_is_quoted_without_what_went_elsewhere() {
    let bundle = sleeper();
    let out = bundle.beside("hooks.out");
    let script = "echo said; echo why >&2; exit 3";
    let outputs = [("run.oci.hooks.stdout", out.to_str().unwrap())];
    let done = annotated(hook(bundle, "createRuntime", script), &outputs).refused();
    done.one_line().says(&["hooks.createRuntime[0]", "exit status 3: why"]);
    let bundle = sleeper();
    let err = bundle.beside("hooks.err");
    let outputs = [("run.oci.hooks.stderr", err.to_str().unwrap())];
    let bundle = bundle.config(|c| c["hooks"]["createRuntime"] = json!([{ "path": "/no/hook" }]));
    annotated(bundle, &outputs).refused().one_line().says(&["/no/hook", "No such file"]);
}

#[test]
fn the_pidfd_of_init_is_handed_out() {
    let bundle = sleeper();
    let socket = ConsoleSocket::at(bundle.beside("pidfd"));
    let path = socket.path().to_str().unwrap().to_owned();
    let c = annotated(bundle, &[("run.oci.pidfd_receiver", &path)]).start();
    let (pidfd, _) = socket.descriptor();
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
    assert_eq!(c.wait(), 128 + Signal::SIGKILL as i32);
}

/// The limits are those of the container's group, out of the payload's reach.
#[test]
fn a_process_starts_in_the_group_that_is_delegated_to_it() {
    let bundle = || {
        let bundle = sleeper().in_view(View::V2);
        let bundle = bundle.namespaces(&["pid", "network", "ipc", "uts", "mount", "cgroup"]);
        let limit = json!({ "unified": { "cgroup.max.depth": "3" } });
        annotated(bundle, &[("run.oci.delegate-cgroup", "inner/most")]).resources(limit)
    };
    if !View::all().any(|view| view == View::V2) {
        return;
    }
    for (bundle, owner) in [(bundle(), 0), (bundle().user_namespace(), 100_000)] {
        let c = bundle.start();
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
        let path = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
        let own = path.strip_suffix("/inner/most").unwrap_or_else(|| panic!("{path}"));
        assert!(own.ends_with(&c.id), "{own}");
        let inside = c.exec(["cat", "/proc/1/cgroup", "/proc/self/cgroup"]).success().stdout;
        let inside: Vec<_> = inside.lines().filter(|line| line.starts_with("0::")).collect();
        assert_eq!(inside, ["0::/inner/most"; 2], "seen from the container's group");
        let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let top = mounted.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
        let top = top.split(' ').nth(4).unwrap();
        let depth = |group: &str| fs::read_to_string(format!("{top}{group}/cgroup.max.depth"));
        assert_eq!((&*depth(own).unwrap(), &*depth(path).unwrap()), ("3\n", "max\n"));
        let procs = fs::metadata(format!("{top}{path}/cgroup.procs")).unwrap();
        assert_eq!(procs.uid(), owner);
        c.kill("KILL");
        c.wait();
        c.delete();
        assert!(!fs::exists(format!("{top}{own}")).unwrap());
    }
}

#[test]
fn a_group_is_delegated_with_version_2_alone() {
    for view in View::all().filter(|view| *view != View::V2) {
        let bundle = annotated(sleeper().in_view(view), &[("run.oci.delegate-cgroup", "inner")]);
        bundle.refused().one_line().says(&["run.oci.delegate-cgroup", "cgroup v2"]);
    }
}

#[test]
fn annotations_that_make_no_sense_are_refused() {
    for (name, value, words) in [
        ("run.oci.hooks.stdout", "relative", "absolute"),
        ("run.oci.hooks.stderr", "relative", "absolute"),
        ("run.oci.pidfd_receiver", "relative", "absolute"),
        ("run.oci.pidfd_receiver", "/no/such/socket", "No such file"),
        ("run.oci.hooks.stdout", "/no/such/directory/file", "No such file"),
        ("run.oci.delegate-cgroup", "../other", "names no cgroup"),
        ("run.oci.systemd.subgroup", "..", "names no cgroup"),
        ("run.oci.mount_context_type", "seccontext", "defcontext"),
    ] {
        let bundle = hook(sleeper(), "createRuntime", "true");
        annotated(bundle, &[(name, value)]).refused().one_line().says(&[name, words]);
    }
}

#[test]
fn a_pipe_that_nobody_reads_does_not_hold_anybody() {
    let bundle = hook(sleeper(), "createRuntime", "true");
    let pipe = bundle.beside("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let path = pipe.to_str().unwrap().to_owned();
    let done = annotated(bundle, &[("run.oci.hooks.stdout", &path)]).refused();
    done.one_line().says(&["run.oci.hooks.stdout"]);
}
