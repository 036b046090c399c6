//! Converts the capability names of the configuration to the five masks of a process.
//!
//! A capability that is unknown or cannot be granted is left out with a warning, as the
//! specification demands. No set is ever wider than configured.

use anyhow::{Result, anyhow};
use oci_spec::runtime::LinuxCapabilities;
use serde::{Deserialize, Serialize};

type Names = Option<oci_spec::runtime::Capabilities>;

/// The five sets; each has one bit for each capability, bit 0 for `CAP_CHOWN`, as in `capset(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The capabilities that no later `execve` can exceed.
    pub bounding: u64,
    /// The capabilities in force; within `permitted`.
    pub effective: u64,
    /// The capabilities that the process may raise.
    pub permitted: u64,
    /// Kept over `execve` together with a file's inheritable set.
    pub inheritable: u64,
    /// Kept over `execve` of an ordinary file; within `permitted` and `inheritable`.
    pub ambient: u64,
}

/// Returns the sets that `process.capabilities` asks for, as far as they can be granted. `held` has
/// the capabilities that this process may give away: its permitted set, or all for a new user
/// namespace. `last_cap` is the number in `/proc/sys/kernel/cap_last_cap`. Without a configuration
/// every set is empty.
pub fn from_spec(
    spec: Option<&LinuxCapabilities>,
    held: u64,
    last_cap: u8,
    warnings: &mut Vec<String>,
) -> Capabilities {
    let Some(spec) = spec else {
        return Capabilities::default();
    };
    let asked = Capabilities {
        bounding: mask(spec.bounding(), warnings),
        effective: mask(spec.effective(), warnings),
        permitted: mask(spec.permitted(), warnings),
        inheritable: mask(spec.inheritable(), warnings),
        ambient: mask(spec.ambient(), warnings),
    };
    grant(asked, held, last_cap, warnings)
}

fn grant(asked: Capabilities, held: u64, last_cap: u8, warnings: &mut Vec<String>) -> Capabilities {
    let known = u64::MAX >> (63 - u32::from(last_cap.min(63)));
    let all =
        asked.bounding | asked.effective | asked.permitted | asked.inheritable | asked.ambient;
    warn("", all & !known, "unknown to this kernel", warnings);
    warn("", all & known & !held, "cannot be granted", warnings);

    let held = held & known;
    let within = |set: &str, asked: u64, limit: u64, reason: &str, warnings: &mut Vec<String>| {
        warn(set, asked & held & !limit, reason, warnings);
        asked & held & limit
    };
    let bounding = asked.bounding & held;
    let permitted = asked.permitted & held;
    // capset(2) answers EPERM to each of these, and the program would then have none of the sets.
    let effective = within(
        ".effective",
        asked.effective,
        permitted,
        "not permitted",
        warnings,
    );
    let inheritable = within(
        ".inheritable",
        asked.inheritable,
        bounding,
        "not in the bounding set",
        warnings,
    );
    // There is no warning here: old versions of `runc spec` wrote ambient capabilities that no
    // kernel accepts, and clients have copied them.
    let ambient = asked.ambient & held & permitted & inheritable;
    Capabilities {
        bounding,
        effective,
        permitted,
        inheritable,
        ambient,
    }
}

fn warn(set: &str, left_out: u64, reason: &str, warnings: &mut Vec<String>) {
    if left_out != 0 {
        let names = names(left_out);
        warnings.push(format!(
            "process.capabilities{set}: {names}: {reason}, left out"
        ));
    }
}

fn mask(names: &Names, warnings: &mut Vec<String>) -> u64 {
    names
        .iter()
        .flatten()
        .fold(0, |mask, name| match bit(&name.to_string()) {
            Ok(bit) => mask | bit,
            Err(error) => {
                warnings.push(format!("process.capabilities: {error}, left out"));
                mask
            }
        })
}

/// Returns the bit of a capability name, in any case and with or without `CAP_`.
///
/// # Errors
/// `unknown capability NAME`.
pub fn bit(name: &str) -> Result<u64> {
    caps::to_canonical(name)
        .parse::<caps::Capability>()
        .map(|capability| capability.bitmask())
        .map_err(|_| anyhow!("unknown capability {name}"))
}

/// Returns the names in a mask in the order of their numbers, for messages. A number without a name
/// becomes `CAP_63` or the like.
pub fn names(mask: u64) -> String {
    let all = caps::all();
    let name = |bit: u8| {
        let known = all.iter().find(|capability| capability.index() == bit);
        known.map_or_else(|| format!("CAP_{bit}"), ToString::to_string)
    };
    let set = (0..64).filter(|bit| mask & (1 << bit) != 0);
    set.map(name).collect::<Vec<_>>().join(", ")
}

