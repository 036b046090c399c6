//! Two commands at once on one id: every answer is one that some order of the two allows, and a
//! forced delete leaves nothing. A sample in the suite; `make stress` has a hundred rounds of each
//! pair (`RT_PAIRS` is the number).

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Bundle, Done, View, reap};

/// The state of a container between two commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Created,
    Running,
    /// And whether it runs when it is resumed.
    Paused(bool),
    Stopped,
}

use State::{Absent, Created, Paused, Running, Stopped};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Create,
    Run,
    Start,
    Exec,
    Kill,
    Delete,
    DeleteForce,
    Pause,
    Resume,
    Update,
    State,
    List,
    Ps,
}

const VERBS: [Verb; 13] = [
    Verb::Create,
    Verb::Run,
    Verb::Start,
    Verb::Exec,
    Verb::Kill,
    Verb::Delete,
    Verb::DeleteForce,
    Verb::Pause,
    Verb::Resume,
    Verb::Update,
    Verb::State,
    Verb::List,
    Verb::Ps,
];

impl Verb {
    fn makes(self) -> bool {
        matches!(self, Self::Create | Self::Run)
    }

    /// Whether the command succeeds in `state`, and what comes of it. A killed container may take
    /// its time to end.
    fn of(self, state: State) -> Vec<(bool, State)> {
        let good = |next| vec![(true, next)];
        let bad = || vec![(false, state)];
        match (self, state) {
            (Self::Create, Absent) => good(Created),
            (Self::Run, Absent) => good(Running),
            (Self::Start, Created) => good(Running),
            (Self::Exec, Created | Running) => good(state),
            (Self::Kill, Created | Running | Paused(_)) => vec![(true, Stopped), (true, state)],
            (Self::Delete, Created | Stopped) | (Self::DeleteForce, _) => good(Absent),
            (Self::Pause, Created | Running) => good(Paused(state == Running)),
            (Self::Resume, Paused(runs)) => good(if runs { Running } else { Created }),
            (Self::Update, Created | Running | Paused(_)) => good(state),
            (Self::State | Self::Ps, Created | Running | Paused(_) | Stopped) => good(state),
            (Self::List, _) => good(state),
            _ => bad(),
        }
    }

    fn words(self, bundle: &str, id: &str) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Create => &["create", "--bundle", bundle, id],
            Self::Run => &["run", "--detach", "--bundle", bundle, id],
            Self::Start => &["start", id],
            Self::Exec => &["exec", id, "true"],
            Self::Kill => &["kill", id, "KILL"],
            Self::Delete => &["delete", id],
            Self::DeleteForce => &["delete", "--force", id],
            Self::Pause => &["pause", id],
            Self::Resume => &["resume", id],
            Self::Update => &["update", "--memory", "100000000", id],
            Self::State => &["state", id],
            Self::List => &["list", "--format", "json"],
            Self::Ps => &["ps", "--format", "json", id],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}

/// What the two may answer.
fn allowed(state: State, first: Verb, second: Verb) -> Vec<(bool, bool)> {
    let in_order = |one: Verb, other: Verb| {
        let all = one.of(state).into_iter();
        all.flat_map(move |(a, next)| other.of(next).into_iter().map(move |(b, _)| (a, b)))
    };
    let swapped = in_order(second, first).map(|(b, a)| (a, b));
    in_order(first, second).chain(swapped).collect()
}

struct Race {
    bundle: Bundle,
    rounds: u32,
}

impl Race {
    fn rt(&self, verb: Verb, id: &str) -> crate::harness::Rt {
        let path = self.bundle.path().display().to_string();
        self.bundle.rt(verb.words(&path, id))
    }

    fn prepare(&self, state: State, id: &str) {
        let verbs: &[Verb] = match state {
            Absent => &[],
            Created => &[Verb::Create],
            Running => &[Verb::Run],
            Paused(true) => &[Verb::Run, Verb::Pause],
            Paused(false) => &[Verb::Create, Verb::Pause],
            Stopped => &[Verb::Run, Verb::Kill],
        };
        for verb in verbs {
            self.rt(*verb, id).run().success();
        }
        if state == Stopped {
            reap_children();
            crate::harness::until("it has stopped", || {
                reap_children();
                self.rt(Verb::State, id).run().stdout.contains("stopped")
            });
        }
    }

