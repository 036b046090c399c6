//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container: files beside its bundle
//! that are bound into it. They are rewritten in place, since a bind mount shows one inode for
//! ever, and only between markers: what the user or the container writes around them stays. No
//! symbolic link is followed on the way to them: the directory may be one that the container fills.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

/// The label of those lines in a container's files that belong to no network.
pub(super) const BASE: &str = "container";
/// The largest file that is read, in bytes: the container can write what it likes.
const SIZE_MAX: u64 = 1 << 20;

fn markers(label: &str) -> (String, String) {
    (
        format!("# rt netns {label}\n"),
        format!("# end of rt netns {label}\n"),
    )
}

/// Returns `old` with `block` between the markers of `label`, or without both if `block` is empty.
fn replaced(old: &str, label: &str, block: &str) -> String {
    let (begin, end) = markers(label);
    let (before, after) = match old.find(&begin).map(|at| (at, old[at..].find(&end))) {
        Some((at, Some(length))) => (&old[..at], &old[at + length + end.len()..]),
        // Somebody has removed the end marker, so nobody knows where the lines of `rt` ended.
        Some((at, None)) => (&old[..at], &old[at + begin.len()..]),
        None => (old, ""),
    };
    if block.is_empty() {
        return format!("{before}{after}");
    }
    let gap = if before.is_empty() || before.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{before}{gap}{begin}{block}{end}{after}")
}

fn open_file(path: &Path, more: OFlag) -> Result<File, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | more;
    let mode = if more.contains(OFlag::O_CREAT) {
        Mode::from_bits_truncate(0o644)
    } else {
        Mode::empty()
    };
    let how = OpenHow::new().flags(flags).mode(mode);
    openat2(
        AT_FDCWD,
        path,
        how.resolve(ResolveFlag::RESOLVE_NO_SYMLINKS),
    )
    .map(File::from)
}

/// Makes the directory. No part of its path may be a symbolic link.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let mut directory = openat2(AT_FDCWD, "/", how)?;
    for part in path.components().filter(|part| *part != Component::RootDir) {
        let Component::Normal(name) = part else {
            bail!("{}: not a plain path", path.display())
        };
        let context = || path.display().to_string();
        directory = match openat2(&directory, name, how) {
            Err(Errno::ENOENT) => {
                mkdirat(&directory, name, Mode::from_bits_truncate(0o755)).with_context(context)?;
                openat2(&directory, name, how).with_context(context)?
            }
            result => result.with_context(context)?,
        };
    }
    Ok(())
}

/// Returns the directory of a container's files: below the bundle, or below `state`, but not among
/// the records there.
///
/// # Errors
/// `files` is anywhere else. The annotation may come from a user who may only run containers.
pub(super) fn directory(bundle: &Path, state: &Path, files: &Path) -> Result<PathBuf> {
    let refused = || {
        anyhow!(
            "files: {}: neither below the bundle nor below {}",
            files.display(),
            state.display()
        )
    };
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let own = canonical(bundle);
    let state_own = canonical(state);
    let below = |base: &Path, alias: &Path| {
        files
            .strip_prefix(base)
            .or(files.strip_prefix(alias))
            .ok()
            .map(Path::to_owned)
    };
    let (base, rest) = match files.is_absolute() {
        false => (own, files.to_owned()),
        true => match (below(bundle, &own), below(state, &state_own)) {
            (Some(rest), _) => (own, rest),
            (None, Some(rest))
                if !rest.starts_with("containers") && !rest.starts_with("networks") =>
            {
                (state_own, rest)
            }
            _ => return Err(refused()),
        },
    };
    let is_plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !rest.components().all(is_plain) || !base.is_absolute() {
        return Err(refused());
    }
    // Leaves out every `.`, which `make_directory` refuses.
    Ok(base.join(rest).components().collect())
}

/// Puts `block` into the file `name` of `directory`. An empty block removes the lines of `label`.
pub(super) fn update(directory: &Path, name: &str, label: &str, block: &str) -> Result<()> {
    let path = directory.join(name);
    let create = if block.is_empty() {
        OFlag::empty()
    } else {
        OFlag::O_CREAT
    };
    match rewrite(&path, create, |old| replaced(old, label, block)) {
        Err(error) if create.is_empty() && error.downcast_ref() == Some(&Errno::ENOENT) => Ok(()),
        result => result.with_context(|| path.display().to_string()),
    }
}

/// Replaces the whole file, which is for the host name.
pub(super) fn set(directory: &Path, name: &str, text: &str) -> Result<()> {
    let path = directory.join(name);
    rewrite(&path, OFlag::O_CREAT, |_| text.to_owned()).with_context(|| path.display().to_string())
}

fn rewrite(path: &Path, create: OFlag, change: impl FnOnce(&str) -> String) -> Result<()> {
    let mut file = open_file(path, create)?;
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

/// Returns one line of `/etc/hosts`.
pub(super) fn line(address: IpAddr, names: &[String]) -> String {
    format!("{address}\t{}\n", names.join(" "))
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
        assert!(
            second.contains("10.0.0.3 b") && !second.contains("10.0.0.2"),
            "{second}"
        );
        assert!(second.starts_with("127.0.0.1 localhost\n") && second.ends_with("1.2.3.4 mine\n"));
        assert_eq!(
            replaced(&second, "web", ""),
            "127.0.0.1 localhost\n1.2.3.4 mine\n"
        );
    }

    #[test]
    fn networks_do_not_touch_each_other_s_lines() {
        let one = replaced("", "a", "x\n");
        let two = replaced(&one, "ab", "y\n");
        assert_eq!(replaced(&two, "ab", ""), one);
    }

    #[test]
    fn files_are_below_the_bundle_or_the_state_directory() {
        let place = |files: &str| {
            directory(
                Path::new("/nonexistent/b"),
                Path::new("/nonexistent/s"),
                Path::new(files),
            )
        };
        for (files, path) in [
            ("etc", "/nonexistent/b/etc"),
            ("./a/./b", "/nonexistent/b/a/b"),
            ("/nonexistent/b/etc", "/nonexistent/b/etc"),
            ("/nonexistent/s/files/x", "/nonexistent/s/files/x"),
        ] {
            assert_eq!(place(files).unwrap().as_os_str(), path, "{files}");
        }
        for files in [
            "/etc",
            "..",
            "etc/../..",
            "/nonexistent/b/../c",
            "/nonexistent/bb",
            "/nonexistent/s/containers/x.json",
            "/nonexistent/s/./networks/default/leases",
            "/",
        ] {
            assert!(place(files).is_err(), "{files}");
        }
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
        std::os::unix::fs::symlink(&directory, directory.join("way")).unwrap();
        let way = update(&directory.join("way"), "hosts", "n", "c\n");
        let made = make_directory(&directory.join("way/below"));
        make_directory(&directory.join("x/y")).unwrap();
        update(&directory, "nothing", "n", "").unwrap();
        assert!(way.is_err() && made.is_err() && !directory.join("nothing").exists());
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(before, after);
        assert_eq!(text, "# rt netns n\nb\n# end of rt netns n\n");
        assert!(link.is_err());
    }
}
