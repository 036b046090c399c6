//! Terminals: through a console socket, and for a person at `run`.

mod person;

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use crate::harness::terminal::{ConsoleSocket, Seat, Terminal};
use crate::harness::{Bundle, Canary, Container};

fn with_terminal(bundle: Bundle) -> Bundle {
    bundle.config(|c| c["process"]["terminal"] = true.into())
}

/// A created container and the master of its terminal.
fn created(bundle: Bundle) -> (Container, Terminal) {
    let socket = ConsoleSocket::at(bundle.beside("console"));
    let path = socket.path().to_str().unwrap().to_owned();
    let c = with_terminal(bundle).options(["--console-socket", &path]).create();
    (c, socket.master())
}

#[test]
fn a_console_socket_receives_the_master_of_the_containers_terminal() {
    let (c, mut terminal) = created(Bundle::busybox().script("tty; read word; echo got $word"));
    let kind = terminal.master().metadata().unwrap();
    assert!(kind.file_type().is_char_device() && kind.rdev() >> 8 == 5, "a ptmx");
    c.start();
    terminal.expect("/dev/pts/0");
    terminal.type_in("hello\n");
    terminal.expect("got hello");
    assert_eq!(c.wait(), 0);
    assert_eq!((c.output(), c.errors()), (String::new(), String::new()));
}

#[test]
fn the_terminal_is_the_controlling_one_and_its_three_streams() {
    let script = "for fd in 0 1 2; do test -t $fd && echo yes $fd; done; echo own > /dev/tty
        stat -c '%u:%g:%a' $(tty); stat -c %F /dev/console; ps -o pid,tty | grep -c 136,0";
    let (c, terminal) = created(Bundle::busybox().script(script));
    c.start();
    c.wait();
    let seen = terminal.read_to_end();
    for line in ["yes 0", "yes 1", "yes 2", "own", "0:5:620", "character special file"] {
        assert!(seen.contains(line), "{line} in {seen:?}");
    }
}

#[test]
fn the_terminal_belongs_to_the_user_of_the_process() {
    let bundle = Bundle::busybox().config(|c| {
        c["process"]["user"] = serde_json::json!({ "uid": 7, "gid": 8 });
    });
    let (c, mut terminal) = created(bundle.script("stat -c '%u:%g' $(tty)"));
    c.start();
    terminal.expect("7:5");
}

#[test]
fn the_size_of_the_console_is_the_configured_one() {
    let bundle = Bundle::busybox().config(|c| {
        c["process"]["consoleSize"] = serde_json::json!({ "height": 33, "width": 111 });
    });
    let (c, mut terminal) = created(bundle.script("stty size"));
    c.start();
    terminal.expect("33 111");
}

#[test]
fn a_hang_up_of_the_terminal_reaches_the_container() {
    let script = "trap 'exit 7' HUP; echo ready; while :; do sleep 0.02; done";
    let (c, mut terminal) = created(Bundle::busybox().script(script));
    c.start();
    terminal.expect("ready");
    drop(terminal);
    assert_eq!(c.wait(), 7);
}

#[test]
fn create_with_a_terminal_needs_a_console_socket_and_one_without_refuses_it() {
    with_terminal(Bundle::busybox()).refused();
    let bundle = Bundle::busybox();
    let socket = ConsoleSocket::at(bundle.beside("console"));
    let path = socket.path().to_str().unwrap().to_owned();
    bundle.options(["--console-socket", &path]).refused();
}

#[test]
fn a_console_socket_that_nobody_listens_on_is_an_error() {
    let bundle = with_terminal(Bundle::busybox());
    let path = bundle.beside("nobody").to_str().unwrap().to_owned();
    bundle.options(["--console-socket", &path]).refused();
}

/// `run` at a terminal of 30 lines and 99 columns: the person's side, and the exit status.
fn run_at_a_terminal(script: &str, talk: impl FnOnce(&mut Terminal)) -> (Option<i32>, String) {
    let bundle = with_terminal(Bundle::busybox().script(script));
    let mut seat = Seat::run(&bundle.launch(&["run"], &bundle.id()));
    talk(&mut seat.terminal);
    let (status, seen) = seat.finish();
    (Some(status), seen)
}

#[test]
fn run_relays_between_the_callers_terminal_and_the_containers() {
    let script = "echo ready; read word; echo got $word; exit 4";
    let (status, _) = run_at_a_terminal(script, |terminal| {
        terminal.expect("ready");
        terminal.type_in("hello\n");
        terminal.expect("got hello");
    });
    assert_eq!(status, Some(4));
}

#[test]
fn under_run_the_containers_terminal_has_the_size_of_the_callers() {
    let (status, seen) = run_at_a_terminal("stty size", |_| {});
    assert_eq!((status, &*seen), (Some(0), "30 99\r\n"));
}

#[test]
fn under_run_lines_end_as_on_any_terminal() {
    let (status, seen) = run_at_a_terminal("echo one; echo two", |_| {});
    assert_eq!((status, &*seen), (Some(0), "one\r\ntwo\r\n"));
}

#[test]
fn run_relays_all_of_a_long_output() {
    let (status, seen) = run_at_a_terminal("seq 1 20000; exit 3", |terminal| {
        terminal.expect("20000\r\n");
    });
    assert_eq!((status, seen.lines().count()), (Some(3), 20_000));
}

#[test]
fn an_images_console_link_does_not_lead_the_terminal_to_the_host() {
    let canary = Canary::plant();
    let bundle = Bundle::busybox().without_mount("/dev").writable();
    let bundle = bundle.link("/dev/console", canary.path().join("console"));
    let socket = ConsoleSocket::at(bundle.beside("console"));
    let path = socket.path().to_str().unwrap().to_owned();
    let bundle = with_terminal(bundle).options(["--console-socket", &path]);
    // Either is right: no container, or one whose console is not the host's file.
    if let Ok(c) = bundle.script("echo loud > /dev/console").try_start() {
        c.wait();
    }
    canary.assert_untouched();
}
