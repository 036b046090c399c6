//! Many commands, four at a time: each has its own status, and nothing is left. A sample in the
//! suite; `make stress` has thousands (`RT_STRESS` is the number).

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::terminal::Seat;
use crate::harness::{Bundle, Container, until};

const AT_A_TIME: usize = 4;

/// How many: of a sample, or as `RT_STRESS` says.
fn count(sample: u32) -> u32 {
    std::env::var("RT_STRESS").map_or(sample, |count| count.parse().unwrap())
}

fn four_at_a_time(count: u32, one: impl Fn(u32) + Sync) {
    let next = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        number if number < count => one(number),
                        _ => return,
                    }
                }
            });
        }
    });
    if std::env::var_os("RT_STRESS").is_some() {
        until("no zombie is left", || zombies() == 0);
    }
}

/// Children of this process that have ended and that nobody has waited for. Other tests have some
/// for a while: looked at only where there are no other tests.
fn zombies() -> usize {
    let own = format!(") Z {} ", std::process::id());
    let all = fs::read_dir("/proc").unwrap().flatten();
    let stats = all.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&own)).count()
}

#[test]
fn many_runs_four_at_a_time() {
    let bundle = Bundle::busybox().script("exit $(hostname)");
    let path = bundle.path().display().to_string();
    let bundles: Vec<_> = (0..8).map(|status| (status, format!("{path}{status}"))).collect();
    bundle.write();
    let text = fs::read_to_string(bundle.path().join("config.json")).unwrap();
    for (status, path) in &bundles {
        fs::create_dir(path).unwrap();
        let rootfs = bundle.rootfs().display().to_string();
        let text = text.replace("\"rootfs\"", &format!("{rootfs:?}"));
        let text = text.replace("\"hostname\": \"box\"", &format!("\"hostname\": \"{status}\""));
        fs::write(format!("{path}/config.json"), text).unwrap();
    }
    four_at_a_time(count(40), |number| {
        let (status, path) = &bundles[number as usize % bundles.len()];
        let id = format!("{}{number}", bundle.id());
        let done = bundle.rt(["run", "--bundle", path, &id]).run();
        assert_eq!((done.status, &*done.stderr), (*status, ""), "{done}");
    });
    bundle.leftovers().assert_none_since();
}

#[test]
fn many_execs_four_at_a_time() {
    let c = Bundle::busybox().args(["sleep", "100000"]).start();
    let before = traces(&c);
    let (bundle, id) = (c.bundle(), &*c.id);
    four_at_a_time(count(60), |number| {
        let status = number % 100;
        let script = format!("echo {number}; exit {status}");
        let done = bundle.rt(["exec", id, "sh", "-c", &script]).run();
        assert_eq!((done.status, done.stdout), (status as i32, format!("{number}\n")));
    });
    assert_eq!(traces(&c), before);
    let done = c.exec(["sh", "-c", "ls -d /proc/[0-9]*"]).success();
    assert_eq!(done.stdout.lines().count(), 2, "init and the shell: {done}");
}

/// What an exec could add to: descriptors of init, the container's groups and its state.
fn traces(c: &Container) -> (usize, usize, usize) {
    let entries = |path: &str| fs::read_dir(path).unwrap().count();
    let groups = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-path", &format!("*/{}*", c.id)])
        .output();
    let groups = String::from_utf8(groups.unwrap().stdout).unwrap().lines().count();
    let state = c.bundle().beside("state").join(&c.id);
    (entries(&format!("/proc/{}/fd", c.pid())), groups, entries(state.to_str().unwrap()))
}

#[test]
fn many_runs_with_a_terminal_four_at_a_time() {
    let bundle = Bundle::busybox().script("seq 1 500; stty size; exit 6").config(|c| {
        c["process"]["terminal"] = true.into();
    });
    bundle.write();
    let path = bundle.path().display().to_string();
    let lines: String = (1..=500).map(|number| format!("{number}\r\n")).collect();
    four_at_a_time(count(60) / 4, |number| {
        let id = format!("{}{number}", bundle.id());
        let (status, seen) = Seat::run(&bundle.rt(["run", "--bundle", &path, &id])).finish();
        assert!(seen == format!("{lines}30 99\r\n"), "{number}: {seen:?}");
        assert_eq!(status, 6, "{number}");
    });
    bundle.leftovers().assert_none_since();
}
