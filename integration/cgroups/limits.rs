//! Limits that can be felt. Not all can be without measuring time: a weight, a burst and an idle
//! group matter only among others, `reservation` and `swappiness` only when the whole machine lacks
//! memory, and of memory nodes most machines have one. Real time is felt in `scheduling.rs`.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::{Setup, file, place};
use crate::harness::{Bundle, Container, Disk, TempDir, proc_status, until};

#[test]
fn the_limit_of_pids_holds() {
    for setup in Setup::with("pids") {
        let done = setup
            .bundle()
            .resources(json!({ "pids": { "limit": 5 } }))
            .script("for n in 1 2 3 4; do sleep 1000 & done; echo four; sleep 1000 & echo five")
            .run()
            .failure();
        assert_eq!(done.stdout, "four\n", "{setup:?}: {done}");
        assert!(done.stderr.contains("fork"), "{setup:?}: {done}");
    }
}

#[test]
fn a_limit_of_one_pid_is_enough_to_start() {
    for setup in Setup::with("pids") {
        let bundle = setup.bundle().resources(json!({ "pids": { "limit": 1 } }));
        assert_eq!(bundle.args(["echo", "alone"]).run().success().stdout, "alone\n");
    }
}

#[test]
fn exec_enters_a_container_that_has_as_many_processes_as_it_may() {
    for setup in Setup::with("pids") {
        for limit in [1, 2, 3] {
            let bundle = setup.bundle().resources(json!({ "pids": { "limit": limit } }));
            let c = bundle.args(["sleep", "1000"]).start();
            assert_eq!(c.exec(["echo", "in"]).success().stdout, "in\n", "{setup:?} {limit}");
        }
    }
}

/// A container that wants 24 MiB of memory, and may have 8.
fn glutton(setup: Setup, with_swap: i64) -> Bundle {
    let limits = json!({ "memory": { "limit": 8 << 20, "swap": with_swap } });
    setup
        .bundle()
        .resources(limits)
        .mount(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }))
        .args(["dd", "if=/dev/zero", "of=/tmp/full", "bs=1M", "count=24"])
}

#[test]
fn the_limit_of_memory_holds() {
    for setup in Setup::with("memory") {
        let done = glutton(setup, 8 << 20).run();
        assert_eq!(done.status, 137, "{setup:?}: {done}");
    }
}

/// A file for swapping, in use for the length of a test.
struct Swap(TempDir);

impl Swap {
    fn on() -> Self {
        let this = Self(TempDir::new());
        this.run("dd if=/dev/zero of=$0 bs=1M count=64 && chmod 600 $0 && mkswap $0 && swapon $0");
        this
    }

    fn run(&self, script: &str) {
        let file = self.0.path().join("swap");
        let done = Command::new("sh").args(["-c", script]).arg(file).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        self.run("swapoff $0");
    }
}

#[test]
#[ignore = "swaps: make test-vm"]
fn what_memory_lacks_is_swapped_as_far_as_the_limit_of_swap_goes() {
    let _swap = Swap::on();
    for setup in Setup::with("memory") {
        glutton(setup, 64 << 20).run().success();
        let done = glutton(setup, 12 << 20).run();
        assert_eq!(done.status, 137, "{setup:?}: {done}");
    }
}

/// Only version 1 has this: `fields.rs` sees it refused elsewhere.
#[test]
fn without_the_oom_killer_who_lacks_memory_waits_for_more() {
    for setup in Setup::with("memory") {
        if place(setup.view, &[("memory.oom_control", "")], &[]).is_err() {
            continue;
        }
        let limits = json!({ "limit": 8 << 20, "swap": 8 << 20, "disableOOMKiller": true });
        let c = setup
            .bundle()
            .resources(json!({ "memory": limits }))
            // Memory of its own: who writes to a file gets an error instead.
            .args(["awk", "BEGIN { s = \"x\"; while (length(s) < 16777216) s = s s; print \"grown\" }"])
            .start();
        until("it lacks memory", || {
            let now = file(&c, setup.view, "memory", "memory.oom_control").unwrap();
            now.lines().any(|line| line == "under_oom 1")
        });
        assert_eq!((c.status(), c.output()), ("running".to_owned(), String::new()));
        c.rt(["update", &c.id, "--memory", "-1"]).run().success();
        assert_eq!((c.wait(), c.output()), (0, "grown\n".to_owned()), "{setup:?}");
    }
}

#[test]
fn half_a_megabyte_is_enough_to_start() {
    for setup in Setup::with("memory") {
        let bundle = setup.bundle().resources(json!({ "memory": { "limit": 512 << 10 } }));
        assert_eq!(bundle.args(["echo", "small"]).run().success().stdout, "small\n");
    }
}

/// A container that gets a copy of a file of this size into memory, and may have `limit` bytes.
fn copier(setup: Setup, size: u64, limit: u64) -> Bundle {
    let bundle = setup.bundle().directory("/data");
    let file = fs::File::create(bundle.rootfs().join("data/file")).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(7), size), &mut &file).unwrap();
    let limits = json!({ "memory": { "limit": limit, "swap": limit } });
    bundle.resources(limits).mount(json!({ "destination": "/data", "type": "tmpfs",
        "source": "tmpfs", "options": ["tmpcopyup"] }))
}

