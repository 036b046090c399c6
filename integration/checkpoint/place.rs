//! Where CRIU is, and interfaces in a network that is there already.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::{COUNT, Neighbour, goes_on, has_begun};
use crate::harness::{Bundle, Host, TempDir, write_program};

/// A directory in `/tmp`, which a restore covers with another one; gone in the end.
struct InTmp(PathBuf);

impl InTmp {
    fn new(host: &TempDir) -> Self {
        let path = Path::new("/tmp").join(host.mark());
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for InTmp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn criu() -> PathBuf {
    let place = std::env::var("CRIU").expect("CRIU is the directory of criu (make test-criu)");
    Path::new(&place).join("criu")
}

/// Counts, with these directories before all others of `PATH`.
fn counting_with(first: &[&Path]) -> Bundle {
    let path = std::env::var("PATH").unwrap();
    let rest = std::env::split_paths(&path).map(|one| one.to_owned());
    let all = first.iter().map(|one| one.to_path_buf()).chain(rest);
    let path = std::env::join_paths(all).unwrap().into_string().unwrap();
    let bundle = Bundle::busybox().script(COUNT).redirections("</dev/null >/dev/null 2>&1");
    bundle.behind(&["env", &format!("PATH={path}")])
}

/// Checkpointed and restored, after which `log` has a line for each of both.
#[track_caller]
fn both_with(bundle: Bundle, log: &Path) {
    let mut c = bundle.start();
    has_begun(&c);
    c.checkpoint(&[]).success();
    c.restore(&[]);
    goes_on(&c);
    assert_eq!(fs::read_to_string(log).unwrap(), "mine\n".repeat(2));
}

/// A script that says so in `log` and is CRIU. `how` it finds the real one.
fn script(place: &Path, log: &Path, how: &str) {
    let text = format!("#!/bin/sh\necho mine >>{}\nexec {how} \"$@\"\n", log.display());
    write_program(&place.join("criu"), text.as_bytes());
}

/// What is no CRIU, for whoever finds it.
fn decoy(place: &Path) {
    fs::create_dir(place).unwrap();
    write_program(&place.join("criu"), b"#!/bin/sh\nexit 99\n");
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_criu_below_tmp_is_the_one_of_both_ends() {
    let host = TempDir::new();
    let (own, log) = (InTmp::new(&host), host.path().join("log"));
    decoy(&host.path().join("decoy"));
    // The real one is beside it.
    symlink(criu(), own.0.join("real")).unwrap();
    script(&own.0, &log, "\"$(dirname \"$0\")\"/real");
    both_with(counting_with(&[&own.0, &host.path().join("decoy")]), &log);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn so_is_one_that_a_link_leads_to() {
    for below_tmp in [true, false] {
        let host = TempDir::new();
        let (own, log) = (InTmp::new(&host), host.path().join("log"));
        decoy(&host.path().join("decoy"));
        let (link, real) = match below_tmp {
            true => (&*own.0, host.path()),
            false => (host.path(), &*own.0),
        };
        script(real, &log, &criu().display().to_string());
        let link = link.join("bin");
        fs::create_dir(&link).unwrap();
        symlink(real.join("criu"), link.join("criu")).unwrap();
        both_with(counting_with(&[&link, &host.path().join("decoy")]), &log);
    }
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_criu_that_ends_at_once_is_an_error_that_says_so() {
    let host = TempDir::new();
    let place = host.path().join("decoy");
    decoy(&place);
    let c = counting_with(&[&place]).start();
    has_begun(&c);
    c.checkpoint(&[]).one_line().says(&["criu has ended with status 99"]);
    goes_on(&c);
}

/// Those that cannot be executed are passed over, as in a shell.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn what_is_no_program_is_not_taken_for_criu() {
    let host = TempDir::new();
    let [plain, folder, good] = ["plain", "folder", "good"].map(|name| host.path().join(name));
    fs::create_dir_all(folder.join("criu")).unwrap();
    fs::create_dir(&plain).unwrap();
    fs::create_dir(&good).unwrap();
    fs::write(plain.join("criu"), "").unwrap();
    let log = host.path().join("log");
    script(&good, &log, &criu().display().to_string());
    both_with(counting_with(&[&plain, &folder, &good]), &log);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn interfaces_of_a_network_that_is_joined_are_there_already() {
    Host::isolated(|| {
        let neighbour = Neighbour::start();
        let ip = |words: &str| {
            assert!(
                Command::new("ip").args(words.split(' ')).status().unwrap().success(),
                "{words}"
            );
        };
        ip("link set lo up");
        ip("link add one0 type veth peer name one1");
        ip("link add two0 type veth peer name two1");
        ip("address add 10.9.8.7/24 dev one0");
        let bundle = counting_with(&[criu().parent().unwrap()]);
        let bundle = bundle.joins("network", &neighbour.network()).config(|c| {
            c["linux"]["netDevices"] =
                json!({ "one0": { "name": "lan" }, "two0": { "name": "t%d" } });
        });
        let mut c = bundle.start();
        has_begun(&c);
        c.checkpoint(&[]).success();
        // One that has the old name is another one.
        ip("link add one0 type veth peer name one2");
        c.restore(&[]);
        goes_on(&c);
        let seen =
            c.exec(["sh", "-c", "ip -o address show lan; ls /sys/class/net"]).success().stdout;
        assert!(seen.contains("10.9.8.7/24") && seen.contains("\nt0\n"), "{seen}");
        assert!(!seen.contains("\nt1\n") && !seen.contains("one0"), "{seen}");
        ip("link show one0");
        // In a network that has lost one it comes from the host again.
        c.checkpoint(&[]).success();
        c.wait();
        let lost = ["--net", "--target", &neighbour.0.id().to_string(), "ip", "link", "del", "lan"];
        assert!(Command::new("nsenter").args(lost).status().unwrap().success());
        c.restore(&[]);
        let seen = c.exec(["ls", "/sys/class/net"]).success().stdout;
        assert!(seen.contains("lan\n"), "{seen}");
    });
}
