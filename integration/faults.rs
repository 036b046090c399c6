//! Every system call of a command fails once, and its process is killed once at every call.

mod case;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;

use crate::harness::inject::{At, CALLER, Call, Fault, Traced, sweep_step};
use crate::harness::{Host, View};
use case::{Case, Subject, Verb};

#[test]
fn a_fault_at_any_system_call_of_create_leaves_nothing() {
    sweep(&Subject::new(Verb::Create, View::Host));
}

#[test]
fn a_fault_at_any_system_call_of_create_on_a_v2_host_leaves_nothing() {
    // On a host that is v2 and nothing else it would be the same again.
    if View::all().any(|view| view == View::V2) && View::all().count() > 1 {
        sweep(&Subject::new(Verb::Create, View::V2));
    }
}

#[test]
fn a_fault_at_any_system_call_of_create_with_hooks_leaves_nothing() {
    sweep(&Subject::new(Verb::Create, View::Host).with_hooks());
}

/// A hook need not read its state: with the default for SIGPIPE it was chance whether `create` went on
/// or was killed without a word.
#[test]
fn a_signal_that_cannot_be_ignored_ends_create_with_an_error() {
    let subject = Subject::new(Verb::Create, View::Host).with_hooks();
    let sample = Case::new(&subject, "sample");
    let traced = sample.trace();
    assert!(sample.verdict(&traced, None).is_empty());
    let is_signal = |call: &&Call| call.process == CALLER && call.name() == "rt_sigaction";
    let calls: Vec<_> = traced.calls.iter().filter(is_signal).collect();
    assert!(calls.len() >= 2, "{calls:?}");
    for call in calls {
        let at = At { process: CALLER, n: call.n };
        let case = Case::new(&subject, &format!("{}s", call.n));
        let traced = case.inject(at, Fault::Error(Errno::EIO));
        assert_eq!(traced.status, 1, "{call}");
        let met = Planned { at, fault: Fault::Error(Errno::EIO), messages: 0 }.met(&traced);
        assert_eq!(case.verdict(&traced, Some(met)), [], "{call}");
    }
}

#[test]
fn a_fault_at_any_system_call_of_create_with_a_mapped_mount_leaves_nothing() {
    sweep(&Subject::new(Verb::Create, View::Host).with_mapped_mount());
}

#[test]
fn a_fault_at_any_system_call_of_a_users_create_leaves_nothing() {
    Host::with_more_ids(|| {
        sweep(&Subject::new(Verb::Create, View::Host).of_user_with_more_ids());
    });
}

#[test]
fn a_fault_at_any_system_call_of_start_leaves_nothing() {
    sweep(&Subject::new(Verb::Start, View::Host));
}

#[test]
fn a_fault_at_any_system_call_of_run_leaves_nothing() {
    sweep(&Subject::new(Verb::Run, View::Host));
}

#[test]
fn a_fault_at_any_system_call_of_exec_leaves_the_container_as_it_was() {
    sweep(&Subject::new(Verb::Exec, View::Host));
}

#[test]
fn a_fault_at_any_system_call_of_exec_with_a_terminal_leaves_the_container_as_it_was() {
    sweep(&Subject::new(Verb::Exec, View::Host).with_terminal());
}

#[test]
fn a_fault_at_any_system_call_of_run_with_a_filter_leaves_nothing() {
    sweep(&Subject::new(Verb::Run, View::Host).with_filter());
}

#[test]
fn a_fault_at_any_system_call_of_run_with_an_agent_leaves_nothing() {
    sweep(&Subject::new(Verb::Run, View::Host).with_agent());
}

#[test]
fn a_fault_at_any_system_call_of_exec_with_a_filter_leaves_the_container_as_it_was() {
    sweep(&Subject::new(Verb::Exec, View::Host).with_filter());
}

#[test]
fn a_fault_at_any_system_call_of_kill_leaves_nothing() {
    sweep(&Subject::new(Verb::Kill, View::Host));
}

#[test]
fn a_fault_at_any_system_call_of_pause_leaves_nothing_frozen() {
    sweep(&Subject::new(Verb::Pause, View::Host));
}

