//! What comes back is what the configuration says, or nothing does.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{
    COUNT, Neighbour, answers_through_a_pipe, counting, goes_on, has_begun, images_of, restored_as,
    with_criu,
};
use crate::harness::terminal::ConsoleSocket;
use crate::harness::{Bundle, Container, TempDir, namespace_of, reap, until};

#[track_caller]
fn is_refused(bundle: &Bundle, c: &Container, words: &[&str]) {
    eprintln!("{words:?}");
    restored_as(bundle, c).one_line().says(words);
    bundle.leftovers().assert_none_since();
}

const NONE: &str = "the images have none of their own";
const OWN: &str = "the images have one of their own";

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn namespaces_other_than_those_of_the_configuration_are_refused() {
    let (first, second) = (Neighbour::start(), Neighbour::start());
    let counting = || counting().config(|c| c["hostname"] = json!(""));
    let plain = images_of(counting());
    is_refused(&counting().user_namespace(), &plain, &["linux.namespaces: user", NONE]);
    let network = first.network();
    let joining = counting().joins("network", &network);
    is_refused(&joining, &plain, &["linux.namespaces[", &network, "another network"]);
    for kind in ["network", "pid", "uts", "ipc"] {
        let shared = counting().without_namespace(kind);
        is_refused(&shared, &plain, &[&format!("linux.namespaces: {kind}"), OWN]);
        if kind != "pid" {
            let images = images_of(shared);
            is_refused(&counting(), &images, &[&format!("linux.namespaces: {kind}"), NONE]);
        }
    }
    let images = images_of(joining);
    let other = counting().joins("network", &second.network());
    restored_as(&other, &images).success();
    assert_eq!(namespace_of(Container::of(other).pid(), "net"), namespace_of(second.0.id(), "net"));
    is_refused(&counting(), &images, &["criu failed"]);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn the_ids_of_the_images_are_those_of_the_configuration() {
    let c = images_of(counting().user_namespace());
    for kind in ["uid", "gid"] {
        let key = format!("{kind}Mappings");
        let bundle = counting().user_namespace();
        let bundle = bundle.config(|c| c["linux"][&key][0]["size"] = json!(4711));
        is_refused(&bundle, &c, &[&format!("linux.{key}: the images have others")]);
    }
}

/// As it can be in a container that was not checkpointed.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_pipe_of_the_callers_can_be_opened_again_in_a_user_namespace() {
    answers_through_a_pipe(Bundle::busybox().user_namespace(), "echo asked >/dev/stdout");
}

/// Who restores it may be a service, and not the container.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_container_restored_under_a_service_manager_has_further_checkpoints() {
    let images = images_of(counting());
    let bundle = counting();
    let manager = bundle.beside("manager");
    let _socket = UnixDatagram::bind(&manager).unwrap();
    let bundle = bundle.behind(&["env", &format!("NOTIFY_SOCKET={}", manager.display())]);
    restored_as(&bundle, &images).success();
    let mut c = Container::of(bundle);
    goes_on(&c);
    c.checkpoint(&[]).success();
    c.restore(&[]);
    goes_on(&c);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_terminal_of_the_images_is_in_the_configuration() {
    let with_terminal = |bundle: Bundle| {
        let socket = ConsoleSocket::at(bundle.beside("console"));
        let bundle = bundle.config(|c| c["process"]["terminal"] = json!(true));
        (bundle.options(["--console-socket", &socket.path().display().to_string()]), socket)
    };
    let (bundle, socket) = with_terminal(with_criu(Bundle::busybox().script(COUNT)));
    let c = bundle.start();
    let _terminal = socket.master();
    has_begun(&c);
    c.checkpoint(&[]).success();
    c.wait();
    is_refused(&counting(), &c, &["process.terminal", "1 in the images", "0 in the configuration"]);
    // As daemons do it.
    let lets_go = format!("exec </dev/null >/dev/null 2>&1; {COUNT}");
    let (bundle, socket) = with_terminal(with_criu(Bundle::busybox().script(&lets_go)));
    let mut c = bundle.start();
    let _terminal = socket.master();
    has_begun(&c);
    c.checkpoint(&[]).success();
    c.restore(&[]);
    goes_on(&c);
}

/// With `directory` as the `/tmp` of the runtime.
fn with_tmp(bundle: Bundle, directory: &Path) -> Bundle {
    fs::create_dir(directory).unwrap();
    let script = format!("mount --bind {} /tmp && exec \"$@\"", directory.display());
    bundle.with_own_program().behind(&["unshare", "--mount", "sh", "-c", &script, "sh"])
}

/// CRIU makes one for its mounts there.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_restore_that_fails_leaves_no_directory_in_tmp() {
    let tmp = TempDir::new();
    let tmp = tmp.path().join("tmp");
    let bundle = with_tmp(counting(), &tmp);
    fs::create_dir(tmp.join("data")).unwrap();
    let data = json!({ "destination": "/mnt", "source": "/tmp/data", "options": ["bind"] });
    let c = images_of(bundle.mount(data.clone()));
    let hooks = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    let bundle = with_tmp(counting(), &tmp.with_extension("other")).mount(data);
    fs::create_dir(tmp.with_extension("other").join("data")).unwrap();
    is_refused(&bundle.config(|c| c["hooks"] = hooks), &c, &["/bin/false"]);
    assert_eq!(fs::read_dir(tmp.with_extension("other")).unwrap().count(), 1);
}

/// Neither a pid namespace nor a group says which ones they are.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_restore_that_fails_late_leaves_no_process() {
    let bundle = counting().script("sleep 1000 & echo $! >/dev/shm/child; wait");
    let bundle = bundle.without_namespace("pid");
    let c = bundle.global_options(&["--cgroup-manager", "disabled"]).start();
    let file = format!("/proc/{}/root/dev/shm/child", c.pid());
    until("it has a child", || fs::read(&file).is_ok_and(|text| text.ends_with(b"\n")));
    let child = fs::read_to_string(&file).unwrap();
    let child = Path::new("/proc").join(child.trim());
    c.checkpoint(&[]).success();
    let pid_file = c.bundle().beside("pid");
    fs::remove_file(&pid_file).unwrap();
    fs::create_dir(&pid_file).unwrap();
    let number = child.file_name().unwrap().to_str().unwrap().parse().unwrap();
    reap(number, Duration::from_secs(10)).unwrap();
    c.try_restore(&[]).one_line().says(&["--pid-file", "Is a directory"]);
    let command = fs::read_to_string(child.join("cmdline")).unwrap_or_default();
    if !command.is_empty() {
        kill(Pid::from_raw(number), Signal::SIGKILL).unwrap();
    }
    assert_eq!(command, "");
}

/// What CRIU opens by its path is found although its own `/tmp` is another one.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn what_the_configuration_names_below_tmp_is_found() {
    let tmp = TempDir::new();
    let tmp = tmp.path().join("tmp");
    let neighbour = Neighbour::start();
    let bundle = with_tmp(counting(), &tmp).joins("ipc", "/tmp/ipc");
    symlink(neighbour.path("ipc"), tmp.join("ipc")).unwrap();
    fs::write(tmp.join("criu.conf"), "log-file other.log\n").unwrap();
    let options = json!({ "org.criu.config": "/tmp/criu.conf" });
    let mut c = images_of(bundle.config(|c| c["annotations"] = options));
    let log = c.bundle().beside("images").join("other.log");
    fs::remove_file(&log).unwrap();
    c.restore(&[]);
    assert_eq!(namespace_of(c.pid(), "ipc"), namespace_of(neighbour.0.id(), "ipc"));
    assert!(log.exists(), "{}", log.display());
}
