//! A tree on the host that no container may reach.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::TempDir;

/// A directory with files of known contents, owners, modes and times, outside every bundle.
#[derive(Debug)]
pub(crate) struct Canary {
    directory: TempDir,
    before: BTreeMap<PathBuf, String>,
}

impl Canary {
    pub(crate) fn plant() -> Self {
        let directory = TempDir::new();
        let top = directory.path().join("canary");
        fs::create_dir_all(top.join("empty")).unwrap();
        for name in ["null", "console", "ptmx", "file", "zero", "full", "tty", "random", "urandom"]
        {
            fs::write(top.join(name), "sings\n").unwrap();
        }
        symlink("file", top.join("link")).unwrap();
        let before = snapshot(&top);
        Self { directory, before }
    }

    /// The directory `canary`: the files in it are named like devices.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("canary")
    }

    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        let now = snapshot(&self.path());
        let new = |(path, state): &(&PathBuf, &String)| self.before.get(*path) != Some(*state);
        let changed = now.iter().filter(new).map(|(path, state)| format!("{path:?}: {state}"));
        let gone = self.before.keys().filter(|path| !now.contains_key(*path));
        let gone = gone.map(|path| format!("{path:?}: gone"));
        let changed: Vec<_> = changed.chain(gone).collect();
        assert!(changed.is_empty(), "changed on the host:\n  {}", changed.join("\n  "));
    }
}

fn snapshot(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![top.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let contents = match meta.file_type() {
            kind if kind.is_dir() => {
                todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                String::new()
            }
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
            kind if kind.is_file() => fs::read_to_string(&path).unwrap(),
            _ => "not a file any more".to_owned(),
        };
        let numbers = [
            u64::from(meta.mode()),
            u64::from(meta.uid()),
            u64::from(meta.gid()),
            meta.dev(),
            meta.nlink(),
            meta.mtime_nsec() as u64,
            meta.ctime_nsec() as u64,
        ];
        found.insert(path, format!("{numbers:?} {contents}"));
    }
    found
}
