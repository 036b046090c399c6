//! Bind mounts of links and on links, in crun's words.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{bind, tmpfs};
use crate::harness::{Bundle, Canary};

/// A link beside the bundle to what is nowhere on the host.
fn link_to(bundle: &Bundle, target: &str) -> PathBuf {
    let path = bundle.beside("link");
    symlink(target, &path).unwrap();
    path
}

fn leads_to(path: &Path) -> PathBuf {
    fs::read_link(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn copy_symlink_makes_such_a_link_and_binds_what_is_none() {
    let bundle = Bundle::busybox().directory("/made").link("/made/same", "../no/such");
    let link = link_to(&bundle, "../no/such");
    let file = bundle.beside("file");
    fs::write(&file, "given\n").unwrap();
    let root = bundle.rootfs();
    let bundle = ["/made/same", "/made/new", "/made/deep/er"]
        .into_iter()
        .fold(bundle, |bundle, place| bundle.mount(bind(place, &link, &["bind", "copy-symlink"])));
    let bundle = bundle.mount(bind("/tmp/file", &file, &["bind", "copy-symlink"]));
    let script = "for link in same new deep/er; do readlink /made/$link; done; cat /tmp/file; \
                  grep -c -e ' /made' /proc/self/mountinfo";
    let done = bundle.script(script).create();
    assert_eq!(done.finish().1, "../no/such\n../no/such\n../no/such\ngiven\n0\n");
    assert_eq!(leads_to(&root.join("made/new")), Path::new("../no/such"));
}

#[test]
fn copy_symlink_replaces_nothing() {
    for what in ["another link", "a file", "a directory"] {
        let bundle = Bundle::busybox();
        let bundle = match what {
            "another link" => bundle.link("/place", "/elsewhere"),
            "a file" => bundle.file("/place", "x"),
            _ => bundle.directory("/place"),
        };
        let link = link_to(&bundle, "/no/such");
        let bundle = bundle.mount(bind("/place", &link, &["bind", "copy-symlink"]));
        bundle.refused().says(&["mounts[7] /place: copy-symlink", "/no/such"]).one_line();
    }
}

#[test]
fn src_nofollow_mounts_the_link_itself() {
    for user_namespace in [false, true] {
        let bundle = Bundle::busybox().file("/place", "");
        let link = link_to(&bundle, "/no/such");
        let bundle = if user_namespace { bundle.user_namespace() } else { bundle };
        let bundle = bundle.mount(bind("/place", &link, &["bind", "src-nofollow"]));
        let bundle = bundle.script("readlink /place; grep -c ' /place ' /proc/self/mountinfo");
        assert_eq!(bundle.run().success().stdout, "/no/such\n1\n", "{user_namespace}");
    }
}

#[test]
fn dest_nofollow_covers_the_link_itself() {
    let bundle = Bundle::busybox().link("/place", "/target").file("/target", "covered?\n");
    let file = bundle.beside("file");
    fs::write(&file, "given\n").unwrap();
    let bundle = bundle.mount(bind("/place", &file, &["bind", "dest-nofollow"]));
    let bundle = bundle.mount(bind("/tmp/new", &file, &["bind", "dest-nofollow"]));
    let done = bundle.script("cat /place /tmp/new /target; readlink /place").run();
    assert_eq!(done.stdout, "given\ngiven\ncovered?\n", "{done}");
}

/// What podman's `no-dereference` asks for.
#[test]
fn a_link_can_cover_a_link() {
    let bundle = Bundle::busybox().link("/place", "/target");
    let link = link_to(&bundle, "/no/such");
    let words = ["bind", "src-nofollow", "dest-nofollow"];
    let bundle = bundle.mount(bind("/place", &link, &words)).script("readlink /place");
    assert_eq!(bundle.run().success().stdout, "/no/such\n");
}

/// Where the root of the user namespace may not go.
#[test]
fn links_are_found_below_a_directory_that_is_closed() {
    let bundle = Bundle::busybox().file("/place", "").directory("/made").user_namespace();
    let closed = bundle.beside("closed");
    fs::create_dir(&closed).unwrap();
    symlink("/no/such", closed.join("link")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let link = closed.join("link");
    let bundle = bundle.mount(bind("/place", &link, &["bind", "src-nofollow"]));
    let bundle = bundle.mount(bind("/made/link", &link, &["bind", "copy-symlink"]));
    let done = bundle.script("readlink /place; readlink /made/link").run();
    assert_eq!(done.success().stdout, "/no/such\n/no/such\n");
}

#[test]
fn a_link_is_made_below_the_root_whatever_the_image_says() {
    let canary = Canary::plant();
    let host = canary.path().display().to_string();
    let up = format!("../../../../../../../..{host}");
    for target in [&*host, &up] {
        let bundle = Bundle::busybox().link("/out", target);
        let link = link_to(&bundle, "/no/such");
        let root = bundle.rootfs();
        let words = ["bind", "copy-symlink"];
        let c = bundle.mount(bind("/out/link", &link, &words)).args(["true"]).create();
        let made = root.join(host.trim_start_matches('/')).join("link");
        assert_eq!(leads_to(&made), Path::new("/no/such"), "{target}");
        drop(c);
    }
    canary.assert_untouched();
}

/// They are the kernel's word, and lead where no path does.
#[test]
fn links_of_the_kernel_are_not_covered() {
    for place in ["/door/self/exe", "/door/self", "/door/1/fd/0"] {
        let bundle = Bundle::busybox().link("/door", "/proc");
        let link = link_to(&bundle, "/no/such");
        let words = ["bind", "src-nofollow", "dest-nofollow"];
        let bundle = bundle.mount(bind(place, &link, &words));
        bundle.refused().says(&[&format!("mounts[7] {place}: dest-nofollow")]).one_line();
    }
}

#[test]
fn a_proc_is_no_link() {
    for word in ["copy-symlink", "src-nofollow", "dest-nofollow"] {
        let bundle = Bundle::busybox();
        let link = link_to(&bundle, "/proc");
        let mount = bind("/proc", &link, &["bind", word]);
        bundle.mount(mount).refused().says(&["mounts[7] /proc", "not of type proc"]).one_line();
    }
}

#[test]
fn only_new_bind_mounts_mind_links() {
    for word in ["copy-symlink", "src-nofollow", "dest-nofollow"] {
        let remount = json!({ "destination": "/dev", "options": ["remount", "bind", word] });
        for mount in [tmpfs("/tmp", &[word]), remount] {
            let done = Bundle::busybox().mount(mount).refused();
            done.says(&["mounts[7].options: ", word, "only for a new bind mount"]).one_line();
        }
    }
}
