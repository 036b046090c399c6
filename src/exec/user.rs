//! Parses the options of `exec` about users and capabilities. A user or group that is not entirely
//! a number is an error: a parser that stopped at the colon once made root of user 1
//! (CVE-2026-30892).

use std::str::FromStr;

use anyhow::{Context, Error, Result, ensure};
use oci_spec::runtime::Capability;

/// `UID[:GID]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    /// `None`: the group stays as it is configured.
    pub gid: Option<u32>,
}

impl FromStr for User {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid, Some(id(gid)?)),
            None => (text, None),
        };
        Ok(Self { uid: id(uid)?, gid })
    }
}

/// Parses the number of a user or group: decimal digits and nothing else.
///
/// # Errors
/// The text is a name: as in runc, names are not looked up, so that an image's passwd is not asked
/// who is who. Or it is 2^32 - 1, which is no id: setresuid(2) takes it for "unchanged".
pub fn id(text: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    ensure!(digits, "{text:?} is not a number");
    let id = text.parse().ok().filter(|id| *id != u32::MAX);
    id.with_context(|| format!("{text} is larger than {}", u32::MAX - 1))
}

/// Parses the name of a capability, with or without `CAP_`, in any case.
pub fn capability(text: &str) -> Result<Capability> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    Capability::from_str(name)
        .ok()
        .context("unknown capability")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_user_is_a_number_or_two() {
        let user = |text: &str| text.parse::<User>().ok().map(|user| (user.uid, user.gid));
        assert_eq!(user("0"), Some((0, None)));
        assert_eq!(user("1"), Some((1, None)));
        assert_eq!(user("1:2"), Some((1, Some(2))));
        assert_eq!(user("4294967294:0"), Some((u32::MAX - 1, Some(0))));
        for text in [
            "",
            ":",
            "1:",
            ":1",
            "-1",
            "+1",
            "1:-1",
            "1x",
            "x1",
            "1:2x",
            "1:2:3",
            " 1",
            "1 ",
            "1\n",
            "0x1",
            "1e3",
            "root",
            "root:root",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "١",
        ] {
            assert_eq!(user(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_capability_has_a_name() {
        for text in ["CAP_KILL", "kill", "cap_kill"] {
            assert_eq!(capability(text).unwrap(), Capability::Kill);
        }
        for text in ["", "CAP_", "CAP_CAP_KILL", "KILL ", "ALL"] {
            assert!(capability(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        /// What is accepted says in its own digits who the process will be.
        #[test]
        fn nobody_becomes_somebody_else(text in "[0-9:+x -]{0,14}") {
            if let Ok(user) = text.parse::<User>() {
                let numbers: Vec<u64> = text.split(':').map(|n| n.parse().unwrap()).collect();
                prop_assert_eq!(numbers[0], u64::from(user.uid));
                prop_assert_eq!(numbers.get(1).copied(), user.gid.map(u64::from));
                prop_assert!(numbers.len() <= 2);
            }
        }

        #[test]
        fn every_pair_of_ids_is_taken_as_it_is(uid in 0..u32::MAX, gid in 0..u32::MAX) {
            let user: User = format!("{uid}:{gid}").parse().unwrap();
            prop_assert_eq!(user, User { uid, gid: Some(gid) });
        }
    }
}
