//! What the caller of `exec` hears of the process, and what it passes to it.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use nix::libc;
use nix::sys::signal::Signal;

use super::sleeper;
use crate::harness::terminal::ConsoleSocket;
use crate::harness::{Container, reap, until, waits_in};

/// A detached process: its pid on the host, from a pid file that is named as the caller likes.
fn detached(c: &Container, script: &str) -> i32 {
    let rt = c.exec_rt(&["--detach", "--pid-file", "its.pid"], ["sh", "-c", script]);
    let done = rt.directory(&c.bundle().beside("")).run().success();
    assert_eq!((&*done.stdout, &*done.stderr), ("", ""));
    let text = fs::read_to_string(c.bundle().beside("its.pid")).unwrap();
    text.parse().expect("a number and nothing else in the pid file")
}

#[test]
fn a_detached_process_goes_on_alone() {
    let c = sleeper();
    let fifo = c.bundle().rootfs().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let pid = detached(&c, "read word </fifo; exit $word");
    assert_eq!(
        crate::harness::namespace_of(pid, "pid"),
        crate::harness::namespace_of(c.pid(), "pid")
    );
    fs::File::options().write(true).open(&fifo).unwrap().write_all(b"6\n").unwrap();
    assert_eq!(reap(pid, std::time::Duration::from_secs(10)), Some(6));
}

#[test]
fn a_pid_file_that_cannot_be_written_is_an_error_and_the_program_does_not_run() {
    let c = sleeper();
    for path in ["/no/such/pid", "/", "/proc/pid"] {
        let rt = c.exec_rt(&["--pid-file", path], ["echo", "ran"]);
        let done = rt.run().one_line().says(&["--pid-file"]);
        assert_eq!((done.status, &*done.stdout), (255, ""), "{path}");
    }
    assert_eq!(c.exec(["sh", "-c", "ls -d /proc/[0-9]*"]).success().stdout.lines().count(), 2);
}

#[test]
fn the_pidfd_of_the_process_is_handed_out() {
    let c = sleeper();
    let socket = ConsoleSocket::at(c.bundle().beside("pidfd"));
    let path = socket.path().to_str().unwrap();
    let script = "echo $(grep Pid: /proc/self/status); exec sleep 1000";
    let exec = c.exec_rt(&["--pidfd-socket", path], ["sh", "-c", script]).spawn();
    until("it runs", || exec.output_so_far().contains('\n'));
    let (pidfd, name) = socket.descriptor();
    assert_eq!(name, "pidfd");
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::USR1).unwrap();
    assert_eq!(exec.finish().status, 128 + 10);
}

#[test]
fn standard_streams_are_the_callers_own() {
    let c = sleeper();
    let path = c.bundle().beside("input");
    fs::write(&path, "from the caller\n").unwrap();
    let rt = c.exec_rt(&[], ["sh", "-c", "cat; echo error >&2"]);
    let done = rt.spawn_with(Stdio::from(fs::File::open(&path).unwrap())).finish().success();
    assert_eq!((&*done.stdout, &*done.stderr), ("from the caller\n", "error\n"));
}

/// Every signal but those that nobody can catch, and those of the C library.
#[test]
fn every_signal_is_passed_on() {
    let c = sleeper();
    let others = [libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD, 32, 33];
    let signals: Vec<i32> = (1..=64).filter(|number| !others.contains(number)).collect();
    let traps: Vec<_> = signals.iter().map(|n| format!("trap 'echo got {n}.' {n}\n")).collect();
    let script = format!("{}echo ready; while :; do sleep 0.01; done", traps.concat());
    let exec = c.exec_rt(&[], ["sh", "-c", &script]).spawn();
    until("the traps are set", || exec.output_so_far().contains("ready"));
    for number in signals {
        let sent = std::process::Command::new("/bin/kill")
            .args([format!("-{number}"), exec.pid().to_string()])
            .status();
        assert!(sent.unwrap().success());
        until(&format!("signal {number} has come"), || {
            exec.output_so_far().contains(&format!("got {number}."))
        });
        // Not earlier: SIGCONT takes a stop that is still on its way back.
        if number == Signal::SIGTSTP as i32 {
            until("it has stopped", || state(exec.pid().as_raw()) == 'T');
            exec.signal(Signal::SIGCONT);
        }
    }
    exec.signal(Signal::SIGTERM);
    c.kill("KILL");
    assert_eq!(exec.finish().status, 128 + 9);
}

fn state(pid: i32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().chars().next().unwrap()
}

#[test]
fn a_stopped_runtime_learns_of_an_end_that_it_has_missed() {
    let c = sleeper();
    let exec = c.exec_rt(&[], ["sh", "-c", "echo $PPID; read word"]);
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let exec = exec.spawn_with(Stdio::from(reader));
    until("it waits", || exec.output_so_far().contains('\n') && waits_in(exec.pid(), "poll"));
    exec.signal(Signal::SIGSTOP);
    until("it has stopped", || state(exec.pid().as_raw()) == 'T');
    drop(writer);
    until("the process has ended", || {
        let children = format!("/proc/{0}/task/{0}/children", exec.pid());
        fs::read_to_string(children)
            .unwrap()
            .split_whitespace()
            .all(|pid| state(pid.parse().unwrap()) == 'Z')
    });
    exec.signal(Signal::SIGCONT);
    assert_eq!(exec.finish().status, 1);
}
