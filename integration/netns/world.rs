//! The world of a test: a host with an uplink, a server in the internet, a neighbour on the same
//! wire; each a network namespace. No packet leaves them.
//!
//! ```text
//!            198.51.100.1  internet  192.0.2.2, 2001:db8::2
//!                              │
//!   neighbour 192.0.2.3 ── lan ┴ host 192.0.2.1, 2001:db8::1 ── rtbr0 ── containers
//! ```

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Done, Host, Rt, TempDir, until};

/// How long a packet that is expected not to arrive is waited for.
const SILENCE: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(5);

/// A network namespace with a process in it.
#[derive(Debug)]
pub(crate) struct Guest {
    child: Child,
    namespace: File,
}

impl Guest {
    pub(crate) fn new() -> Self {
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let child = Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().unwrap();
        let path = format!("/proc/{}/ns/net", child.id());
        until("a namespace is there", || fs::read_link(&path).is_ok_and(|link| link != own));
        Self { namespace: File::open(&path).unwrap(), child }
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Ends the container's process, and with it the namespace.
    pub(crate) fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.namespace = File::open("/dev/null").unwrap();
    }

    pub(crate) fn place(&self) -> Place {
        Place(Some(self.namespace.try_clone().unwrap()))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where something happens: a namespace, or the host of the test.
#[derive(Debug)]
pub(crate) struct Place(Option<File>);

impl Place {
    pub(crate) fn of_pid(pid: i32) -> Self {
        Self(Some(File::open(format!("/proc/{pid}/ns/net")).unwrap()))
    }

    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                if let Some(namespace) = &self.0 {
                    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                }
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that has to succeed: its output.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let done = self
            .run(|| Command::new("timeout").args(["60", "sh", "-ec", script]).output().unwrap());
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{script}: {said}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// Whether the command succeeds.
    pub(crate) fn try_sh(&self, script: &str) -> bool {
        self.run(|| Command::new("timeout").args(["60", "sh", "-c", script]).output().unwrap())
            .status
            .success()
    }

    /// A server that tells each client its address, over TCP and UDP.
    pub(crate) fn serve(&self, address: &str) -> Server {
        let (tcp, udp) =
            self.run(|| (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap()));
        Server::new(tcp, udp)
    }

    /// What a server at the address says over TCP: `None` if it cannot be reached.
    pub(crate) fn ask(&self, address: &str) -> Option<String> {
        self.ask_within(address, PATIENCE)
    }

    fn ask_within(&self, address: &str, limit: Duration) -> Option<String> {
        let address: SocketAddr = address.parse().unwrap();
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
            stream.set_read_timeout(Some(limit)).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text).filter(|text| !text.is_empty())
        })
    }

    /// The same over UDP.
    pub(crate) fn ask_udp(&self, address: &str) -> Option<String> {
        let address: SocketAddr = address.parse().unwrap();
        self.run(|| {
            let own: SocketAddr =
                if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
            let socket = UdpSocket::bind(own).unwrap();
            socket.connect(address).ok()?;
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send(b"?").ok()?;
            let mut buffer = [0; 100];
            let length = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })
    }

    #[track_caller]
    pub(crate) fn reaches(&self, address: &str) -> String {
        self.ask(address).unwrap_or_else(|| panic!("{address} should be reached"))
    }

    #[track_caller]
    pub(crate) fn does_not_reach(&self, address: &str) {
        let answer = self.ask_within(address, SILENCE);
        assert_eq!(answer, None, "{address} should not be reached");
    }
}

/// Ends with its test.
pub(crate) struct Server(Arc<AtomicBool>);

impl Server {
    fn new(tcp: TcpListener, udp: UdpSocket) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let pause = Duration::from_millis(5);
        let flag = Arc::clone(&stop);
        tcp.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((mut stream, client)) => {
                        let _ = stream.write_all(plain(client.ip()).as_bytes());
                    }
                    Err(_) => std::thread::sleep(pause),
                }
            }
        });
        let flag = Arc::clone(&stop);
        udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 100];
            while !flag.load(Ordering::Relaxed) {
                if let Ok((_, client)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(plain(client.ip()).as_bytes(), client);
                }
            }
        });
        Self(stop)
    }
}

fn plain(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) internet: Guest,
    pub(crate) neighbour: Guest,
}

