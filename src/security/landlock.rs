//! Landlock (landlock(7)), as an addition that annotations ask for: restricts the program beyond
//! the permissions of its user. `docs/landlock.md` describes the annotations.
//!
//! Nothing here touches the system, except that the kernel is asked for its Landlock ABI.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::{annotations, sys};

/// The prefix of the annotations.
pub(crate) const PREFIX: &str = "org.rt.landlock.";

// <linux/landlock.h>, LANDLOCK_ACCESS_FS_*.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// All rights that ABI 3 has.
const ALL_OF_3: u64 = (1 << 15) - 1;
/// Rights that apply to a file that is not a directory (the kernel's `ACCESS_FILE`).
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
// LANDLOCK_ACCESS_NET_*.
const BIND_TCP: u64 = 1;
const CONNECT_TCP: u64 = 1 << 1;
// LANDLOCK_SCOPE_*.
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
const SCOPE_SIGNAL: u64 = 1 << 1;

/// The ABI version that each kind of rule needs. For files it is the one that controls truncate(2):
/// with an older one, a file that may only be read could be emptied.
const ABI_OF_FILES: i32 = 3;
const ABI_OF_DEVICES: i32 = 5;
const ABI_OF_PORTS: i32 = 4;
const ABI_OF_SCOPES: i32 = 6;

/// What is denied, and the exceptions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LandlockRules {
    pub(crate) handled: sys::LandlockRuleset,
    /// Paths in the container, and the rights on each and beneath it.
    pub(crate) paths: Vec<(PathBuf, u64)>,
    /// TCP ports, and the rights on each.
    pub(crate) ports: Vec<(u16, u64)>,
}

/// Refuses annotations that are not valid.
///
/// # Errors
/// `annotations["org.rt.landlock.…"]: what is wrong`.
pub(crate) fn check<'a>(
    annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<()> {
    parse(annotations).map(drop)
}

impl LandlockRules {
    /// Returns the rules that the annotations ask for, or None if there are no such annotations.
    ///
    /// # Errors
    /// As [`check`]; or the kernel has no Landlock, or one that is too old for the rules.
    pub(crate) fn of<'a>(
        annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Option<Self>> {
        match parse(annotations)? {
            None => Ok(None),
            Some(parsed) => parsed.under(sys::landlock_abi()).map(Some),
        }
    }

    /// Adapts the rules to a kernel with this ABI version; 0 stands for no Landlock.
    fn under(mut self, abi: i32) -> Result<Self> {
        let Self { handled, .. } = &self;
        let needs = [
            (
                handled.files != 0,
                ABI_OF_FILES,
                "read, write and execute need Linux 6.2",
            ),
            (
                handled.ports != 0,
                ABI_OF_PORTS,
                "bind and connect need Linux 6.7",
            ),
            (handled.scopes != 0, ABI_OF_SCOPES, "scope needs Linux 6.12"),
        ];
        for (asked, least, text) in needs {
            ensure!(
                !asked || abi >= least,
                "{}: {text} with Landlock enabled",
                origin()
            );
        }
        if abi < ABI_OF_DEVICES {
            self.handled.files &= !IOCTL_DEV;
            self.paths
                .iter_mut()
                .for_each(|(_, rights)| *rights &= !IOCTL_DEV);
        }
        Ok(self)
    }
}

/// Returns the name of all these annotations together, for errors.
pub(crate) fn origin() -> String {
    annotations::origin(&format!("{PREFIX}*"))
}

/// Returns those of `rights` that the kernel accepts for a directory or for another file.
pub(crate) fn rights_of(is_directory: bool, rights: u64) -> u64 {
    if is_directory {
        rights
    } else {
        rights & OF_FILES
    }
}

fn parse<'a>(
    annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Option<LandlockRules>> {
    let mut parsed = LandlockRules::default();
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else {
            continue;
        };
        parsed
            .add(name, value)
            .with_context(|| annotations::origin(key))?;
    }
    Ok(Some(parsed).filter(|parsed| *parsed != LandlockRules::default()))
}

impl LandlockRules {
    fn add(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "read" => self.add_paths(value, READ_FILE | READ_DIR),
            "execute" => self.add_paths(value, READ_FILE | READ_DIR | EXECUTE),
            "write" => self.add_paths(value, (ALL_OF_3 | IOCTL_DEV) & !EXECUTE),
            "bind" => self.add_ports(value, BIND_TCP),
            "connect" => self.add_ports(value, CONNECT_TCP),
            "scope" => self.add_scopes(value),
            _ => bail!("not known: read, write, execute, bind, connect or scope"),
        }
    }

    fn add_paths(&mut self, value: &str, rights: u64) -> Result<()> {
        self.handled.files = ALL_OF_3 | IOCTL_DEV;
        for path in list(value, ':') {
            ensure!(
                Path::new(path).is_absolute(),
                "{path:?}: not an absolute path"
            );
            self.paths.push((path.into(), rights));
        }
        Ok(())
    }

    fn add_ports(&mut self, value: &str, right: u64) -> Result<()> {
        self.handled.ports |= right;
        for port in list(value, ',') {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let number = port.parse().ok().filter(|_| digits);
            self.ports.push((
                number.with_context(|| format!("{port:?}: not a port"))?,
                right,
            ));
        }
        Ok(())
    }

    fn add_scopes(&mut self, value: &str) -> Result<()> {
        for scope in list(value, ',') {
            self.handled.scopes |= match scope {
                "signal" => SCOPE_SIGNAL,
                "abstract-unix-socket" => SCOPE_ABSTRACT_UNIX_SOCKET,
                _ => bail!("{scope:?}: neither signal nor abstract-unix-socket"),
            };
        }
        ensure!(self.handled.scopes != 0, "empty");
        Ok(())
    }
}

