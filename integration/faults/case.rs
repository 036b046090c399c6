//! One command with one fault in it, judged by what it says and what it leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Met;
use crate::harness::inject::{At, CALLER, Fault, Traced, inject, trace};
use crate::harness::{Bundle, Leftovers, Rt, View, reap, user};
use crate::seccomp::{Agent, asking, notify};

const OUTPUT: &str = "all is well\n";
const STATUS: i32 = 7;
const SCRIPT: &str = "echo all is well; exit 7";

/// The file that `update` is given.
const NEW_LIMITS: &str = "resources.json";

/// Limits of several controllers, all of them others with another `n`.
fn limits(n: u32) -> Value {
    json!({
        "pids": { "limit": n },
        "cpu": { "shares": 10 * n },
        "memory": { "limit": n << 20, "reservation": n << 19 },
        "devices": [{ "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": n, "access": "rwm" }]
    })
}

/// The control files that show them, of both versions, with their contents. Not `devices.list`: it
/// does not show every kind of rules, so that nobody could put them back.
fn control_files(pid: i32) -> BTreeMap<PathBuf, String> {
    const NAMES: [&str; 7] = [
        "pids.max",
        "cpu.shares",
        "cpu.weight",
        "memory.limit_in_bytes",
        "memory.max",
        "memory.soft_limit_in_bytes",
        "memory.low",
    ];
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let directory = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        Some(Path::new("/sys/fs/cgroup").join(controllers).join(path.trim_start_matches('/')))
    };
    let files =
        groups.lines().filter_map(directory).flat_map(|top| NAMES.map(|name| top.join(name)));
    files.filter_map(|file| Some((file.clone(), fs::read_to_string(file).ok()?))).collect()
}

/// The command that meets the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Create,
    /// Of a created container.
    Start,
    Run,
    /// In a running container.
    Exec,
    /// Of a running container.
    Kill,
    /// Of a running container.
    Pause,
    /// Of a paused container.
    Resume,
    /// Of a running container.
    Update,
    /// Of a stopped container.
    Delete,
}

impl Verb {
    /// Whether the container runs when the command comes.
    fn is_of_running(self) -> bool {
        !matches!(self, Self::Create | Self::Run | Self::Start)
    }
}

/// What all cases of a sweep share.
#[derive(Debug)]
pub(super) struct Subject {
    verb: Verb,
    bundle: Bundle,
    /// Options of `exec`: `--tty` and `--pid-file`.
    with_terminal: bool,
    /// Another program makes the caller a user and then becomes the runtime.
    pub(super) by_another: bool,
    _agent: Option<Agent>,
}

impl Subject {
    pub(super) fn new(verb: Verb, view: View) -> Self {
        let bundle = Bundle::busybox().in_view(view);
        let bundle = match verb {
            Verb::Create | Verb::Start | Verb::Run => bundle.script(SCRIPT),
            Verb::Update => bundle.args(["sleep", "1000"]).resources(limits(33)),
            _ => bundle.args(["sleep", "1000"]),
        };
        fs::write(bundle.beside(NEW_LIMITS), limits(44).to_string()).unwrap();
        bundle.write();
        Self { verb, bundle, with_terminal: false, by_another: false, _agent: None }
    }

    /// `exec` with a terminal and a pid file.
    pub(super) fn with_terminal(self) -> Self {
        Self { with_terminal: true, ..self }
    }

    /// With docker's filter, loaded by the rights of the process.
    pub(super) fn with_filter(self) -> Self {
        let profile: Value = serde_json::from_str(crate::seccomp::DOCKER).unwrap();
        let bundle = self.bundle.config(|c| {
            c["linux"]["seccomp"] = profile;
            c["process"]["noNewPrivileges"] = json!(false);
        });
        bundle.write();
        Self { bundle, ..self }
    }

    /// With a filter about which an agent is asked.
    pub(super) fn with_agent(self) -> Self {
        let (agent, profile) = asking(&self.bundle, notify());
        let bundle = self.bundle.config(|c| c["linux"]["seccomp"] = profile);
        bundle.write();
        Self { bundle, _agent: Some(agent), ..self }
    }

    /// With a mount with ids of its own, which the caller makes for init.
    pub(super) fn with_mapped_mount(self) -> Self {
        let source = self.bundle.beside("volume");
        fs::create_dir(&source).unwrap();
        let map = json!([{ "containerID": 0, "hostID": 5000, "size": 65536 }]);
        let bundle = self.bundle.mount(json!({ "destination": "/tmp", "type": "none",
            "source": source, "options": ["bind"], "uidMappings": map, "gidMappings": map }));
        bundle.write();
        Self { bundle, ..self }
    }

    /// Of an ordinary user, for whom newuidmap and newgidmap write the maps.
    pub(super) fn of_user_with_more_ids(self) -> Self {
        let bundle = self.bundle.of_user().maps(&user::MORE_IDS);
        bundle.write();
        Self { bundle, by_another: true, ..self }
    }

