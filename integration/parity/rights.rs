//! `/proc/self/status` of a process, as far as it says what the process may do.

use serde_json::json;

use super::{Change, ambient, capabilities, no_capabilities};
use crate::harness::{ALL_CAPABILITIES, Bundle, Look, difference_to_runc};

/// What decides over rights: five sets of capabilities, four users and ways to get there, with and
/// without no_new_privs and a filter.
#[test]
fn the_rights_of_a_process_are_those_under_runc() {
    let sets: [(&str, Change); 5] = [
        ("default", |b| b),
        ("five different sets", capabilities),
        ("ambient", ambient),
        ("none", no_capabilities),
        ("all", |b| b.with_capabilities(ALL_CAPABILITIES)),
    ];
    let mut looked = 0;
    for (name, set) in sets {
        for (no_new_privileges, filter, user) in [
            (true, true, 0),
            (false, true, 0),
            (false, true, 7),
            (true, false, 7),
            (false, false, 0),
        ] {
            let difference = difference_to_runc(Look::of_rights, || {
                set(Bundle::busybox()).config(|c| {
                    c["process"]["noNewPrivileges"] = no_new_privileges.into();
                    c["process"]["user"]["uid"] = user.into();
                    if filter {
                        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
                            "syscalls": [{ "names": ["acct"], "action": "SCMP_ACT_ERRNO" }] });
                    }
                })
            });
            let case = format!("{name}, {no_new_privileges} {filter} {user}");
            assert!(difference.is_empty(), "{case}\n{difference}");
            looked += 1;
        }
    }
    assert_eq!(looked, 25);
}