/// Runs the test on a host of its own, and looks afterwards whether anything is left there.
pub(crate) fn world(test: impl FnOnce(&World) + Send) {
    Host::isolated(|| {
        let world = World::new();
        let before = world.host().sh("ip -br link | sed 's/ .*//'");
        test(&world);
        for id in world.ids() {
            world.rt(["del", &id]).success();
        }
        let after = world.host().sh("ip -br link | sed 's/ .*//'");
        assert_eq!(before, after, "interfaces");
        let tables = world.host().sh("nft list tables | grep rtnet || true");
        assert_eq!(tables, "", "tables");
        let networks = world.state().join("networks");
        let left: Vec<_> = fs::read_dir(networks).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        until("the helper processes have ended", || world.helpers().is_empty());
    });
}

impl World {
    fn new() -> Self {
        let world =
            Self { directory: TempDir::new(), internet: Guest::new(), neighbour: Guest::new() };
        let (internet, neighbour) = (world.internet.pid(), world.neighbour.pid());
        world.host().sh(&format!(
            "ip link set lo up
             ip link add lan type bridge
             ip link set lan up
             ip addr add 192.0.2.1/24 dev lan
             ip addr add 2001:db8::1/64 dev lan nodad
             ip link add hi master lan type veth peer name eth0 netns {internet}
             ip link add hn master lan type veth peer name eth0 netns {neighbour}
             ip link set hi up
             ip link set hn up
             ip route add default via 192.0.2.2"
        ));
        for (guest, number) in [(&world.internet, 2), (&world.neighbour, 3)] {
            guest.place().sh(&format!(
                "ip link set lo up
                 ip addr add 192.0.2.{number}/24 dev eth0
                 ip addr add 2001:db8::{number}/64 dev eth0 nodad
                 ip link set eth0 up"
            ));
        }
        world.internet.place().sh("ip addr add 198.51.100.1/32 dev lo");
        world
    }

    pub(crate) fn host(&self) -> Place {
        Place(None)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("netns")
    }

    pub(crate) fn networks(&self) -> PathBuf {
        self.directory.path().join("networks")
    }

    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Rt {
        let mut words = vec!["netns".into(), "--state".into(), self.state().into_os_string()];
        words.extend(["--networks".into(), self.networks().into_os_string()]);
        words.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        Rt::bare(words)
    }

    /// `rt netns ARGS`
    #[track_caller]
    pub(crate) fn rt<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Done {
        self.command(args).run()
    }

    /// `rt netns OPTIONS` with this on standard input, as a runtime calls a hook.
    #[track_caller]
    pub(crate) fn hook(&self, state: &serde_json::Value) -> Done {
        let path = self.directory.path().join("stdin");
        fs::write(&path, state.to_string()).unwrap();
        self.command::<&str>([]).spawn_with(Stdio::from(File::open(path).unwrap())).finish()
    }

    /// A namespace as container `id` with these options of `add`.
    #[track_caller]
    pub(crate) fn add(&self, id: &str, options: &str) -> Guest {
        let guest = Guest::new();
        self.try_add(id, &guest, options).success();
        guest
    }

    #[track_caller]
    pub(crate) fn try_add(&self, id: &str, guest: &Guest, options: &str) -> Done {
        let pid = guest.pid();
        let words = ["add", id, "--pid", &pid].into_iter().chain(options.split_ascii_whitespace());
        self.rt(words)
    }

    #[track_caller]
    pub(crate) fn create(&self, name: &str, options: &str) {
        self.rt(["create", name].into_iter().chain(options.split_ascii_whitespace())).success();
    }

    #[track_caller]
    pub(crate) fn del(&self, id: &str) {
        self.rt(["del", id]).success();
    }

    pub(crate) fn inspect(&self, name: &str) -> serde_json::Value {
        let done = self.rt(["inspect", name, "--json"]).success();
        serde_json::from_str(&done.stdout).unwrap()
    }

    /// The first address of the container, without its prefix.
    pub(crate) fn address(&self, id: &str) -> String {
        let value = self.inspect(id);
        let address = value["endpoints"][0]["address"].as_str().unwrap();
        address.split('/').next().unwrap().to_owned()
    }

    fn ids(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state().join("containers")).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect()
    }

    /// The helper processes of this world.
    pub(crate) fn helpers(&self) -> Vec<i32> {
        let state = self.state().into_os_string().into_string().unwrap();
        let pids = fs::read_dir("/proc").unwrap().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line);
                line.contains("\0serve\0") && line.contains(&state)
            })
            .collect()
    }
}

impl Drop for World {
    /// What a test that has failed leaves: else its helpers would wait for containers for ever.
    fn drop(&mut self) {
        for pid in self.helpers() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
