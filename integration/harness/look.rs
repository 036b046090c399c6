//! What a process sees of its container, in a form in which two runtimes can be compared.

use super::{Bundle, runc};

/// Everything that a configuration decides and that can be seen from inside. `$$` is the process
/// of the configuration.
const SCRIPT: &str = "
    cat /proc/self/mountinfo
    echo == status
    grep -E '^(Cap|NoNewPrivs|Uid|Gid|Groups|Umask|Seccomp:|Sig(Ign|Blk)|Cpus_allowed_list)' \
        /proc/$$/status
    cat /proc/$$/limits
    echo directory $(pwd)
    echo badness $(cat /proc/$$/oom_score_adj)
    echo personality $(cat /proc/$$/personality 2>/dev/null)
    echo policy $(cut -d ' ' -f 19,40,41 /proc/$$/stat), $(ionice -p $$)
    tr '\\0' '\\n' </proc/$$/environ | sed 's/^/environment /'
    cat /proc/$$/uid_map /proc/$$/gid_map /proc/$$/setgroups
    cat /proc/$$/timens_offsets
    echo domain $(cat /proc/sys/kernel/domainname)
    stat -c '%n %A %u %g' / /proc /sys /dev /dev/pts /dev/shm /dev/mqueue 2>&1
    stat -c '%n %u %g' /sys/fs/cgroup # Its mode depends on runc's version.
    find /dev /made 2>/dev/null ! -type d -exec stat -c '%n %A %u %g %t,%T %N' '{}' + | sort
    hostname; id
    for link in /sys/class/net/*; do echo ${link##*/}; done
    for queue in /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_unprivileged_port_start; do
        echo $queue $(cat $queue); done
";

/// Lines that are the same for the same configuration, whatever the container is called.
#[derive(Debug)]
pub(crate) struct Look(pub(crate) Vec<String>);

impl Look {
    /// Runs the look as the bundle's process.
    #[track_caller]
    pub(crate) fn of(bundle: Bundle) -> Self {
        let mark = bundle.mark().to_owned();
        Self::from(&bundle.script(SCRIPT).run().success().stdout, &mark)
    }

    /// Runs the look in a container of the bundle.
    #[track_caller]
    pub(crate) fn of_exec(bundle: Bundle) -> Self {
        let mark = bundle.mark().to_owned();
        let container = bundle.args(["sleep", "1000"]).start();
        Self::from(&container.exec(["sh", "-c", SCRIPT]).success().stdout, &mark)
    }

    /// Runs a look at nothing but what the process may do.
    #[track_caller]
    pub(crate) fn of_rights(bundle: Bundle) -> Self {
        let fields = "^(Cap|NoNewPrivs|Seccomp|Uid|Gid|Groups)";
        let done = bundle.args(["grep", "-E", fields, "/proc/self/status"]).run().success();
        Self(done.stdout.lines().map(str::to_owned).collect())
    }

    fn from(text: &str, mark: &str) -> Self {
        let text = text.replace(mark, "MARK.");
        let (mounts, rest) = text.split_once("== status\n").expect("a mount table and the rest");
        let mut lines = normal_mounts(mounts);
        // With a user namespace, runc's /dev/mqueue belongs partly or wholly to nobody: it makes
        // the ipc namespace too early. Here it may be root's.
        lines.extend(rest.lines().map(|line| match line.split_once([' ', '\t']) {
            Some(("/dev/mqueue", _)) => line.replace("65534", "0"),
            Some(("SigIgn:", mask)) => format!("SigIgn: {:x}", without_internal(mask)),
            _ => line.to_owned(),
        }));
        Self(lines)
    }

    /// How it differs from that of runc, for a person to read; empty if it does not.
    fn difference(&self, theirs: &Self) -> String {
        if self.0 == theirs.0 {
            return String::new();
        }
        let lost = theirs.0.iter().filter(|line| !self.0.contains(line));
        let new = self.0.iter().filter(|line| !theirs.0.contains(line));
        let lines: Vec<_> = lost
            .map(|line| format!("- {line}"))
            .chain(new.map(|line| format!("+ {line}")))
            .collect();
        let first = theirs.0.iter().zip(&self.0).find(|(theirs, ours)| theirs != ours);
        match lines.is_empty() {
            true => format!("the same lines in another order, from\n{first:#?}"),
            false => format!("- runc, + the runtime under test\n{}", lines.join("\n")),
        }
    }
}

/// Two signals are the C library's own, and runc passes on what its caller has done to them.
fn without_internal(mask: &str) -> u64 {
    u64::from_str_radix(mask, 16).unwrap() & !(0b11 << 31)
}

/// How what a container of the runtime under test sees differs from one of runc; both have to run.
#[track_caller]
pub(crate) fn difference_to_runc(look: fn(Bundle) -> Look, bundle: impl Fn() -> Bundle) -> String {
    let theirs = look(bundle().for_runtime(runc()));
    look(bundle()).difference(&theirs)
}

#[track_caller]
pub(crate) fn assert_looks_as_under_runc(bundle: impl Fn() -> Bundle) {
    let difference = difference_to_runc(Look::of, bundle);
    assert!(difference.is_empty(), "inside the container:\n{difference}");
}

/// In the order of the table, and without the numbers, which differ between two containers of one
/// runtime: ids, device numbers, peer groups. The parent's id becomes the parent's place. Of a
/// masked path only that it is masked: with which file system is the runtime's affair. And of a
/// cgroup hierarchy not the name of its source: a bind shows the host's, which `systemd` is on some
/// and `cgroup` on others. The mode of a tmpfs that has that of the directory below it is an
/// option for some versions of runc only; it is compared where it can be seen.
fn normal_mounts(table: &str) -> Vec<String> {
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(' ').collect()).collect();
    let place = |id: &str| rows.iter().find(|row| row[0] == id).map_or("outside", |row| row[4]);
    let one = |row: &Vec<&str>| {
        let dash = row.iter().position(|field| *field == "-").expect("a dash");
        let peers: Vec<_> = (row[6..dash].iter())
            .map(|peer| peer.split_once(':').map_or(*peer, |(kind, _)| kind))
            .collect();
        let (at, on) = (row[4], place(row[1]));
        let kind = row[dash + 1];
        let by_null = row[3].ends_with("/null") && at != "/dev/null";
        let kernels = at.starts_with("/proc/") || at.starts_with("/sys/firmware");
        if by_null || kernels && kind == "tmpfs" {
            return format!("{at} on {on}, masked");
        }
        let options: Vec<_> = row[dash + 3].split(',').collect();
        let options: Vec<_> = options.into_iter().filter(|o| !o.starts_with("mode=")).collect();
        let options = options.join(",");
        let source = if kind.starts_with("cgroup") { "any" } else { row[dash + 2] };
        format!("{at} on {on}, root {}, {} {peers:?} {kind} {source} {options}", row[3], row[5])
    };
    let mut lines: Vec<_> = rows.iter().map(one).collect();
    // In which order the hierarchies come is the host's affair.
    lines.chunk_by_mut(|one, next| is_hierarchy(one) && is_hierarchy(next)).for_each(<[_]>::sort);
    lines
}

fn is_hierarchy(line: &str) -> bool {
    line.contains(" cgroup any ")
}
