//! Mounts as they are seen from inside.

mod links;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};

use crate::harness::{Bundle, Done};

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options })
}

fn bind(destination: &str, source: impl AsRef<std::path::Path>, options: &[&str]) -> Value {
    json!({ "destination": destination, "source": source.as_ref(), "options": options })
}

/// Per-mount and superblock options of the last mount at `place`, from a mount table.
fn flags(table: &str, place: &str) -> Option<(String, String)> {
    let row = table.lines().rfind(|line| line.split(' ').nth(4) == Some(place))?;
    let (mount, file_system) = row.split_once(" - ")?;
    let own = mount.split(' ').nth(5)?;
    Some((own.to_owned(), file_system.split(' ').nth(2)?.to_owned()))
}

#[track_caller]
fn seen(bundle: Bundle) -> Done {
    bundle.args(["cat", "/proc/self/mountinfo"]).run().success()
}

#[track_caller]
fn assert_flags(table: &Done, place: &str, own: &str) {
    let flags = flags(&table.stdout, place);
    assert_eq!(flags.as_ref().map(|(own, _)| &**own), Some(own), "{place}\n{table}");
}

#[test]
fn every_word_for_a_mount_shows() {
    for (word, own) in [
        ("defaults", "rw,relatime"),
        ("ro", "ro,relatime"),
        ("nosuid", "rw,nosuid,relatime"),
        ("nodev", "rw,nodev,relatime"),
        ("noexec", "rw,noexec,relatime"),
        ("noatime", "rw,noatime"),
        ("nodiratime", "rw,nodiratime,relatime"),
        ("strictatime", "rw"),
        ("nosymfollow", "rw,relatime,nosymfollow"),
        ("norelatime", "rw,relatime"),
    ] {
        assert_flags(&seen(Bundle::busybox().mount(tmpfs("/tmp", &[word]))), "/tmp", own);
        let undone: &[&str] = match word {
            "ro" => &["ro", "rw"],
            "nosuid" => &["nosuid", "suid"],
            "nodev" => &["nodev", "dev"],
            "noexec" => &["noexec,exec"],
            "noatime" => &["noatime", "atime"],
            "nodiratime" => &["nodiratime", "diratime"],
            "strictatime" => &["strictatime", "nostrictatime"],
            "nosymfollow" => &["nosymfollow", "symfollow"],
            _ => continue,
        };
        let table = seen(Bundle::busybox().mount(tmpfs("/tmp", undone)));
        assert_flags(&table, "/tmp", "rw,relatime");
    }
}

#[test]
fn every_word_for_a_file_system_shows() {
    for (words, shown) in [
        (["sync", "dirsync"], vec!["sync", "dirsync"]),
        (["sync", "async"], vec![]),
        (["lazytime", "size=64k"], vec!["lazytime", "size=64k"]),
        (["lazytime", "nolazytime"], vec![]),
        (["silent", "iversion"], vec![]),
    ] {
        let table = seen(Bundle::busybox().mount(tmpfs("/tmp", &words)));
        let (_, options) = flags(&table.stdout, "/tmp").unwrap();
        let options: Vec<_> = options.split(',').collect();
        for word in ["sync", "dirsync", "lazytime", "size=64k"] {
            assert_eq!(options.contains(&word), shown.contains(&word), "{words:?} {options:?}");
        }
    }
}

/// `/sys` has mounts below it on every host.
#[test]
fn recursive_words_hold_for_the_mounts_below() {
    for (word, own) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
        ("rnosymfollow", "nosymfollow"),
    ] {
        let rows = |words: &[&str]| -> Vec<String> {
            let bundle = Bundle::busybox().without_mount("/sys").directory("/host");
            let table = seen(bundle.mount(bind("/host", "/sys", words)));
            let rows = table.stdout.lines().map(|row| row.split(' ').collect::<Vec<_>>());
            let rows = rows.filter(|row| row[4].starts_with("/host"));
            rows.map(|row| format!("{},", row[5])).collect()
        };
        let with = rows(&["rbind", word]);
        assert!(with.len() > 1, "{with:?}");
        let word = format!("{own},");
        assert!(with.iter().all(|flags| flags.contains(&word)), "{word} {with:?}");
        let opposite = match own.strip_prefix("no") {
            Some(rest) => format!("r{rest}"),
            None => "rrw".to_owned(),
        };
        let without = rows(&["rbind", &format!("r{own}"), &opposite]);
        assert!(!without.iter().any(|flags| flags.contains(&word)), "{opposite} {without:?}");
    }
}

