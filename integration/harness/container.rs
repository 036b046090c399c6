//! A created container: the verbs of the runtime, and an end that leaves nothing.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::{Bundle, Done, Rt, reap};

/// Deleted with force when it goes out of scope, after which nothing of it may be left.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: Bundle,
    pid: i32,
    ended: Cell<Option<i32>>,
}

impl Container {
    /// The container that `bundle` has become: its pid is in the pid file.
    #[track_caller]
    pub(crate) fn of(bundle: Bundle) -> Self {
        let pid = fs::read_to_string(bundle.beside("pid")).expect("the pid file");
        let pid = pid.parse().expect("a number and nothing else in the pid file");
        Self { id: bundle.id(), bundle, pid, ended: Cell::new(None) }
    }

    pub(crate) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    pub(crate) fn rt<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Rt {
        self.bundle.rt(args)
    }

    #[track_caller]
    pub(crate) fn start(&self) {
        self.rt(["start", &self.id]).run().success();
    }

    #[track_caller]
    pub(crate) fn state(&self) -> Value {
        let done = self.rt(["state", &self.id]).run().success();
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}\n{done}"))
    }

    #[track_caller]
    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().expect("a status").to_owned()
    }

    /// Init's pid on the host, from the pid file.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// The path of one of init's namespaces.
    pub(crate) fn namespace(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.pid)
    }

    /// Reaps init: its exit status, 128 + signal if it was killed.
    #[track_caller]
    pub(crate) fn wait(&self) -> i32 {
        if self.ended.get().is_none() {
            self.ended.set(reap(self.pid, Duration::from_secs(20)));
        }
        self.ended.get().unwrap_or_else(|| panic!("{} has not ended in twenty seconds", self.id))
    }

    /// What the container's processes have written to standard output.
    #[track_caller]
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.bundle.beside("out")).unwrap()
    }

    #[track_caller]
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.bundle.beside("err")).unwrap()
    }

    /// Starts it and gives its exit status and output.
    #[track_caller]
    pub(crate) fn finish(&self) -> (i32, String) {
        self.start();
        (self.wait(), self.output())
    }

    #[track_caller]
    pub(crate) fn kill(&self, signal: &str) {
        self.rt(["kill", &self.id, signal]).run().success();
    }

    #[track_caller]
    pub(crate) fn delete(&self) {
        self.rt(["delete", &self.id]).run().success();
    }

    #[track_caller]
    pub(crate) fn delete_force(&self) {
        self.rt(["delete", "--force", &self.id]).run().success();
        self.ended.set(self.ended.get().or_else(|| reap(self.pid, Duration::from_secs(5))));
    }

    /// `checkpoint` into the directory `images` beside the bundle.
    #[track_caller]
    pub(crate) fn checkpoint(&self, options: &[&str]) -> Done {
        let images = self.bundle.beside("images").display().to_string();
        let words = ["checkpoint", "--image-path", &images];
        self.rt(words.iter().chain(options).chain([&&*self.id])).run()
    }

    /// After [`Container::checkpoint`]: the same container goes on from there.
    #[track_caller]
    pub(crate) fn restore(&mut self, options: &[&str]) {
        self.try_restore(options).success();
        self.pid = fs::read_to_string(self.bundle.beside("pid")).unwrap().parse().unwrap();
        self.ended.set(None);
    }

    #[track_caller]
    pub(crate) fn try_restore(&self, options: &[&str]) -> Done {
        self.wait();
        let images = self.bundle.beside("images").display().to_string();
        let words = ["restore", "--detach", "--image-path", &images];
        let words: Vec<_> = words.iter().chain(options).copied().collect();
        // What was open at the checkpoint is open again; the caller's is not asked for.
        self.bundle.launch(&words, &self.id).redirections("").run()
    }

    #[track_caller]
    pub(crate) fn exec<S: AsRef<str>>(&self, command: impl IntoIterator<Item = S>) -> Done {
        self.exec_with(&[], command)
    }

    /// `exec` with options before the id.
    #[track_caller]
    pub(crate) fn exec_with<S: AsRef<str>>(
        &self,
        options: &[&str],
        command: impl IntoIterator<Item = S>,
    ) -> Done {
        self.exec_rt(options, command).run()
    }

    pub(crate) fn exec_rt<S: AsRef<str>>(
        &self,
        options: &[&str],
        command: impl IntoIterator<Item = S>,
    ) -> Rt {
        let mut args = vec!["exec".to_owned()];
        args.extend(options.iter().map(|option| (*option).to_owned()));
        args.push(self.id.clone());
        args.extend(command.into_iter().map(|word| word.as_ref().to_owned()));
        self.rt(args)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let done = self.rt(["delete", "--force", &self.id]).run();
        if self.ended.get().is_none() {
            reap(self.pid, Duration::from_secs(5));
        }
        // The bundle, dropped after this, looks for leftovers.
        if !std::thread::panicking() {
            done.success();
        }
    }
}
