//! Attacks that were made on engines and on hooks of vendors, as far as a runtime does what they do:
//! programs that are looked up, environments that are handed on, files and numbers of an image.

use std::fs::{self, File};

use nix::sys::stat::Mode;
use serde_json::json;

use super::try_run;
use crate::harness::{Bundle, Canary, Host, View, proc_status, write_program};

/// CVE-2025-23266 (nvidia-container-toolkit): a library that the image names was loaded into hooks.
#[test]
fn the_environment_of_the_image_does_not_reach_the_hooks_of_the_host() {
    let mut bundle = Bundle::busybox().writable().args(["sleep", "1000"]);
    let out = bundle.beside("seen");
    fs::create_dir(&out).unwrap();
    let evil = ["LD_PRELOAD=/evil.so", "PATH=/evil:/bin", "LD_AUDIT=/evil.so"];
    let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    bundle = bundle.config(|c| {
        c["process"]["env"] = json!(evil);
        for kind in kinds {
            let hook = |name: &str| {
                let file = out.join(format!("{kind}.{name}"));
                let script = format!("/usr/bin/env >{}", file.display());
                json!({ "path": "/bin/busybox", "args": ["sh", "-c", script] })
            };
            let mut with = hook("with");
            with["env"] = json!(["PATH=/bin:/usr/bin"]);
            c["hooks"][kind] = json!([hook("without"), with]);
        }
    });
    let c = bundle.start();
    c.kill("KILL");
    c.wait();
    c.delete();
    for file in
        kinds.iter().flat_map(|kind| ["with", "without"].map(|name| format!("{kind}.{name}")))
    {
        let seen = fs::read_to_string(out.join(&file)).unwrap();
        assert!(!seen.contains("evil"), "{file}: {seen}");
    }
}

/// CVE-2026-41567 (moby): a program for the host was looked up in the container's root. The maps of
/// an ordinary user's container are written by two of the host's.
#[test]
fn programs_for_the_host_are_not_those_of_the_image() {
    Host::with_more_ids(|| {
        let canary = Canary::plant();
        let bundle = Bundle::busybox().of_user_with_more_ids().config(|c| {
            c["process"]["env"] = json!(["PATH=/bin:/evil"]);
        });
        let text = format!("#!/bin/sh\necho evil >{}/file\n", canary.path().display());
        for directory in ["bin", "usr/bin", "evil", "sbin"] {
            fs::create_dir_all(bundle.rootfs().join(directory)).unwrap();
            for name in ["newuidmap", "newgidmap", "rt", "criu"] {
                write_program(&bundle.rootfs().join(directory).join(name), text.as_bytes());
            }
        }
        let done = bundle.args(["id", "-u"]).run();
        assert_eq!((done.status, &*done.stdout), (0, "0\n"), "{done}");
        canary.assert_untouched();
    });
}

/// CVE-2026-47262 (containerd), CVE-2025-4437 (CRI-O): files of the image that were read whole.
#[test]
fn files_of_users_without_an_end_end_in_a_moment() {
    for name in ["etc/passwd", "etc/group"] {
        for with_entry in [false, true] {
            let bundle = Bundle::busybox().config(|c| c["process"]["env"] = json!([]));
            let bundle = bundle.args(["sh", "-c", "echo home $HOME"]);
            let path = bundle.rootfs().join(name);
            let entry = "root:x:0:0:root:/own:/bin/sh\n";
            fs::write(&path, if with_entry { entry } else { "" }).unwrap();
            // A hole that is larger than any memory.
            File::options().write(true).open(&path).unwrap().set_len(1 << 42).unwrap();
            let done = bundle.rt(["--version"]).run();
            done.success();
            // With no more memory than this machine has for a small program.
            let limited = bundle.behind(&["prlimit", "--as=400000000"]);
            let done = try_run(&limited);
            let expected = if with_entry && name == "etc/passwd" { "/own" } else { "/" };
            let found = done.stdout.strip_prefix("home ").map(str::trim_end);
            assert!(done.status == 0 && (name == "etc/group" || found == Some(expected)), "{done}");
        }
    }
}