    /// With one hook that the caller runs and one that init runs, before and after the clean-up.
    pub(super) fn with_hooks(self) -> Self {
        let hook = json!([{ "path": "/bin/busybox", "args": ["true"] }]);
        let bundle = self.bundle.config(|c| {
            for kind in ["createRuntime", "createContainer", "poststop"] {
                c["hooks"][kind] = hook.clone();
            }
        });
        bundle.write();
        Self { bundle, ..self }
    }
}

/// A container of its own, with a state directory and a mark of its own, since two run at once.
pub(super) struct Case<'a> {
    subject: &'a Subject,
    id: String,
    root: PathBuf,
    out: PathBuf,
    err: PathBuf,
    pid_file: PathBuf,
    leftovers: Leftovers,
    /// Before `update`.
    limits: BTreeMap<PathBuf, String>,
}

type Broken = Vec<(String, String)>;

impl<'a> Case<'a> {
    /// With everything done that has to come before the command.
    pub(super) fn new(subject: &'a Subject, name: &str) -> Self {
        let bundle = &subject.bundle;
        let id = format!("{}{name}.", bundle.mark());
        let root = bundle.beside(&format!("{name}.state"));
        let [out, err, pid_file] =
            ["out", "err", "pid"].map(|kind| bundle.beside(&format!("{name}.{kind}")));
        let leftovers = Leftovers::before(&root, &id, bundle.view());
        let limits = BTreeMap::new();
        let mut case = Self { subject, id, root, out, err, pid_file, leftovers, limits };
        if !matches!(subject.verb, Verb::Create | Verb::Run) {
            case.launch("create").files(&case.out, &case.err).run().success();
        }
        if subject.verb.is_of_running() {
            case.rt(&["start", &case.id]).run().success();
        }
        if subject.verb == Verb::Update {
            case.limits = case.control_files();
            assert!(case.limits.len() >= 4, "{:?}", case.limits);
        }
        if subject.verb == Verb::Resume {
            case.rt(&["pause", &case.id]).run().success();
        }
        if subject.verb == Verb::Delete {
            case.rt(&["kill", &case.id, "KILL"]).run().success();
            let ended = case.init().and_then(|pid| reap(pid, Duration::from_secs(10)));
            assert!(ended.is_some(), "{} is killed and does not end", case.id);
        }
        case
    }

    pub(super) fn trace(&self) -> Traced {
        trace(&self.command(), &self.out, &self.err)
    }

    pub(super) fn inject(&self, at: At, fault: Fault) -> Traced {
        inject(&self.command(), (&self.out, &self.err), at, fault)
    }

    fn rt(&self, args: &[&str]) -> Rt {
        let rt = self.subject.bundle.rt(args).root(&self.root, &self.id);
        rt.limit(Duration::from_secs(10))
    }

    fn launch(&self, verb: &str) -> Rt {
        let (bundle, pid_file) = (self.subject.bundle.path(), self.pid_file.display().to_string());
        self.rt(&[verb, "--bundle", &bundle.to_string_lossy(), "--pid-file", &pid_file, &self.id])
    }

    fn command(&self) -> Rt {
        match self.subject.verb {
            Verb::Create => self.launch("create"),
            Verb::Run => self.launch("run"),
            Verb::Start => self.rt(&["start", &self.id]),
            Verb::Exec if self.subject.with_terminal => {
                let file = self.exec_pid_file().display().to_string();
                self.rt(&["exec", "--tty", "--pid-file", &file, &self.id, "sh", "-c", SCRIPT])
            }
            Verb::Exec => self.rt(&["exec", &self.id, "sh", "-c", SCRIPT]),
            Verb::Kill => self.rt(&["kill", &self.id, "KILL"]),
            Verb::Pause => self.rt(&["pause", &self.id]),
            Verb::Resume => self.rt(&["resume", &self.id]),
            Verb::Update => {
                let file = self.subject.bundle.beside(NEW_LIMITS).display().to_string();
                self.rt(&["update", &self.id, "--resources", &file])
            }
            Verb::Delete => self.rt(&["delete", &self.id]),
        }
    }

    fn exec_pid_file(&self) -> PathBuf {
        self.pid_file.with_extension("exec-pid")
    }

    /// From the pid file.
    fn init(&self) -> Option<i32> {
        fs::read_to_string(&self.pid_file).ok()?.parse().ok()
    }