#[test]
fn a_fault_at_any_system_call_of_resume_is_told() {
    sweep(&Subject::new(Verb::Resume, View::Host));
}

#[test]
fn a_fault_at_any_system_call_of_update_is_told() {
    sweep(&Subject::new(Verb::Update, View::Host));
}

#[test]
fn a_fault_at_any_system_call_of_delete_leaves_nothing_for_the_next() {
    sweep(&Subject::new(Verb::Delete, View::Host));
}

/// One fault to be tried.
#[derive(Clone, Copy, Debug)]
struct Planned {
    at: At,
    fault: Fault,
    /// How many messages a child sends if nothing happens.
    messages: usize,
}

/// A fault as it came about.
#[derive(Clone, Copy, Debug)]
struct Met {
    fault: Fault,
    /// After a child's last message: the caller cannot know of it any more.
    after_ready: bool,
}

impl Planned {
    /// By what was seen then: of two threads the calls are not always in the same order.
    fn met(&self, traced: &Traced) -> Met {
        let Self { at, fault, messages } = *self;
        let sent = traced
            .calls
            .iter()
            .filter(|call| call.process == at.process && call.n < at.n && call.is_message());
        Met { fault, after_ready: at.process != CALLER && sent.count() >= messages }
    }
}

/// Every call of the caller and of its children, each with an error and with SIGKILL; with
/// `RT_SWEEP_STEP=N` only every N-th.
fn sweep(subject: &Subject) {
    let sample = Case::new(subject, "sample");
    let traced = sample.trace();
    let broken = sample.verdict(&traced, None);
    assert!(broken.is_empty(), "without a fault: {broken:?}");

    let cases = plan(&traced.calls, subject.by_another);
    let next = AtomicUsize::new(0);
    let broken = Mutex::new(BTreeMap::<String, Vec<String>>::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(planned) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for (kind, what) in fault_at(subject, planned) {
                        broken.lock().unwrap().entry(kind).or_default().push(what);
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().unwrap();
    assert!(broken.is_empty(), "{}", report(&broken, cases.len()));
}

fn plan(calls: &[Call], by_another: bool) -> Vec<Planned> {
    let both = |call: &Call| {
        let of_same = calls.iter().filter(|other| other.process == call.process);
        let messages = of_same.filter(|other| other.is_message()).count();
        let at = At { process: call.process, n: call.n };
        let error = call.can_fail().then_some(Fault::Error(Errno::EIO));
        let planned = move |fault| Planned { at, fault, messages };
        error.into_iter().chain([Fault::Kill]).map(planned).collect::<Vec<_>>()
    };
    // What a hook does once it runs is its own affair.
    let is_hooks = |call: &Call| {
        let execs = |other: &Call| other.process == call.process && other.n < call.n;
        call.process > 1 && calls.iter().any(|other| other.is_execve() && execs(other))
    };
    let has_become = |call: &Call| {
        let execs = |other: &Call| other.process == CALLER && other.is_execve() && other.n < call.n;
        !by_another || call.process != CALLER || calls.iter().any(execs)
    };
    calls
        .iter()
        .filter(|call| !is_hooks(call) && has_become(call))
        .step_by(sweep_step(1))
        .flat_map(both)
        .collect()
}

fn fault_at(subject: &Subject, planned: &Planned) -> Vec<(String, String)> {
    let Planned { at, fault, .. } = *planned;
    let letter = if matches!(fault, Fault::Kill) { 'k' } else { 'e' };
    let case = Case::new(subject, &format!("{}-{}{letter}", at.process, at.n));
    let traced = case.inject(at, fault);
    let met = traced.hit.as_ref().map_or("met no call".to_owned(), ToString::to_string);
    let broken = case.verdict(&traced, Some(planned.met(&traced)));
    broken.into_iter().map(|(kind, what)| (kind, format!("{fault} at {met}: {what}"))).collect()
}

fn report(broken: &BTreeMap<String, Vec<String>>, cases: usize) -> String {
    let mut text = format!("of {cases} faults:\n");
    for (kind, all) in broken {
        text += &format!("== {kind}: {} times\n  {}\n", all.len(), all.join("\n  "));
    }
    text
}
