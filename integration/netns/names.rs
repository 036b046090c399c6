//! Names: the resolver and the containers' files.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;

use super::world::{Place, world};

fn dig(place: &Place, words: &str) -> String {
    place.sh(&format!("dig +short +time=5 +tries=2 {words}")).trim().to_owned()
}

#[test]
fn containers_are_known_by_their_names() {
    world(|w| {
        w.create("six", "--subnet6 fd00:6::/64");
        let a = w.add("a", "--network six --hostname Web --alias www --alias shop.example");
        let b = w.add("b", "--network six");
        for name in ["a.", "web", "WWW", "shop.example", "web.six"] {
            assert_eq!(dig(&b.place(), &format!("@172.21.0.1 -q {name}")), "172.21.0.2", "{name}");
        }
        assert_eq!(dig(&b.place(), "@172.21.0.1 -t AAAA -q web"), "fd00:6::2");
        assert_eq!(dig(&b.place(), "@fd00:6::1 +tcp -q web"), "172.21.0.2");
        assert_eq!(dig(&a.place(), "@172.21.0.1 -x 172.21.0.3"), "b.");
        assert_eq!(dig(&a.place(), "@172.21.0.1 -x fd00:6::2"), "Web.");
        let nothing = b.place().sh("dig +time=5 +tries=2 @172.21.0.1 -t MX -q web");
        assert!(nothing.contains("NOERROR") && nothing.contains("ANSWER: 0"), "{nothing}");
        drop(a);
        w.del("a");
        let gone = b.place().sh("dig +time=3 +tries=1 @172.21.0.1 -q web.six || true");
        assert!(!gone.contains("172.21.0.2"), "{gone}");
    });
}

/// A server that answers every query with nothing but its response code 5 turned into a mark.
fn upstream(place: &Place, address: &str) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let socket = place.run(|| UdpSocket::bind(address).unwrap());
    let (sender, receiver) = std::sync::mpsc::channel();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let mut answer = buffer[..length].to_vec();
            answer[2] |= 0x80;
            answer[3] = 0x80 | 9;
            // Before the answer: who has that may look at once.
            if sender.send(buffer[..length].to_vec()).is_err() {
                return;
            }
            let _ = socket.send_to(&answer, client);
        }
    });
    receiver
}

#[test]
fn other_names_are_asked_for_elsewhere() {
    world(|w| {
        w.create("out", "--dns 192.0.2.2");
        let seen = upstream(&w.internet.place(), "192.0.2.2:53");
        let a = w.add("a", "--network out");
        let answer = a.place().sh("dig +time=5 +tries=1 @172.21.0.1 -q www.example");
        assert!(answer.contains("NOTAUTH"), "{answer}");
        assert!(seen.try_recv().is_ok());
    });
}

#[test]
fn files_are_rewritten_in_place_and_keep_what_is_not_ours() {
    world(|w| {
        let files = |name: &str| w.directory.path().join(name);
        fs::create_dir(files("a")).unwrap();
        fs::write(files("a/hosts"), "203.0.113.9\tmine\n").unwrap();
        let inode = |name: &str| fs::metadata(files(name)).unwrap().ino();
        let before = inode("a/hosts");
        let option = |name: &str| format!("--files {}", files(name).display());
        let _a = w.add(
            "a",
            &format!("{} --hostname web --add-host x:203.0.113.1 --dns-search corp.example --dns-option ndots:2", option("a")),
        );
        let read = |name: &str| fs::read_to_string(files(name)).unwrap();
        let hosts = read("a/hosts");
        for line in
            ["203.0.113.9\tmine", "127.0.0.1\tlocalhost", "172.20.0.2\tweb a", "203.0.113.1\tx"]
        {
            assert!(hosts.contains(line), "{line} in {hosts}");
        }
        assert_eq!(read("a/hostname"), "web\n");
        let resolv = read("a/resolv.conf");
        for line in ["nameserver 172.20.0.1\n", "search corp.example\n", "options ndots:2\n"] {
            assert!(resolv.contains(line), "{line} in {resolv}");
        }
        let b = w.add("b", &option("b"));
        assert!(read("a/hosts").contains("172.20.0.3\tb"));
        assert!(read("b/hosts").contains("172.20.0.2\tweb a"));
        // The container writes too.
        let mut file = fs::OpenOptions::new().append(true).open(files("a/hosts")).unwrap();
        file.write_all(b"198.51.100.7\tlate\n").unwrap();
        drop(b);
        w.del("b");
        let hosts = read("a/hosts");
        assert!(!hosts.contains("\tb\n") && hosts.contains("198.51.100.7\tlate"), "{hosts}");
        assert_eq!(inode("a/hosts"), before);
        w.del("a");
        assert_eq!(read("a/hosts"), "203.0.113.9\tmine\n198.51.100.7\tlate\n");
    });
}

#[test]
fn a_link_has_a_name_and_follows_its_container() {
    world(|w| {
        let files = w.directory.path().join("web");
        let db = w.add("db", "");
        let _web = w.add("web", &format!("--link db:database --files {}", files.display()));
        let hosts = || fs::read_to_string(files.join("hosts")).unwrap();
        assert!(hosts().contains("172.20.0.2\tdatabase"), "{}", hosts());
        drop(db);
        w.del("db");
        let _db = w.add("db", "--ip 172.20.0.77");
        assert!(hosts().contains("172.20.0.77\tdatabase"), "{}", hosts());
    });
}

#[test]
fn the_resolver_answers_others_while_one_is_slow() {
    world(|w| {
        let a = w.add("a", "");
        // Half a query, and nothing more.
        let mut slow = a.place().run(|| TcpStream::connect("172.20.0.1:53").unwrap());
        slow.write_all(&[0, 40, 1, 2]).unwrap();
        assert_eq!(dig(&a.place(), "+tcp @172.20.0.1 -q a."), "172.20.0.2");
        slow.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        // It is not kept for ever.
        assert_eq!(slow.read(&mut [0; 10]).unwrap(), 0);
    });
}
