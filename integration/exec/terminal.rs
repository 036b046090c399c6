//! `exec --tty`: at a terminal, with pipes in its place, and with a console socket.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::sleeper;
use crate::harness::terminal::{ConsoleSocket, Seat};
use crate::harness::{Container, reap, until, waits_in};

fn at_a_terminal(c: &Container, script: &str) -> Seat {
    Seat::run(&c.exec_rt(&["--tty"], ["sh", "-c", script]))
}

#[test]
fn a_terminal_has_the_size_of_the_callers_and_gives_it_back() {
    let c = sleeper();
    let script = "for fd in 0 1 2; do test -t $fd && echo yes $fd; done
        stty size; stat -c %u:%g:%a $(tty); echo own >/dev/tty; exit 5";
    let (status, seen) = at_a_terminal(&c, script).finish();
    let wanted = "yes 0\r\nyes 1\r\nyes 2\r\n30 99\r\n0:5:620\r\nown\r\n";
    assert_eq!((status, &*seen), (5, wanted));
}

#[test]
fn the_terminal_of_an_exec_belongs_to_its_user() {
    let c = sleeper();
    let rt = c.exec_rt(&["-t", "-u", "7:8"], ["sh", "-c", "stat -c %u:%g $(tty)"]);
    assert_eq!(Seat::run(&rt).finish(), (0, "7:5\r\n".to_owned()));
}

#[test]
fn what_is_typed_reaches_the_process() {
    let c = sleeper();
    let mut seat = at_a_terminal(&c, "echo ready; read word; echo got $word");
    seat.terminal.expect("ready");
    assert!(!seat.reads_lines(), "the caller's terminal is in raw mode");
    seat.terminal.type_in("hello\n");
    seat.terminal.expect("got hello");
    assert_eq!(seat.finish().0, 0);
}

#[test]
fn an_interrupt_that_is_typed_ends_the_process_and_not_the_runtime() {
    let c = sleeper();
    let mut seat = at_a_terminal(&c, "trap 'exit 9' INT; echo ready; while :; do sleep 0.02; done");
    seat.terminal.expect("ready");
    seat.terminal.type_in("\x03");
    assert_eq!(seat.finish().0, 9);
}

#[test]
fn the_terminal_follows_the_size_of_the_callers() {
    let c = sleeper();
    let script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.02; done";
    let mut seat = at_a_terminal(&c, script);
    seat.terminal.expect("ready");
    seat.resize(40, 120);
    kill(seat.pid(), Signal::SIGWINCH).unwrap();
    seat.terminal.expect("40 120");
    assert_eq!(seat.finish().0, 0);
}

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    let c = sleeper();
    for (script, signal, status) in [
        ("kill -9 $$", None, 128 + 9),
        ("echo ready; while :; do sleep 0.02; done", Some(Signal::SIGTERM), 128 + 15),
        ("echo ready; while :; do sleep 0.02; done", Some(Signal::SIGHUP), 128 + 1),
        ("echo ready; while :; do sleep 0.02; done", Some(Signal::SIGABRT), 128 + 6),
    ] {
        let mut seat = at_a_terminal(&c, script);
        if let Some(signal) = signal {
            seat.terminal.expect("ready");
            kill(seat.pid(), signal).unwrap();
        }
        assert_eq!(seat.finish().0, status, "{script} {signal:?}");
    }
    let seat = Seat::run(&c.exec_rt(&["--tty"], ["no-such-program"]));
    let (status, seen) = seat.finish();
    assert_eq!(status, 255);
    assert!(seen.contains("executable file not found"), "{seen:?}");
}

#[test]
fn a_stop_gives_the_terminal_back_until_it_is_continued() {
    let c = sleeper();
    let mut seat = at_a_terminal(&c, "echo ready; read word; echo got $word");
    seat.terminal.expect("ready");
    kill(seat.pid(), Signal::SIGTSTP).unwrap();
    let state =
        |seat: &Seat| std::fs::read_to_string(format!("/proc/{}/stat", seat.pid())).unwrap();
    until("it has stopped", || state(&seat).contains(") T "));
    assert!(seat.reads_lines());
    kill(seat.pid(), Signal::SIGCONT).unwrap();
    until("it has the terminal again", || !seat.reads_lines());
    seat.terminal.type_in("again\n");
    seat.terminal.expect("got again");
    assert_eq!(seat.finish().0, 0);
}

