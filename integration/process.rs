//! What the process of a container is given.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::json;

use crate::harness::{Bundle, Container, Rt, until};

#[test]
fn the_process_gets_its_environment_directory_and_user() {
    let done = Bundle::busybox()
        .directory("/data")
        .config(|c| {
            let process = &mut c["process"];
            process["cwd"] = "/data".into();
            process["user"] = json!({ "uid": 7, "gid": 8, "additionalGids": [9, 10] });
            process["env"].as_array_mut().unwrap().push("GREETING=hello there".into());
        })
        .script("pwd; id -u; id -g; id -G; echo $GREETING; hostname")
        .run()
        .success();
    assert_eq!(done.stdout, "/data\n7\n8\n8 9 10\nhello there\nbox\n");
}

/// What a script says that opens its standard streams anew. They are pipes of the caller's.
fn reopened(rt: &Rt) -> String {
    let mut command = rt.command(&[]);
    let pipe = std::process::Stdio::piped;
    let mut child = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"in\n").unwrap();
    let done = child.wait_with_output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

const REOPEN: [&str; 3] =
    ["sh", "-c", "echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin"];

#[test]
fn pipes_of_the_caller_can_be_opened_again_by_every_user_also_of_a_user_namespace() {
    for user_namespace in [false, true] {
        for uid in [0, 7] {
            let bundle = Bundle::busybox();
            let bundle = if user_namespace { bundle.user_namespace() } else { bundle };
            let bundle =
                bundle.config(|c| c["process"]["user"] = json!({ "uid": uid, "gid": uid }));
            let bundle = bundle.args(REOPEN);
            let of_run = reopened(&bundle.launch(&["run"], &bundle.id()));
            assert_eq!(of_run, "out\nin\nerr\n", "{user_namespace} {uid}");
            let c = bundle.args(["sleep", "100"]).start();
            let of_exec = reopened(&c.exec_rt(&[], REOPEN));
            assert_eq!(of_exec, "out\nin\nerr\n", "exec {user_namespace} {uid}");
        }
    }
}

/// What has names on the host is not given away to a user namespace.
#[test]
fn of_the_standard_streams_only_pipes_are_given_to_a_user_namespace() {
    for user_namespace in [false, true] {
        let bundle = Bundle::busybox().args(["true"]);
        let bundle = if user_namespace { bundle.user_namespace() } else { bundle };
        let bundle = bundle.config(|c| c["process"]["user"] = json!({ "uid": 7, "gid": 7 }));
        let [file, fifo] = ["file", "fifo"].map(|name| bundle.beside(name));
        fs::write(&file, "").unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let words = format!("<>{} >{} 2>/dev/null", fifo.display(), file.display());
        let rt = bundle.launch(&["run"], &bundle.id()).redirections(&words);
        rt.run().success();
        let owner = |path: &Path| fs::metadata(path).unwrap().uid();
        let (of_file, of_fifo) = if user_namespace { (0, 0) } else { (7, 7) };
        assert_eq!(
            (owner(&file), owner(&fifo), owner("/dev/null".as_ref())),
            (of_file, of_fifo, 0)
        );
    }
}

/// Who redirects a file of his own into a container does not give it away.
#[test]
fn a_file_that_is_only_read_stays_its_owners() {
    let c = Bundle::busybox().args(["sleep", "100"]).start();
    let file = c.bundle.beside("input");
    fs::write(&file, "text").unwrap();
    for stdin in [file.as_path(), file.parent().unwrap()] {
        let words = format!("<{}", stdin.display());
        let exec = c.exec_rt(&["-u", "7"], ["readlink", "/proc/self/fd/0"]).redirections(&words);
        assert_ne!(exec.run().success().stdout, "");
        assert_eq!(fs::metadata(stdin).unwrap().uid(), 0, "{}", stdin.display());
    }
    let exec = c.exec_rt(&["-u", "7"], ["cat"]).redirections(&format!("<{}", file.display()));
    assert_eq!(exec.run().success().stdout, "text");
}

#[test]
fn a_readonly_root_cannot_be_written_and_a_writable_one_can() {
    let script = "echo x > /new && cat /new";
    Bundle::busybox().script(script).run().failure();
    assert_eq!(Bundle::busybox().writable().script(script).run().success().stdout, "x\n");
}

