//! Records that cannot be read: they hide nothing, and what they stood for can be taken away.

use std::fs;

use serde_json::{Value, json};

use super::{delete_all, groups, processes, record, two};
use crate::harness::{Bundle, Container, View, until};

/// What becomes of the record: its name, and the bytes that are there afterwards.
type Damage = (&'static str, fn(&[u8]) -> Vec<u8>);

const DAMAGES: [Damage; 6] = [
    ("empty", |_| vec![]),
    ("cut at the start", |bytes| bytes[..30].to_vec()),
    ("cut before the end", |bytes| bytes[..bytes.len() - 20].to_vec()),
    ("zeros", |bytes| vec![0; bytes.len()]),
    ("of another runtime", |_| {
        br#"{"id":"x","init_process_pid":1,"cgroup_paths":{"":"/"}}"#.to_vec()
    }),
    ("something else", |_| b"[1, 2, null]".to_vec()),
];

fn damaged(c: &Container, (_, damage): Damage) {
    let bytes = fs::read(record(c)).unwrap();
    fs::write(record(c), damage(&bytes)).unwrap();
}

#[test]
fn a_running_container_without_a_readable_record_is_deleted() {
    for view in View::all() {
        for damage in DAMAGES {
            let c = two(view).start();
            damaged(&c, damage);
            c.rt(["delete", &c.id]).run().says(&[&c.id, "not stopped"]);
            assert!(!processes(&c).is_empty(), "{}", damage.0);
            delete_all(&c);
        }
    }
}

#[test]
fn groups_at_a_place_of_their_own_are_found_by_the_configuration() {
    for view in View::all() {
        for pid_namespace in [true, false] {
            let bundle = two(view);
            let bundle = if pid_namespace { bundle } else { bundle.without_namespace("pid") };
            let path = format!("/{}elsewhere", bundle.mark());
            let c = bundle.config(|c| c["linux"]["cgroupsPath"] = path.into()).start();
            damaged(&c, DAMAGES[0]);
            delete_all(&c);
        }
    }
}

/// A relative path begins at the group of who created it, which is another than who deletes it.
#[test]
fn groups_are_found_from_within_another_group() {
    for view in View::all() {
        let mark = crate::harness::TempDir::new();
        let enter = format!(
            "for d in $(find /sys/fs/cgroup -maxdepth 1 -mindepth 1 -type d) /sys/fs/cgroup; do
                [ -e $d/cgroup.procs ] || continue; [ $d = /sys/fs/cgroup ] || [ ! -e /sys/fs/cgroup/cgroup.procs ] || continue
                mkdir -p $d/{0}nest/own; for f in cpus mems; do
                    for g in $d/{0}nest $d/{0}nest/own; do
                    [ ! -e $g/cpuset.$f ] || cat $d/cpuset.$f >$g/cpuset.$f 2>/dev/null || :; done; done
                echo 0 >$d/{0}nest/own/cgroup.procs
            done; exec \"$@\"",
            mark.mark()
        );
        let bundle = Bundle::busybox().in_view(view).args(["sleep", "1000"]);
        let id = bundle.id();
        let words = ["sh", "-ec", &enter, "sh"];
        bundle.launch(&["run", "--detach"], &id).between(&words).run().success();
        let c = Container::of(bundle);
        assert!(groups(&c).iter().all(|group| group.display().to_string().contains("nest")));
        damaged(&c, DAMAGES[0]);
        delete_all(&c);
        let find = format!("find /sys/fs/cgroup -depth -type d -path '*/{}nest*'", mark.mark());
        super::shell(view, &format!("for g in $({find}); do rmdir $g; done"));
    }
}

#[test]
fn a_created_or_stopped_container_without_a_readable_record_is_deleted() {
    for view in View::all() {
        let c = Bundle::busybox().in_view(view).create();
        damaged(&c, DAMAGES[1]);
        delete_all(&c);
        let c = Bundle::busybox().in_view(view).args(["true"]).start();
        c.wait();
        damaged(&c, DAMAGES[0]);
        c.delete();
        c.bundle.leftovers().assert_none_since();
    }
}

#[test]
fn a_record_that_is_missing_or_a_directory_is_no_reason_to_stay() {
    for damage in ["missing", "a directory", "a link to itself"] {
        let c = two(View::Host).start();
        fs::remove_file(record(&c)).unwrap();
        match damage {
            "a directory" => fs::create_dir(record(&c)).unwrap(),
            "a link to itself" => std::os::unix::fs::symlink("state.json", record(&c)).unwrap(),
            _ => {}
        }
        c.rt(["state", &c.id]).run().one_line().says(&["delete --force", &c.id]);
        delete_all(&c);
    }
}

#[test]
fn without_any_readable_file_the_id_finds_the_groups() {
    for view in View::all() {
        let c = two(view).start();
        for name in ["state.json", "config.json", "process.json"] {
            fs::write(record(&c).with_file_name(name), "").unwrap();
        }
        delete_all(&c);
    }
}

#[test]
fn list_names_it_and_goes_on() {
    let c = Bundle::busybox().args(["sleep", "1000"]).start();
    let bad = c.bundle.beside("state").join("bad");
    for damage in ["", "{\"id\": \"good", "null"] {
        fs::create_dir(&bad).unwrap();
        fs::write(bad.join("state.json"), damage).unwrap();
        fs::write(bad.join("config.json"), "{}").unwrap();
        for args in [&["list"][..], &["list", "--format", "json"], &["list", "--quiet"]] {
            let done = c.rt(args).run().success().one_line();
            assert!(done.stderr.contains("bad: ") && done.stdout.contains(&c.id), "{done}");
            assert!(!done.stdout.contains("bad"), "{done}");
            if args.contains(&"json") {
                let list: Value = serde_json::from_str(&done.stdout).unwrap();
                assert_eq!(list.as_array().unwrap().len(), 1);
            }
        }
        c.rt(["delete", "--force", "bad"]).run().success();
        assert!(!bad.exists());
        assert_eq!(c.rt(["list"]).run().success().stderr, "");
    }
}

#[test]
fn every_other_verb_says_what_to_do() {
    let c = two(View::Host).start();
    let bytes = fs::read(record(&c)).unwrap();
    damaged(&c, DAMAGES[2]);
    let bundle = c.bundle.path().display().to_string();
    let verbs: [&[&str]; 10] = [
        &["state", &c.id],
        &["start", &c.id],
        &["exec", &c.id, "true"],
        &["ps", &c.id],
        &["pause", &c.id],
        &["resume", &c.id],
        &["update", "--pids-limit", "100", &c.id],
        &["kill", &c.id, "TERM"],
        &["create", "--bundle", &bundle, &c.id],
        &["run", "--bundle", &bundle, &c.id],
    ];
    for verb in verbs {
        let done = c.rt(verb).run().one_line();
        done.says(&[&format!("delete --force {}", c.id)]);
    }
    fs::write(record(&c), bytes).unwrap();
    assert_eq!(c.status(), "running");
}

#[test]
fn kill_reaches_its_processes() {
    for view in View::all() {
        let c = two(view).start();
        damaged(&c, DAMAGES[0]);
        c.rt(["kill", &c.id, "KILL"]).run().success();
        assert_eq!(c.wait(), 128 + 9);
        until("nobody is left", || processes(&c).is_empty());
        c.rt(["kill", &c.id, "KILL"]).run().one_line().says(&["delete --force"]);
        c.delete();
        c.bundle.leftovers().assert_none_since();
    }
}

#[test]
fn poststop_hooks_run_for_it() {
    let bundle = Bundle::busybox().args(["sleep", "1000"]);
    let trace = bundle.beside("hook");
    let script = format!("cat > {}", trace.display());
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    let c = bundle.config(|c| c["hooks"]["poststop"] = hook).start();
    damaged(&c, DAMAGES[2]);
    delete_all(&c);
    let state: Value = serde_json::from_slice(&fs::read(trace).unwrap()).unwrap();
    assert_eq!((&state["id"], &state["status"]), (&json!(c.id), &json!("stopped")));
    assert_eq!(state["bundle"], c.bundle.path().display().to_string());
}

/// A directory below a wrong `--root` is somebody's.
#[test]
fn a_directory_with_other_files_is_left_alone() {
    let bundle = Bundle::busybox();
    let other = bundle.beside("other");
    fs::create_dir_all(other.join("site")).unwrap();
    for name in ["config.json", "state.json", "index.html"] {
        fs::write(other.join("site").join(name), "{}").unwrap();
    }
    let root = other.display().to_string();
    let done = bundle.rt(["delete", "--force", "site"]).root(&other, bundle.mark()).run();
    done.one_line().says(&["index.html"]);
    assert_eq!(fs::read_dir(other.join("site")).unwrap().count(), 3, "{root}");
}
