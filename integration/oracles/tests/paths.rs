//! Where a path with links leads inside a root has to be where pathrs (libpathrs) says it leads: a
//! bind mount is made at the path, and its marker must be seen at the place that pathrs resolves.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use oracles::Bundle;
use pathrs::Root;
use serde_json::json;

/// Links of the image, and where they lead.
const LINKS: [(&str, &str); 9] = [
    ("a/absolute", "/real/deep"),
    ("a/relative", "../real/deep"),
    ("a/beyond", "../../../../../real/deep"),
    ("a/chain", "relative"),
    ("a/chain2", "/a/chain/../deep"),
    ("a/dots", "/real/./deep/../deep/."),
    ("a/loop", "loop"),
    ("a/pair1", "pair2"),
    ("a/pair2", "pair1"),
];
/// Paths at which something is mounted.
const PATHS: [&str; 13] = [
    "/real/deep",
    "/real//deep/",
    "/../../real/deep",
    "/real/../real/./deep",
    "/a/absolute",
    "/a/relative",
    "/a/beyond",
    "/a/chain",
    "/a/chain2",
    "/a/dots",
    "/a/loop",
    "/a/pair1",
    "/real/file/below",
];

fn bundle(number: usize) -> Bundle {
    let bundle = Bundle::new(&format!("path{number}"));
    let rootfs = bundle.rootfs();
    for directory in ["a", "real/deep", "proc", "dev"] {
        fs::create_dir_all(rootfs.join(directory)).unwrap();
    }
    fs::write(rootfs.join("real/file"), "").unwrap();
    fs::create_dir(rootfs.join("source")).unwrap();
    fs::write(rootfs.join("source/marker"), "mounted").unwrap();
    for (link, target) in LINKS {
        symlink(target, rootfs.join(link)).unwrap();
    }
    bundle
}

/// Where pathrs resolves `path` to, from the root; `None` if it refuses.
fn resolved(bundle: &Bundle, path: &str) -> Option<PathBuf> {
    let root = bundle.rootfs().canonicalize().unwrap();
    let handle = Root::open(&root).unwrap().resolve(path).ok()?;
    let file = handle.reopen(pathrs::flags::OpenFlags::O_PATH).unwrap();
    let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    let inside = real.strip_prefix(&root).expect("pathrs stays inside the root");
    Some(PathBuf::from("/").join(inside))
}

#[test]
fn a_mount_is_where_pathrs_resolves_its_destination() {
    let (mut agreed, mut refused) = (0, 0);
    for (number, path) in PATHS.iter().enumerate() {
        let bundle = bundle(number);
        let expected = resolved(&bundle, path);
        let place = expected.clone().unwrap_or("/nowhere".into());
        let marker = place.join("marker").display().to_string();
        bundle.configure(&["cat", &marker], |config| {
            let source = bundle.rootfs().join("source");
            let mount = json!({ "destination": path, "type": "bind", "source": source,
                "options": ["rbind"] });
            config["mounts"].as_array_mut().unwrap().push(mount);
        });
        let done = bundle.rt("run");
        match expected {
            Some(place) => {
                assert!(done.status.success(), "{path} to {}: {done:?}", place.display());
                assert_eq!(done.stdout, b"mounted", "{path} to {}", place.display());
                agreed += 1;
            }
            None => {
                assert!(!done.status.success(), "{path}: pathrs refuses it, {done:?}");
                refused += 1;
            }
        }
    }
    assert_eq!((agreed, refused), (10, 3));
}
