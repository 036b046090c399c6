//! Root file systems for look-ups, and paths to look up in them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::random::Xorshift;

/// The numbers of links in a row that the kernel always follows, and never follows. In between it
/// depends: the kernel follows 40, but when it has to begin a look-up again, which on a busy machine
/// it does now and then, it goes on counting (`total_link_count`, Linux 6.18).
const CHAINS: [usize; 2] = [20, 41];

/// A tree with each kind of link, in which nothing is left to chance.
pub(super) fn make_known(root: &Path) {
    for directory in ["etc/deep/er", "usr/lib", "proc", "empty"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for file in ["file", "etc/passwd", "etc/deep/er/file", "usr/lib/file"] {
        fs::write(root.join(file), file).unwrap();
    }
    for (link, target) in [
        ("absolute", "/etc/passwd"),
        ("absolute-directory", "/etc/deep"),
        ("relative", "etc/passwd"),
        ("etc/up", "../usr/lib"),
        ("etc/deep/out", "../../../../../etc"),
        ("beyond", "../../../../../../etc/passwd"),
        ("to-root", "/"),
        ("to-parent", ".."),
        ("to-self", "."),
        ("loop", "loop"),
        ("loop-a", "loop-b"),
        ("loop-b", "/loop-a"),
        ("etc/loop-deep", "../etc/loop-deep/x"),
        ("dangling", "nowhere"),
        ("dangling-deep", "/nowhere/at/all"),
        ("dangling-slash", "nowhere/"),
        ("dangling-beyond", "../../nowhere-beyond"),
        ("dangling-link", "dangling"),
        ("through", "absolute-directory/er/file"),
        ("through-through", "/to-root/to-self/through"),
        ("through-file", "file/x"),
        ("back-from-file", "file/../etc"),
        ("slash", "etc/"),
        ("slash-file", "file/"),
        ("dots", "./etc/./deep/../passwd"),
        ("magic-root", "/proc/self/root"),
        ("magic-fd", "proc/self/fd/0"),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
    for count in CHAINS {
        let chain = root.join(format!("chains/{count}"));
        fs::create_dir_all(&chain).unwrap();
        symlink("/file", chain.join("1")).unwrap();
        for link in 2..=count {
            symlink(format!("{}", link - 1), chain.join(link.to_string())).unwrap();
        }
    }
}

/// Paths of the known tree: each name alone and in surroundings, and those of no one name.
pub(super) fn known_paths(root: &Path) -> Vec<PathBuf> {
    let mut names = vec![];
    for directory in ["", "etc", "etc/deep", "usr/lib"] {
        for entry in fs::read_dir(root.join(directory)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            names.push(Path::new(directory).join(name).to_str().unwrap().to_owned());
        }
    }
    names.sort();
    let mut paths: Vec<String> = vec![];
    for name in &names {
        let surrounded =
            ["", "/", "../../", "//./", "/nowhere/../", "/file/../", "to-root/to-self/"]
                .map(|before| format!("{before}{name}"));
        paths.extend(surrounded);
        let followed = ["/", "//", "/.", "/..", "/../", "/x", "/../etc/passwd", "/er/file"]
            .map(|after| format!("{name}{after}"));
        paths.extend(followed);
    }
    for path in [
        "",
        "/",
        "//",
        ".",
        "..",
        "../..",
        "/../../..",
        "./",
        "../",
        "nowhere",
        "/nowhere/x",
        "a\0b",
        "proc/self",
        "proc/self/cwd",
        "proc/self/root",
        "/proc/self/root/etc",
        "proc/self/exe",
        "proc/thread-self/root/",
        "proc/self/fd/0",
        "proc/self/ns/mnt",
        "proc/self/ns",
        "proc/1/root",
        "proc/self/../self/status",
        "proc/self/task",
        "chains/20/20",
        "chains/41/41",
    ] {
        paths.push(path.to_owned());
    }
    paths.push("n".repeat(255));
    paths.push("n".repeat(256));
    paths.push("etc/../".repeat(500) + "file");
    paths.into_iter().map(PathBuf::from).collect()
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A tree of directories, files and links whose names are few, so that the links often lead somewhere.
pub(super) fn make_random(root: &Path, random: &mut Xorshift) {
    let mut directories = vec![root.to_owned()];
    for _ in 0..16 {
        let path = directories[random.below(directories.len())].join(word(random, &NAMES));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match random.below(5) {
            0 | 1 => {
                fs::create_dir(&path).unwrap();
                directories.push(path);
            }
            2 => fs::write(&path, "").unwrap(),
            _ => symlink(random_path(random), &path).unwrap(),
        }
    }
}

/// A path of few names: absolute or relative, with `.`, `..`, and more slashes than it needs.
pub(super) fn random_path(random: &mut Xorshift) -> PathBuf {
    let mut path = word(random, &["", "", "/", "//", "../"]).to_owned();
    path += word(random, &["a", "b", "c", "d", "."]);
    for _ in 0..random.below(5) {
        path += word(random, &["/", "/", "//"]);
        path += word(random, &["a", "b", "c", "d", ".", "..", ".."]);
    }
    path += word(random, &["", "", "", "/", "/."]);
    path.into()
}

fn word<'a>(random: &mut Xorshift, words: &[&'a str]) -> &'a str {
    words[random.below(words.len())]
}
