//! Control groups of others. CVE-2023-25809 (runc): without a cgroup namespace the container of an
//! ordinary user could write to the groups of the host.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::harness::{ALL_CAPABILITIES, Bundle, View};

/// What can be made, joined or written in any group that is shown, but for those of other tests:
/// one of them may be delegated to the same user.
const WRITE_EVERYWHERE: &str = "for d in $(find /sys/fs/cgroup -type d 2>/dev/null); do
        [ -e $d/cgroup.procs ] || continue
        case $d in *$RT_TEST*) ;; *rt-test-*) continue ;; esac
        mkdir $d/attack 2>/dev/null && echo made $d/attack && rmdir $d/attack
        { echo 0 > $d/cgroup.procs; } 2>/dev/null && echo joined $d
        for f in cgroup.max.depth notify_on_release release_agent; do
            [ -e $d/$f ] && { cat $d/$f > $d/$f; } 2>/dev/null && echo wrote $d/$f
        done
    done; true";

fn writable_groups(bundle: Bundle) -> Bundle {
    bundle.config(|c| {
        for mount in c["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "cgroup" {
                mount["options"] = json!(["rw", "nosuid", "noexec", "nodev"]);
            }
        }
    })
}

#[test]
fn an_ordinary_users_container_writes_to_no_group_of_the_host() {
    for view in View::all() {
        let bundle = writable_groups(Bundle::busybox().in_view(view).of_user());
        let bundle = bundle.without_namespace("cgroup").with_capabilities(ALL_CAPABILITIES);
        let done = bundle.script(WRITE_EVERYWHERE).run();
        assert_eq!(done.stdout, "", "{view:?}\n{done}");
    }
}

#[test]
fn the_root_of_a_user_namespace_writes_to_no_group_of_the_host() {
    for view in View::all() {
        let bundle = writable_groups(Bundle::busybox().in_view(view).user_namespace());
        let done = bundle.with_capabilities(ALL_CAPABILITIES).script(WRITE_EVERYWHERE).run();
        assert_eq!(done.success().stdout, "", "{view:?}");
    }
}

/// Neither out of the hierarchy, where files would be written, nor out of the caller's own group.
#[test]
fn a_path_of_groups_cannot_leave_its_hierarchy() {
    for view in View::all() {
        for climb in ["/../../../../../..", "/a/../../../..", "../../../../../..", "a/../../../.."]
        {
            let bundle = Bundle::busybox().in_view(view).args(["sleep", "100"]);
            let name = format!("{}climber", bundle.mark());
            let path = format!("{climb}/{name}");
            let c = bundle.config(|c| c["linux"]["cgroupsPath"] = path.into()).start();
            let groups = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
            let absolute = climb.starts_with('/');
            let inside = |line: &&str| match absolute {
                true => line.ends_with(&format!(":/{name}")),
                false => line.ends_with(&format!("/{name}")) && !line.contains(".."),
            };
            assert!(groups.lines().any(|line| inside(&line)), "{view:?} {climb}: {groups}");
            let others = groups.lines().filter(|line| line.contains(&name)).filter(|l| !inside(l));
            assert_eq!(others.count(), 0, "{view:?} {climb}: {groups}");
            for above in ["/", "/sys", "/sys/fs"] {
                assert!(!Path::new(above).join(&name).exists(), "{view:?} {climb}: {above}");
            }
        }
    }
}