    /// One pair from one state, the second command a little later.
    fn round(&self, state: State, pair: [Verb; 2], number: u32) -> Option<String> {
        let id = format!("{}{:?}-{:?}-{number}", self.bundle.mark(), pair[0], pair[1]);
        self.prepare(state, &id);
        let first = self.rt(pair[0], &id).spawn();
        std::thread::sleep(Duration::from_micros(u64::from(number * 677 % 12_000)));
        let second = self.rt(pair[1], &id).spawn();
        // A process that was frozen on its way goes on only then.
        let ends = |verb: Verb| verb != Verb::Exec;
        if pair.contains(&Verb::Exec) && pair.contains(&Verb::Pause) {
            std::thread::sleep(Duration::from_millis(100));
            self.rt(Verb::Resume, &id).run();
        }
        let done: [Done; 2] = [first.finish(), second.finish()];
        let answers = (done[0].status == 0, done[1].status == 0);
        let mut wrong = vec![];
        if !allowed(state, pair[0], pair[1]).contains(&answers) {
            wrong.push("no order of the two answers like this".to_owned());
        }
        for (verb, done) in pair.iter().zip(&done) {
            let lines = done.stderr.lines().count();
            if (done.status == 0 && lines > 0) || (done.status != 0 && lines != 1 && ends(*verb)) {
                wrong.push(format!("{lines} lines of {verb:?}"));
            }
            if done.status == 0
                && matches!(verb, Verb::State | Verb::List | Verb::Ps)
                && serde_json::from_str::<Value>(&done.stdout).is_err()
            {
                wrong.push(format!("{verb:?} is no JSON"));
            }
        }
        let delete = self.rt(Verb::DeleteForce, &id).run();
        reap_children();
        if delete.status != 0 || !delete.stderr.is_empty() {
            wrong.push(format!("{delete}"));
        }
        let left = self.bundle.leftovers().since();
        if !left.is_empty() {
            wrong.push(left.join("\n"));
            self.bundle.leftovers().clear_away(&left);
        }
        let report =
            || format!("{state:?} {pair:?}: {}\n{}\n{}", wrong.join("\n"), done[0], done[1]);
        (!wrong.is_empty()).then(report)
    }

    fn of(&self, first: Verb) -> Vec<String> {
        let mut wrong = vec![];
        for second in VERBS.into_iter().skip_while(|verb| *verb != first) {
            let pair = [first, second];
            let states: &[State] = match pair.iter().any(|verb| verb.makes()) {
                true => &[Absent],
                false => &[Running, Created, Paused(true), Stopped, Paused(false)],
            };
            for number in 0..self.rounds {
                let state = states[(number as usize) % states.len()];
                // Either of them comes first.
                let pair = if number / 5 % 2 == 0 { pair } else { [second, first] };
                wrong.extend(self.round(state, pair, number));
            }
        }
        wrong
    }
}

/// Those that ended here: init becomes a child of this process. Only of this thread's race.
fn reap_children() {
    let own = format!(") Z {} ", std::process::id());
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A command of another thread has the runtime's name and is waited for there.
        if stat.contains(&own) && stat.contains("(sleep)") {
            reap(pid, Duration::ZERO);
        }
    }
}

fn race(first: &[Verb]) {
    let rounds = std::env::var("RT_PAIRS").map_or(1, |count| count.parse().unwrap());
    let begin = Instant::now();
    let bundle = Bundle::busybox().args(["sleep", "1000"]).in_view(View::Host);
    bundle.write();
    let race = Race { bundle, rounds };
    let wrong: Vec<String> = first.iter().flat_map(|verb| race.of(*verb)).collect();
    let count = wrong.len();
    assert!(wrong.is_empty(), "{count} in {:?}:\n{}", begin.elapsed(), wrong.join("\n\n"));
}

#[test]
fn create_beside_any_other_command() {
    race(&VERBS[..1]);
}

#[test]
fn run_beside_any_other_command() {
    race(&VERBS[1..2]);
}

#[test]
fn start_and_exec_beside_any_other_command() {
    race(&VERBS[2..4]);
}

#[test]
fn kill_and_delete_beside_any_other_command() {
    race(&VERBS[4..7]);
}

#[test]
fn pause_and_every_other_command_beside_each_other() {
    race(&VERBS[7..]);
}
