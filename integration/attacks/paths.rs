//! Paths of the image that lead out of it.

use std::fs;

use nix::sys::stat::Mode;
use serde_json::{Value, json};

use super::try_run;
use crate::harness::{Bundle, Canary};

/// What the container can show of the host from where it stands.
const LOOK_AROUND: &str = "pwd; ls -a; ls ../../../../../../..; cat ../../../../../etc/hostname";

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642 (runc), CVE-2025-54867 (youki).
#[test]
fn a_proc_or_sys_that_is_a_link_in_the_image_is_refused() {
    let canary = Canary::plant();
    let host = canary.path().join("empty");
    for place in ["/proc", "/sys"] {
        for target in ["/tmp", "tmp", "../tmp", host.to_str().unwrap(), "/proc/self/fd"] {
            Bundle::busybox().writable().link(place, target).refused();
        }
    }
    canary.assert_untouched();
}

/// The same through a volume that another container shares.
#[test]
fn a_proc_that_is_a_link_into_a_volume_is_refused() {
    for place in ["/proc", "/sys"] {
        let bundle = Bundle::busybox().directory("/volume").link(place, "/volume/fake");
        fs::create_dir_all(bundle.beside("volume/fake/self/attr")).unwrap();
        let source = bundle.beside("volume");
        let volume = json!({ "destination": "/volume", "type": "bind", "source": source,
            "options": ["rbind", "rw"] });
        // Before proc and sysfs, as the attack needs it.
        bundle.config(|c| c["mounts"].as_array_mut().unwrap().insert(0, volume)).refused();
    }
}

const PORT: &str = "net/ipv4/ip_unprivileged_port_start";

