//! From a bundle that `rt spec` wrote to a container with a network.

use serde_json::{Value, json};

use super::world::{Place, World, world};
use crate::harness::{Bundle, Container};

/// A bundle with what `rt spec OPTIONS` wrote, but for its program.
fn bundle(w: &World, options: &str) -> Bundle {
    let bundle = Bundle::busybox();
    let path = bundle.path().display().to_string();
    let mut words = vec!["spec".to_owned(), "--bundle".to_owned(), path];
    words.extend(["--state".to_owned(), w.state().display().to_string()]);
    words.extend(["--networks".to_owned(), w.networks().display().to_string()]);
    words.extend(options.split_ascii_whitespace().map(str::to_owned));
    bundle.rt(words).run().success();
    let text = std::fs::read(bundle.path().join("config.json")).unwrap();
    let spec: Value = serde_json::from_slice(&text).unwrap();
    bundle
        .config(|c| {
            let env = c["process"]["env"].clone();
            *c = spec;
            c["process"]["env"] = env;
            c["process"]["terminal"] = json!(false);
        })
        .args(["sleep", "1000"])
}

/// A bundle of this repository, with the hooks of this `rt` and this world.
fn of_repository(w: &World, name: &str) -> Bundle {
    let bundle = Bundle::of_repository(name);
    std::fs::create_dir(bundle.path().join("etc")).unwrap();
    for file in ["hosts", "hostname", "resolv.conf"] {
        std::fs::write(bundle.path().join("etc").join(file), "").unwrap();
    }
    bundle.config(|c| {
        for kind in ["createRuntime", "poststop"] {
            let hook = &mut c["hooks"][kind][0];
            assert_eq!(hook["path"], "/usr/local/bin/rt");
            assert_eq!(hook["args"], json!(["rt", "netns"]));
            hook["path"] = json!(crate::harness::runtime());
            hook["args"] = json!(["rt", "netns", "--state", w.state(), "--networks", w.networks()]);
        }
    })
}

#[test]
fn what_stands_in_quotes_or_behind_a_backslash_is_written_as_it_is() {
    let bundle = Bundle::busybox();
    let (path, files) = (bundle.path().display().to_string(), "a \"b\" \\c\td");
    let state = "/var/\"state\\";
    let options = ["--network", "web", "--files", files, "--state", state];
    bundle.rt(["spec", "--bundle", &path].into_iter().chain(options)).run().success();
    let text = std::fs::read(bundle.path().join("config.json")).unwrap();
    let spec: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(spec["mounts"][7]["source"], format!("{files}/hosts"));
    assert_eq!(spec["annotations"]["org.rt.network.files"], files);
    assert_eq!(spec["hooks"]["poststop"][0]["args"][3], state);
    assert!(bundle.path().join(files).join("hosts").exists());
}

#[test]
fn web_is_seen_by_the_world() {
    world(|w| {
        let _web = of_repository(w, "web").start();
        let get = "busybox wget -q -O - http://192.0.2.1:8080/";
        crate::harness::until("the page is there", || w.internet.place().try_sh(get));
        assert_eq!(w.internet.place().sh(get), "Hello from web\n");
    });
}

#[test]
fn pair_finds_each_other_by_name() {
    world(|w| {
        let server = of_repository(w, "pair/server").start();
        crate::harness::until("the page is there", || {
            place(&server).try_sh("busybox wget -q -O - http://127.0.0.1/")
        });
        let client = of_repository(w, "pair/client").config(|c| {
            let link = &mut c["annotations"]["org.rt.network.link"];
            assert_eq!(*link, "pair-server:store");
            *link = json!(format!("{}:store", server.id));
        });
        let done = client.run().success();
        assert!(done.stdout.contains("172.20.0.2\tstore"), "{done}");
        assert_eq!(done.stdout.matches("The server is known by its name").count(), 2, "{done}");
    });
}

fn place(container: &Container) -> Place {
    Place::of_pid(container.pid())
}

#[test]
fn a_bundle_of_spec_is_on_the_network_and_leaves_it() {
    world(|w| {
        let web = bundle(w, "--publish 8080:80 --hostname web --alias shop").start();
        let other = bundle(w, "--network default").start();
        let (inner, outer) =
            (place(&web).serve("0.0.0.0:80"), w.internet.place().serve("0.0.0.0:80"));
        assert_eq!(place(&web).reaches("192.0.2.2:80"), "192.0.2.1");
        assert_eq!(w.internet.place().reaches("192.0.2.1:8080"), "192.0.2.2");
        w.host().reaches("127.0.0.1:8080");
        let done = other.exec(["nslookup", "shop"]).success();
        assert!(done.stdout.contains("172.20.0.2"), "{done}");
        let done = web.exec(["sh", "-c", "hostname; cat /etc/hostname /etc/hosts"]).success();
        assert!(done.stdout.starts_with("web\nweb\n"), "{done}");
        assert!(done.stdout.contains("172.20.0.2\tweb"), "{done}");
        // The file is the container's to edit.
        web.exec(["sh", "-c", "echo 203.0.113.5 mine >> /etc/hosts"]).success();
        let list = w.rt(["list"]).success();
        assert!(list.stdout.contains("*:8080->80/tcp"), "{list}");
        drop((inner, outer));
        web.delete_force();
        other.delete_force();
        let list = w.rt(["list"]).success();
        assert_eq!(list.stdout.lines().count(), 1, "{list}");
    });
}

#[test]
fn a_container_whose_network_cannot_be_had_is_not_created() {
    world(|w| {
        let _taken = w.add("taken", "--publish 8080:80");
        let done = bundle(w, "--publish 8080:80").refused();
        assert!(done.stderr.contains("8080"), "{done}");
    });
}

#[test]
fn modes_without_a_hook_are_namespaces() {
    world(|w| {
        let none = bundle(w, "--network none").start();
        assert_eq!(place(&none).sh("ip -br link | wc -l").trim(), "1");
        let id = none.id.clone();
        let path = none.bundle().beside("state").display().to_string();
        let second = Bundle::busybox();
        let to = second.path().display().to_string();
        crate::harness::Rt::bare([
            "--root",
            &path,
            "spec",
            "--bundle",
            &to,
            "--network",
            &format!("container:{id}"),
        ])
        .run()
        .success();
        let text = std::fs::read_to_string(second.path().join("config.json")).unwrap();
        assert!(text.contains(&format!("/proc/{}/ns/net", none.pid())), "{text}");
        let spec: Value = serde_json::from_str(&text).unwrap();
        assert!(spec["hooks"].is_null());
    });
}

#[test]
fn a_hook_reads_the_state_of_any_runtime() {
    world(|w| {
        let guest = super::world::Guest::new();
        let pid: i32 = guest.pid().parse().unwrap();
        let state = |status: &str, pid: i32| {
            json!({
                "ociVersion": "1.0.2", "id": "x", "status": status, "pid": pid,
                "bundle": w.directory.path(), "annotations": {
                    "org.rt.network.publish": "8080:80", "other": "y",
                    "org.rt.network.files": "files",
                },
            })
        };
        w.hook(&state("creating", pid)).success();
        let _server = guest.place().serve("0.0.0.0:80");
        w.internet.place().reaches("192.0.2.1:8080");
        assert!(w.directory.path().join("files/hosts").exists());
        w.hook(&state("stopped", 0)).success();
        w.internet.place().does_not_reach("192.0.2.1:8080");
        w.hook(&json!({"id": "x"})).failure().one_line();
        w.hook(&json!([])).failure().one_line();
    });
}