/// Returns all capabilities that `rt` knows by name in the order of their numbers, for `features`.
pub fn known() -> Vec<String> {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_by_key(|capability| capability.index());
    all.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: u8 = 40;
    const ALL: u64 = (1 << 41) - 1;
    const CHOWN: u64 = 1;
    const KILL: u64 = 1 << 5;
    const RESOURCE: u64 = 1 << 24;
    const RESTORE: u64 = 1 << 40;

    fn granted(json: &str, held: u64, last_cap: u8) -> (Capabilities, Vec<String>) {
        let spec: LinuxCapabilities = serde_json::from_str(json).unwrap();
        let mut warnings = Vec::new();
        (
            from_spec(Some(&spec), held, last_cap, &mut warnings),
            warnings,
        )
    }

    #[test]
    fn nothing_configured_is_nothing_held() {
        let mut warnings = Vec::new();
        assert_eq!(
            from_spec(None, ALL, LAST, &mut warnings),
            Capabilities::default()
        );
        assert_eq!(granted("{}", ALL, LAST).0, Capabilities::default());
        assert!(warnings.is_empty());
    }

    #[test]
    fn every_set_is_its_own() {
        let json = r#"{"bounding":["CAP_CHOWN","CAP_KILL"],"permitted":["CAP_CHOWN","CAP_KILL"],
            "effective":["CAP_CHOWN"],"inheritable":["CAP_KILL"],"ambient":["CAP_KILL"]}"#;
        let (sets, warnings) = granted(json, ALL, LAST);
        assert_eq!(sets.bounding, CHOWN | KILL);
        assert_eq!(sets.permitted, CHOWN | KILL);
        assert_eq!(sets.effective, CHOWN);
        assert_eq!(sets.inheritable, KILL);
        assert_eq!(sets.ambient, KILL);
        assert_eq!(warnings, [""; 0]);
    }

    #[test]
    fn what_cannot_be_granted_is_left_out_with_a_warning() {
        let json = r#"{"bounding":["CAP_SYS_RESOURCE","CAP_KILL","CAP_CHECKPOINT_RESTORE"],
            "permitted":["CAP_SYS_RESOURCE","CAP_KILL"],"effective":["CAP_SYS_RESOURCE","CAP_KILL"]}"#;
        let (sets, warnings) = granted(json, ALL & !RESOURCE, 39);
        assert_eq!(
            (sets.bounding, sets.permitted, sets.effective),
            (KILL, KILL, KILL)
        );
        assert_eq!(
            warnings,
            [
                "process.capabilities: CAP_CHECKPOINT_RESTORE: unknown to this kernel, left out",
                "process.capabilities: CAP_SYS_RESOURCE: cannot be granted, left out",
            ]
        );
    }

    #[test]
    fn sets_stay_within_each_other() {
        let json = r#"{"permitted":["CAP_KILL"],"effective":["CAP_KILL","CAP_CHOWN"],
            "inheritable":["CAP_CHOWN"],"ambient":["CAP_KILL"]}"#;
        let (sets, warnings) = granted(json, ALL, LAST);
        assert_eq!(
            (sets.effective, sets.inheritable, sets.ambient),
            (KILL, 0, 0)
        );
        assert_eq!(
            warnings,
            [
                "process.capabilities.effective: CAP_CHOWN: not permitted, left out",
                "process.capabilities.inheritable: CAP_CHOWN: not in the bounding set, left out",
            ]
        );
    }

    #[test]
    fn names_and_bits_agree() {
        assert_eq!(known().len(), 41);
        for (number, name) in known().iter().enumerate() {
            assert_eq!(bit(name).unwrap(), 1 << number, "{name}");
            assert_eq!(names(1 << number), *name);
        }
        assert_eq!(bit("kill").unwrap(), KILL);
        assert_eq!(bit("CAP_CHECKPOINT_RESTORE").unwrap(), RESTORE);
        assert_eq!(
            bit("CAP_NO_SUCH").unwrap_err().to_string(),
            "unknown capability CAP_NO_SUCH"
        );
        assert_eq!(names(1 << 63 | 1), "CAP_CHOWN, CAP_63");
        let (sets, warnings) = granted("{\"bounding\":[\"CAP_CHOWN\"]}", u64::MAX, 255);
        assert_eq!((sets.bounding, warnings.len()), (CHOWN, 0));
    }

    #[test]
    fn every_name_of_the_configuration_is_known() {
        let names = serde_json::to_string(&known()).unwrap();
        let (sets, warnings) = granted(&format!("{{\"bounding\":{names}}}"), ALL, LAST);
        assert_eq!((sets.bounding, warnings.len()), (ALL, 0));
    }
}
