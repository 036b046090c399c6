//! Commands that were killed at any moment.

use nix::libc;
use serde_json::{Value, json};

use super::{delete_all, edit, groups, processes};
use crate::harness::inject::{At, CALLER, Fault, inject, trace};
use crate::harness::{Bundle, View, reap, until};

/// Makes the record what it was before the first process was cloned.
fn before_the_clone(record: &mut Value) {
    record["progress"] = json!("creating");
    record["init"] = json!(null);
    record["cgroup"]["owned"] = json!(false);
}

/// The record as it is between the clone and the write that follows it, with an init that takes as
/// long as it likes.
#[test]
fn init_and_groups_go_though_the_record_knows_of_neither() {
    for view in View::all() {
        let c = Bundle::busybox().in_view(view).create();
        edit(&c, before_the_clone);
        assert!(!groups(&c).is_empty() && !processes(&c).is_empty(), "{view:?}");
        delete_all(&c);
    }
}

/// The same where not even a group has the process.
#[test]
fn an_orphan_that_is_in_no_group_is_waited_for() {
    for view in View::all() {
        let c = Bundle::busybox().in_view(view).create();
        edit(&c, |record| {
            before_the_clone(record);
            record["cgroup"]["groups"] = json!([]);
        });
        delete_all(&c);
    }
}

/// A directory with nothing but the claim, or with groups that were made and not entered yet.
#[test]
fn a_create_that_is_killed_at_any_call_before_the_clone_leaves_nothing_to_a_forced_delete() {
    for view in View::all() {
        let bundle = Bundle::busybox().in_view(view);
        let (out, err) = (bundle.beside("out"), bundle.beside("err"));
        let id = bundle.id();
        let command = bundle.launch(&["create"], &id);
        let traced = trace(&command, &out, &err);
        let init = std::fs::read_to_string(bundle.beside("pid")).unwrap().parse().unwrap();
        bundle.rt(["delete", "--force", &id]).run().success();
        reap(init, std::time::Duration::from_secs(5));
        let own: Vec<_> = traced.calls.iter().filter(|call| call.process == CALLER).collect();
        let clone = own.iter().position(|call| call.number == libc::SYS_clone3).unwrap();
        // From the clone to the record of its pid, and some before it.
        for call in &own[clone - 6..clone + 12] {
            let at = At { process: CALLER, n: call.n };
            let traced = inject(&command, (&out, &err), at, Fault::Kill);
            let done = bundle.rt(["delete", "--force", &id]).run().success();
            assert_eq!(done.stderr, "", "{view:?} {call}");
            for child in &traced.children {
                reap(*child, std::time::Duration::from_secs(5));
            }
            let left = || bundle.leftovers().since();
            until("nothing is left", || left().is_empty());
        }
    }
}
