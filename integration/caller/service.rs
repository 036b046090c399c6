//! The caller is a service manager: it passes sockets and wants to hear when the service is ready.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::run_below;
use crate::harness::{Bundle, Container, TempDir, until};

/// Sees the environment of sockets, and its own descriptors.
const LOOK: &str = "env | grep LISTEN_ | sort; ls /proc/$$/fd; true";

#[test]
fn the_sockets_of_the_caller_reach_the_process() {
    let bundle = Bundle::busybox().script(LOOK);
    let script =
        "export LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES=a:b; exec \"$@\" 3</ 4</ 5</ 6</";
    let seen = "LISTEN_FDNAMES=a:b\nLISTEN_FDS=2\nLISTEN_PID=1\n0\n1\n2\n3\n4\n";
    assert_eq!(run_below(&bundle, script), (Some(0), seen.to_owned()));
    let bundle = Bundle::busybox().options(["--preserve-fds", "1"]).script(LOOK);
    assert_eq!(run_below(&bundle, script), (Some(0), format!("{seen}5\n")));
}

#[test]
fn without_a_pid_namespace_the_process_learns_its_own_number() {
    let bundle = Bundle::busybox().without_namespace("pid").script("echo $(($$ - LISTEN_PID))");
    let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\" 3</";
    assert_eq!(run_below(&bundle, script), (Some(0), "0\n".to_owned()));
}

#[test]
fn sockets_for_somebody_else_are_not_passed_on() {
    let bundle = Bundle::busybox().script(LOOK);
    for script in [
        "export LISTEN_FDS=1 LISTEN_PID=1; exec \"$@\" 3</",
        "export LISTEN_FDS=1; exec \"$@\" 3</",
        "export LISTEN_PID=$$; exec \"$@\" 3</",
    ] {
        assert_eq!(run_below(&bundle, script), (Some(0), "0\n1\n2\n".to_owned()), "{script}");
    }
}

#[test]
fn sockets_that_are_not_there_are_an_error() {
    let bundle = Bundle::busybox().script(LOOK);
    for script in [
        "export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$@\" 3</ 4<&-",
        "export LISTEN_FDS=x LISTEN_PID=$$; exec \"$@\" 3</",
        "export LISTEN_FDS=4294967295 LISTEN_PID=$$; exec \"$@\" 3</",
    ] {
        assert_eq!(run_below(&bundle, script), (Some(1), String::new()), "{script}");
    }
}

/// The service manager's socket.
struct Manager {
    directory: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let directory = TempDir::new();
        let socket = UnixDatagram::bind(directory.path().join("manager")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { directory, socket }
    }

    fn spawn(&self, mut command: Command) -> Child {
        command.env("NOTIFY_SOCKET", self.directory.path().join("manager"));
        command.stdin(Stdio::null()).spawn().unwrap()
    }

    /// The lines of the next message; a descriptor in it is closed, which acknowledges a barrier.
    fn hears(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..length]).lines().map(str::to_owned).collect()
    }

    fn hears_nothing_more(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        self.socket.recv(&mut [0; 64]).is_err()
    }
}

/// syslog(3) of busybox writes one datagram to `/dev/log`, whose lines are as sd_notify(3) has
/// them, but for the first one.
fn notifying(and_then: &str) -> Bundle {
    Bundle::busybox().script(&format!(
        "ln -s $NOTIFY_SOCKET /dev/log; touch /run/notify/new 2>/dev/null && exit 9; read go </go
        logger \"$(printf 'first\\nSTATUS=fine')\"; logger \"$(printf 'first\\nREADY=1')\"; {and_then}"
    ))
}

fn with_fifo(bundle: Bundle) -> Bundle {
    std::fs::create_dir_all(bundle.rootfs().join("run")).unwrap();
    let fifo = bundle.rootfs().join("go");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    bundle
}