#[test]
fn what_is_copied_up_is_the_containers_memory_and_within_its_limit() {
    for setup in Setup::with("memory") {
        let bundle = copier(setup, 100 << 20, 16 << 20).args(["echo", "ran"]);
        bundle.write();
        let id = bundle.id();
        let done = bundle.launch(&["create"], &id).run();
        done.one_line().says(&["the container's first process was killed"]);
        bundle.rt(["state", &id]).run().says(&["does not exist"]);
        // With room for it, and with the least that a container starts with.
        for (size, limit) in [(8 << 20, 32 << 20), (1000, 512 << 10)] {
            let done = copier(setup, size, limit).args(["wc", "-c", "/data/file"]).run().success();
            assert_eq!(done.stdout, format!("{size} /data/file\n"), "{setup:?}");
        }
    }
}

#[test]
fn a_copy_that_no_oom_killer_may_end_fails_all_the_same() {
    for setup in Setup::with("memory") {
        if place(setup.view, &[("memory.oom_control", "1")], &[]).is_err() {
            continue;
        }
        let bundle = copier(setup, 64 << 20, 8 << 20).config(|c| {
            c["linux"]["resources"]["memory"]["disableOOMKiller"] = json!(true);
        });
        bundle.args(["true"]).refused().one_line();
    }
}

#[test]
fn a_container_runs_on_the_processors_of_its_set() {
    let own = proc_status(std::process::id().cast_signed(), "Cpus_allowed_list");
    let last = own.rsplit([',', '-']).next().unwrap();
    for setup in Setup::with("cpuset") {
        let c = setup.sleeper().resources(json!({ "cpu": { "cpus": "0" } })).start();
        let allowed = || proc_status(c.pid(), "Cpus_allowed_list");
        assert_eq!(allowed(), "0", "{setup:?}");
        c.rt(["update", &c.id, "--cpuset-cpus", last]).run().success();
        assert_eq!(allowed(), last, "{setup:?}");
    }
}

/// A container that reads or writes 200 blocks of the disk, at `rate`.
fn user_of(disk: &Disk, setup: Setup, field: &str, rate: u64) -> Container {
    let [major, minor] = disk.numbers();
    let to_and_fro = match field.starts_with("throttleRead") {
        true => "if=disk of=null iflag=direct",
        false => "if=zero of=disk oflag=direct",
    };
    let script = format!("cd /dev; mknod disk b {major} {minor}; dd {to_and_fro} bs=4k count=200");
    let access = json!([{ "allow": false, "access": "rwm" },
        { "allow": true, "type": "b", "major": major, "minor": minor, "access": "rw" }]);
    let bundle = setup.bundle().script(&format!("{script} && echo through"));
    let bundle =
        bundle.resources(json!({ "devices": access, "blockIO": throttle(disk, field, rate) }));
    bundle.with_capabilities(&["CAP_MKNOD"]).start()
}

/// A rate of 0 is no limit.
fn throttle(disk: &Disk, field: &str, rate: u64) -> Value {
    let [major, minor] = disk.numbers();
    json!({ field: [{ "major": major, "minor": minor, "rate": rate }] })
}

#[test]
fn a_throttled_user_of_a_disk_waits_while_another_goes_on() {
    for setup in Setup::with("blkio") {
        for (field, two_blocks_a_second) in [
            ("throttleReadBpsDevice", 8192),
            ("throttleWriteBpsDevice", 8192),
            ("throttleReadIOPSDevice", 2),
            ("throttleWriteIOPSDevice", 2),
        ] {
            let disk = Disk::new();
            let slow = user_of(&disk, setup, field, two_blocks_a_second);
            let other = user_of(&disk, setup, field, 0);
            assert_eq!((other.wait(), other.output()), (0, "through\n".to_owned()));
            assert_eq!((slow.status(), slow.output()), ("running".to_owned(), String::new()));
            let path = slow.bundle.beside("resources.json");
            let none = json!({ "blockIO": throttle(&disk, field, 0) });
            fs::write(&path, none.to_string()).unwrap();
            slow.rt(["update", &slow.id, "-r", path.to_str().unwrap()]).run().success();
            assert_eq!((slow.wait(), slow.output()), (0, "through\n".to_owned()), "{setup:?}");
        }
    }
}

/// Four huge pages of the machine.
struct HugePages;

impl HugePages {
    const COUNT: &str = "/proc/sys/vm/nr_hugepages";

    fn four() -> Self {
        fs::write(Self::COUNT, "4").unwrap();
        assert_eq!(fs::read_to_string(Self::COUNT).unwrap(), "4\n");
        Self
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        fs::write(Self::COUNT, "0").unwrap();
    }
}

#[test]
#[ignore = "takes huge pages: make test-vm-full"]
fn no_more_huge_pages_can_be_had_than_the_limit() {
    for setup in Setup::with("hugetlb") {
        let _pages = HugePages::four();
        let done = setup
            .bundle()
            .resources(json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 2 << 20 }] }))
            .mount(json!({ "destination": "/tmp", "type": "hugetlbfs", "source": "none",
                "options": ["pagesize=2M"] }))
            .script(
                "cd /tmp; fallocate -l 2097152 a && echo one; fallocate -l 2097152 b || echo two",
            )
            .run()
            .success();
        assert_eq!(done.stdout, "one\ntwo\n", "{setup:?}: {done}");
    }
}