/// As the host sees them: a shell that looks at its own needs one more for the look.
fn descriptors(c: &Container) -> Vec<String> {
    let all = fs::read_dir(format!("/proc/{}/fd", c.pid())).unwrap();
    let mut all: Vec<_> = all.map(|fd| fd.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

#[test]
fn the_process_holds_only_its_three_streams() {
    let c = Bundle::busybox()
        .redirections("3</etc 4<> /dev/null 7</ 9</proc")
        .args(["sleep", "100"])
        .start();
    until("they are all", || descriptors(&c) == ["0", "1", "2"]);
}

/// Nothing of the host's file systems stays open, so that a checkpoint has everything.
#[test]
fn the_null_device_of_its_streams_is_the_containers() {
    const OWN: &str = "id=$(sed -n 's/mnt_id:[[:space:]]*//p' /proc/self/fdinfo/0); \
        grep -c \"^$id \" /proc/self/mountinfo; exec sleep 100";
    let c = Bundle::busybox().script(OWN).start();
    until("it has looked", || c.output() == "1\n");
    let look = OWN.replace("exec sleep 100", "");
    assert_eq!(c.exec(["sh", "-c", &look]).stdout, "1\n");
    // Also where that is the host's, bound.
    let bundle = Bundle::busybox().user_namespace().script(&look);
    assert_eq!(bundle.run().success().stdout, "1\n");
}

#[test]
fn preserved_descriptors_reach_the_process() {
    let bundle = Bundle::busybox();
    let given = bundle.beside("given");
    fs::write(&given, "from the host\n").unwrap();
    let c = bundle
        .redirections(&format!("3<{} 4</ 5</", given.display()))
        .options(["--preserve-fds", "1"])
        .script("cat <&3; exec sleep 100")
        .start();
    // The shell has one more for a moment, to restore its standard input from.
    until("it has read and has four descriptors", || {
        c.output() == "from the host\n" && descriptors(&c) == ["0", "1", "2", "3"]
    });
}

#[test]
fn without_pivot_root_the_container_is_no_different_from_inside() {
    let script = "ls / | tr '\\n' ' '; ls /proc/1/root | tr '\\n' ' '; cd ..; pwd";
    let with = Bundle::busybox().script(script).run().success();
    let without = Bundle::busybox().script(script).options(["--no-pivot"]).run().success();
    assert_eq!(with.stdout, without.stdout);
    assert!(!with.stdout.contains("boot"), "{with}");
    Bundle::busybox().user_namespace().options(["--no-pivot"]).run().success();
    let private = Bundle::busybox().options(["--no-pivot"]).config(|c| {
        c["linux"]["rootfsPropagation"] = "rprivate".into();
    });
    private.refused().says(&["linux.rootfsPropagation", "not safe without pivot_root"]);
}

/// Of a container with the right to map ids, which is all that it takes where the host's procfs or
/// sysfs is somewhere in its mount namespace: also below something else, or under another mount.
#[test]
fn without_pivot_root_no_procfs_or_sysfs_of_the_host_is_left_to_mount_another_one() {
    for place in [
        "mount -t proc proc X",
        "mount -t sysfs sysfs X",
        "mount -t tmpfs t X; mkdir X/deep; mount -t proc proc X/deep",
        "mount -t proc proc X; mount -t tmpfs t X",
    ] {
        let kind = if place.contains("sysfs") { "sysfs" } else { "proc" };
        let script = format!("unshare -mrpfn sh -c 'mount -t {kind} none /mnt && ls /mnt | wc -l'");
        let bundle = Bundle::busybox().directory("/mnt").with_capabilities(&["CAP_SETFCAP"]);
        let bundle = bundle.script(&script).options(["--no-pivot"]);
        let there = bundle.beside("there");
        std::fs::create_dir(&there).unwrap();
        let mounts = place.replace('X', &there.display().to_string());
        let words = format!("{mounts}; exec \"$@\"");
        let bundle =
            bundle.behind(&["unshare", "-m", "--propagation", "private", "sh", "-c", &words, "sh"]);
        let done = bundle.run();
        assert_ne!(done.status, 0, "{place}: {done}");
        assert!(done.stderr.contains("mount"), "{place}: {done}");
    }
}

#[test]
fn a_directory_that_does_not_exist_is_made_for_the_process() {
    let bundle = Bundle::busybox().writable().link("/to", "/nowhere");
    let done = bundle
        .config(|c| c["process"]["cwd"] = "/to/deep/er".into())
        .script("pwd; stat -c '%a %u' . ..")
        .run();
    assert_eq!(done.success().stdout, "/nowhere/deep/er\n755 0\n755 0\n");
}

#[test]
fn the_umask_holds_for_init_and_for_exec() {
    let bundle = Bundle::busybox().script("umask; exec sleep 100");
    let c = bundle.config(|c| c["process"]["user"]["umask"] = 0o137.into()).start();
    until("it has said its umask", || c.output() == "0137\n");
    assert_eq!(c.exec(["sh", "-c", "umask"]).success().stdout, "0137\n");
}

#[test]
fn another_machine_shows_in_init_and_in_exec() {
    // personality(2): PER_LINUX32 is 8.
    for (domain, shown, machine) in
        [("LINUX", "00000000", std::env::consts::ARCH), ("LINUX32", "00000008", "i686")]
    {
        let bundle = Bundle::busybox().args(["sleep", "100"]);
        let c = bundle.config(|c| c["linux"]["personality"] = json!({ "domain": domain })).start();
        let of_init = fs::read_to_string(format!("/proc/{}/personality", c.pid())).unwrap();
        let of_exec = c.exec(["cat", "/proc/self/personality"]).success().stdout;
        assert_eq!((of_init.trim(), of_exec.trim()), (shown, shown));
        if std::env::consts::ARCH == "x86_64" {
            assert_eq!(c.exec(["uname", "-m"]).success().stdout.trim(), machine);
        }
    }
}

#[test]
fn the_badness_for_the_oom_killer_holds_for_init_and_for_exec() {
    let bundle = Bundle::busybox().args(["sleep", "100"]);
    let c = bundle.config(|c| c["process"]["oomScoreAdj"] = 123.into()).start();
    let of_init = fs::read_to_string(format!("/proc/{}/oom_score_adj", c.pid())).unwrap();
    let of_exec = c.exec(["cat", "/proc/self/oom_score_adj"]).success().stdout;
    assert_eq!((&*of_init, &*of_exec), ("123\n", "123\n"));
    let host = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let unset = Bundle::busybox().args(["cat", "/proc/self/oom_score_adj"]).run();
    assert_eq!(unset.success().stdout, host);
}

/// Every limit of getrlimit(2) but those that would end the process, with its name in
/// `/proc/self/limits`.
const LIMITS: [(&str, &str); 14] = [
    ("RLIMIT_CORE", "Max core file size"),
    ("RLIMIT_CPU", "Max cpu time"),
    ("RLIMIT_DATA", "Max data size"),
    ("RLIMIT_LOCKS", "Max file locks"),
    ("RLIMIT_MEMLOCK", "Max locked memory"),
    ("RLIMIT_MSGQUEUE", "Max msgqueue size"),
    ("RLIMIT_NICE", "Max nice priority"),
    ("RLIMIT_NOFILE", "Max open files"),
    ("RLIMIT_NPROC", "Max processes"),
    ("RLIMIT_RSS", "Max resident set"),
    ("RLIMIT_RTPRIO", "Max realtime priority"),
    ("RLIMIT_RTTIME", "Max realtime timeout"),
    ("RLIMIT_SIGPENDING", "Max pending signals"),
    ("RLIMIT_STACK", "Max stack size"),
];

/// Without CAP_SYS_RESOURCE a hard limit can only be lowered: these are no higher than the host's.
fn low(name: &str) -> (u64, u64) {
    match name {
        "RLIMIT_NICE" | "RLIMIT_RTPRIO" => (0, 0),
        "RLIMIT_DATA" | "RLIMIT_STACK" => (1 << 20, 2 << 20),
        _ => (100, 200),
    }
}

#[test]
fn limits_hold_for_init_and_for_exec() {
    let limits = LIMITS.map(|(name, _)| {
        let (soft, hard) = low(name);
        json!({ "type": name, "soft": soft, "hard": hard })
    });
    let bundle = Bundle::busybox().args(["sleep", "100"]);
    let c = bundle.config(|c| c["process"]["rlimits"] = json!(limits)).start();
    let of_init = fs::read_to_string(format!("/proc/{}/limits", c.pid())).unwrap();
    let of_exec = c.exec(["cat", "/proc/self/limits"]).success().stdout;
    for table in [of_init, of_exec] {
        for (name, shown) in LIMITS {
            let line = table.lines().find_map(|line| line.strip_prefix(shown)).unwrap();
            let mut numbers = line.split_whitespace().map(|n| n.parse().unwrap_or(u64::MAX));
            assert_eq!((numbers.next().unwrap(), numbers.next().unwrap()), low(name), "{name}");
        }
    }
}

/// What the runtime itself needs on the way is not refused by the limits of the program.
#[test]
fn the_lowest_limits_do_not_stop_the_runtime() {
    let limits = [
        ("RLIMIT_NOFILE", 3),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_NPROC", 1),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_MEMLOCK", 0),
        ("RLIMIT_AS", 16 << 20),
    ];
    let limits = limits.map(|(name, n)| json!({ "type": name, "soft": n, "hard": n }));
    let c = Bundle::busybox().args(["sleep", "100"]);
    let c = c.config(|c| c["process"]["rlimits"] = json!(limits)).start();
    // Standard output is a file here, but nothing is written.
    c.exec(["true"]).success();
}