fn go(bundle: &Bundle) {
    let fifo = std::fs::File::options().write(true).open(bundle.rootfs().join("go")).unwrap();
    std::io::Write::write_all(&mut &fifo, b"go\n").unwrap();
}

fn number(child: &mut Child) -> i32 {
    let mut status = None;
    until("the command has ended", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code().unwrap_or(-1)
}

#[test]
fn run_tells_the_manager_that_the_container_is_ready_and_who_to_watch() {
    let manager = Manager::new();
    let bundle = with_fifo(notifying("exit 3"));
    let mut run = manager.spawn(bundle.launch(&["run"], &bundle.id()).command(&[]));
    go(&bundle);
    assert_eq!(manager.hears(), ["READY=1".to_owned(), format!("MAINPID={}", run.id())]);
    assert_eq!(number(&mut run), 3);
    assert!(manager.hears_nothing_more());
}

#[test]
fn a_manager_that_has_gone_is_no_reason_not_to_run() {
    let bundle = Bundle::busybox().args(["env"]);
    let mut run = bundle.launch(&["run"], &bundle.id()).command(&[]);
    run.env("NOTIFY_SOCKET", "/nonexistent").stdin(Stdio::null());
    let done = run.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(!String::from_utf8(done.stdout).unwrap().contains("NOTIFY_SOCKET"));
}

#[test]
fn a_detached_run_returns_when_the_container_is_ready() {
    let manager = Manager::new();
    let bundle = with_fifo(notifying("exec sleep 1000"));
    let mut run = manager.spawn(bundle.launch(&["run", "--detach"], &bundle.id()).command(&[]));
    let pid = bundle.beside("pid");
    until("it runs", || pid.exists());
    go(&bundle);
    let heard = manager.hears();
    let pid = std::fs::read_to_string(pid).unwrap();
    assert_eq!(heard, ["READY=1".to_owned(), format!("MAINPID={pid}")]);
    assert_eq!(manager.hears(), ["BARRIER=1"]);
    assert_eq!(number(&mut run), 0);
    Container::of(bundle).delete_force();
}

#[test]
fn start_returns_when_the_container_is_ready_also_in_a_user_namespace() {
    for user_namespace in [false, true] {
        let manager = Manager::new();
        let bundle = with_fifo(notifying("exec sleep 1000"));
        let bundle = if user_namespace { bundle.user_namespace() } else { bundle };
        let command = bundle.launch(&["create"], &bundle.id()).command(&[]);
        assert_eq!(number(&mut manager.spawn(command)), 0);
        let c = Container::of(bundle);
        let mut start = manager.spawn(c.rt(["start", &c.id]).command(&[]));
        go(c.bundle());
        assert_eq!(manager.hears(), ["READY=1".to_owned(), format!("MAINPID={}", c.pid())]);
        assert_eq!(manager.hears(), ["BARRIER=1"]);
        assert_eq!(number(&mut start), 0);
        // The variable is the service's, not everybody's.
        assert_eq!(c.exec(["sh", "-c", "echo ${NOTIFY_SOCKET-none}"]).success().stdout, "none\n");
    }
}

#[test]
fn a_container_that_ends_without_a_word_ends_the_wait() {
    let manager = Manager::new();
    let bundle = Bundle::busybox().script("exit 4");
    std::fs::create_dir_all(bundle.rootfs().join("run")).unwrap();
    let command = bundle.launch(&["run", "--detach"], &bundle.id()).command(&[]);
    assert_eq!(number(&mut manager.spawn(command)), 0);
    assert_eq!(Container::of(bundle).wait(), 4);
    let bundle = Bundle::busybox().script("exit 4");
    std::fs::create_dir_all(bundle.rootfs().join("run")).unwrap();
    let command = bundle.launch(&["run"], &bundle.id()).command(&[]);
    assert_eq!(number(&mut manager.spawn(command)), 4);
    assert!(manager.hears_nothing_more());
}