/// The command line of `exec --tty` with pipes or files for its streams.
fn piped(c: &Container, script: &str) -> Command {
    let mut command = c.exec_rt(&["--tty"], ["sh", "-c", script]).command(&[]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

#[test]
fn standard_input_need_not_be_a_terminal_and_its_end_is_the_processs() {
    let c = sleeper();
    for (input, output) in [("", ""), ("one\n", "one\none\n"), ("one\ntwo", "one\ntwoone\ntwo")] {
        let mut exec = piped(&c, "cat").spawn().unwrap();
        exec.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let done = exec.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{input:?}");
        let seen = String::from_utf8(done.stdout).unwrap();
        // Echo and output of two lines may come in either order.
        let sorted = |text: &str| {
            let mut bytes: Vec<_> = text.bytes().collect();
            bytes.sort_unstable();
            bytes
        };
        assert_eq!(sorted(&seen), sorted(output), "{input:?}: {seen:?}");
    }
}

#[test]
fn output_into_a_file_keeps_what_stands_there() {
    let c = sleeper();
    let path = c.bundle().beside("log");
    std::fs::write(&path, "before\n").unwrap();
    let file = || std::fs::File::options().append(true).open(&path).unwrap();
    let mut command = c.exec_rt(&["--tty"], ["echo", "after"]).command(&[]);
    assert!(command.stdin(Stdio::null()).stdout(file()).status().unwrap().success());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\nafter\n");
}

#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let c = sleeper();
    let mut command = c.exec_rt(&["--tty"], ["echo", "hello"]).command(&[]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let done = command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(done.status.code(), Some(255));
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.starts_with("rt: standard output: No space left") && said.lines().count() == 1);
}

#[test]
fn a_process_may_close_its_terminal_and_open_it_again() {
    let c = sleeper();
    let script = "echo one; T=$(tty); exec <&- >&- 2>&-; sleep 0.1; echo two >$T; exit 3";
    let (status, seen) = at_a_terminal(&c, script).finish();
    assert_eq!((status, &*seen), (3, "one\r\ntwo\r\n"));
}

#[test]
fn a_reader_that_goes_away_hangs_up_on_the_process() {
    let c = sleeper();
    let mut exec = piped(&c, "trap 'exit 3' HUP; while :; do echo more; done").spawn().unwrap();
    let mut output = exec.stdout.take().unwrap();
    output.read_exact(&mut [0; 4]).unwrap();
    drop(output);
    assert_eq!(exec.wait().unwrap().code(), Some(3));
}

/// A generator of bytes that do not repeat soon (xorshift).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_ne_bytes()
    });
    words.flatten().take(length).collect()
}

/// There and back through the terminal, while nobody reads for a second.
#[test]
fn sixty_four_megabytes_go_both_ways_unchanged() {
    let c = sleeper();
    let sent = noise(64 << 20);
    let script = format!("stty raw -echo; echo ready; exec head -c {}", sent.len());
    let mut exec = piped(&c, &script).spawn().unwrap();
    let (mut input, mut output) = (exec.stdin.take().unwrap(), exec.stdout.take().unwrap());
    let mut ready = [0; 6];
    output.read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    let mut received = vec![0; sent.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| input.write_all(&sent).unwrap());
        let (first, second) = received.split_at_mut(sent.len() / 2);
        output.read_exact(first).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        output.read_exact(second).unwrap();
    });
    drop(input);
    let mut rest = vec![];
    output.read_to_end(&mut rest).unwrap();
    assert_eq!((exec.wait().unwrap().code(), rest.len()), (Some(0), 0));
    assert!(received == sent, "the bytes differ");
}

#[test]
fn a_signal_is_passed_on_while_nobody_reads_the_output() {
    let c = sleeper();
    let script =
        "trap 'exit 4' TERM; while :; do echo 0123456789012345678901234567890123456789; done";
    let mut exec = piped(&c, script).spawn().unwrap();
    let mut output = exec.stdout.take().unwrap();
    output.read_exact(&mut [0; 4]).unwrap();
    let pid = Pid::from_raw(exec.id() as i32);
    let path = format!("/proc/{pid}/task/{pid}/children");
    let child = || std::fs::read_to_string(&path).unwrap().trim().parse().map(Pid::from_raw);
    until("everything is full", || {
        child().is_ok_and(|child| waits_in(child, "write")) && waits_in(pid, "poll")
    });
    kill(pid, Signal::SIGTERM).unwrap();
    let mut rest = vec![];
    output.read_to_end(&mut rest).unwrap();
    assert_eq!(exec.wait().unwrap().code(), Some(4));
}

#[test]
fn a_console_socket_receives_the_terminal_of_a_detached_process() {
    let c = sleeper();
    let socket = ConsoleSocket::at(c.bundle().beside("console"));
    let file = c.bundle().beside("process.json");
    let process = json!({
        "terminal": true, "consoleSize": { "height": 12, "width": 34 }, "cwd": "/",
        "args": ["sh", "-c", "stty size; read word; echo got $word"], "env": ["PATH=/bin"]
    });
    std::fs::write(&file, process.to_string()).unwrap();
    let (path, file) = (socket.path().to_str().unwrap(), file.to_str().unwrap());
    let pid = c.bundle().beside("its.pid").display().to_string();
    let options = ["-p", file, "-d", "-t", "--console-socket", path, "--pid-file", &pid];
    let done = c.exec_with(&options, [""; 0]).success();
    assert_eq!((&*done.stdout, &*done.stderr), ("", ""));
    let mut terminal = socket.master();
    terminal.expect("12 34");
    terminal.type_in("hello\n");
    terminal.expect("got hello");
    assert!(terminal.read_to_end().ends_with("got hello\n"), "no carriage return: ONLCR is off");
    let pid = std::fs::read_to_string(pid).unwrap().parse().unwrap();
    assert_eq!(reap(pid, Duration::from_secs(10)), Some(0));
}

#[test]
fn a_terminal_and_a_console_socket_belong_together() {
    let c = sleeper();
    let socket = ConsoleSocket::at(c.bundle().beside("console"));
    let path = socket.path().to_str().unwrap();
    let long = format!("/tmp/{}", "x".repeat(200));
    for options in [
        &["--tty", "--detach"][..],
        &["--detach", "--console-socket", path],
        &["--tty", "--console-socket", path],
        &["--tty", "--detach", "--console-socket", "/no/such"],
        &["--tty", "--detach", "--console-socket", &long],
        &["--tty", "--detach", "--console-socket", "/etc/passwd"],
        &["--pidfd-socket", "/no/such"],
        &["--pidfd-socket", &long],
    ] {
        let done = c.exec_with(options, ["true"]).one_line().says(&["-socket"]);
        assert_eq!(done.status, 255, "{options:?}");
    }
}
