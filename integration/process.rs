//! What the process of a container is given.

use std::fs;

use crate::harness::{Bundle, Container, until};

#[test]
fn the_process_gets_its_environment_directory_and_user() {
    let done = Bundle::busybox()
        .directory("/data")
        .config(|c| {
            let process = &mut c["process"];
            process["cwd"] = "/data".into();
            process["user"] = serde_json::json!({ "uid": 7, "gid": 8, "additionalGids": [9, 10] });
            process["env"].as_array_mut().unwrap().push("GREETING=hello there".into());
        })
        .script("pwd; id -u; id -g; id -G; echo $GREETING; hostname")
        .run()
        .success();
    assert_eq!(done.stdout, "/data\n7\n8\n8 9 10\nhello there\nbox\n");
}

#[test]
fn a_readonly_root_cannot_be_written_and_a_writable_one_can() {
    let script = "echo x > /new && cat /new";
    Bundle::busybox().script(script).run().failure();
    assert_eq!(Bundle::busybox().writable().script(script).run().success().stdout, "x\n");
}

/// As the host sees them: a shell that looks at its own needs one more for the look.
fn descriptors(c: &Container) -> Vec<String> {
    let all = fs::read_dir(format!("/proc/{}/fd", c.pid())).unwrap();
    let mut all: Vec<_> = all.map(|fd| fd.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

#[test]
fn the_process_holds_only_its_three_streams() {
    let c = Bundle::busybox()
        .redirections("3</etc 4<> /dev/null 7</ 9</proc")
        .args(["sleep", "100"])
        .start();
    assert_eq!(descriptors(&c), ["0", "1", "2"]);
}

#[test]
fn preserved_descriptors_reach_the_process() {
    let bundle = Bundle::busybox();
    let given = bundle.beside("given");
    fs::write(&given, "from the host\n").unwrap();
    let c = bundle
        .redirections(&format!("3<{} 4</ 5</", given.display()))
        .options(["--preserve-fds", "1"])
        .script("cat <&3; exec sleep 100")
        .start();
    // The shell has one more for a moment, to restore its standard input from.
    until("it has read and has four descriptors", || {
        c.output() == "from the host\n" && descriptors(&c) == ["0", "1", "2", "3"]
    });
}

#[test]
fn without_pivot_root_the_container_is_no_different_from_inside() {
    let script = "ls / | tr '\\n' ' '; ls /proc/1/root | tr '\\n' ' '; cd ..; pwd";
    let with = Bundle::busybox().script(script).run().success();
    let without = Bundle::busybox().script(script).options(["--no-pivot"]).run().success();
    assert_eq!(with.stdout, without.stdout);
    assert!(!with.stdout.contains("boot"), "{with}");
    Bundle::busybox().user_namespace().options(["--no-pivot"]).run().success();
}
