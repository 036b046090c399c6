//! `linux.memoryPolicy`: the NUMA nodes for the memory of a container (set_mempolicy(2)).

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::{
    LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode,
};
use serde::{Deserialize, Serialize};

use crate::config::cpus::Cpus;

// <linux/mempolicy.h>; libc does not have all of these constants.
const MODES: [(&str, Mode, i32); 7] = [
    ("MPOL_DEFAULT", Mode::MpolDefault, 0),
    ("MPOL_PREFERRED", Mode::MpolPreferred, 1),
    ("MPOL_BIND", Mode::MpolBind, 2),
    ("MPOL_INTERLEAVE", Mode::MpolInterleave, 3),
    ("MPOL_LOCAL", Mode::MpolLocal, 4),
    ("MPOL_PREFERRED_MANY", Mode::MpolPreferredMany, 5),
    ("MPOL_WEIGHTED_INTERLEAVE", Mode::MpolWeightedInterleave, 6),
];
const FLAGS: [(&str, Flag, i32); 3] = [
    ("MPOL_F_NUMA_BALANCING", Flag::MpolFNumaBalancing, 1 << 13),
    ("MPOL_F_RELATIVE_NODES", Flag::MpolFRelativeNodes, 1 << 14),
    ("MPOL_F_STATIC_NODES", Flag::MpolFStaticNodes, 1 << 15),
];

/// Returns the names of the modes and of the flags, for `features`.
pub fn names() -> ([&'static str; 7], [&'static str; 3]) {
    (MODES.map(|(name, ..)| name), FLAGS.map(|(name, ..)| name))
}

/// A policy as set_mempolicy(2) takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// The mode with its flags.
    pub mode: i32,
    /// The nodes as bits, the lowest node first.
    pub nodes: Vec<u64>,
}

impl MemoryPolicy {
    /// Checks a policy of the configuration and converts it.
    ///
    /// # Errors
    /// A policy that the kernel would refuse without saying why (`mpol_new` in mm/mempolicy.c).
    pub fn new(wanted: &LinuxMemoryPolicy) -> Result<Self> {
        let list = wanted.nodes().as_deref().filter(|list| !list.is_empty());
        let nodes = list
            .map(Cpus::parse)
            .transpose()
            .context("linux.memoryPolicy.nodes")?;
        let flags = wanted.flags().as_deref().unwrap_or_default();
        let has = |flag| flags.contains(&flag);
        let relation = has(Flag::MpolFRelativeNodes) || has(Flag::MpolFStaticNodes);
        let both = has(Flag::MpolFRelativeNodes) && has(Flag::MpolFStaticNodes);
        ensure!(
            !both,
            "linux.memoryPolicy.flags: nodes are either relative or static"
        );
        let mode = wanted.mode();
        let balanced = matches!(mode, Mode::MpolBind | Mode::MpolPreferredMany);
        ensure!(
            balanced || !has(Flag::MpolFNumaBalancing),
            "linux.memoryPolicy.flags: MPOL_F_NUMA_BALANCING is not for {mode}"
        );
        match mode {
            Mode::MpolDefault | Mode::MpolLocal => {
                ensure!(
                    nodes.is_none(),
                    "linux.memoryPolicy.nodes: {mode} takes none"
                );
                ensure!(!relation, "linux.memoryPolicy.flags: {mode} has no nodes");
            }
            Mode::MpolPreferred => {
                let known = nodes.is_some() || !relation;
                ensure!(known, "linux.memoryPolicy.flags: there are no nodes");
            }
            _ => ensure!(
                nodes.is_some(),
                "linux.memoryPolicy.nodes: {mode} needs one at least"
            ),
        }
        let number = MODES
            .iter()
            .find(|(_, known, _)| *known == mode)
            .map_or(0, |known| known.2);
        let bits = FLAGS
            .iter()
            .filter(|(_, flag, _)| has(*flag))
            .fold(0, |all, flag| all | flag.2);
        Ok(Self {
            mode: number | bits,
            nodes: nodes.map_or_else(Vec::new, |nodes| nodes.mask().to_vec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Result<MemoryPolicy> {
        MemoryPolicy::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn names_are_those_of_the_specification() {
        for (name, mode, _) in MODES {
            assert_eq!(name, mode.to_string());
        }
        for (name, flag, _) in FLAGS {
            assert_eq!(name, flag.to_string());
        }
    }

    #[test]
    fn a_policy_is_a_mode_with_flags_and_a_mask() {
        let json = r#"{"mode":"MPOL_INTERLEAVE","nodes":"0-3,65","flags":["MPOL_F_STATIC_NODES"]}"#;
        assert_eq!(
            policy(json).unwrap(),
            MemoryPolicy {
                mode: 3 | 1 << 15,
                nodes: vec![15, 2]
            }
        );
        let local = policy(r#"{"mode":"MPOL_LOCAL","nodes":""}"#).unwrap();
        assert_eq!(
            local,
            MemoryPolicy {
                mode: 4,
                nodes: vec![]
            }
        );
        assert_eq!(policy(r#"{"mode":"MPOL_PREFERRED"}"#).unwrap().mode, 1);
    }

    #[test]
    fn what_the_kernel_refuses_is_refused_with_a_reason() {
        for (json, error) in [
            (
                r#"{"mode":"MPOL_BIND"}"#,
                "linux.memoryPolicy.nodes: MPOL_BIND needs one at least",
            ),
            (
                r#"{"mode":"MPOL_LOCAL","nodes":"0"}"#,
                "linux.memoryPolicy.nodes: MPOL_LOCAL takes none",
            ),
            (
                r#"{"mode":"MPOL_BIND","nodes":"0-"}"#,
                r#"linux.memoryPolicy.nodes: "0-": not a number or a range"#,
            ),
            (
                r#"{"mode":"MPOL_PREFERRED","nodes":"0","flags":["MPOL_F_NUMA_BALANCING"]}"#,
                "linux.memoryPolicy.flags: MPOL_F_NUMA_BALANCING is not for MPOL_PREFERRED",
            ),
            (
                r#"{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]}"#,
                "linux.memoryPolicy.flags: nodes are either relative or static",
            ),
        ] {
            assert_eq!(format!("{:#}", policy(json).unwrap_err()), error);
        }
    }
}
