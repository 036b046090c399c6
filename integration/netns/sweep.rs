//! Every system call of `rt netns` fails once, and its process is killed once at every call: what
//! fails says so and takes back what it has made, and after a kill the next command does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::inject::{At, CALLER, Call, Fault, Traced, inject, sweep_step, trace};

use super::world::{Guest, World, world};

const OPTIONS: [&str; 6] = ["--network", "six", "--publish", "8080:80", "--publish", "8080:80/udp"];
/// The number of the helper process that an `add` starts.
const HELPER: usize = 1;

/// The command that meets the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Add,
    Del,
    /// `check --repair` of a network without its tables and its helper process.
    Repair,
    /// Of a container that is gone.
    Prune,
    /// The helper process, which an `add` starts.
    Serve,
}

/// What the command is given: a container that lives, and one that is gone.
struct Case<'a> {
    verb: Verb,
    w: &'a World,
    guest: Guest,
    out: PathBuf,
    err: PathBuf,
}

type Broken = BTreeMap<String, Vec<String>>;

#[test]
fn a_fault_at_any_system_call_of_add_leaves_nothing() {
    sweep(Verb::Add, false);
}

#[test]
fn a_fault_at_any_system_call_of_add_leaves_a_network_in_use_as_it_was() {
    sweep(Verb::Add, true);
}

#[test]
fn a_fault_at_any_system_call_of_del_leaves_nothing_for_the_next() {
    sweep(Verb::Del, false);
}

#[test]
fn a_fault_at_any_system_call_of_repair_leaves_nothing_that_the_next_does_not_mend() {
    sweep(Verb::Repair, true);
}

#[test]
fn a_fault_at_any_system_call_of_prune_leaves_nothing_for_the_next_and_others_alone() {
    sweep(Verb::Prune, true);
}

#[test]
fn a_fault_at_any_system_call_of_a_new_helper_process_leaves_no_half_network() {
    sweep(Verb::Serve, false);
}

/// Every third call with an error and with SIGKILL, with `RT_SWEEP_STEP=1` every one (`make stress`).
/// `in_use`: another container is in the network all the time.
fn sweep(verb: Verb, in_use: bool) {
    world(|w| {
        w.create("six", "--subnet6 fd00:6::/64");
        let _other = in_use.then(|| w.add("z", "--network six --publish 9090:90"));
        let before = look(w);
        let calls = calls(verb, w);
        let mut broken = Broken::new();
        let mut count = 0;
        for call in calls.iter().step_by(sweep_step(3)) {
            let error = call.can_fail().then_some(Fault::Error(Errno::EIO));
            for fault in error.into_iter().chain([Fault::Kill]) {
                count += 1;
                let case = Case::new(verb, w);
                let (hit, found) = case.meet(call, fault, &before);
                for (kind, what) in found {
                    let what = format!("{fault} at {}: {what}", hit.as_ref().unwrap_or(call));
                    broken.entry(kind).or_default().push(what);
                }
            }
        }
        let mut text = format!("of {count} faults:\n");
        for (kind, all) in &broken {
            text += &format!("== {kind}: {} times\n  {}\n", all.len(), all.join("\n  "));
        }
        assert!(broken.is_empty(), "{text}");
    });
}

/// The calls of the process that meets the faults.
fn calls(verb: Verb, w: &World) -> Vec<Call> {
    let case = Case::new(verb, w);
    let traced = trace(&case.command(), &case.out, &case.err);
    assert_eq!(traced.status, 0, "{verb:?}: {}", case.errors());
    w.del("a");
    let process = if verb == Verb::Serve { HELPER } else { CALLER };
    let calls = traced.calls.into_iter().filter(|call| call.process == process);
    let calls: Vec<_> = calls.collect();
    assert!(calls.len() > 20, "{verb:?}: {calls:?}");
    calls
}

/// What is there of networks: interfaces, tables with what is in them, records.
fn look(w: &World) -> Vec<String> {
    let mut seen = vec![];
    let links = w.host().run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    let links = links.lines().skip(2).filter_map(|line| line.split(':').next());
    seen.extend(links.map(|link| format!("interface {}", link.trim())));
    let mut table = String::new();
    for line in w.host().sh("nft list ruleset").lines() {
        if line.starts_with("table") {
            line.clone_into(&mut table);
        }
        seen.push(format!("{table}{line}"));
    }
    let ours = ["last", "lock", "containers", "networks"];
    let mut directories = vec![w.state()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            }
            if !ours.contains(&entry.file_name().to_str().unwrap()) {
                seen.push(format!("file {}", entry.path().display()));
            }
        }
    }
    seen.sort();
    seen
}

/// How many helper processes there are then.
fn helpers(seen: &[String]) -> usize {
    seen.iter().filter(|one| one.ends_with("serve.sock")).count()
}

impl<'a> Case<'a> {
    fn new(verb: Verb, w: &'a World) -> Self {
        let [out, err] = ["out", "err"].map(|name| w.directory.path().join(name));
        for file in [&out, &err] {
            std::fs::write(file, "").unwrap();
        }
        let mut case = Self { verb, w, guest: Guest::new(), out, err };
        if !matches!(verb, Verb::Add | Verb::Serve) {
            case.add().run().success();
        }
        match verb {
            Verb::Repair => {
                w.host().sh("nft delete table inet rtnet");
                for helper in w.helpers() {
                    kill(Pid::from_raw(helper), Signal::SIGKILL).unwrap();
                }
            }
            Verb::Prune => case.guest.end(),
            _ => {}
        }
        case
    }