#[test]
fn a_plain_word_is_not_for_the_mounts_below() {
    let bundle = Bundle::busybox().without_mount("/sys").directory("/host");
    let table = seen(bundle.mount(bind("/host", "/sys", &["rbind", "nosymfollow"])));
    let rows = table.stdout.lines().filter(|row| row.contains(" /host"));
    assert_eq!(rows.filter(|row| row.contains("nosymfollow")).count(), 1, "{table}");
}

#[test]
fn a_bind_mount_tolerates_a_size_and_a_mode_and_no_other_option() {
    let mount = |option| bind("/tmp", "/var/tmp", &["bind", option]);
    for option in ["size=64k", "mode=700"] {
        Bundle::busybox().mount(mount(option)).args(["true"]).run().success();
    }
    let bundle = Bundle::busybox().mount(mount("siez=64k"));
    bundle.refused().says(&["mounts[7].options: siez"]).one_line();
}

#[test]
fn a_file_system_refuses_what_it_does_not_know() {
    let bundle = Bundle::busybox().mount(tmpfs("/tmp", &["siez=64k"]));
    bundle.refused().says(&["mounts[7] /tmp", "siez"]).one_line();
    let mount = json!({ "destination": "/tmp", "type": "no-such-fs", "source": "x" });
    Bundle::busybox().mount(mount).refused().says(&["mounts[7] /tmp", "no-such-fs"]).one_line();
}

#[test]
fn a_mount_can_be_without_a_source() {
    let mount = json!({ "destination": "/tmp", "type": "tmpfs" });
    let table = seen(Bundle::busybox().mount(mount));
    assert!(table.stdout.contains(" /tmp rw,relatime - tmpfs none rw"), "{table}");
}

#[test]
fn any_file_system_of_the_kernel_can_be_mounted() {
    let mount = json!({ "destination": "/tmp", "type": "ramfs", "source": "mine" });
    let table = seen(Bundle::busybox().mount(mount));
    assert!(table.stdout.contains(" /tmp rw,relatime - ramfs mine rw"), "{table}");
}

#[test]
fn a_destination_may_be_relative_or_missing_or_behind_a_link() {
    let bundle = Bundle::busybox().writable().link("/dangling", "/made/by/rt").link("/up", "../..");
    let source = bundle.beside("source");
    fs::write(&source, "given\n").unwrap();
    let table = seen(
        bundle
            .mount(tmpfs("tmp", &[]))
            .mount(tmpfs("new/deep", &[]))
            .mount(bind("dangling", &source, &["bind"]))
            .mount(tmpfs("/up/var/../root", &[])),
    );
    for place in ["/tmp", "/new/deep", "/made/by/rt", "/root"] {
        assert!(flags(&table.stdout, place).is_some(), "{place}\n{table}");
    }
}

#[test]
fn a_destination_leads_through_no_file() {
    for destination in ["/file/../data", "/new/../file/../data", "/new/../file/.", "/to-file/x"] {
        let bundle =
            Bundle::busybox().writable().file("/file", "").link("/to-file", "/new/../file");
        bundle.mount(tmpfs(destination, &[])).args(["true"]).refused().one_line();
    }
}

#[test]
fn the_root_itself_is_no_destination() {
    for destination in ["/", "/..", "tmp/..", "."] {
        Bundle::busybox().mount(tmpfs(destination, &[])).refused().says(&["mounts[7].destination"]);
    }
}

#[test]
fn a_read_only_tmpfs_takes_what_is_mounted_in_it_first() {
    let bundle = Bundle::busybox().mount(tmpfs("/tmp", &["ro"])).mount(bind(
        "/tmp/new/place",
        "/etc",
        &["bind", "ro"],
    ));
    let done = bundle.script("ls /tmp; touch /tmp/x 2>&1; cat /proc/self/mountinfo").run();
    let done = done.success();
    assert!(done.stdout.starts_with("new\ntouch: /tmp/x: Read-only file system\n"), "{done}");
    assert_flags(&done, "/tmp", "ro,relatime");
    assert_flags(&done, "/tmp/new/place", "ro,relatime");
}

