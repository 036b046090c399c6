//! The words of `mounts[].options`: which are attributes of the mount, which are
//! flags of the superblock, and which are data for the file system.
//!
//! Pure: nothing here touches the system. Where words contradict each other the
//! last one wins.

mod maps;

use std::fmt::Display;

use anyhow::{Result, ensure};
use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME,
};
use nix::fcntl::OFlag;

pub(crate) use maps::take as take_maps;
use maps::{WITH_IDS, split};

/// Attributes that a mount inherited from a more privileged namespace keeps, next
/// to the access time ones (`can_change_locked_flags` in the kernel).
const LOCKABLE: u64 = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

/// What a bind mount loses when other attributes are given.
const CLEARED: u64 = LOCKABLE | MOUNT_ATTR_NOSYMFOLLOW;

const TIMES: u64 = MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME;

/// Bits of `statfs.f_flags` (`linux/statfs.h`) and the attributes they show, of those that can be
/// locked.
const STATFS: [(u64, u64); 6] = [
    (0x1, MOUNT_ATTR_RDONLY),
    (0x2, MOUNT_ATTR_NOSUID),
    (0x4, MOUNT_ATTR_NODEV),
    (0x8, MOUNT_ATTR_NOEXEC),
    (0x400, MOUNT_ATTR_NOATIME),
    (0x800, MOUNT_ATTR_NODIRATIME),
];
const ST_NOATIME: u64 = 0x400;
const ST_RELATIME: u64 = 0x1000;

/// Whether a mount is a view of an existing tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Bind {
    /// A file system of its own.
    #[default]
    No,
    /// The mount that the source lies in.
    Plain,
    /// And all mounts below the source.
    Recursive,
}

/// What becomes of a bind mount's source that is a symbolic link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LinkMode {
    /// What it leads to is mounted.
    #[default]
    Followed,
    /// The link itself is.
    Mounted,
    /// The destination becomes such a link.
    Copied,
}