    fn output(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    fn errors(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// What breaks the rules: `(kind, details)`.
    pub(super) fn verdict(&self, traced: &Traced, met: Option<Met>) -> Broken {
        let mut broken = vec![];
        let good = match self.subject.verb {
            Verb::Run | Verb::Exec => STATUS,
            _ => 0,
        };
        let mut note = |kind: &str, what: Option<String>| {
            broken.extend(what.map(|what| (kind.to_owned(), what)));
        };
        if traced.hung {
            note("it hangs", Some(self.errors()));
        } else if traced.status == good {
            note("success that was none", self.is_no_success(met));
        } else {
            let what = self.is_not_explained(traced, met);
            note("not one line about the failure", what);
            let killed = met.is_some_and(|met| matches!(met.fault, Fault::Kill));
            if self.subject.verb == Verb::Pause && !killed {
                note("it stays frozen", self.is_not("running"));
            }
            if self.subject.verb == Verb::Update && !killed {
                let now = self.control_files();
                let what = (now != self.limits).then(|| format!("{:?}, {now:?}", self.limits));
                note("limits are not what they were", what);
            }
        }
        if self.subject.verb == Verb::Exec {
            note("the container has suffered", self.has_suffered(&traced.children));
        }
        // As a shim does: init cannot end before every process that entered its namespace is reaped.
        let delete = self.rt(&["delete", "--force", &self.id]).spawn();
        for child in traced.children.iter().copied().chain(self.init()) {
            reap(child, Duration::from_secs(2));
        }
        let delete = delete.finish();
        let failed = delete.status != 0;
        note("delete --force fails", failed.then(|| delete.to_string()));
        self.clear_away(&mut broken);
        broken
    }

    fn clear_away(&self, broken: &mut Broken) {
        let left = self.leftovers.since();
        if !left.is_empty() {
            let kinds: BTreeSet<_> = left.iter().filter_map(|one| one.split(':').next()).collect();
            let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
            let what = format!("{} in all, {}", left.len(), left[0]);
            broken.push((format!("left behind: {kinds}"), what));
            self.leftovers.clear_away(&left);
        }
        for file in [&self.out, &self.err, &self.pid_file, &self.exec_pid_file()] {
            let _ = fs::remove_file(file);
        }
    }

    /// What has to be true when the command says that it has succeeded.
    fn is_no_success(&self, met: Option<Met>) -> Option<String> {
        let Some(init) = self.init() else {
            return Some(format!("the pid file: {:?}", fs::read_to_string(&self.pid_file)));
        };
        match self.subject.verb {
            Verb::Create => self.does_not_start(init, met),
            Verb::Start => self.does_not_run(init),
            Verb::Run | Verb::Exec => {
                (self.output() != OUTPUT).then(|| format!("output {:?}", self.output()))
            }
            Verb::Kill => match reap(init, Duration::from_secs(10)) {
                Some(137) => None,
                other => Some(format!("init has ended with {other:?}")),
            },
            Verb::Pause => self.is_not("paused"),
            Verb::Resume => self.is_not("running"),
            Verb::Update => {
                let is_old = |(file, text): &(PathBuf, String)| self.limits.get(file) == Some(text);
                self.control_files().into_iter().find(is_old).map(|old| format!("{old:?}"))
            }
            Verb::Delete => {
                let left = self.leftovers.since();
                (!left.is_empty()).then(|| left.join("\n"))
            }
        }
    }

    fn is_not(&self, status: &str) -> Option<String> {
        let state = self.rt(&["state", &self.id]).run().stdout;
        (!state.contains(&format!("\"status\": \"{status}\""))).then_some(state)
    }

    fn control_files(&self) -> BTreeMap<PathBuf, String> {
        self.init().map(control_files).unwrap_or_default()
    }

    /// Where init could no longer tell the caller, `start` has to say it.
    fn does_not_start(&self, init: i32, met: Option<Met>) -> Option<String> {
        let start = self.rt(&["start", &self.id]).run();
        if start.status != 0 {
            let excused = met.is_some_and(|met| met.after_ready);
            let explained = start.stderr.lines().count() == 1;
            return (!excused || !explained).then_some(start.stderr);
        }
        self.does_not_run(init)
    }

    fn does_not_run(&self, init: i32) -> Option<String> {
        let (status, output) = (reap(init, Duration::from_secs(10)), self.output());
        let good = status == Some(STATUS) && output == OUTPUT;
        (!good).then(|| format!("status {status:?}, output {output:?}, {:?}", self.errors()))
    }

    /// A killed caller says nothing, and before `main` it has no words yet. A process that is
    /// killed when it is already on its own is no error of `run` and `exec`.
    fn is_not_explained(&self, traced: &Traced, met: Option<Met>) -> Option<String> {
        let killed = met.is_some_and(|met| matches!(met.fault, Fault::Kill));
        let mute = traced.hit.as_ref().is_some_and(|hit| match hit.process {
            CALLER => hit.startup || killed,
            _ => traced.status == 137 && killed && met.is_some_and(|met| met.after_ready),
        });
        let errors = self.errors();
        let good = errors.lines().count() == 1 && errors.starts_with("rt: ");
        (!mute && !good).then(|| format!("status {}, {errors:?}", traced.status))
    }

    /// After `exec`, in whatever way it ended, the container has its init and nothing else.
    fn has_suffered(&self, children: &[i32]) -> Option<String> {
        let proc = format!("/proc/{}/root/proc", self.init()?);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            for child in children {
                reap(*child, Duration::ZERO);
            }
            let entries = fs::read_dir(&proc).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let pids: Vec<_> = names.filter(|name| name.parse::<i32>().is_ok()).collect();
            if pids == ["1"] {
                return None;
            }
            if Instant::now() > deadline {
                return Some(format!("processes {pids:?}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