/// dockerd looks for these words to ask whether the path is of the right kind.
#[test]
fn what_is_no_directory_cannot_be_mounted_on_one_nor_the_other_way_round() {
    for mount in [
        bind("/etc/passwd", "/tmp", &["bind"]),
        bind("/tmp", "/etc/passwd", &["bind"]),
        bind("/tmp", "/etc/passwd", &["rbind", "ro"]),
        tmpfs("/etc/passwd", &[]),
    ] {
        let place = format!("mounts[7] {}: ", mount["destination"].as_str().unwrap());
        let bundle = Bundle::busybox().file("/etc/passwd", "").mount(mount);
        bundle.refused().says(&[&place, "cannot be mounted on", ": Not a directory"]).one_line();
    }
}

#[test]
fn a_remount_changes_what_an_earlier_entry_has_mounted() {
    // Only of what is bound the source is needed, and a remount binds nothing.
    let remount = |place: &str, options: &[&str]| bind(place, "/nowhere", options);
    let table = seen(
        Bundle::busybox()
            .mount(tmpfs("/tmp", &["nosuid", "noatime", "size=64k"]))
            .mount(tmpfs("/tmp/in", &[]))
            .mount(remount("/tmp", &["remount", "nodev", "size=128k"]))
            .mount(bind("/var", "/var/tmp", &["rbind", "nosuid"]))
            .mount(remount("/var", &["remount", "bind", "ro"]))
            .mount(remount("/tmp/in", &["remount", "bind", "rnoexec"])),
    );
    assert_flags(&table, "/tmp", "rw,nosuid,nodev,noatime");
    assert_eq!(flags(&table.stdout, "/tmp").unwrap().1, "rw,size=128k");
    assert_flags(&table, "/tmp/in", "rw,noexec,relatime");
    assert!(flags(&table.stdout, "/var").unwrap().0.starts_with("ro,nosuid"), "{table}");
    assert_eq!(table.stdout.matches(" /var ").count(), 1, "{table}");
}

#[test]
fn a_remount_read_only_of_a_file_system_is_one_of_the_file_system() {
    let remount = json!({ "destination": "/tmp", "options": ["remount", "ro"] });
    let table = seen(Bundle::busybox().mount(tmpfs("/tmp", &[])).mount(remount));
    let (own, options) = flags(&table.stdout, "/tmp").unwrap();
    assert!(own.starts_with("ro") && options.starts_with("ro"), "{table}");
}

#[test]
fn a_remount_of_what_is_no_mount_is_refused() {
    for options in [json!(["remount", "ro"]), json!(["remount", "bind", "ro"])] {
        let remount = json!({ "destination": "/tmp", "options": options });
        Bundle::busybox().mount(remount).refused().says(&["mounts[7] /tmp: remount"]).one_line();
    }
}

/// The words for the kernel are those that mount(8) would give it, one after the other.
#[test]
fn several_propagation_words_hold_in_their_order() {
    for (words, peers) in [
        (&["rbind", "shared"][..], "shared master"),
        (&["rbind", "private", "shared"], "shared"),
        (&["rbind", "shared", "private"], ""),
        (&["rbind", "rslave"], "master"),
        (&["rbind", "unbindable"], "unbindable"),
    ] {
        let bundle = Bundle::busybox().mount(bind("/tmp", "/var/tmp", words));
        let bundle = bundle.args(["grep", " /tmp ", "/proc/self/mountinfo"]);
        let script = "mount --make-rshared / && exec \"$@\"";
        let words_before = ["unshare", "-m", "timeout", "20", "sh", "-c", script, "sh"];
        let words_before = words_before.map(std::ffi::OsString::from);
        let done = bundle.launch(&["run"], &bundle.id()).command(&words_before).output().unwrap();
        let row = String::from_utf8(done.stdout).unwrap();
        let row: Vec<_> = row.split(' ').collect();
        let dash = row.iter().position(|field| *field == "-").expect("a row of the mount table");
        let kinds: Vec<_> = row[6..dash].iter().map(|f| f.split(':').next().unwrap()).collect();
        assert_eq!(kinds.join(" "), peers, "{words:?}");
    }
}