    fn add(&self) -> crate::harness::Rt {
        let pid = self.guest.pid();
        self.w.command(["add", "a", "--pid", &pid].into_iter().chain(OPTIONS))
    }

    fn command(&self) -> crate::harness::Rt {
        match self.verb {
            Verb::Add | Verb::Serve => self.add(),
            Verb::Del => self.w.command(["del", "a"]),
            Verb::Repair => self.w.command(["check", "--repair"]),
            Verb::Prune => self.w.command(["prune"]),
        }
    }

    fn errors(&self) -> String {
        let text = std::fs::read_to_string(&self.err).unwrap_or_default();
        text.lines().filter(|line| !line.ends_with("this host forwards packets")).collect()
    }

    /// The call that was met, and what breaks the rules: `(kind, details)`.
    fn meet(
        self,
        call: &Call,
        fault: Fault,
        before: &[String],
    ) -> (Option<Call>, Vec<(String, String)>) {
        let at = At { process: call.process, n: call.n };
        let traced = inject(&self.command(), (&self.out, &self.err), at, fault);
        let mut broken = vec![];
        let mut note = |kind: &str, what: Option<String>| {
            broken.extend(what.map(|what| (kind.to_owned(), what)));
        };
        if traced.hung {
            note("it hangs", Some(self.errors()));
        } else if traced.status == 0 {
            note("success that was none", self.is_no_success(fault, before));
        } else {
            note("not one line about the failure", self.is_not_explained(call, fault, &traced));
            let takes_back = matches!(self.verb, Verb::Add | Verb::Serve)
                && (matches!(fault, Fault::Error(_)) || call.process != CALLER);
            if takes_back {
                note("half a network", self.differs(before));
            }
        }
        let again: &[&str] = match self.verb {
            Verb::Repair => &["check", "--repair"],
            Verb::Prune => &["prune"],
            _ => &["del", "a"],
        };
        let done = self.w.rt(again);
        note("the next command fails", (done.status != 0).then(|| done.to_string()));
        if self.verb == Verb::Repair {
            let done = self.w.rt(["check"]);
            note("it is not mended", (done.status != 0).then(|| done.to_string()));
            let done = self.w.rt(["del", "a"]);
            note("del fails", (done.status != 0).then(|| done.to_string()));
        }
        let left = self.differs(before);
        if left.is_some() {
            self.clear_away();
        }
        note("left behind", left);
        (traced.hit, broken)
    }

    /// What has to be true when the command says that it has succeeded.
    fn is_no_success(&self, fault: Fault, before: &[String]) -> Option<String> {
        match self.verb {
            Verb::Del | Verb::Prune => self.differs(before),
            // It may have been killed when all was said.
            Verb::Serve if matches!(fault, Fault::Kill) => None,
            Verb::Add | Verb::Repair | Verb::Serve => {
                let done = self.w.rt(["check"]);
                (done.status != 0).then(|| done.to_string())
            }
        }
    }

    /// A killed command says nothing, and before `main` it has no words yet.
    fn is_not_explained(&self, call: &Call, fault: Fault, traced: &Traced) -> Option<String> {
        let killed = matches!(fault, Fault::Kill);
        let mute = call.process == CALLER && (call.startup || killed);
        let errors = std::fs::read_to_string(&self.err).unwrap_or_default();
        let lines = errors.lines().filter(|line| !line.ends_with("this host forwards packets"));
        let good = lines.clone().count() == 1 && lines.clone().all(|line| line.starts_with("rt: "));
        (!mute && !good).then(|| format!("status {}, {errors:?}", traced.status))
    }

    /// How the host differs from what it was, if it does. A process that ends takes a moment.
    fn differs(&self, before: &[String]) -> Option<String> {
        let now = look(self.w);
        let without = |these: &[String], others: &[String]| -> String {
            let others: BTreeSet<_> = others.iter().collect();
            let all: Vec<_> = these.iter().filter(|one| !others.contains(one)).cloned().collect();
            let some = all.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("; ");
            format!("{} lines: {some}", all.len())
        };
        if now != before {
            let (more, less) = (without(&now, before), without(before, &now));
            return Some(format!("new {more}, missing {less}"));
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.w.helpers().len() != helpers(before) {
            if Instant::now() > deadline {
                return Some(format!("{} helper processes", self.w.helpers().len()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    /// So that one broken case does not spoil the others.
    fn clear_away(&self) {
        self.w.rt(["del", "a"]);
        if self.w.state().join("containers/z.json").exists() {
            return;
        }
        for helper in self.w.helpers() {
            let _ = kill(Pid::from_raw(helper), Signal::SIGKILL);
        }
        self.w.host().sh(
            "for link in $(ip -br link | grep -o '^rt[a-z0-9-]*'); do ip link del $link || true; done
             nft delete table inet rtnet 2>/dev/null || true
             nft delete table bridge rtnet 2>/dev/null || true",
        );
        let _ = std::fs::remove_dir_all(self.w.state());
    }
}
