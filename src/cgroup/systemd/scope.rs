//! The name and the slice of a scope.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;

use super::super::file;

/// Returns the slice and the name of the scope that `linux.cgroupsPath` names for container `id`.
pub fn scope<'a>(path: &'a str, id: &'a str, default_slice: &'a str) -> Result<(&'a str, String)> {
    let (slice, prefix, name) = match path.split(':').collect::<Vec<_>>()[..] {
        [""] => (default_slice, "rt", id),
        ["", prefix, name] => (default_slice, prefix, name),
        [slice, prefix, name] => (slice, prefix, name),
        _ => bail!("linux.cgroupsPath: {path}: the cgroups of systemd are named slice:prefix:name"),
    };
    match prefix {
        "" => Ok((slice, format!("{name}.scope"))),
        _ => Ok((slice, format!("{prefix}-{name}.scope"))),
    }
}

/// Returns the path of a slice: `a-b.slice` is below `a.slice`, systemd.slice(5).
pub(super) fn slice_path(slice: &str) -> Result<PathBuf> {
    let wrong = || format!("{slice:?} is not a slice");
    let name = slice.strip_suffix(".slice").with_context(wrong)?;
    if name == "-" {
        return Ok(PathBuf::new());
    }
    let mut path = PathBuf::new();
    for (end, _) in name.match_indices('-').chain([(name.len(), "")]) {
        path.push(format!("{}.slice", &name[..end]));
    }
    let parts_are_there = name.split('-').all(|part| !part.is_empty());
    ensure!(parts_are_there && !slice.contains('/'), wrong());
    Ok(path)
}

/// Whether the cgroups of this process belong to a user's systemd manager; also true for root in a
/// user namespace.
pub(super) fn is_ordinary_user() -> Result<bool> {
    if !geteuid().is_root() {
        return Ok(true);
    }
    let path = Path::new("/proc/self/uid_map");
    let map = file::read(path).context("/proc/self/uid_map")?;
    Ok(map.split_ascii_whitespace().ne(["0", "0", "4294967295"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_nested() {
        for (slice, path) in [
            ("system.slice", "system.slice"),
            ("a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice"),
            ("-.slice", ""),
        ] {
            assert_eq!(slice_path(slice).unwrap(), Path::new(path));
        }
        for wrong in [
            "",
            ".slice",
            "a",
            "a--b.slice",
            "-a.slice",
            "a-.slice",
            "a/b.slice",
        ] {
            assert!(slice_path(wrong).is_err(), "{wrong}");
        }
    }
}