fn overlay(options: Value) -> Value {
    json!({ "destination": "/tmp", "type": "overlay", "source": "overlay", "options": options })
}

#[test]
fn an_overlay_has_its_layers() {
    let bundle = Bundle::busybox();
    let beside = |name: &str| bundle.beside(&format!("layers/{name}"));
    for name in ["lower", "upper", "work"] {
        fs::create_dir_all(beside(name)).unwrap();
    }
    fs::write(beside("lower/from"), "below\n").unwrap();
    let options =
        ["lower", "upper", "work"].map(|name| format!("{name}dir={}", beside(name).display()));
    let upper = beside("upper");
    let bundle = bundle.mount(overlay(json!(options))).script("cat /tmp/from; echo new > /tmp/new");
    assert_eq!(bundle.launch(&["run"], &bundle.id()).run().success().stdout, "below\n");
    assert_eq!(fs::read_to_string(upper.join("new")).unwrap(), "new\n");
}

#[test]
fn relative_layers_of_an_overlay_are_relative_to_the_bundle() {
    let bundle = Bundle::busybox();
    for name in ["one", "two"] {
        fs::create_dir_all(bundle.path().join("layers").join(name)).unwrap();
        fs::write(bundle.path().join("layers").join(name).join(name), name).unwrap();
    }
    let options = json!(["lowerdir=layers/one:layers/two"]);
    let done = bundle.mount(overlay(options)).args(["ls", "/tmp"]).run();
    assert_eq!(done.success().stdout, "one\ntwo\n");
}

/// fsconfig(2) takes 255 bytes, mount(2) took a page.
#[test]
fn an_overlay_may_have_many_layers() {
    let bundle = Bundle::busybox();
    let layers: Vec<_> = (0..20)
        .map(|n| {
            let layer = bundle.beside(&format!("layers/number:{n}/{}", "x".repeat(100)));
            fs::create_dir_all(&layer).unwrap();
            fs::write(layer.join(format!("of{n}")), "").unwrap();
            layer.display().to_string().replace(':', "\\:")
        })
        .collect();
    let options = json!([format!("lowerdir={}", layers.join(":"))]);
    let done = bundle.mount(overlay(options)).script("ls /tmp | wc -l").run();
    assert_eq!(done.success().stdout, "20\n");
}

fn covered(bundle: &Bundle) -> std::path::PathBuf {
    let directory = bundle.rootfs().join("covered");
    fs::create_dir_all(directory.join("in/side")).unwrap();
    fs::write(directory.join("plain"), "text\n").unwrap();
    fs::write(directory.join("in/side/deep"), "x".repeat(200_000)).unwrap();
    fs::copy("/bin/busybox", directory.join("grep")).unwrap();
    symlink("/nowhere", directory.join("dangling")).unwrap();
    symlink("plain", directory.join("link")).unwrap();
    nix::unistd::mkfifo(&directory.join("fifo"), Mode::from_bits_truncate(0o640)).unwrap();
    mknod(&directory.join("zero"), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 5)).unwrap();
    UnixListener::bind(directory.join("socket")).unwrap();
    for (n, name) in ["plain", "in", "in/side/deep", "fifo", "zero"].into_iter().enumerate() {
        chown(directory.join(name), Some(n as u32 + 1), Some(n as u32 + 11)).unwrap();
    }
    std::os::unix::fs::lchown(directory.join("link"), Some(7), Some(8)).unwrap();
    for (name, mode) in [("plain", 0o4711), ("in", 0o1773), ("in/side", 0o500), (".", 0o751)] {
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    directory
}

/// Type, mode, owner, size, device and target of everything, and a checksum of what is in files.
const LIST: &str = "cd /covered; find . ! -name . | sort | while read -r name; do
    stat -c '%n %A %u:%g %t,%T %N' \"$name\"; [ -f \"$name\" ] && md5sum \"$name\"; done;
    stat -c %A .; true";

