//! What a container sees of its groups in `/sys/fs/cgroup`.

use serde_json::json;

use super::is_v2;
use crate::harness::{Bundle, View};

const NAMESPACES: [&str; 5] = ["pid", "network", "ipc", "uts", "mount"];

/// A container whose `/sys/fs/cgroup` is as asked for.
fn bundle(view: View, namespace: bool, writable: bool) -> Bundle {
    let mut kinds = NAMESPACES.to_vec();
    kinds.extend(namespace.then_some("cgroup"));
    Bundle::busybox().in_view(view).namespaces(&kinds).config(|c| {
        let mounts = c["mounts"].as_array_mut().unwrap();
        let mount = mounts.iter_mut().find(|mount| mount["type"] == "cgroup").unwrap();
        let access = if writable { "rw" } else { "ro" };
        mount["options"] = json!(["nosuid", "noexec", "nodev", "relatime", access]);
    })
}

fn combinations() -> impl Iterator<Item = (View, bool, bool)> {
    let all = [(false, false), (false, true), (true, false), (true, true)];
    View::all().flat_map(move |view| all.map(|(namespace, writable)| (view, namespace, writable)))
}

#[test]
fn every_hierarchy_shows_the_containers_own_group() {
    // One line for each hierarchy that the process is in.
    let script = "while IFS=: read -r number controllers path; do
            case $controllers in
                '') name=unified;;
                name=*) name=${controllers#name=};;
                *) name=$controllers;;
            esac
            [ -e /sys/fs/cgroup/cgroup.procs ] && name=.
            if ! [ -d /sys/fs/cgroup/$name ]; then echo \"$name is missing\"
            elif grep -qx 1 /sys/fs/cgroup/$name/cgroup.procs; then echo \"$name is ours\"
            else echo \"$name is not ours\"; fi
        done < /proc/self/cgroup";
    for (view, namespace, writable) in combinations() {
        let done = bundle(view, namespace, writable).script(script).run().success();
        let other: Vec<&str> = done.stdout.lines().filter(|l| !l.ends_with(" is ours")).collect();
        // Of version 2 beside version 1 a container sees nothing, as with runc.
        let missing: &[&str] = if is_v2(view) { &[] } else { &["unified is missing"] };
        assert_eq!(other, missing, "{view:?} {namespace} {writable}");
        assert!(done.stdout.contains(" is ours"), "{done}");
    }
}

#[test]
fn controllers_that_share_a_hierarchy_are_links_to_it() {
    let script = "cd /sys/fs/cgroup; for name in *,*; do
            [ -d \"$name\" ] || continue
            for one in $(echo $name | tr , ' '); do
                [ \"$(readlink $one)\" = $name ] && [ -e $one/cgroup.procs ] || echo $one
            done
        done";
    for (view, namespace, writable) in combinations() {
        let done = bundle(view, namespace, writable).script(script).run().success();
        assert_eq!(done.stdout, "", "{view:?} {namespace} {writable}");
    }
}

#[test]
fn a_group_below_can_be_made_where_it_is_writable_and_only_there() {
    for (view, namespace, writable) in combinations() {
        let top = if is_v2(view) { "" } else { "pids/" };
        let script = format!("mkdir /sys/fs/cgroup/{top}inner");
        let done = bundle(view, namespace, writable).script(&script).run();
        assert_eq!(done.status == 0, writable, "{view:?} {namespace} {writable} {done}");
        assert!(writable || done.stderr.contains("Read-only file system"), "{done}");
    }
}

/// config-linux.md "Cgroup ownership".
#[test]
fn a_user_namespaces_root_owns_its_group_where_that_is_safe_and_never_its_limits() {
    let script = "cd /sys/fs/cgroup; [ -e cgroup.procs ] || cd pids
        mkdir sub 2>/dev/null && echo 0 >sub/cgroup.procs && echo made
        echo 3 >cgroup.max.depth 2>/dev/null && echo limited";
    for (view, namespace, writable) in combinations() {
        let done = bundle(view, namespace, writable).user_namespace().script(script).run();
        let expected = if is_v2(view) && namespace && writable { "made\n" } else { "" };
        assert_eq!(done.stdout, expected, "{view:?} {namespace} {writable} {done}");
    }
}

#[test]
fn a_cgroup_namespace_begins_at_the_containers_own_group() {
    for view in View::all() {
        let script = "cut -d: -f3 /proc/self/cgroup | sort -u";
        let done = bundle(view, true, false).script(script).run().success();
        let outside = bundle(view, false, false).script(script).run().success();
        if view == View::V2 && outside.stdout.lines().count() > 1 {
            // In the private view the hierarchies of version 1 are there and not ours.
            assert!(done.stdout.lines().any(|line| line == "/"), "{done}");
        } else {
            let lines: Vec<&str> = done.stdout.lines().filter(|line| *line != "/").collect();
            let unmounted = usize::from(view == View::V1);
            assert!(lines.len() <= unmounted, "{view:?} {done}");
        }
        assert!(outside.stdout.contains("rt-test-"), "{outside}");
    }
}
