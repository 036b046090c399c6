//! A person in a terminal emulator (tmux) who has a shell, and from it a shell in a container.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Bundle, proc_status};

/// A tmux server of the test's own with one window of 100 columns and 30 lines.
struct Window {
    socket: PathBuf,
}

impl Window {
    fn open(socket: PathBuf) -> Self {
        let window = Self { socket };
        let shell = "env 'PS1=host: ' bash --norc --noprofile";
        window.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", shell]);
        window.tmux(&["set", "-g", "status", "off"]);
        window.tmux(&["resize-window", "-x", "100", "-y", "30"]);
        window.asks("host:");
        window
    }

    fn tmux(&self, args: &[&str]) -> String {
        let done = Command::new("tmux").arg("-S").arg(&self.socket).args(args).output().unwrap();
        assert!(done.status.success(), "tmux {args:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// Presses keys by tmux's names, or types text.
    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "-t", ":0"], keys].concat());
    }

    fn line(&self, text: &str) {
        self.keys(&[text, "Enter"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", ":0"])
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        self.until(text, |screen| screen.contains(text));
    }

    /// Waits for a prompt that has nothing behind it: what is typed too early is somebody else's.
    #[track_caller]
    fn asks(&self, prompt: &str) {
        self.until(prompt, |screen| screen.trim_end().lines().next_back() == Some(prompt));
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds(&self.screen()) {
            let late = Instant::now() > deadline;
            assert!(!late, "no {what:?} on the screen:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

/// Answers are computed, so that they are not what was typed.
fn edits_lines(window: &Window) {
    window.line("echo a$((40+2))a");
    window.shows("a42a");
    window.asks("box:");
    window.keys(&["echo b$((40+3))c", "BSpace", "b", "Left", "x", "Enter"]);
    window.shows("b43xb");
    window.asks("box:");
    window.keys(&["Up", "C-a", "C-k", "echo c$((40+4))c", "Enter"]);
    window.shows("c44c");
    window.asks("box:");
}

fn resizes(window: &Window) {
    window.line("stty size");
    window.shows("30 100");
    window.asks("box:");
    window.tmux(&["resize-window", "-x", "80", "-y", "20"]);
    window.line("until [ \"$(stty size)\" = '20 80' ]; do :; done; echo size$((4+5))");
    window.shows("size9");
    window.asks("box:");
}

fn interrupts_and_stops(window: &Window) {
    window.line("sh -c 'echo sleeping$((1+2)); sleep 1000'");
    window.shows("sleeping3");
    window.keys(&["C-c"]);
    window.asks("box:");
    window.line("echo after$?");
    window.shows("after130");
    window.asks("box:");
    // It says itself when it goes on: only then the terminal is its own.
    window.line("sh -c 'trap \"echo again\\$((2+3))\" CONT; echo sleeping$((1+3)); while :; do sleep 0.1; done'");
    window.shows("sleeping4");
    window.keys(&["C-z"]);
    window.shows("Stopped");
    window.asks("box:");
    window.line("fg");
    window.shows("again5");
    window.keys(&["C-c"]);
    window.asks("box:");
}

/// The client stops, and its shell has the terminal until it is brought back.
fn leaves_for_a_while(window: &Window, client: Pid) {
    window.line("clear; echo waiting$((3+4)); read word");
    window.shows("waiting7");
    kill(client, Signal::SIGTSTP).unwrap();
    window.shows("Stopped");
    window.asks("host:");
    window.line("echo host$((5+6))");
    window.shows("host11");
    window.line("fg");
    window.keys(&["Enter"]);
    window.asks("box:");
    window.line("echo back$((5+7))");
    window.shows("back12");
    window.asks("box:");
    window.line("echo waiting$((4+4)); read word");
    window.shows("waiting8");
    // In the background it waits for the terminal, as whatever reads from it.
    kill(client, Signal::SIGTSTP).unwrap();
    window.asks("host:");
    window.line("clear; bg");
    window.line("echo still$((6+7))");
    window.shows("still13");
    window.line("fg");
    window.keys(&["Enter"]);
    window.asks("box:");
    window.line("echo once$((6+8))");
    window.shows("once14");
    window.asks("box:");
}

#[test]
fn a_person_works_in_a_container() {
    let bundle = Bundle::busybox().config(|c| {
        c["process"]["terminal"] = true.into();
        let env = c["process"]["env"].as_array_mut().unwrap();
        env.push("PS1=box: ".into());
    });
    let run = bundle.launch(&["run"], &bundle.id()).to_string();
    let window = Window::open(bundle.beside("tmux"));
    window.line(&run);
    window.asks("box:");
    edits_lines(&window);
    resizes(&window);
    interrupts_and_stops(&window);
    let init: i32 = std::fs::read_to_string(bundle.beside("pid")).unwrap().parse().unwrap();
    leaves_for_a_while(&window, Pid::from_raw(proc_status(init, "PPid").parse().unwrap()));
    window.line("exit 7");
    window.asks("host:");
    window.line("echo status$?");
    window.shows("status7");
    window.asks("host:");
    window.keys(&["echo st$((6+9))y", "BSpace", "z", "Enter"]);
    window.shows("st15z");
}
