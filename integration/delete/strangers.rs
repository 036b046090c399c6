//! Records that lie: no process and no group of anybody else is touched for them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Stranger, delete_all, edit, groups, processes, two};
use crate::harness::{Bundle, Container, View, proc_status};

fn start_time(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_ascii_whitespace().nth(19).unwrap().parse().unwrap()
}

fn blame(c: &Container, pid: i32) {
    edit(c, |record| record["init"] = json!({ "pid": pid, "startTime": start_time(pid) }));
}

/// Every group of the record is `directory` of its hierarchy.
fn lead_to(record: &mut Value, directory: &dyn Fn(&str) -> String) {
    for group in record["cgroup"]["groups"].as_array_mut().unwrap() {
        let existing = group["existing"].as_str().unwrap();
        group["directory"] = directory(existing).into();
    }
}

#[test]
fn a_process_of_the_host_is_not_killed_for_a_record_that_calls_it_init() {
    for view in View::all() {
        for progress in ["created", "creating"] {
            let mut stranger = Stranger::new();
            let c = two(view).start();
            blame(&c, stranger.pid());
            edit(&c, |record| record["progress"] = json!(progress));
            assert!(c.rt(["kill", &c.id, "KILL"]).run().status != 0 || progress == "creating");
            delete_all(&c);
            stranger.assert_alive();
        }
    }
}

#[test]
fn init_of_another_container_is_not_killed_for_such_a_record() {
    for view in View::all() {
        let victim = Bundle::busybox().in_view(view).args(["sleep", "1000"]).start();
        let c = two(view).without_namespace("pid").start();
        blame(&c, victim.pid());
        delete_all(&c);
        assert_eq!(victim.status(), "running", "{view:?}");
    }
}

#[test]
fn the_groups_of_another_container_are_not_touched() {
    for view in View::all() {
        let victim = Bundle::busybox().in_view(view).args(["sleep", "1000"]).start();
        let id = victim.id.clone();
        let c = two(view).without_namespace("pid").start();
        edit(&c, |record| lead_to(record, &|top| format!("{top}/{id}")));
        delete_all(&c);
        assert_eq!(victim.status(), "running", "{view:?}");
        assert!(!groups(&victim).is_empty());
        victim.exec(["true"]).success();
    }
}

#[test]
fn neither_the_root_of_a_hierarchy_nor_a_path_out_of_it_counts() {
    let lies: [&dyn Fn(&str) -> String; 5] = [
        &|top| top.to_owned(),
        &|top| format!("{top}/.."),
        &|top| format!("{top}/x/../../../../tmp"),
        &|_| "/sys/fs/cgroup".to_owned(),
        &|_| "/".to_owned(),
    ];
    for view in View::all() {
        for lie in lies {
            let mut stranger = Stranger::new();
            let c = two(view).without_namespace("pid").start();
            edit(&c, |record| lead_to(record, lie));
            delete_all(&c);
            stranger.assert_alive();
        }
    }
}

/// A group whose name is a slice of systemd's, with others inside, that the copy of the configuration
/// names as well.
#[test]
fn a_slice_with_others_inside_is_not_killed() {
    for view in View::all() {
        let c = two(view).start();
        let slice = format!("{}system.slice", c.bundle.mark());
        let tops: Vec<String> =
            groups(&c).iter().map(|g| g.parent().unwrap().display().to_string()).collect();
        let mut stranger = Stranger::new();
        for top in &tops {
            let script = format!(
                "mkdir -p {top}/{slice}/other.service; cd {top}/{slice}
                for f in cpus mems; do for g in . other.service; do
                    [ ! -e $g/cpuset.$f ] || cat {top}/cpuset.$f >$g/cpuset.$f; done; done
                echo {} >other.service/cgroup.procs",
                stranger.pid()
            );
            super::shell(view, &script);
        }
        edit(&c, |record| lead_to(record, &|top| format!("{top}/{slice}")));
        let copy = super::record(&c).with_file_name("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&copy).unwrap()).unwrap();
        config["linux"]["cgroupsPath"] = format!("/{slice}").into();
        fs::write(&copy, config.to_string()).unwrap();
        c.rt(["delete", "--force", &c.id]).run();
        stranger.assert_alive();
        assert_eq!(c.wait(), 128 + 9);
        drop(stranger);
        for top in &tops {
            let find = format!(
                "find {top} -depth -type d -path '{top}/{slice}*' -o -depth -type d -path '{top}/{}'",
                c.id
            );
            super::shell(view, &format!("for g in $({find}); do rmdir $g; done"));
        }
        c.bundle.leftovers().assert_none_since();
    }
}

#[test]
fn no_directory_of_the_host_is_removed() {
    let c = two(View::Host).start();
    let victim = c.bundle.beside("victim");
    for below in ["", "/a/b", "/a/c"] {
        fs::create_dir_all(format!("{}{below}", victim.display())).unwrap();
    }
    edit(&c, |record| {
        for group in record["cgroup"]["groups"].as_array_mut().unwrap() {
            group["directory"] = json!(victim);
            group["existing"] = json!("/");
        }
    });
    delete_all(&c);
    assert!(victim.join("a/b").is_dir() && victim.join("a/c").is_dir());
}

/// The directory's name is the id.
#[test]
fn the_id_in_the_record_is_not_believed() {
    let other = Bundle::busybox().args(["sleep", "1000"]).start();
    let c = two(View::Host).start();
    for lie in [other.id.as_str(), "../../etc", ""] {
        edit(&c, |record| record["id"] = json!(lie));
        assert_eq!(c.state()["id"], json!(c.id));
    }
    delete_all(&c);
    assert!(!super::record(&c).parent().unwrap().exists());
    assert_eq!(other.status(), "running");
}

/// What has only been moved is still the container's.
#[test]
fn an_init_that_has_been_moved_to_another_group_is_ended() {
    for view in View::all() {
        let c = Bundle::busybox().in_view(view).args(["sleep", "1000"]).start();
        for group in groups(&c) {
            let top = group.parent().unwrap().display().to_string();
            super::shell(view, &format!("echo {} >{top}/cgroup.procs", c.pid()));
        }
        let groups = proc_status(c.pid(), "Pid");
        assert!(Path::new(&format!("/proc/{groups}")).exists());
        c.delete_force();
        assert_eq!(c.wait(), 128 + 9, "{view:?}");
        assert_eq!(processes(&c), [""; 0]);
    }
}
