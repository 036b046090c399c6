//! Hierarchies that cannot be written, or are not there any more.

use std::fs;

use super::{groups, record, shell};
use crate::harness::{Bundle, Container, Rt, View};

/// In a mount namespace of its own, in which every mount of cgroups is read-only.
const READ_ONLY: &str = "mount --make-rprivate /
    for m in $(awk '$5 ~ \"^/sys/fs/cgroup\" { print $5 }' /proc/self/mountinfo); do
        mount -o remount,bind,ro $m
    done; exec \"$@\"";
/// In one in which there is none.
const GONE: &str = "mount --make-rprivate /; umount -R /sys/fs/cgroup; exec \"$@\"";

fn behind(script: &str) -> [&str; 6] {
    ["unshare", "-m", "sh", "-ec", script, "sh"]
}

fn there(c: &Container, script: &str, args: &[&str]) -> Rt {
    c.rt(args).between(&behind(script))
}

#[test]
fn what_could_not_be_made_in_a_read_only_tree_need_not_be_removed() {
    for view in View::all() {
        for verb in ["create", "run"] {
            let bundle = Bundle::busybox().in_view(view).through(&behind(READ_ONLY));
            let id = bundle.id();
            for _ in 0..2 {
                let done = bundle.launch(&[verb], &id).run().failure();
                assert_ne!(done.status, 0);
                let said = fs::read_to_string(bundle.beside("err")).unwrap();
                assert!(said.contains("Read-only file system"), "{view:?}: {said}");
                bundle.leftovers().assert_none_since();
            }
            bundle.rt(["delete", "--force", &id]).run().success();
        }
    }
}

/// Its processes end; the directories of its groups are still there, and are named.
#[test]
fn a_group_in_a_tree_that_has_become_read_only_is_named_and_can_be_deleted_later() {
    for view in View::all() {
        let c = super::two(view).without_namespace("pid").start();
        let done = there(&c, READ_ONLY, &["delete", "--force", &c.id]).run();
        let done = done.one_line().says(&["Read-only file system", &c.id]);
        assert_eq!(done.stdout, "", "{view:?}");
        assert_eq!(c.wait(), 128 + 9);
        assert!(record(&c).exists());
        assert_eq!(super::processes(&c), [""; 0], "{view:?}");
        super::delete_all(&c);
    }
}

#[test]
fn a_container_goes_where_there_are_no_hierarchies_any_more() {
    for view in View::all() {
        let c = Bundle::busybox().in_view(view).args(["sleep", "1000"]).start();
        there(&c, GONE, &["delete", "--force", &c.id]).run().success();
        assert_eq!(c.wait(), 128 + 9, "{view:?}");
        assert!(!record(&c).exists());
        for group in groups(&c) {
            shell(view, &format!("rmdir {}", group.display()));
        }
        c.bundle.leftovers().assert_none_since();
    }
}

#[test]
fn groups_that_somebody_else_has_removed_are_not_missed() {
    for view in View::all() {
        let c = Bundle::busybox().in_view(view).args(["true"]).start();
        c.wait();
        for group in groups(&c) {
            shell(view, &format!("rmdir {}", group.display()));
        }
        c.delete();
        c.bundle.leftovers().assert_none_since();
    }
}
