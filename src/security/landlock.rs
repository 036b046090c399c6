//! Landlock (landlock(7)), as an addition that annotations ask for: restricts the program beyond
//! the permissions of its user. `docs/landlock.md` describes the annotations.
//!
//! Nothing here touches the system, except that the kernel is asked for its Landlock ABI.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreated, RulesetError, Scope, make_bitflags,
};

use crate::annotations;

/// The prefix of the annotations.
pub const PREFIX: &str = "org.rt.landlock.";

/// The ABI version that each kind of rule needs. For files it is the one that controls truncate(2):
/// with an older one, a file that may only be read could be emptied.
const ABI_OF_FILES: ABI = ABI::V3;
const ABI_OF_DEVICES: ABI = ABI::V5;
const ABI_OF_PORTS: ABI = ABI::V4;
const ABI_OF_SCOPES: ABI = ABI::V6;

/// What is denied, and the exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LandlockRules {
    /// What is denied unless a rule allows it.
    files: BitFlags<AccessFs>,
    net: BitFlags<AccessNet>,
    /// What no rule can allow.
    scopes: BitFlags<Scope>,
    /// Paths in the container, and the rights on each and beneath it.
    pub paths: Vec<(PathBuf, BitFlags<AccessFs>)>,
    /// TCP ports, and the rights on each.
    pub ports: Vec<(u16, BitFlags<AccessNet>)>,
}

impl LandlockRules {
    /// Returns the rules that the annotations ask for, or None if there are no such annotations.
    ///
    /// # Errors
    /// `annotations["org.rt.landlock.…"]: what is wrong`.
    pub fn parse<'a>(
        annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Option<Self>> {
        let mut parsed = Self::default();
        for (key, value) in annotations {
            if let Some(name) = key.strip_prefix(PREFIX) {
                let added = parsed.add(name, value);
                added.with_context(|| annotations::origin(key))?;
            }
        }
        Ok(Some(parsed).filter(|parsed| *parsed != Self::default()))
    }

    /// Adapts the rules to this kernel.
    ///
    /// # Errors
    /// The kernel has no Landlock, or one that is too old for the rules.
    pub fn for_this_kernel(self) -> Result<Self> {
        self.under(kernel_has)
    }

    /// Adapts the rules to a kernel that has the ABI versions for which `has` is true.
    fn under(mut self, has: impl Fn(ABI) -> bool) -> Result<Self> {
        let needs = [
            (
                self.files.is_empty(),
                ABI_OF_FILES,
                "read, write and execute need Linux 6.2",
            ),
            (
                self.net.is_empty(),
                ABI_OF_PORTS,
                "bind and connect need Linux 6.7",
            ),
            (
                self.scopes.is_empty(),
                ABI_OF_SCOPES,
                "scope needs Linux 6.12",
            ),
        ];
        for (is_free, least, text) in needs {
            let context = || format!("{}: {text} with Landlock enabled", origin());
            ensure!(is_free || has(least), context());
        }
        if !self.files.is_empty() && !has(ABI_OF_DEVICES) {
            self.files.remove(AccessFs::IoctlDev);
            for (_, rights) in &mut self.paths {
                rights.remove(AccessFs::IoctlDev);
            }
        }
        Ok(self)
    }

    /// Makes a ruleset that denies everything that is to be denied, without any rule yet.
    ///
    /// # Errors
    /// The kernel cannot deny all of it.
    pub fn ruleset(&self) -> Result<RulesetCreated, RulesetError> {
        let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        if !self.files.is_empty() {
            ruleset = ruleset.handle_access(self.files)?;
        }
        if !self.net.is_empty() {
            ruleset = ruleset.handle_access(self.net)?;
        }
        if !self.scopes.is_empty() {
            ruleset = ruleset.scope(self.scopes)?;
        }
        // What is denied is certain now. For a rule, best effort means that rights are left out
        // that do not apply to a file that is no directory.
        let created = ruleset.create()?;
        Ok(created.set_compatibility(CompatLevel::BestEffort))
    }
}

/// Whether the kernel has this version of the ABI, by what came with it.
fn kernel_has(abi: ABI) -> bool {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let asked = match abi {
        ABI_OF_SCOPES => ruleset.scope(Scope::Signal),
        ABI_OF_PORTS => ruleset.handle_access(AccessNet::BindTcp),
        _ => ruleset.handle_access(AccessFs::from_all(abi)),
    };
    asked.is_ok()
}

