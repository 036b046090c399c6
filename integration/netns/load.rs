//! What one client, neighbour or container does to the helper process leaves names and relays to
//! all others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::world::{Place, World, world};

const PATIENCE: Duration = Duration::from_secs(10);
/// More than there has ever been room for.
const MANY: usize = 5_000;

/// A thread that goes on until its test ends.
struct Background {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    fn new(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = Some(std::thread::spawn(move || work(&flag)));
        Self { stop, thread }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A server that gives back what it gets, over TCP and UDP, to any number of clients.
fn echo(place: &Place, address: &str) -> Background {
    let (tcp, udp) =
        place.run(|| (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap()));
    tcp.set_nonblocking(true).unwrap();
    udp.set_nonblocking(true).unwrap();
    Background::new(move |stop| {
        let mut clients: Vec<TcpStream> = vec![];
        let mut buffer = [0; 4096];
        while !stop.load(Ordering::Relaxed) {
            let fds = [tcp.as_fd(), udp.as_fd()].into_iter().chain(clients.iter().map(AsFd::as_fd));
            let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            poll(&mut fds, PollTimeout::from(50_u16)).unwrap();
            let ready: Vec<_> = fds.iter().skip(2).map(|fd| fd.any() == Some(true)).collect();
            let mut ready = ready.into_iter();
            clients.retain_mut(|client| {
                !ready.next().unwrap()
                    || client.read(&mut buffer).is_ok_and(|length| {
                        length > 0 && client.write_all(&buffer[..length]).is_ok()
                    })
            });
            while let Ok((client, _)) = tcp.accept() {
                client.set_nonblocking(true).unwrap();
                clients.push(client);
            }
            while let Ok((length, client)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&buffer[..length], client);
            }
        }
    })
}

/// A name server over UDP at 192.0.2.2. It never answers for names that begin with "slow", and says
/// how many of those it was asked for.
fn upstream(w: &World) -> (Background, Arc<AtomicUsize>) {
    let socket = w.internet.place().run(|| UdpSocket::bind("192.0.2.2:53").unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let slow = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&slow);
    let server = Background::new(move |stop| {
        let mut buffer = [0; 4096];
        while !stop.load(Ordering::Relaxed) {
            let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
            if buffer[..length].windows(5).any(|label| label == b"\x04slow") {
                count.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let mut answer = buffer[..length].to_vec();
            answer[2] |= 0x80;
            let _ = socket.send_to(&answer, client);
        }
    });
    (server, slow)
}

/// A question for the addresses of the name.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// The response code to one question over UDP, which is asked a second time as resolvers do.
#[track_caller]
fn code(place: &Place, server: &str, name: &str) -> u8 {
    let server: SocketAddr = server.parse().unwrap();
    let own = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = place.run(|| UdpSocket::bind(own).unwrap());
    socket.set_read_timeout(Some(PATIENCE / 2)).unwrap();
    let mut answer = [0; 4096];
    for id in [7, 8] {
        place.run(|| socket.send_to(&question(id, name), server)).unwrap();
        if socket.recv_from(&mut answer).is_ok() {
            return answer[3] & 0xf;
        }
    }
    panic!("no answer for {name} from {server}");
}

/// Names are still answered for, over UDP and TCP, ours and others.
#[track_caller]
fn names_go_on(place: &Place, server: &str, own: &str) {
    let at = |server: &str| {
        if server.contains(':') { format!("[{server}]:53") } else { format!("{server}:53") }
    };
    for _ in 0..3 {
        assert_eq!(code(place, &at(server), own), 0, "{own}");
        assert_eq!(code(place, &at(server), "www.example"), 0, "www.example");
    }
    for name in [own, "www.example"] {
        let answer = place.sh(&format!("dig +tcp +time=5 +tries=2 @{server} -q {name}."));
        assert!(answer.contains("status: NOERROR"), "{name} over TCP: {answer}");
    }
}

fn connect(place: &Place, address: &str) -> TcpStream {
    let address = address.parse().unwrap();
    let stream = place.run(|| TcpStream::connect_timeout(&address, PATIENCE).unwrap());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Something goes there and back.
#[track_caller]
fn exchange(stream: &mut TcpStream) {
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

#[track_caller]
fn exchange_udp(socket: &UdpSocket, server: &str) {
    let mut answer = [0; 100];
    for _ in 0..2 {
        socket.send_to(b"hello", server).unwrap();
        if socket.recv_from(&mut answer).is_ok_and(|(length, _)| &answer[..length] == b"hello") {
            return;
        }
    }
    panic!("no answer from {server}");
}

fn udp_at(place: &Place, own: &str) -> UdpSocket {
    let socket = place.run(|| UdpSocket::bind(own).unwrap());
    socket.set_read_timeout(Some(PATIENCE / 2)).unwrap();
    socket
}

/// Connections of a client that says nothing, from its addresses in turn.
fn idle(place: &Place, from: &[String], to: &str, count: usize) -> Vec<TcpStream> {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket,
    };
    use std::os::fd::AsRawFd;
    allow_many();
    let to: SocketAddr = to.parse().unwrap();
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    place.run(|| {
        let one = |n: usize| {
            let fd = socket(family, SockType::Stream, flags, None).unwrap();
            if !from.is_empty() {
                let own: SocketAddr = from[n % from.len()].parse().unwrap();
                bind(fd.as_raw_fd(), &SockaddrStorage::from(own)).unwrap();
            }
            let _ = connect(fd.as_raw_fd(), &SockaddrStorage::from(to));
            if n % 100 == 99 {
                std::thread::sleep(Duration::from_millis(10));
            }
            TcpStream::from(fd)
        };
        (0..count).map(one).collect()
    })
}

fn allow_many() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// More addresses for the neighbour: `192.0.2.100` and on, or `2001:db8::1:1` and on.
fn more_addresses(w: &World, count: usize, ipv6: bool) -> Vec<String> {
    let address = |n: usize| match ipv6 {
        true => (format!("2001:db8::1:{n:x}"), 64),
        false => (format!("192.0.2.{}", 100 + n), 24),
    };
    let all: Vec<_> = (0..count).map(address).collect();
    let flag = if ipv6 { "nodad" } else { "" };
    let lines = all.iter().map(|(ip, prefix)| format!("addr add {ip}/{prefix} dev eth0 {flag}\n"));
    let file = w.directory.path().join("addresses");
    std::fs::write(&file, lines.collect::<String>()).unwrap();
    w.neighbour.place().sh(&format!("ip -batch {}", file.display()));
    all.iter().map(|(ip, _)| if ipv6 { format!("[{ip}]:0") } else { format!("{ip}:0") }).collect()
}

#[test]
fn idle_connections_of_a_neighbour_leave_names_and_relays_to_all_others() {
    world(|w| {
        w.create("plain", "--driver none --localhost proxy --dns 192.0.2.2");
        let (_upstream, _) = upstream(w);
        let a = w.add("a", "--network plain --publish 8080:80");
        let b = w.add("b", "--network plain --publish 8081:80");
        let (_a, _b) = (echo(&a.place(), "0.0.0.0:80"), echo(&b.place(), "0.0.0.0:80"));
        let mut before = connect(&w.internet.place(), "192.0.2.1:8080");
        exchange(&mut before);
        let from = more_addresses(w, 100, false);
        for from in [&[][..], &from[..]] {
            let _idle = idle(&w.neighbour.place(), from, "192.0.2.1:8080", MANY);
            names_go_on(&b.place(), "172.21.0.1", "a");
            exchange(&mut before);
            for port in [8080, 8081] {
                let server = format!("192.0.2.1:{port}");
                exchange(&mut connect(&w.internet.place(), &server));
                exchange(&mut connect(&w.host(), &format!("127.0.0.1:{port}")));
            }
        }
    });
}

#[test]
fn datagrams_of_many_addresses_leave_names_and_flows_to_all_others() {
    world(|w| {
        w.create("out", "--dns 192.0.2.2");
        let (_upstream, _) = upstream(w);
        let a = w.add("a", "--network out --publish 5300:80/udp --publish 5301:81/udp");
        let b = w.add("b", "--network out --publish 5302:80/udp");
        let _servers = [(&a, "0.0.0.0:80"), (&a, "0.0.0.0:81"), (&b, "0.0.0.0:80")]
            .map(|(one, at)| echo(&one.place(), at));
        let client = udp_at(&w.internet.place(), "[::]:0");
        exchange_udp(&client, "[2001:db8::1]:5300");
        exchange_udp(&client, "[2001:db8::1]:5300");
        let from = more_addresses(w, 100, true);
        w.neighbour.place().run(|| {
            for (n, own) in from.iter().cycle().take(MANY).enumerate() {
                let socket = UdpSocket::bind(own).unwrap();
                let port = 5300 + n % 2;
                let _ = socket.send_to(b"?", format!("[2001:db8::1]:{port}"));
                if n % 100 == 99 {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        names_go_on(&b.place(), "172.21.0.1", "a");
        exchange_udp(&client, "[2001:db8::1]:5300");
        for port in [5300, 5301, 5302] {
            let other = udp_at(&w.internet.place(), "[::]:0");
            exchange_udp(&other, &format!("[2001:db8::1]:{port}"));
            exchange_udp(&udp_at(&w.host(), "[::]:0"), &format!("[::1]:{port}"));
        }
    });
}

#[test]
fn connections_of_a_container_to_the_resolver_leave_names_to_all_others() {
    world(|w| {
        w.create("six", "--subnet6 fd00:6::/64 --dns 192.0.2.2");
        let (_upstream, _) = upstream(w);
        let (a, b) = (w.add("a", "--network six"), w.add("b", "--network six"));
        for (loud, calm) in [("[fd00:6::1]:53", "fd00:6::1"), ("172.21.0.1:53", "fd00:6::1")] {
            let mut all = idle(&a.place(), &[], loud, MANY);
            // Some of them wait for an answer that never comes.
            for stream in all.iter_mut().rev().take(100) {
                let query = question(1, "slow.example");
                let _ = stream.write_all(&[&[0, query.len() as u8][..], &query].concat());
            }
            names_go_on(&b.place(), calm, "a");
            names_go_on(&b.place(), "172.21.0.1", "a");
        }
    });
}

#[test]
fn questions_of_a_container_that_nobody_answers_leave_names_to_all_others() {
    world(|w| {
        w.create("six", "--subnet6 fd00:6::/64 --dns 192.0.2.2");
        let (_upstream, slow) = upstream(w);
        let (a, b) = (w.add("a", "--network six"), w.add("b", "--network six"));
        for server in ["172.21.0.1:53", "[fd00:6::1]:53"] {
            slow.store(0, Ordering::Relaxed);
            let socket =
                udp_at(&a.place(), if server.contains('[') { "[::]:0" } else { "0.0.0.0:0" });
            let _flood = Background::new(move |stop| {
                let begin = Instant::now();
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    // Five in a millisecond.
                    while u128::from(sent / 5) < begin.elapsed().as_millis() {
                        let name = format!("slow.host{sent}.example");
                        let _ = socket.send_to(&question(sent as u16, &name), server);
                        sent += 1_u32;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            crate::harness::until("there are questions that wait", || {
                slow.load(Ordering::Relaxed) > MANY
            });
            names_go_on(&b.place(), "172.21.0.1", "a");
            names_go_on(&b.place(), "fd00:6::1", "a");
        }
    });
}

#[test]
fn as_many_ports_as_there_are_descriptors_leave_names_and_relays_to_all_others() {
    world(|w| {
        w.create("out", "--dns 192.0.2.2");
        let (_upstream, _) = upstream(w);
        let b = w.add("b", "--network out --publish 8081:80");
        let a = super::world::Guest::new();
        let pid = a.pid();
        // Each word a kind of its own: the ports are all in all as many as the limit allows.
        let add = |id: &str, ports: &str| {
            let words = ["add", id, "--pid", &pid, "--network", "out", "--publish", ports];
            let limit = ["prlimit", "--nofile=1024:20000"];
            w.command(words).between(&limit).limit(Duration::from_secs(120)).run()
        };
        // The helper process of such a host.
        for helper in w.helpers() {
            w.host().sh(&format!("prlimit --pid {helper} --nofile=20000:20000"));
        }
        add("a", "10000-19999:10000-19999").success();
        let (_a, _b) = (echo(&a.place(), "0.0.0.0:19999"), echo(&b.place(), "0.0.0.0:80"));
        names_go_on(&b.place(), "172.21.0.1", "a");
        for server in ["[2001:db8::1]:19999", "192.0.2.1:19999", "[2001:db8::1]:8081"] {
            exchange(&mut connect(&w.internet.place(), server));
        }
        exchange(&mut connect(&w.host(), "[::1]:8081"));
        let taken = TcpListener::bind("192.0.2.1:15000");
        assert!(taken.is_err(), "a published port is held");
        w.del("a");
        TcpListener::bind("192.0.2.1:15000").unwrap();
        names_go_on(&b.place(), "172.21.0.1", "b");
    });
}

#[test]
fn more_ports_than_descriptors_are_refused_and_nobody_loses_anything() {
    world(|w| {
        w.create("out", "--dns 192.0.2.2");
        let (_upstream, _) = upstream(w);
        let b = super::world::Guest::new();
        let a = super::world::Guest::new();
        let few = ["prlimit", "--nofile=600:600"];
        let add = |id: &str, guest: &super::world::Guest, ports: &str| {
            let pid = guest.pid();
            let words = ["add", id, "--pid", &pid, "--network", "out", "--publish", ports];
            w.command(words).between(&few).run()
        };
        add("b", &b, "8081:80").success();
        let _b = echo(&b.place(), "0.0.0.0:80");
        add("a", &a, "10000-10499:10000-10499/udp").failure().one_line();
        w.rt(["inspect", "a"]).failure();
        assert!(UdpSocket::bind("192.0.2.1:10000").is_ok(), "nothing is held");
        names_go_on(&b.place(), "172.21.0.1", "b");
        exchange(&mut connect(&w.internet.place(), "[2001:db8::1]:8081"));
        add("a", &a, "10000-10199:10000-10199/udp").success();
        names_go_on(&b.place(), "172.21.0.1", "a");
    });
}

#[test]
fn a_client_that_reads_nothing_keeps_nobody_waiting() {
    world(|w| {
        w.create("plain", "--driver none --localhost proxy --dns 192.0.2.2");
        let (_upstream, _) = upstream(w);
        let a = w.add("a", "--network plain --publish 8080:80");
        let _a = echo(&a.place(), "0.0.0.0:80");
        let mut loud: Vec<_> =
            (0..20).map(|_| connect(&w.neighbour.place(), "192.0.2.1:8080")).collect();
        for stream in &mut loud {
            stream.set_nonblocking(true).unwrap();
            while stream.write(&[0; 65_536]).is_ok() {}
        }
        // Questions whose answers nobody fetches.
        let mut asking = connect(&a.place(), "172.21.0.1:53");
        asking.set_nonblocking(true).unwrap();
        let query = question(1, "a");
        let query = [&[0, query.len() as u8][..], &query].concat().repeat(500);
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            if asking.write(&query).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        exchange(&mut connect(&w.internet.place(), "192.0.2.1:8080"));
        names_go_on(&a.place(), "172.21.0.1", "a");
        let [helper] = w.helpers()[..] else { panic!("one helper: {:?}", w.helpers()) };
        let status = std::fs::read_to_string(format!("/proc/{helper}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(resident < 64 * 1024, "{resident} KiB");
    });
}