/// CVE-2024-40635, CVE-2026-46680 (containerd): an id above 2^31 became that of root.
#[test]
fn a_large_id_is_itself_or_refused() {
    for id in [1u64 << 31, (1 << 31) + 1, (1 << 32) - 2] {
        let user = json!({ "uid": id, "gid": id, "additionalGids": [id] });
        let c = Bundle::busybox()
            .config(|c| c["process"]["user"] = user)
            .args(["sleep", "1000"])
            .start();
        assert_eq!(proc_status(c.pid(), "Uid"), format!("{id}\t{id}\t{id}\t{id}"));
        assert_eq!(proc_status(c.pid(), "Gid"), format!("{id}\t{id}\t{id}\t{id}"));
        assert_eq!(proc_status(c.pid(), "Groups"), id.to_string());
        let done = c.exec_with(&["--user", &format!("{id}:{id}")], ["id", "-u"]).success();
        assert_eq!(done.stdout, format!("{id}\n"));
    }
    for id in ["4294967295", "4294967296", "4294967297", "18446744073709551616", "-1", "1e3"] {
        for place in ["uid", "gid"] {
            let bundle = Bundle::busybox().args(["id"]);
            bundle.write();
            let path = bundle.path().join("config.json");
            let text = fs::read_to_string(&path).unwrap();
            let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
            config["process"]["user"][place] = json!("HERE");
            fs::write(&path, config.to_string().replace("\"HERE\"", id)).unwrap();
            let path = bundle.path().display().to_string();
            let done = bundle.rt(["run", "--bundle", &path, &bundle.id()]).run().failure();
            assert_eq!(done.stdout, "", "{place} {id}");
        }
    }
}

/// CVE-2024-5154 (CRI-O), CVE-2025-9566 and CVE-2026-55686 (podman): links in an image at names that
/// are made for every container.
#[test]
fn links_at_names_that_are_always_made_do_not_reach_the_host() {
    let canary = Canary::plant();
    let host = canary.path();
    for (name, target) in [
        ("/etc/mtab", host.join("new")),
        ("/etc/mtab", host.join("file")),
        ("/etc/hostname", host.join("new")),
        ("/etc/hosts", host.join("file")),
        ("/run", host.join("empty")),
        ("/var/run", host.join("empty")),
        ("/work", host.join("empty/deeper/still")),
        ("/work", host.clone()),
    ] {
        let source = Bundle::busybox().beside("source");
        let bundle = Bundle::busybox().writable().link(name, &target).args(["sh", "-c", "pwd"]);
        let bundle = bundle.config(|c| c["process"]["cwd"] = json!("/work/inner"));
        try_run(&bundle);
        let bundle = bundle.mount(json!({ "destination": name, "type": "tmpfs", "source": "tmpfs",
            "options": ["mode=755"] }));
        try_run(&bundle);
        canary.assert_untouched();
        assert!(!source.exists());
    }
}

/// CVE-2026-53489 (containerd): what was written by a container was read for it on the host by way
/// of a link. Here the images are those of a checkpoint, and a link at each name is refused.
#[test]
fn files_of_a_checkpoint_are_not_read_through_links() {
    let bundle = Bundle::busybox().args(["true"]);
    bundle.write();
    let images = bundle.beside("images");
    fs::create_dir(&images).unwrap();
    let criu = bundle.beside("bin");
    fs::create_dir(&criu).unwrap();
    write_program(&criu.join("criu"), b"#!/bin/sh\nexit 1\n");
    let secret = bundle.beside("secret");
    fs::write(&secret, "[\"of the host\"]").unwrap();
    for name in ["descriptors.json", "rt.json"] {
        fs::write(images.join("descriptors.json"), "[\"\",\"\",\"\"]").unwrap();
        let _ = fs::remove_file(images.join(name));
        std::os::unix::fs::symlink(&secret, images.join(name)).unwrap();
        let words = ["restore", "--image-path", images.to_str().unwrap()];
        let path = format!("PATH={}:{}", criu.display(), std::env::var("PATH").unwrap());
        let done = bundle.launch(&words, &bundle.id()).between(&["env", &path]).run().one_line();
        done.says(&[name, "symbolic links"]);
        let _ = fs::remove_file(images.join(name));
    }
    // Nor is a FIFO waited for.
    fs::remove_file(images.join("descriptors.json")).unwrap();
    nix::unistd::mkfifo(&images.join("descriptors.json"), Mode::S_IRWXU).unwrap();
    let words = ["restore", "--image-path", images.to_str().unwrap()];
    let path = format!("PATH={}:{}", criu.display(), std::env::var("PATH").unwrap());
    bundle.launch(&words, &bundle.id()).between(&["env", &path]).run().one_line();
}

/// GHSA-g54h-m393-cpwq (runc): a list that only denies some devices, or allows some, left the others
/// open, and so did no list at all.
#[test]
fn a_device_that_no_rule_names_cannot_be_opened() {
    let other = json!({ "allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm" });
    let named = json!({ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" });
    for rules in [json!([]), json!([other]), json!([named]), json!([named, other])] {
        for view in View::all() {
            let bundle = Bundle::busybox().in_view(view).resources(json!({ "devices": rules }));
            let bundle = bundle.with_capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
            let done = bundle.script("mknod /dev/log c 1 11; (: </dev/log) && echo opened").run();
            assert!(!done.stdout.contains("opened"), "{view:?} {rules}: {done}");
        }
    }
}