#[test]
fn a_tmpfs_with_tmpcopyup_holds_what_it_covers() {
    let list = |mounts: &[Value]| {
        let bundle = Bundle::busybox();
        covered(&bundle);
        let all = mounts.iter().cloned().fold(bundle, Bundle::mount);
        all.script(LIST).run().success().stdout
    };
    let below = list(&[]);
    assert!(below.contains("./socket") && below.contains("-rws--x--x 1:11"), "{below}");
    assert_eq!(list(&[tmpfs("/covered", &["tmpcopyup"])]), below);
    assert_eq!(list(&[tmpfs("/covered", &["tmpcopyup", "ro", "size=8m"])]), below);
}

#[test]
fn a_tmpfs_with_tmpcopyup_is_a_copy() {
    let bundle = Bundle::busybox().writable();
    let directory = covered(&bundle);
    let bundle = bundle.mount(tmpfs("/covered", &["tmpcopyup"]));
    let bundle = bundle.script("cd /covered; rm -f plain grep; echo new > plain; cat plain; ls");
    let done = bundle.launch(&["run"], &bundle.id()).run().success();
    assert_eq!(done.stdout, "new\ndangling\nfifo\nin\nlink\nplain\nsocket\nzero\n");
    assert_eq!(fs::read_to_string(directory.join("plain")).unwrap(), "text\n");
    assert!(directory.join("grep").exists());
}

#[test]
fn tmpcopyup_copies_the_capabilities_of_files() {
    let bundle = Bundle::busybox().with_capabilities(&["CAP_NET_RAW"]);
    let program = covered(&bundle).join("grep");
    let done = Command::new("setcap").arg("cap_net_raw+ep").arg(&program).status().unwrap();
    assert!(done.success());
    let bundle = bundle.mount(tmpfs("/covered", &["tmpcopyup"])).config(|c| {
        c["process"]["user"]["uid"] = 7.into();
        for set in ["effective", "permitted"] {
            c["process"]["capabilities"][set] = json!([]);
        }
    });
    let done = bundle.args(["/covered/grep", "CapEff", "/proc/self/status"]).run();
    assert_eq!(done.success().stdout, "CapEff:\t0000000000002000\n");
}

#[test]
fn tmpcopyup_of_a_file_with_a_hole_takes_no_room_for_the_hole() {
    let bundle = Bundle::busybox().directory("/covered");
    let file = fs::File::create(bundle.rootfs().join("covered/large")).unwrap();
    file.set_len(1 << 40).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"in the middle", 1 << 30).unwrap();
    let bundle = bundle.mount(tmpfs("/covered", &["tmpcopyup", "size=64k"]));
    let script = "stat -c %s /covered/large; dd if=/covered/large bs=1M skip=1024 count=1 \
        2>/dev/null | head -c 13";
    let done = bundle.script(script).run().success();
    assert_eq!(done.stdout, format!("{}\nin the middle", 1u64 << 40));
}

#[test]
fn tmpcopyup_fails_where_the_contents_do_not_fit() {
    let bundle = Bundle::busybox();
    covered(&bundle);
    let bundle = bundle.mount(tmpfs("/covered", &["tmpcopyup", "size=64k"]));
    bundle.refused().says(&["mounts[7] /covered: tmpcopyup: ", "No space left"]).one_line();
}

#[test]
fn tmpcopyup_is_for_a_new_tmpfs_only() {
    for mount in [
        bind("/tmp", "/etc", &["bind", "tmpcopyup"]),
        json!({ "destination": "/tmp", "type": "ramfs", "options": ["tmpcopyup"] }),
        tmpfs("/dev", &["remount", "tmpcopyup"]),
    ] {
        Bundle::busybox().mount(mount).refused().says(&["mounts[7].options: tmpcopyup"]).one_line();
    }
}

#[test]
fn tmpcopyup_works_in_a_user_namespace() {
    let bundle = Bundle::busybox().directory("/covered").file("/covered/own", "mine\n");
    let bundle = bundle.user_namespace().mount(tmpfs("/covered", &["tmpcopyup"]));
    let done = bundle.script("cat /covered/own; stat -c %u /covered/own").run();
    assert_eq!(done.success().stdout, "mine\n0\n");
}
