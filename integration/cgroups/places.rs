//! Where a container's groups are, and that they go with it.

use std::fs;

use serde_json::json;

use super::{cgroup_path, is_v2, sleeper};
use crate::harness::{Bundle, View};

#[test]
fn a_container_has_a_cgroup_in_every_hierarchy_of_the_view_and_leaves_none() {
    for view in View::all() {
        let c = sleeper(view).start();
        let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
        let entered = text.lines().filter(|line| line.contains(&c.id)).count();
        let wanted = if is_v2(view) { 1 } else { text.lines().count() - 1 };
        assert!(entered >= wanted, "{view:?}:\n{text}");
        c.delete_force();
        c.bundle.leftovers().assert_none_since();
    }
}

#[test]
fn a_container_runs_on_every_view() {
    for view in View::all() {
        let done = Bundle::busybox().in_view(view).args(["echo", "hello"]).run().success();
        assert_eq!(done.stdout, "hello\n", "{view:?}");
    }
}

#[test]
fn exec_enters_the_cgroups_on_every_view() {
    for view in View::all() {
        let c = sleeper(view).start();
        let own = c.exec(["cat", "/proc/self/cgroup"]).success().stdout;
        let init = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
        assert_eq!(own, init, "{view:?}");
    }
}

#[test]
fn the_cgroup_path_of_the_configuration_is_used() {
    for view in View::all() {
        let bundle = sleeper(view);
        let path = format!("/{}parent/{}child", bundle.mark(), bundle.mark());
        let c = bundle.config(|c| c["linux"]["cgroupsPath"] = path.clone().into()).start();
        let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
        assert!(text.lines().any(|line| line.ends_with(&path)), "{view:?}: {text}");
        c.delete_force();
        // The parent was not there before; runtimes may leave what they did not name, we clean it.
        let parent = format!("/{}parent", c.bundle.mark());
        let script =
            format!("find /sys/fs/cgroup -depth -type d -path '*{parent}*' -exec rmdir {{}} +");
        view.command("sh").args(["-c", &script]).output().unwrap();
    }
}

#[test]
fn a_cgroup_that_has_processes_is_refused() {
    for view in View::all() {
        let c = sleeper(view).start();
        let path = cgroup_path(&c, view);
        let other = sleeper(view).config(|c| c["linux"]["cgroupsPath"] = path.into());
        other.refused();
        assert_eq!(c.status(), "running");
    }
}

#[test]
fn sub_cgroups_made_inside_are_removed_with_the_container() {
    for view in View::all() {
        let c = sleeper(view).start();
        let path = cgroup_path(&c, view);
        let top = if is_v2(view) { "" } else { "pids" };
        let script = format!("mkdir -p /sys/fs/cgroup/{top}{path}/one/two");
        assert!(view.command("sh").args(["-c", &script]).status().unwrap().success());
        c.kill("KILL");
        c.wait();
        c.delete();
        c.bundle.leftovers().assert_none_since();
    }
}

/// A group with processes cannot have limits for groups below it.
#[test]
fn a_container_of_a_hybrid_host_is_beside_its_caller_in_version_2() {
    let Some(view) = View::all().find(|view| *view == View::Hybrid) else { return };
    let bundle = sleeper(view);
    let outer = format!("/sys/fs/cgroup/unified/{}outer", bundle.mark());
    let caller = format!("{outer}/caller");
    fs::create_dir_all(&caller).unwrap();
    // It is gone when the container is deleted once more, to be sure.
    let enter = "[ ! -d $0 ] || echo $$ > $0/cgroup.procs && exec \"$@\"";
    let has_huge_pages = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers")
        .unwrap()
        .contains("hugetlb");
    let limits = match has_huge_pages {
        true => json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] }),
        false => json!({}),
    };
    let c = bundle.resources(limits).through(&["sh", "-c", enter, &caller]).start();
    let place = format!("{outer}/{}", c.id);
    let pids = fs::read_to_string(format!("{place}/cgroup.procs")).unwrap();
    assert_eq!(pids.trim(), c.pid().to_string());
    if has_huge_pages {
        let limit = fs::read_to_string(format!("{place}/hugetlb.2MB.max")).unwrap();
        assert_eq!(limit, "4194304\n");
    }
    c.delete_force();
    assert!(!std::path::Path::new(&place).exists());
    fs::remove_dir(caller).unwrap();
    fs::remove_dir(outer).unwrap();
}

/// As `podman run --cgroups disabled` asks for it.
#[test]
fn without_a_cgroup_manager_a_container_stays_in_its_callers_groups() {
    for view in View::all() {
        let disabled = ["--cgroup-manager", "disabled"];
        let c = sleeper(view).global_options(&disabled).start();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        assert_eq!(
            fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap(),
            own,
            "{view:?}"
        );
        c.exec(["true"]).success();
        for args in [
            &["ps", &*c.id][..],
            &["ps", "-f", "json", &c.id],
            &["update", &c.id, "--pids-limit", "5"],
        ] {
            c.rt(args).run().one_line().says(&["no cgroup"]);
        }
        c.delete_force();
        c.bundle.leftovers().assert_none_since();
        let limited = sleeper(view).global_options(&disabled);
        limited.resources(json!({ "pids": { "limit": 5 } })).refused().says(&["pids.limit"]);
    }
}
