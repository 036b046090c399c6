//! One command of the runtime under test: always under a time limit, never silent about a failure.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::View;

/// The environment variable that marks every process that a test causes.
pub(crate) const MARK: &str = "RT_TEST";

/// The runtime under test.
pub(crate) fn runtime() -> &'static Path {
    static RUNTIME: OnceLock<PathBuf> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        // Init outlives `create`: it has to become a child of this process to be waited for.
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let path = std::env::var_os("RT").map_or(env!("CARGO_BIN_EXE_rt").into(), PathBuf::from);
        path.canonicalize().unwrap_or_else(|error| panic!("RT={}: {error}", path.display()))
    })
}

/// The runtime to compare with.
pub(crate) fn runc() -> &'static Path {
    let runc = ["/usr/sbin/runc", "/usr/bin/runc"].map(Path::new);
    let runc = runc.into_iter().find(|path| path.exists());
    runc.expect("these tests compare with runc: install Debian's package runc")
}

/// A command line of the runtime, not started yet.
#[derive(Clone, Debug)]
pub(crate) struct Rt {
    root: Option<PathBuf>,
    mark: String,
    program: PathBuf,
    args: Vec<OsString>,
    view: View,
    /// Words before the runtime, such as a wrapper.
    between: Vec<OsString>,
    /// Shell redirections for the runtime: the safe way to give it descriptors beyond 0, 1 and 2.
    redirections: String,
    directory: Option<PathBuf>,
    files: Option<(PathBuf, PathBuf)>,
    limit: Duration,
}

impl Rt {
    /// Without `--root` and without a mark, for commands that touch no container.
    pub(crate) fn bare<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        Self {
            root: None,
            mark: String::new(),
            program: runtime().to_owned(),
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            view: View::Host,
            between: vec![],
            redirections: String::new(),
            directory: None,
            files: None,
            limit: Duration::from_secs(20),
        }
    }

    pub(crate) fn root(mut self, root: &Path, mark: &str) -> Self {
        self.root = Some(root.to_owned());
        mark.clone_into(&mut self.mark);
        self
    }

    /// Another runtime, to compare with.
    pub(crate) fn program(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    pub(crate) fn view(mut self, view: View) -> Self {
        self.view = view;
        self
    }

    pub(crate) fn between(mut self, words: &[&str]) -> Self {
        self.between.extend(words.iter().map(Into::into));
        self
    }

    pub(crate) fn redirections(mut self, redirections: &str) -> Self {
        redirections.clone_into(&mut self.redirections);
        self
    }

    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Standard output and error go to these files, which a container inherits.
    pub(crate) fn files(mut self, out: &Path, err: &Path) -> Self {
        self.files = Some((out.to_owned(), err.to_owned()));
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The whole command line: view, `between`, redirections, runtime, its arguments.
    fn words(&self, between: &[OsString]) -> Vec<OsString> {
        let mut words = self.view.prefix();
        words.extend(between.iter().chain(&self.between).cloned());
        if !self.redirections.is_empty() {
            let script = format!("exec \"$@\" {}", self.redirections);
            words.extend(["sh".into(), "-c".into(), script.into(), "sh".into()]);
        }
        words.push(self.program.clone().into());
        if let Some(root) = &self.root {
            words.extend(["--root".into(), root.into()]);
        }
        words.extend(self.args.iter().cloned());
        words
    }

    /// `between` stands between the view's script and the runtime.
    pub(crate) fn command(&self, between: &[OsString]) -> Command {
        let words = self.words(between);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env(MARK, &self.mark).env("LC_ALL", "C").process_group(0);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    #[track_caller]
    pub(crate) fn run(self) -> Done {
        self.spawn().finish()
    }

    #[track_caller]
    pub(crate) fn spawn(self) -> Running {
        self.spawn_with(Stdio::null())
    }

    #[track_caller]
    pub(crate) fn spawn_with(self, stdin: Stdio) -> Running {
        let (out, err) = match &self.files {
            Some((out, err)) => (append(out), append(err)),
            None => (unnamed(), unnamed()),
        };
        let begin = [length(&out), length(&err)];
        let child = self
            .command(&[])
            .stdin(stdin)
            .stdout(out.try_clone().unwrap())
            .stderr(err.try_clone().unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{self}: {error}"));
        Running { line: self.to_string(), limit: self.limit, child, streams: [out, err], begin }
    }
}

impl fmt::Display for Rt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.words(&[]);
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        f.write_str(&words.join(" "))
    }
}

/// A command that has been started.
#[derive(Debug)]
pub(crate) struct Running {
    line: String,
    limit: Duration,
    child: Child,
    streams: [File; 2],
    begin: [u64; 2],
}

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// What it has written to standard output until now.
    pub(crate) fn output_so_far(&self) -> String {
        read_from(&self.streams[0], self.begin[0])
    }

    #[track_caller]
    pub(crate) fn finish(mut self) -> Done {
        let deadline = Instant::now() + self.limit;
        let mut pause = Duration::from_micros(100);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break Some(status);
            }
            if Instant::now() > deadline {
                let _ = killpg(self.pid(), Signal::SIGKILL);
                self.child.wait().unwrap();
                break None;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(2));
        };
        let done = Done {
            line: std::mem::take(&mut self.line),
            status: status.map_or(-1, number),
            stdout: read_from(&self.streams[0], self.begin[0]),
            stderr: read_from(&self.streams[1], self.begin[1]),
        };
        assert!(status.is_some(), "not finished after {:?}, killed\n{done}", self.limit);
        done
    }
}

/// An exit status as a shell gives it: 128 + signal for a killed process.
pub(crate) fn number(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A finished command.
#[derive(Debug)]
pub(crate) struct Done {
    line: String,
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert!(self.status == 0, "should have succeeded\n{self}");
        self
    }

    #[track_caller]
    pub(crate) fn failure(self) -> Self {
        assert!(self.status != 0, "should have failed\n{self}");
        self
    }

    /// A failure that one line on standard error explains, with each of `words` in it.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        let done = self.failure();
        for word in words {
            assert!(done.stderr.contains(word), "the error should name {word:?}\n{done}");
        }
        done
    }

    /// Exactly one line on standard error, which begins with the runtime's name.
    #[track_caller]
    pub(crate) fn one_line(self) -> Self {
        let lines: Vec<_> = self.stderr.lines().collect();
        assert!(
            lines.len() == 1 && lines[0].starts_with("rt: "),
            "should say why in one line that begins with \"rt: \"\n{self}"
        );
        self
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, status, stdout, stderr } = self;
        write!(f, "$ {line}\nstatus: {status}\nstdout:\n{stdout}\nstderr:\n{stderr}")
    }
}

fn unnamed() -> File {
    let flags = nix::libc::O_TMPFILE;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open("/var/tmp").unwrap()
}

fn append(path: &Path) -> File {
    OpenOptions::new().read(true).append(true).create(true).open(path).unwrap()
}

fn length(file: &File) -> u64 {
    file.metadata().unwrap().len()
}

fn read_from(file: &File, begin: u64) -> String {
    let mut bytes = vec![0; length(file).saturating_sub(begin) as usize];
    let size = file.read_at(&mut bytes, begin).unwrap();
    bytes.truncate(size);
    String::from_utf8_lossy(&bytes).into_owned()
}
