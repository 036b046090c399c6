//! The words of `mounts[].options`: decides which are attributes of the mount, which are flags of
//! the superblock, and which are data for the file system.
//!
//! Nothing here touches the system. Where words contradict each other the last one wins.

mod maps;

use std::fmt::{Arguments, Display};

use anyhow::{Result, ensure};
use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME,
};
use nix::fcntl::OFlag;
use oci_spec::runtime::Mount;

pub use maps::take as take_maps;
use maps::{WITH_IDS, split};

/// Attributes, beside those for access times, that the kernel locks on a mount that comes from a
/// more privileged namespace (`can_change_locked_flags`).
const LOCKABLE: u64 = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

/// The attributes of its source that a bind mount loses when the options set others.
const CLEARED: u64 = LOCKABLE | MOUNT_ATTR_NOSYMFOLLOW;

const TIMES: u64 = MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME;

/// Bits of `statfs.f_flags` (`linux/statfs.h`), and the attributes that they stand for; only those
/// that can be locked.
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
pub enum Bind {
    /// A new file system.
    #[default]
    No,
    /// A bind mount of the source, without the mounts below it.
    Plain,
    /// A bind mount of the source with all mounts below it.
    Recursive,
}

/// What is mounted if the source of a bind mount is a symbolic link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkMode {
    /// The target of the link.
    #[default]
    Followed,
    /// The link itself.
    Mounted,
    /// Nothing: the destination becomes a copy of the link.
    Copied,
}

/// How mount events travel to and from the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`, which is also what
    /// `mount_setattr(2)` takes.
    pub flag: u64,
    /// Whether it applies to the mounts below, too.
    pub recursive: bool,
}

/// The options of one mount, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `MOUNT_ATTR_*` to set, for `fsmount(2)` and `mount_setattr(2)`.
    pub attr_set: u64,
    /// `MOUNT_ATTR_*` that a word such as `rw` clears. Holds all of `MOUNT_ATTR__ATIME` if the
    /// options say something about access times, as the kernel demands.
    pub attr_clr: u64,
    /// `MOUNT_ATTR_*` to set with `AT_RECURSIVE`, from `rro`, `rnosuid`, ….
    pub rec_attr_set: u64,
    /// `MOUNT_ATTR_*` to clear with `AT_RECURSIVE`, from `rrw`, `rsuid`, ….
    pub rec_attr_clr: u64,
    /// The propagation words in their order: `shared` then `slave` is not `slave` alone.
    pub propagation: Vec<Propagation>,
    /// `Some(false)` for `idmap`; `Some(true)` for `ridmap`, which includes the mounts below.
    pub id_map: Option<bool>,
    /// `bind` or `rbind`.
    pub bind: Bind,
    /// `src-nofollow` or `copy-symlink`.
    pub source_link: LinkMode,
    /// `dest-nofollow`: a destination that is a symbolic link is itself covered by the mount.
    pub covers_link: bool,
    /// `remount`: the existing mount is changed.
    pub remount: bool,
    /// Flags for `fsconfig(2)`. Of each pair (`ro` and `rw`) the one given last; those that clear a
    /// flag matter to a remount only.
    pub sb_flags: Vec<&'static str>,
    /// `tmpcopyup`: a new tmpfs is filled with the content of its target directory.
    pub tmpcopyup: bool,
    /// All other words, for the file system: `size=64k` is `("size", Some("64k"))`.
    pub data: Vec<(String, Option<String>)>,
}

#[derive(Clone, Copy)]
enum Word {
    /// Accepted without effect: a default, or an option for which the kernel's mount API has no
    /// flag.
    None,
    Set(u64),
    Clear(u64),
    /// Sets access times to this value of `MOUNT_ATTR__ATIME`.
    Time(u64),
    /// Clears this choice of access times.
    NotTime(u64),
    /// A flag of the superblock, and its opposite.
    Super(&'static str, &'static str),
    /// `ro` and `rw`: an attribute as well as a flag of the superblock.
    Both(u64, bool, &'static str, &'static str),
    Recursive(&'static Word),
    Bind(Bind),
    Propagation(u64, bool),
    Remount,
    CopyUp,
    SourceLink(LinkMode),
    CoversLink,
    /// Whether the mounts below are included.
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

/// Returns every word that is not data for a file system, in alphabetical order, for `features`.
pub fn words() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(word, _)| *word)
}

fn word(name: &str) -> Option<Word> {
    let place = WORDS.binary_search_by_key(&name, |(word, _)| word).ok()?;
    Some(WORDS[place].1)
}

/// Returns the meaning of a propagation word (`rslave`); used for `linux.rootfsPropagation`, too.
pub fn propagation(name: &str) -> Option<Propagation> {
    match word(name)? {
        Word::Propagation(flag, recursive) => Some(Propagation { flag, recursive }),
        _ => None,
    }
}

/// Parses the options of `mount`, whose JSON path is `path`, as [`parse`] does.
pub fn of_mount(path: Arguments<'_>, mount: &Mount) -> Result<MountOptions> {
    let options = mount.options().as_deref().unwrap_or_default();
    parse(options, format_args!("{path}.options"))
}

/// Parses the options of one mount. `path` is their JSON path, for errors (`mounts[3].options`). An
/// option may be a list with commas, as for `mount(8)`.
///
/// # Errors
/// An option contains a NUL byte. An unknown word is no error, since it is data for the file
/// system.
pub fn parse(options: &[String], path: impl Display) -> Result<MountOptions> {
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

/// Splits `name=value`, and removes quotation marks around the value, which fsconfig(2), unlike
/// mount(2), would leave there.
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

    /// Returns the first datum that a bind mount cannot apply, because it has no file system of its
    /// own. `size` and `mode` are excepted: clients give them nevertheless.
    pub fn beyond_bind(&self) -> Option<&str> {
        let mut names = self.data.iter().map(|(name, _)| name.as_str());
        names.find(|name| !matches!(*name, "size" | "mode"))
    }

    /// Whether symbolic links are treated differently from path_resolution(7).
    pub fn minds_links(&self) -> bool {
        self.covers_link || self.source_link != LinkMode::Followed
    }

    /// Returns the flags for opening the source of a bind mount.
    pub fn source_flags(&self) -> OFlag {
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

    /// Returns `(attr_set, attr_clr)` for a bind mount without those below it, or `None` if it
    /// keeps the attributes of its source.
    ///
    /// As with `mount --bind -o`, all other attributes are cleared as soon as one is given, except
    /// access times, which change only if they are given.
    pub fn bind_attr(&self) -> Option<(u64, u64)> {
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

    /// Returns the attributes to try after the kernel answered those of [`Self::bind_attr`] with
    /// `EPERM`, because the source has locked attributes (`source`, see [`statfs_attr`]). Locked
    /// attributes are kept.
    ///
    /// # Errors A word asks for a locked attribute to be cleared, or for other access times.
    pub fn bind_attr_locked(&self, source: u64) -> Result<(u64, u64)> {
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
        // "Not this one" keeps another choice. Without another choice it means the kernel's
        // default, relatime.
        Word::NotTime(value) => {
            let chosen = *clear & MOUNT_ATTR__ATIME != 0;
            if !chosen || *set & MOUNT_ATTR__ATIME == value {
                attribute(set, clear, Word::Time(MOUNT_ATTR_RELATIME));
            }
        }
        _ => {}
    }
}

/// Returns the attributes of a mount, from `f_flags` of `statfs(2)`.
pub fn statfs_attr(f_flags: u64) -> u64 {
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
