//! Tables of mounts (proc_pid_mountinfo(5)), read to their end and parsed by the `procfs` crate.
//!
//! The crate's own reader refuses a table in which any path is not UTF-8, so that one mount with
//! such a path, of any user of the host, would make the whole table unreadable. Therefore bytes
//! that are not ASCII are turned into the octal escapes that the kernel writes for a space, and
//! all escapes are resolved here.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::fcntl::AT_FDCWD;
use procfs::process::MountInfo;

use crate::sys;

/// Returns the mounts that `process` (a pid, or `self`) sees.
pub fn of_process(process: &str) -> Result<Vec<MountInfo>> {
    let path = format!("/proc/{process}/mountinfo");
    let bytes = sys::read_file_at(AT_FDCWD, &path).with_context(|| path.clone())?;
    parse(&bytes).context(path)
}

/// Parses a table; returns its mounts in their order.
pub fn parse(bytes: &[u8]) -> Result<Vec<MountInfo>> {
    ascii(bytes)
        .lines()
        .map(|line| Ok(MountInfo::from_line(line)?))
        .collect()
}

fn ascii(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => Cow::Borrowed(text),
        _ => {
            let escape = |byte: &u8| match byte {
                0..128 => char::from(*byte).to_string(),
                _ => format!("\\{byte:03o}"),
            };
            Cow::Owned(bytes.iter().map(escape).collect())
        }
    }
}

/// Returns the path at which a mount is mounted.
pub fn point_of(mount: &MountInfo) -> PathBuf {
    unescaped(mount.mount_point.as_os_str().as_bytes())
}

/// Returns the path, within its file system, of the directory or file that the mount shows.
pub fn root_of(mount: &MountInfo) -> PathBuf {
    unescaped(mount.root.as_bytes())
}

/// Resolves octal escapes: the kernel writes space, tab, newline, `#` and backslash as such.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let number = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match number.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                plain.push(byte);
                rest = &after[3..];
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn octal_numbers_of_mountinfo_are_bytes() {
        for (text, plain) in [
            ("/a\\040b", "/a b"),
            ("/a\\011\\012\\043b", "/a\t\n#b"),
            ("\\134040", "\\040"),
            ("/a\\0", "/a\\0"),
            ("", ""),
        ] {
            assert_eq!(unescaped(text.as_bytes()), Path::new(plain));
        }
    }

    #[test]
    fn paths_are_bytes_and_a_source_may_be_empty() {
        let table = b"20 1 0:5 / /a\xff\\012b rw - tmpfs  rw,mode=\xc3\xa4\n\
            21 20 0:6 /\xfe//deleted /b rw,nosuid shared:7 master:2 - overlay none rw\n";
        let mounts = parse(table).unwrap();
        assert_eq!(point_of(&mounts[0]).as_os_str().as_bytes(), b"/a\xff\nb");
        assert_eq!(
            root_of(&mounts[1]).as_os_str().as_bytes(),
            b"/\xfe//deleted"
        );
        assert_eq!(mounts.len(), 2);
        assert!(
            parse(b"20 1 0:5 /\n").is_err(),
            "a line that is cut off is no mount"
        );
    }
}