/// How mount events travel to and from the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Propagation {
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`, which is also what
    /// `mount_setattr(2)` takes.
    pub(crate) flag: u64,
    /// For the mounts below it, too.
    pub(crate) recursive: bool,
}

/// `mounts[].options`, decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// `MOUNT_ATTR_*` to set, for `fsmount(2)` and `mount_setattr(2)`.
    pub(crate) attr_set: u64,
    /// `MOUNT_ATTR_*` that were cleared by a word such as `rw`. Holds all of
    /// `MOUNT_ATTR__ATIME` where access times were decided, as the kernel wants.
    pub(crate) attr_clr: u64,
    /// The same from `rro`, `rnosuid`, …, for `AT_RECURSIVE`.
    pub(crate) rec_attr_set: u64,
    /// The same from `rrw`, `rsuid`, ….
    pub(crate) rec_attr_clr: u64,
    /// The propagation words in their order: `shared` then `slave` is not `slave` alone.
    pub(crate) propagation: Vec<Propagation>,
    /// `idmap`, or, with the mounts below it, `ridmap`.
    pub(crate) id_map: Option<bool>,
    /// `bind` or `rbind`.
    pub(crate) bind: Bind,
    /// `src-nofollow` or `copy-symlink`.
    pub(crate) source_link: LinkMode,
    /// `dest-nofollow`: a destination that is a symbolic link is covered itself.
    pub(crate) covers_link: bool,
    /// Change the mount that is there.
    pub(crate) remount: bool,
    /// Flags for `fsconfig(2)`, of each pair (`ro` and `rw`) the one given last.
    /// The clearing ones matter to a remount only.
    pub(crate) sb_flags: Vec<&'static str>,
    /// Fill a new tmpfs with what its target directory holds.
    pub(crate) tmpcopyup: bool,
    /// Everything else, for the file system: `size=64k` is `("size", Some("64k"))`.
    pub(crate) data: Vec<(String, Option<String>)>,
}

#[derive(Clone, Copy)]
enum Word {
    /// Accepted and of no consequence: a default, or something that the mount API
    /// of the kernel has no flag for.
    None,
    Set(u64),
    Clear(u64),
    /// Access times follow this value of `MOUNT_ATTR__ATIME`.
    Time(u64),
    /// Access times no longer follow this value.
    NotTime(u64),
    /// A flag of the superblock, with its opposite.
    Super(&'static str, &'static str),
    /// `ro` and `rw` are both, an attribute and a flag of the superblock.
    Both(u64, bool, &'static str, &'static str),
    Recursive(&'static Word),
    Bind(Bind),
    Propagation(u64, bool),
    Remount,
    CopyUp,
    SourceLink(LinkMode),
    CoversLink,
    /// With the mounts below it or without.
    IdMap(bool),
}

const WORDS: &[(&str, Word)] = &[
    ("async", Word::Super("async", "sync")),
    ("atime", Word::NotTime(MOUNT_ATTR_NOATIME)),
    ("bind", Word::Bind(Bind::Plain)),
    ("copy-symlink", Word::SourceLink(LinkMode::Copied)),
    ("defaults", Word::None),
    ("dest-nofollow", Word::CoversLink),
    ("dev", Word::Clear(MOUNT_ATTR_NODEV)),
    ("diratime", Word::Clear(MOUNT_ATTR_NODIRATIME)),
    ("dirsync", Word::Super("dirsync", "")),
    ("exec", Word::Clear(MOUNT_ATTR_NOEXEC)),
    ("idmap", Word::IdMap(false)),
    ("iversion", Word::None),
    ("lazytime", Word::Super("lazytime", "nolazytime")),
    ("loud", Word::None),
    ("mand", Word::Super("mand", "nomand")),
    ("noatime", Word::Time(MOUNT_ATTR_NOATIME)),
    ("nodev", Word::Set(MOUNT_ATTR_NODEV)),
    ("nodiratime", Word::Set(MOUNT_ATTR_NODIRATIME)),
    ("noexec", Word::Set(MOUNT_ATTR_NOEXEC)),
    ("noiversion", Word::None),
    ("nolazytime", Word::Super("nolazytime", "lazytime")),
    ("nomand", Word::Super("nomand", "mand")),
    ("norelatime", Word::NotTime(MOUNT_ATTR_RELATIME)),
    ("nostrictatime", Word::NotTime(MOUNT_ATTR_STRICTATIME)),
    ("nosuid", Word::Set(MOUNT_ATTR_NOSUID)),
    ("nosymfollow", Word::Set(MOUNT_ATTR_NOSYMFOLLOW)),
    ("private", Word::Propagation(libc::MS_PRIVATE, false)),
    (
        "ratime",
        Word::Recursive(&Word::NotTime(MOUNT_ATTR_NOATIME)),
    ),
    ("rbind", Word::Bind(Bind::Recursive)),
    ("rdev", Word::Recursive(&Word::Clear(MOUNT_ATTR_NODEV))),
    (
        "rdiratime",
        Word::Recursive(&Word::Clear(MOUNT_ATTR_NODIRATIME)),
    ),
    ("relatime", Word::Time(MOUNT_ATTR_RELATIME)),
    ("remount", Word::Remount),
    ("rexec", Word::Recursive(&Word::Clear(MOUNT_ATTR_NOEXEC))),
    ("ridmap", Word::IdMap(true)),
    ("rnoatime", Word::Recursive(&Word::Time(MOUNT_ATTR_NOATIME))),
    ("rnodev", Word::Recursive(&Word::Set(MOUNT_ATTR_NODEV))),
    (
        "rnodiratime",
        Word::Recursive(&Word::Set(MOUNT_ATTR_NODIRATIME)),
    ),
    ("rnoexec", Word::Recursive(&Word::Set(MOUNT_ATTR_NOEXEC))),
    (
        "rnorelatime",
        Word::Recursive(&Word::NotTime(MOUNT_ATTR_RELATIME)),
    ),
    (
        "rnostrictatime",
        Word::Recursive(&Word::NotTime(MOUNT_ATTR_STRICTATIME)),
    ),
    ("rnosuid", Word::Recursive(&Word::Set(MOUNT_ATTR_NOSUID))),
    (
        "rnosymfollow",
        Word::Recursive(&Word::Set(MOUNT_ATTR_NOSYMFOLLOW)),
    ),
    ("ro", Word::Both(MOUNT_ATTR_RDONLY, true, "ro", "rw")),
    ("rprivate", Word::Propagation(libc::MS_PRIVATE, true)),
    (
        "rrelatime",
        Word::Recursive(&Word::Time(MOUNT_ATTR_RELATIME)),
    ),
    ("rro", Word::Recursive(&Word::Set(MOUNT_ATTR_RDONLY))),
    ("rrw", Word::Recursive(&Word::Clear(MOUNT_ATTR_RDONLY))),
    ("rshared", Word::Propagation(libc::MS_SHARED, true)),
    ("rslave", Word::Propagation(libc::MS_SLAVE, true)),
    (
        "rstrictatime",
        Word::Recursive(&Word::Time(MOUNT_ATTR_STRICTATIME)),
    ),
    ("rsuid", Word::Recursive(&Word::Clear(MOUNT_ATTR_NOSUID))),
    (
        "rsymfollow",
        Word::Recursive(&Word::Clear(MOUNT_ATTR_NOSYMFOLLOW)),
    ),
    ("runbindable", Word::Propagation(libc::MS_UNBINDABLE, true)),
    ("rw", Word::Both(MOUNT_ATTR_RDONLY, false, "rw", "ro")),
    ("shared", Word::Propagation(libc::MS_SHARED, false)),
    ("silent", Word::None),
    ("slave", Word::Propagation(libc::MS_SLAVE, false)),
    ("src-nofollow", Word::SourceLink(LinkMode::Mounted)),
    ("strictatime", Word::Time(MOUNT_ATTR_STRICTATIME)),
    ("suid", Word::Clear(MOUNT_ATTR_NOSUID)),
    ("symfollow", Word::Clear(MOUNT_ATTR_NOSYMFOLLOW)),
    ("sync", Word::Super("sync", "async")),
    ("tmpcopyup", Word::CopyUp),
    ("unbindable", Word::Propagation(libc::MS_UNBINDABLE, false)),
];

/// Every word that is not data for a file system, in alphabetical order: for `features`.
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(word, _)| *word)
}

fn word(name: &str) -> Option<Word> {
    let place = WORDS.binary_search_by_key(&name, |(word, _)| word).ok()?;
    Some(WORDS[place].1)
}

/// What a propagation word (`rslave`) means, also for `linux.rootfsPropagation`.
pub(crate) fn propagation(name: &str) -> Option<Propagation> {
    match word(name)? {
        Word::Propagation(flag, recursive) => Some(Propagation { flag, recursive }),
        _ => None,
    }
}

/// Decides the options of one mount; `path` is where they stand, for errors
/// (`mounts[3].options`). An option may be a list with commas, as for `mount(8)`.
///
/// # Errors
/// A NUL byte. An unknown word is no error: it is data for the file system.
pub(crate) fn parse(options: &[String], path: impl Display) -> Result<MountOptions> {
    let mut parsed = MountOptions::default();
    for (i, option) in options.iter().enumerate() {
        ensure!(!option.contains('\0'), "{path}[{i}]: contains a NUL byte");
        for piece in split(option).filter(|piece| !piece.is_empty()) {
            let name = piece.split_once('=').map(|(name, _)| name);
            match word(name.filter(|name| WITH_IDS.contains(name)).unwrap_or(piece)) {
                Some(word) => parsed.apply(word),
                None => parsed.data.push(datum(piece)),
            }
        }
    }
    Ok(parsed)
}

/// `name=value`, without the quotes around a value, which only `mount(2)` takes off.
fn datum(piece: &str) -> (String, Option<String>) {
    match piece.split_once('=') {
        Some((name, value)) => {
            let bare = value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'));
            (name.to_owned(), Some(bare.unwrap_or(value).to_owned()))
        }
        None => (piece.to_owned(), None),
    }
}

impl MountOptions {
    fn apply(&mut self, word: Word) {
        match word {
            Word::None => {}
            Word::Super(flag, opposite) => self.super_flag(flag, opposite),
            Word::Both(attr, set, flag, opposite) => {
                self.super_flag(flag, opposite);
                let word = if set {
                    Word::Set(attr)
                } else {
                    Word::Clear(attr)
                };
                attribute(&mut self.attr_set, &mut self.attr_clr, word);
            }
            Word::Recursive(word) => {
                attribute(&mut self.rec_attr_set, &mut self.rec_attr_clr, *word);
            }
            Word::Bind(bind) => self.bind = bind,
            Word::Propagation(flag, recursive) => {
                self.propagation.push(Propagation { flag, recursive });
            }
            Word::Remount => self.remount = true,
            Word::CopyUp => self.tmpcopyup = true,
            Word::SourceLink(link) => self.source_link = link,
            Word::CoversLink => self.covers_link = true,
            Word::IdMap(recursive) => self.id_map = Some(recursive),
            word => attribute(&mut self.attr_set, &mut self.attr_clr, word),
        }
    }

    /// A bind mount has no file system of its own: the first datum that it could not heed. Clients
    /// give `size` and `mode` nevertheless.
    pub(crate) fn beyond_bind(&self) -> Option<&str> {
        let mut names = self.data.iter().map(|(name, _)| name.as_str());
        names.find(|name| !matches!(*name, "size" | "mode"))
    }

    /// Whether links are treated otherwise than path_resolution(7) does.
    pub(crate) fn minds_links(&self) -> bool {
        self.covers_link || self.source_link != LinkMode::Followed
    }

    /// How to open the source of a bind mount.
    pub(crate) fn source_flags(&self) -> OFlag {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        if self.source_link == LinkMode::Followed {
            flags
        } else {
            flags | OFlag::O_NOFOLLOW
        }
    }

    fn super_flag(&mut self, flag: &'static str, opposite: &str) {
        self.sb_flags
            .retain(|given| *given != opposite && *given != flag);
        self.sb_flags.push(flag);
    }

    /// `(attr_set, attr_clr)` for the mount itself of a bind mount, `None` where it
    /// keeps the attributes of its source.
    ///
    /// As `mount --bind -o`: once any attribute is given, the others are cleared,
    /// except access times, which stay unless they are given themselves.
    pub(crate) fn bind_attr(&self) -> Option<(u64, u64)> {
        let given = self.attr_set | self.attr_clr;
        if given == 0 {
            return None;
        }
        let others = if self.remount {
            0
        } else {
            CLEARED & !self.attr_set
        };
        Some((self.attr_set, self.attr_clr | others))
    }

    /// What to try after [`Self::bind_attr`] was answered with `EPERM`, because the
    /// source has attributes (`source`, see [`statfs_attr`]) that are locked: those
    /// are kept.
    ///
    /// # Errors
    /// A word asked for one of them to be cleared, or for other access times.
    pub(crate) fn bind_attr_locked(&self, source: u64) -> Result<(u64, u64)> {
        let flags = source & self.attr_clr & LOCKABLE;
        ensure!(
            flags == 0,
            "{}: locked, cannot be cleared",
            attr_names(flags)
        );
        let times = (source & !self.attr_clr | self.attr_set) & TIMES;
        ensure!(
            times == source & TIMES,
            "access times are locked and cannot be changed"
        );
        let set = (self.attr_set | source & LOCKABLE) & !TIMES;
        let clear = if self.remount {
            self.attr_clr & CLEARED
        } else {
            CLEARED
        };
        Ok((set, clear & !set))
    }
}

/// Applies a word to one pair of masks of `mount_setattr(2)`.
fn attribute(set: &mut u64, clear: &mut u64, word: Word) {
    match word {
        Word::Set(attr) => {
            *set |= attr;
            *clear &= !attr;
        }
        Word::Clear(attr) => {
            *set &= !attr;
            *clear |= attr;
        }
        Word::Time(value) => {
            *set = *set & !MOUNT_ATTR__ATIME | value;
            *clear |= MOUNT_ATTR__ATIME;
        }
        // "Not this one" leaves another choice alone, and is the kernel's default
        // (relatime) where there is none.
        Word::NotTime(value) => {
            let chosen = *clear & MOUNT_ATTR__ATIME != 0;
            if !chosen || *set & MOUNT_ATTR__ATIME == value {
                attribute(set, clear, Word::Time(MOUNT_ATTR_RELATIME));
            }
        }
        _ => {}
    }
}

/// The attributes of a mount, from `f_flags` of `statfs(2)`.
pub(crate) fn statfs_attr(f_flags: u64) -> u64 {
    let strict = f_flags & (ST_NOATIME | ST_RELATIME) == 0;
    let times = if strict { MOUNT_ATTR_STRICTATIME } else { 0 };
    STATFS
        .iter()
        .filter(|(st, _)| f_flags & st != 0)
        .fold(times, |all, (_, attr)| all | attr)
}

fn attr_names(attr: u64) -> String {
    let name = |(name, word): &(&'static str, Word)| match word {
        Word::Set(flag) | Word::Both(flag, true, ..) if attr & flag != 0 => Some(*name),
        _ => None,
    };
    WORDS.iter().filter_map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
