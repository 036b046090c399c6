//! Landlock, as annotations ask for it. It needs a kernel that has it, with version 6 of the
//! interface (Linux 6.12).

use serde_json::{Value, json};

use crate::harness::{ALL_CAPABILITIES, Bundle, Container, copy_program, proc_status, until};

fn annotated(pairs: Value) -> Bundle {
    Bundle::busybox().writable().config(|c| {
        let annotations = pairs.as_object().unwrap().iter();
        c["annotations"] = annotations
            .map(|(name, value)| (format!("org.rt.landlock.{name}"), value.clone()))
            .collect();
    })
}

/// Lines that name what could be done.
const TRY_FILES: &str = "
    cat /etc/passwd >/dev/null 2>&1 && echo read
    ls /etc >/dev/null 2>&1 && echo list
    { echo x >/tmp/new; } 2>/dev/null && echo write
    mkdir /tmp/d 2>/dev/null && echo make
    rm /tmp/new 2>/dev/null && echo remove
    { true >/root/file; } 2>/dev/null && echo truncate
    /sbin/true 2>/dev/null && echo execute
    true";

fn files(bundle: Bundle) -> Bundle {
    let bundle = bundle.file("/root/file", "text").directory("/sbin");
    let from = bundle.rootfs().join("bin/busybox");
    copy_program(&from, &bundle.rootfs().join("sbin/true"));
    bundle
}

#[test]
fn without_annotations_nothing_is_denied() {
    let done = files(annotated(json!({}))).script(TRY_FILES).run().success();
    assert_eq!(done.stdout, "read\nlist\nwrite\nmake\nremove\ntruncate\nexecute\n");
}

#[test]
fn only_the_paths_of_the_lists_can_be_used() {
    let program = "/bin:/dev:/proc";
    for (pairs, seen) in [
        (json!({ "execute": program }), ""),
        (json!({ "execute": program, "read": "/etc" }), "read\nlist\n"),
        (json!({ "execute": program, "read": "/etc/passwd" }), "read\n"),
        (json!({ "execute": program, "write": "/tmp" }), "write\nmake\nremove\n"),
        (json!({ "execute": program, "write": "/root/file" }), "truncate\n"),
        (json!({ "execute": "/bin:/dev:/proc:/sbin/true" }), "execute\n"),
        (json!({ "execute": "/" }), "read\nlist\nexecute\n"),
    ] {
        let bundle = files(annotated(pairs.clone())).with_capabilities(ALL_CAPABILITIES);
        // Writing to /dev/null is what the script itself does.
        let bundle = bundle.config(|c| {
            let write = c["annotations"]["org.rt.landlock.write"].as_str().unwrap_or_default();
            let all = if write.is_empty() { "/dev".to_owned() } else { format!("{write}:/dev") };
            c["annotations"]["org.rt.landlock.write"] = all.into();
        });
        let done = bundle.script(TRY_FILES).run().success();
        assert_eq!(done.stdout, seen, "{pairs}");
    }
}

#[test]
fn an_empty_list_leaves_not_even_the_program() {
    let done = annotated(json!({ "read": "" })).args(["true"]).run().failure();
    done.says(&["permission denied"]);
}

#[test]
fn it_holds_for_exec_with_and_without_new_privileges_and_a_filter() {
    for no_new_privileges in [true, false] {
        for user in [0, 7] {
            let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
                "names": ["landlock_restrict_self", "landlock_create_ruleset", "openat2"],
                "action": "SCMP_ACT_KILL" }] });
            let bundle = annotated(json!({ "execute": "/bin", "read": "/proc" }));
            let bundle = bundle.config(|c| {
                c["process"]["noNewPrivileges"] = no_new_privileges.into();
                c["process"]["user"]["uid"] = user.into();
                c["linux"]["seccomp"] = filter;
            });
            let c = bundle.args(["sleep", "1000"]).start();
            c.exec(["cat", "/proc/version"]).success();
            c.exec(["cat", "/etc/passwd"]).failure();
            let expected = if no_new_privileges { "1" } else { "0" };
            assert_eq!(proc_status(c.pid(), "NoNewPrivs"), expected);
            // What it took to load is not left to the program.
            assert_eq!(
                u64::from_str_radix(&proc_status(c.pid(), "CapEff"), 16).unwrap() >> 21 & 1,
                0
            );
        }
    }
}

fn connects(c: &Container, port: u16) -> bool {
    c.exec(["nc", "-w", "5", "127.0.0.1", &port.to_string(), "-e", "true"]).status == 0
}

#[test]
fn only_the_ports_of_the_lists_can_be_bound_and_connected_to() {
    let bundle = annotated(json!({ "bind": "7001,7002", "connect": "7001" }));
    let listen = "for p in 7001 7002; do nc -ll -p $p -e true & done; \
        nc -l -p 7003 2>/dev/null || echo refused; sleep 1000";
    let c = bundle.script(listen).start();
    until("both listen", || {
        let table = c.exec(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).success().stdout;
        c.output() == "refused\n" && table.contains(":1B59 ") && table.contains(":1B5A ")
    });
    assert!(connects(&c, 7001));
    assert!(!connects(&c, 7002));
}

#[test]
fn signals_stay_in_the_scope() {
    for (scope, killed) in [(json!({}), true), (json!({ "scope": "signal" }), false)] {
        let c = annotated(scope).script("sleep 1000 & echo $!; wait; sleep 1000").start();
        until("it sleeps", || !c.output().is_empty());
        // `exec` is in a domain of its own.
        let pid = c.output().trim().to_owned();
        let done = c.exec(["kill", &pid]);
        assert_eq!(done.status == 0, killed, "{done:?}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (pairs, word) in [
        (json!({ "raed": "/" }), "org.rt.landlock.raed"),
        (json!({ "read": "etc" }), "etc"),
        (json!({ "bind": "65536" }), "65536"),
        (json!({ "scope": "x" }), "org.rt.landlock.scope"),
        (json!({ "read": "/nowhere" }), "/nowhere"),
    ] {
        annotated(pairs).refused().one_line().says(&["annotations", word]);
    }
}

/// A link of the image leads nowhere but into the image.
#[test]
fn a_path_is_one_of_the_image() {
    let bundle = annotated(json!({ "execute": "/bin", "read": "/link" }));
    let done = bundle.link("/link", "../../../../etc").script("cat /etc/group").run();
    assert_eq!(done.success().stdout, "root:x:0:\n");
}
