//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container: files beside its bundle
//! that are bound into it. They are rewritten in place, since a bind mount shows one inode for
//! ever, and only between markers: what the user or the container writes around them stays.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// More than this is not read: the container can write what it likes.
const SIZE_MAX: u64 = 1 << 20;

fn markers(label: &str) -> (String, String) {
    (format!("# rt netns {label}\n"), format!("# end of rt netns {label}\n"))
}

/// `old` with `block` between the markers of `label`, or without both if it is empty.
fn replaced(old: &str, label: &str, block: &str) -> String {
    let (begin, end) = markers(label);
    let (before, after) = match old.find(&begin).map(|at| (at, old[at..].find(&end))) {
        Some((at, Some(length))) => (&old[..at], &old[at + length + end.len()..]),
        // The end has been edited away: where our lines ended nobody knows.
        Some((at, None)) => (&old[..at], &old[at + begin.len()..]),
        None => (old, ""),
    };
    if block.is_empty() {
        return format!("{before}{after}");
    }
    let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    format!("{before}{gap}{begin}{block}{end}{after}")
}

fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o644);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Puts `block` into the file `name` of `directory`. With an empty one our lines go.
pub(super) fn update(directory: &Path, name: &str, label: &str, block: &str) -> Result<()> {
    let path = directory.join(name);
    rewrite(&path, |old| replaced(old, label, block)).with_context(|| path.display().to_string())
}

/// The whole file, for the host name.
pub(super) fn set(directory: &Path, name: &str, text: &str) -> Result<()> {
    let path = directory.join(name);
    rewrite(&path, |_| text.to_owned()).with_context(|| path.display().to_string())
}

fn rewrite(path: &Path, change: impl FnOnce(&str) -> String) -> Result<()> {
    let mut file = open(path)?;
    if !file.metadata()?.is_file() {
        bail!("not a regular file");
    }
    let mut bytes = Vec::new();
    (&file).take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SIZE_MAX {
        bail!("larger than {SIZE_MAX} bytes");
    }
    let old = String::from_utf8_lossy(&bytes);
    let new = change(&old);
    if new.as_bytes() != bytes {
        file.rewind()?;
        file.write_all(new.as_bytes())?;
        file.set_len(new.len() as u64)?;
    }
    Ok(())
}

/// One line of `/etc/hosts`.
pub(super) fn line(address: IpAddr, names: &[String]) -> String {
    format!("{address}\t{}\n", names.join(" "))
}

/// `/etc/resolv.conf`.
pub(super) fn resolv_conf(servers: &[IpAddr], search: &[String], options: &[String]) -> String {
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (word, list) in [("search", search), ("options", options)] {
        if !list.is_empty() {
            text += &format!("{word} {}\n", list.join(" "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_lines_change() {
        let first = replaced("127.0.0.1 localhost", "web", "10.0.0.2 a\n");
        assert_eq!(
            first,
            "127.0.0.1 localhost\n# rt netns web\n10.0.0.2 a\n# end of rt netns web\n"
        );
        let edited = format!("{first}1.2.3.4 mine\n");
        let second = replaced(&edited, "web", "10.0.0.3 b\n");
        assert!(second.contains("10.0.0.3 b") && !second.contains("10.0.0.2"), "{second}");
        assert!(second.starts_with("127.0.0.1 localhost\n") && second.ends_with("1.2.3.4 mine\n"));
        assert_eq!(replaced(&second, "web", ""), "127.0.0.1 localhost\n1.2.3.4 mine\n");
    }

    #[test]
    fn networks_do_not_touch_each_other_s_lines() {
        let one = replaced("", "a", "x\n");
        let two = replaced(&one, "ab", "y\n");
        assert_eq!(replaced(&two, "ab", ""), one);
    }

    #[test]
    fn a_file_keeps_its_inode() {
        use std::os::unix::fs::MetadataExt;
        let directory = std::env::temp_dir().join(format!("rt-hosts-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let inode = |name| std::fs::metadata(directory.join(name)).unwrap().ino();
        update(&directory, "hosts", "n", "a long line that goes\n").unwrap();
        let before = inode("hosts");
        update(&directory, "hosts", "n", "b\n").unwrap();
        let text = std::fs::read_to_string(directory.join("hosts")).unwrap();
        let after = inode("hosts");
        std::os::unix::fs::symlink("/dev/null", directory.join("link")).unwrap();
        let link = update(&directory, "link", "n", "b\n");
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(before, after);
        assert_eq!(text, "# rt netns n\nb\n# end of rt netns n\n");
        assert!(link.is_err());
    }
}