/// Started with its sysctl in the kernel, or not at all. `/real` is a second procfs.
#[track_caller]
fn assert_sysctl_is_real(bundle: Bundle, mount: Value) {
    let done = bundle
        .directory("/real")
        .mount(json!({ "destination": "/real", "type": "proc", "source": "proc" }))
        .mount(mount.clone())
        .config(|c| {
            c["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "99" });
            c["linux"]["readonlyPaths"] = json!([]);
        })
        .script(&format!("cat /real/sys/{PORT}"));
    let done = try_run(&done);
    let real = done.stdout == "99\n";
    assert!(real || done.status != 0 && done.stdout.is_empty(), "{mount}\n{done}");
}

/// CVE-2019-16884, CVE-2025-52881 (runc), CVE-2025-62596 (youki): writes to procfs that end in
/// another file, be it a real one of procfs that does no harm or too much. By its own name `/proc`
/// cannot be covered.
#[test]
fn a_sysctl_is_written_to_the_real_procfs_or_not_at_all() {
    let bind = |destination: &str, source: &str| {
        json!({ "destination": destination, "type": "bind", "source": source,
            "options": ["bind", "rw"] })
    };
    let fake = Bundle::busybox();
    let directory = fake.beside("fake");
    fs::create_dir_all(directory.join("sys/net/ipv4")).unwrap();
    fs::write(directory.join("sys").join(PORT), "1024\n").unwrap();
    let below = |name: &str| directory.join(name).display().to_string();
    for mount in [
        json!({ "destination": "/cover", "type": "tmpfs", "source": "tmpfs" }),
        bind("/cover", &below("")),
        bind("/cover/sys", &below("sys")),
        bind(&format!("/cover/sys/{PORT}"), &below(&format!("sys/{PORT}"))),
        bind(&format!("/cover/sys/{PORT}"), "/proc/self/sched"),
        bind(&format!("/cover/sys/{PORT}"), "/proc/sys/kernel/domainname"),
        bind("/cover/sys/net", "/proc/sys/kernel"),
    ] {
        assert_sysctl_is_real(Bundle::busybox().link("/cover", "/proc"), mount);
    }
    assert_eq!(fs::read_to_string(directory.join("sys").join(PORT)).unwrap(), "1024\n");
}

/// CVE-2024-21626 (runc), in `run`: descriptors that the caller had open, and the runtime's own.
#[test]
fn a_working_directory_behind_a_descriptor_is_refused() {
    for inherited in ["", "3</ 4</etc 5</proc 6</var/tmp 7</ 8</ 9</"] {
        let mut bundle = Bundle::busybox().script(LOOK_AROUND).redirections(inherited);
        for number in 3..=20 {
            let cwd = format!("/proc/self/fd/{number}");
            bundle = bundle.config(|c| c["process"]["cwd"] = cwd.into());
            let done = try_run(&bundle).failure();
            assert_eq!(done.stdout, "", "it has seen something\n{done}");
        }
    }
}

#[test]
fn a_working_directory_behind_a_preserved_descriptor_is_refused() {
    for cwd in ["/proc/self/fd/3", "/proc/1/fd/3", "/dev/fd/3", "/proc/self/fd/3/../etc"] {
        let bundle = Bundle::busybox()
            .redirections("3</var/tmp")
            .options(["--preserve-fds", "1"])
            .config(|c| c["process"]["cwd"] = cwd.into())
            .script(LOOK_AROUND);
        let done = bundle.run().failure();
        assert_eq!(done.stdout, "", "it has seen something\n{done}");
    }
}

/// CVE-2024-21626 in `exec`, also through a link of the image.
#[test]
fn exec_refuses_a_working_directory_behind_a_descriptor() {
    let c = (3..=20)
        .fold(Bundle::busybox(), |bundle, number| {
            bundle.link(&format!("/to/{number}"), format!("/proc/self/fd/{number}"))
        })
        .args(["sleep", "1000"])
        .start();
    for number in 3..=20 {
        for cwd in [format!("/proc/self/fd/{number}"), format!("/to/{number}")] {
            let rt = c.exec_rt(&["--cwd", &cwd], ["sh", "-c", LOOK_AROUND]);
            let done = rt.redirections("3</ 4</etc 5</proc 6</var/tmp 7</ 8</ 9</").run().failure();
            assert_eq!(done.stdout, "", "it has seen something\n{done}");
        }
    }
}

#[test]
fn a_working_directory_that_is_a_link_to_the_host_stays_in_the_image() {
    let canary = Canary::plant();
    let host = canary.path().join("made");
    let bundle = Bundle::busybox().writable().link("/data", &host);
    let done = bundle.config(|c| c["process"]["cwd"] = "/data".into()).script("ls").run();
    assert!(!done.stdout.contains("file"), "{done}");
    canary.assert_untouched();
}

/// CVE-2025-24965 (crun), CVE-2024-45310 (runc): files and directories made for mounts.
#[test]
fn what_is_made_for_a_mount_is_made_in_the_image() {
    let canary = Canary::plant();
    let host = canary.path();
    let up = "../".repeat(20);
    let above = format!("{up}{}", host.display());
    for target in [host.to_str().unwrap(), &above] {
        for (destination, link) in [
            ("/etc/made", "/etc/made"),
            ("/etc/made/deeper/file", "/etc/made"),
            ("/link/made", "/link"),
            ("/link/empty/made", "/link"),
        ] {
            let bundle = Bundle::busybox().writable();
            let leaf = if link == "/etc/made" { "/made" } else { "" };
            let bundle = bundle.link(link, format!("{target}{leaf}"));
            let source = bundle.beside("source");
            fs::write(&source, "given\n").unwrap();
            let file = json!({ "destination": destination, "type": "bind", "source": source,
                "options": ["bind", "rw"] });
            let directory = json!({ "destination": format!("{destination}.d"), "type": "tmpfs",
                "source": "tmpfs" });
            try_run(&bundle.mount(file).mount(directory).args(["true"]));
            canary.assert_untouched();
        }
    }
}

#[test]
fn a_destination_with_dots_stays_in_the_image() {
    let canary = Canary::plant();
    for dots in ["/..", "/../../../../../..", "/tmp/../../../../../../.."] {
        let destination = format!("{dots}{}/empty", canary.path().display());
        let mount = json!({ "destination": destination, "type": "tmpfs", "source": "race-mark" });
        let bundle = Bundle::busybox().writable().mount(mount);
        try_run(&bundle.args(["true"]));
        canary.assert_untouched();
    }
}

#[test]
fn a_loop_of_links_is_refused() {
    let bundle = Bundle::busybox().link("/one", "/two").link("/two", "/one");
    bundle.mount(json!({ "destination": "/one/x", "type": "tmpfs", "source": "tmpfs" })).refused();
}

#[test]
fn a_root_that_is_no_directory_is_refused() {
    let refused = |path: &str| {
        let path = Value::from(path);
        Bundle::busybox().config(|c| c["root"]["path"] = path).refused();
    };
    refused("");
    refused("config.json");
    refused("nowhere");
}

#[test]
fn the_home_directory_is_not_read_from_outside_the_image() {
    let bundle = Bundle::busybox();
    let outside = bundle.beside("passwd");
    fs::write(&outside, "root:x:0:0:root:/leaked:/bin/sh\n").unwrap();
    let bundle = bundle.link("/etc/passwd", &outside).script("echo home $HOME");
    let done = try_run(&bundle);
    assert!(!done.stdout.contains("leaked"), "{done}");
}

#[test]
fn a_pipe_in_the_place_of_passwd_does_not_stop_the_runtime() {
    for name in ["etc/passwd", "etc/group"] {
        let bundle = Bundle::busybox().args(["true"]);
        let path = bundle.rootfs().join(name);
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, Mode::S_IRUSR).unwrap();
        try_run(&bundle);
    }
}

#[test]
fn tmpcopyup_copies_links_as_links_and_has_an_end() {
    let canary = Canary::plant();
    let host = canary.path();
    let copied = |bundle: Bundle| {
        bundle.mount(json!({ "destination": "/covered", "type": "tmpfs", "source": "tmpfs",
            "options": ["tmpcopyup"] }))
    };
    let bundle = Bundle::busybox().link("/covered", &host);
    let done = try_run(&copied(bundle).script("ls /covered").writable());
    assert!(!done.stdout.contains("file"), "{done}");
    let up = format!("{}{}", "../".repeat(20), host.display());
    let bundle = Bundle::busybox()
        .link("/covered/file", host.join("file"))
        .link("/covered/directory", &host)
        .link("/covered/up", up)
        .link("/covered/self", ".")
        .link("/covered/proc", "/proc/self/fd");
    let done =
        copied(bundle).script("cd /covered; for l in *; do readlink $l; done; cat file").run();
    assert!(!done.stdout.contains("sings"), "{done}");
    assert_eq!(done.stdout.lines().count(), 5, "{done}");
    let deep = format!("/covered/{}", "d/".repeat(200));
    copied(Bundle::busybox().directory(&deep))
        .refused()
        .says(&["tmpcopyup", "more than 128 directories"]);
    canary.assert_untouched();
}