/// Returns the name of all these annotations together, for errors.
pub fn origin() -> String {
    annotations::origin(&format!("{PREFIX}*"))
}

impl LandlockRules {
    fn add(&mut self, name: &str, value: &str) -> Result<()> {
        let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
        match name {
            "read" => self.add_paths(value, read),
            "execute" => self.add_paths(value, read | AccessFs::Execute),
            "write" => self.add_paths(value, all_of_files() & !AccessFs::Execute),
            "bind" => self.add_ports(value, AccessNet::BindTcp),
            "connect" => self.add_ports(value, AccessNet::ConnectTcp),
            "scope" => self.add_scopes(value),
            _ => bail!("not known: read, write, execute, bind, connect or scope"),
        }
    }

    fn add_paths(&mut self, value: &str, rights: BitFlags<AccessFs>) -> Result<()> {
        self.files = all_of_files();
        for path in list(value, ':') {
            ensure!(
                Path::new(path).is_absolute(),
                "{path:?}: not an absolute path"
            );
            self.paths.push((path.into(), rights));
        }
        Ok(())
    }

    fn add_ports(&mut self, value: &str, right: AccessNet) -> Result<()> {
        self.net |= right;
        for port in list(value, ',') {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let number = port.parse().ok().filter(|_| digits);
            self.ports.push((
                number.with_context(|| format!("{port:?}: not a port"))?,
                right.into(),
            ));
        }
        Ok(())
    }

    fn add_scopes(&mut self, value: &str) -> Result<()> {
        for scope in list(value, ',') {
            self.scopes |= match scope {
                "signal" => Scope::Signal,
                "abstract-unix-socket" => Scope::AbstractUnixSocket,
                _ => bail!("{scope:?}: neither signal nor abstract-unix-socket"),
            };
        }
        ensure!(!self.scopes.is_empty(), "empty");
        Ok(())
    }
}

/// All rights over files that can be denied here.
fn all_of_files() -> BitFlags<AccessFs> {
    AccessFs::from_all(ABI_OF_DEVICES)
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
        LandlockRules::parse(&pairs.collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn nothing_is_denied_unless_it_is_asked_for() {
        assert_eq!(parsed(&[]).unwrap(), None);
        let others = BTreeMap::from([("org.rt.network.mode".to_owned(), "none".to_owned())]);
        assert_eq!(LandlockRules::parse(&others).unwrap(), None);
    }

    #[test]
    fn a_list_of_paths_denies_every_other_path() {
        let landlock = parsed(&[("read", "/:/etc"), ("write", "/tmp")])
            .unwrap()
            .unwrap();
        assert_eq!(landlock.files.bits(), (1 << 16) - 1);
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let paths: Vec<_> = landlock
            .paths
            .iter()
            .map(|(path, _)| path.to_str().unwrap())
            .collect();
        assert_eq!(paths, ["/", "/etc", "/tmp"]);
        assert_eq!(landlock.paths[1].1, read);
        assert_eq!(landlock.paths[2].1.bits(), (1 << 16) - 1 - 1);
        assert!(landlock.net.is_empty() && landlock.scopes.is_empty());
    }

    #[test]
    fn an_empty_list_denies_everything_of_its_kind() {
        let landlock = parsed(&[("bind", ""), ("read", "")]).unwrap().unwrap();
        assert_eq!(
            (landlock.net, &*landlock.ports),
            (AccessNet::BindTcp.into(), &[][..])
        );
        assert!(!landlock.files.is_empty() && landlock.paths.is_empty());
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
        let under = |name, value, abi| {
            let rules = parsed(&[(name, value)]).unwrap().unwrap();
            rules.under(|needed| needed as i32 <= abi)
        };
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
        let old_rights = old.files | old.paths[0].1;
        assert!(!old_rights.contains(AccessFs::IoctlDev));
        let new = under("write", "/", 5).unwrap();
        assert!((new.files & new.paths[0].1).contains(AccessFs::IoctlDev));
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
            if let Ok(Some(landlock)) = LandlockRules::parse(&pairs).and_then(|parsed| {
                parsed.map(|landlock| landlock.under(|needed| needed as i32 <= abi)).transpose()
            }) {
                for (_, rights) in &landlock.paths {
                    prop_assert!(landlock.files.contains(*rights));
                    // Something is left for a file that is no directory.
                    prop_assert!(rights.intersects(AccessFs::from_file(ABI_OF_DEVICES)));
                }
                for (_, rights) in &landlock.ports {
                    prop_assert!(landlock.net.contains(*rights));
                }
            }
        }
    }
}