/// Splits a list. An empty text has no members; an empty member between others is refused by the
/// caller.
fn list(value: &str, separator: char) -> impl Iterator<Item = &str> {
    value.split(separator).filter(move |_| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn parsed(pairs: &[(&str, &str)]) -> Result<Option<LandlockRules>> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (format!("{PREFIX}{name}"), value.to_string()));
        parse(&pairs.collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn nothing_is_denied_unless_it_is_asked_for() {
        assert_eq!(parsed(&[]).unwrap(), None);
        let others = BTreeMap::from([("org.rt.network.mode".to_owned(), "none".to_owned())]);
        assert_eq!(parse(&others).unwrap(), None);
    }

    #[test]
    fn a_list_of_paths_denies_every_other_path() {
        let landlock = parsed(&[("read", "/:/etc"), ("write", "/tmp")])
            .unwrap()
            .unwrap();
        assert_eq!(landlock.handled.files, (1 << 16) - 1);
        let read = READ_FILE | READ_DIR;
        let paths: Vec<_> = landlock
            .paths
            .iter()
            .map(|(path, _)| path.to_str().unwrap())
            .collect();
        assert_eq!(paths, ["/", "/etc", "/tmp"]);
        assert_eq!(landlock.paths[1].1, read);
        assert_eq!(landlock.paths[2].1, ((1 << 16) - 1) & !EXECUTE);
        assert_eq!((landlock.handled.ports, landlock.handled.scopes), (0, 0));
    }

    #[test]
    fn an_empty_list_denies_everything_of_its_kind() {
        let landlock = parsed(&[("bind", ""), ("read", "")]).unwrap().unwrap();
        assert_eq!(
            (landlock.handled.ports, &*landlock.ports),
            (BIND_TCP, &[][..])
        );
        assert!(landlock.handled.files != 0 && landlock.paths.is_empty());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (name, value) in [
            ("raed", "/"),
            ("", "/"),
            ("read.", "/"),
            ("read", "etc"),
            ("read", "/:"),
            ("write", ":/"),
            ("bind", "x"),
            ("bind", "-1"),
            ("bind", "+1"),
            ("bind", "65536"),
            ("bind", "80,"),
            ("connect", "80 "),
            ("connect", "1-2"),
            ("scope", ""),
            ("scope", "signals"),
            ("scope", "signal,"),
        ] {
            let error = parsed(&[(name, value)]).unwrap_err();
            let line = format!("{error:#}");
            assert!(
                line.starts_with(&format!("annotations[\"{PREFIX}{name}\"]: ")),
                "{line}"
            );
        }
    }

    #[test]
    fn a_kernel_that_could_not_deny_all_of_it_is_refused() {
        let under = |name, value, abi| parsed(&[(name, value)]).unwrap().unwrap().under(abi);
        for (name, value, least) in [
            ("read", "/", 3),
            ("write", "/", 3),
            ("bind", "80", 4),
            ("connect", "", 4),
            ("scope", "signal", 6),
        ] {
            assert!(under(name, value, least - 1).is_err(), "{name}");
            assert!(under(name, value, least).is_ok(), "{name}");
        }
        let old = under("write", "/", 4).unwrap();
        assert_eq!(
            (old.handled.files & IOCTL_DEV, old.paths[0].1 & IOCTL_DEV),
            (0, 0)
        );
        let new = under("write", "/", 5).unwrap();
        assert!(new.handled.files & new.paths[0].1 & IOCTL_DEV != 0);
    }

    proptest! {
        /// No rule allows what its set does not deny, which the kernel would refuse.
        #[test]
        fn rules_are_within_what_is_handled(
            pairs in prop::collection::btree_map("(read|write|execute|bind|connect|scope)",
                "([/:,0-9a-z]{0,12}|signal)", 0..4),
            abi in 0..8,
        ) {
            let pairs = pairs.into_iter().map(|(name, value)| (format!("{PREFIX}{name}"), value));
            let pairs: BTreeMap<_, _> = pairs.collect();
            if let Ok(Some(landlock)) = parse(&pairs).and_then(|parsed| {
                parsed.map(|landlock| landlock.under(abi)).transpose()
            }) {
                for (_, rights) in &landlock.paths {
                    prop_assert_eq!(rights & !landlock.handled.files, 0);
                    prop_assert!(rights_of(false, *rights) != 0);
                }
                for (_, rights) in &landlock.ports {
                    prop_assert_eq!(rights & !landlock.handled.ports, 0);
                }
            }
        }
    }
}
