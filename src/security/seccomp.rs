//! `linux.seccomp`: a profile becomes a program of the kernel's (seccomp(2)) before the fork.
//!
//! One program serves every architecture of the profile, with a balanced search through the
//! numbers of its calls. Where the specification leaves something open it means what libseccomp
//! makes of it under runc and crun, since that is what profiles were tried with:
//!
//! - A rule without conditions wins over those with conditions for the same call; of several such
//!   rules the first one in the profile counts.
//! - A rule that does what happens by default anyway does not exist.
//! - On 32-bit architectures the lower halves of constants count.
//! - The native architecture is always part of it; calls of one that is not end the process.
//! - Names that are unknown here are no calls of this kernel either. A name that no architecture
//!   has gets a warning.

pub(crate) mod agent;
mod bpf;
mod calls;
mod evaluate;
mod rules;
#[cfg(test)]
mod tests;
pub(crate) mod wait;

use anyhow::{Result, ensure};
use libc::sock_filter;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};
use serde::{Deserialize, Serialize};

use crate::{log, sys};

use agent::Agent;
use rules::{ProfileEntry, SeccompProfile, SyscallAbi};

/// Every action, in the order of the specification.
pub(crate) const ACTIONS: [LinuxSeccompAction; 9] = [
    LinuxSeccompAction::ScmpActKill,
    LinuxSeccompAction::ScmpActKillProcess,
    LinuxSeccompAction::ScmpActKillThread,
    LinuxSeccompAction::ScmpActTrap,
    LinuxSeccompAction::ScmpActErrno,
    LinuxSeccompAction::ScmpActTrace,
    LinuxSeccompAction::ScmpActAllow,
    LinuxSeccompAction::ScmpActLog,
    LinuxSeccompAction::ScmpActNotify,
];

/// Every operator, in the same order.
pub(crate) const OPERATORS: [LinuxSeccompOperator; 7] = [
    LinuxSeccompOperator::ScmpCmpNe,
    LinuxSeccompOperator::ScmpCmpLt,
    LinuxSeccompOperator::ScmpCmpLe,
    LinuxSeccompOperator::ScmpCmpEq,
    LinuxSeccompOperator::ScmpCmpGe,
    LinuxSeccompOperator::ScmpCmpGt,
    LinuxSeccompOperator::ScmpCmpMaskedEq,
];

/// The flags and what seccomp(2) has for them.
pub(crate) const FLAGS: [(LinuxSeccompFilterFlag, u64); 4] = [
    // There is but one thread to synchronise.
    (LinuxSeccompFilterFlag::SeccompFilterFlagTsync, 0),
    (
        LinuxSeccompFilterFlag::SeccompFilterFlagLog,
        libc::SECCOMP_FILTER_FLAG_LOG,
    ),
    (
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow,
        libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    ),
    (
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv,
        libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    ),
];

/// The longest program that the kernel takes (`BPF_MAXINSNS`), in instructions.
const LONGEST: usize = libc::BPF_MAXINSNS as usize;

/// A filter as seccomp(2) takes it.
#[derive(Debug)]
pub(crate) struct SeccompFilter {
    pub(crate) program: Vec<sock_filter>,
    pub(crate) terms: FilterTerms,
}

/// What belongs to a filter beside the program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FilterTerms {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(crate) flags: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<Agent>,
}

/// The architectures whose calls this kind of kernel takes, its own first.
pub(crate) fn architectures() -> impl Iterator<Item = Arch> {
    family().iter().map(|abi| abi.arch)
}

/// The flags that this kernel knows.
pub(crate) fn supported_flags() -> impl Iterator<Item = LinuxSeccompFilterFlag> {
    // One of them is good for nothing without a listener.
    let known = |bit| sys::knows_filter_flags(bit | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    FLAGS
        .into_iter()
        .filter(move |(_, bit)| known(*bit))
        .map(|(flag, _)| flag)
}

fn family() -> &'static [SyscallAbi] {
    match std::env::consts::ARCH {
        "x86_64" => &rules::X86,
        "aarch64" => &rules::ARM,
        _ => &[],
    }
}

impl SeccompFilter {
    /// Compiles a profile that has passed the checks of `spec`.
    ///
    /// # Errors
    /// The kernel would not take the program or a flag, nobody listens where the agent should, or
    /// `rt` knows nothing of this machine's calls.
    pub(crate) fn compile(seccomp: &LinuxSeccomp) -> Result<Self> {
        ensure!(
            !family().is_empty(),
            "linux.seccomp: not supported on this architecture"
        );
        unknown(seccomp).iter().for_each(log::warn);
        let program = program(family(), seccomp);
        let length = program.len();
        ensure!(
            length <= LONGEST,
            "linux.seccomp: {length} instructions, of at most {LONGEST}"
        );
        let flags = flags(seccomp);
        ensure!(
            sys::knows_filter_flags(flags),
            "linux.seccomp.flags: not known to this kernel"
        );
        let agent = notifies(seccomp).then(|| Agent::of(seccomp)).flatten();
        agent.as_ref().map(Agent::probe).transpose()?;
        Ok(Self {
            program,
            terms: FilterTerms { flags, agent },
        })
    }

    /// Whether an agent is asked about calls.
    pub(crate) fn has_listener(&self) -> bool {
        self.terms.flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0
    }

    /// The program as the kernel has it in memory.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let bytes = |step: &sock_filter| {
            let [a, b] = step.code.to_ne_bytes();
            let [c, d, e, f] = step.k.to_ne_bytes();
            [a, b, step.jt, step.jf, c, d, e, f]
        };
        self.program.iter().flat_map(bytes).collect()
    }

    /// The filter with the program that [`Self::to_bytes`] gave.
    ///
    /// # Errors
    /// The bytes are not those of a program.
    pub(crate) fn from_bytes(bytes: &[u8], terms: FilterTerms) -> Result<Self> {
        let (steps, rest) = bytes.as_chunks::<8>();
        ensure!(!steps.is_empty() && rest.is_empty(), "cut off");
        let step = |&[a, b, jt, jf, c, d, e, f]: &[u8; 8]| sock_filter {
            code: u16::from_ne_bytes([a, b]),
            jt,
            jf,
            k: u32::from_ne_bytes([c, d, e, f]),
        };
        Ok(Self {
            program: steps.iter().map(step).collect(),
            terms,
        })
    }
}

/// Whether some architecture has a call of that name.
pub(crate) fn is_call(name: &str) -> bool {
    calls::find(name).is_some() || calls::is_elsewhere(name)
}

/// Whether the profile asks an agent about calls.
pub(crate) fn notifies(seccomp: &LinuxSeccomp) -> bool {
    let actions = seccomp
        .syscalls()
        .iter()
        .flatten()
        .map(|entry| entry.action());
    std::iter::once(seccomp.default_action())
        .chain(actions)
        .any(|action| action == LinuxSeccompAction::ScmpActNotify)
}

fn flags(seccomp: &LinuxSeccomp) -> u64 {
    let asked = match seccomp.flags() {
        Some(flags) => flags.as_slice(),
        // As runc and crun do.
        None => &[LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow],
    };
    let known = FLAGS.iter().filter(|(flag, _)| asked.contains(flag));
    let flags = known.fold(0, |all, (_, bit)| all | bit);
    match notifies(seccomp) {
        true => flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
        // Nobody waits for an answer; the kernel refuses the flag then.
        false => flags & !libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    }
}

/// The program for the architectures of the profile that `family` has. Others never call this
/// kernel.
fn program(family: &[SyscallAbi], seccomp: &LinuxSeccomp) -> Vec<sock_filter> {
    let native = family.first().map(|abi| abi.arch);
    let asked = seccomp.architectures().as_deref().unwrap_or_default();
    let wanted = |abi: &&SyscallAbi| Some(abi.arch) == native || asked.contains(&abi.arch);
    let abis: Vec<SyscallAbi> = family.iter().filter(wanted).copied().collect();
    profile(seccomp).program(&abis)
}

fn profile(seccomp: &LinuxSeccomp) -> SeccompProfile {
    use LinuxSeccompAction::{ScmpActAllow, ScmpActLog, ScmpActNotify, ScmpActTrace};
    let default = seccomp.default_action().as_u32(seccomp.default_errno_ret());
    let newer = match seccomp.default_action() {
        // Allowed, or somebody else is to judge: a new call is nothing special.
        ScmpActAllow | ScmpActLog | ScmpActTrace | ScmpActNotify => default,
        // As with runc: programs fall back to older calls after ENOSYS, and to nothing after EPERM.
        _ => LinuxSeccompAction::ScmpActErrno.as_u32(Some(libc::ENOSYS as u32)),
    };
    let entries = seccomp
        .syscalls()
        .iter()
        .flatten()
        .map(|entry| ProfileEntry {
            calls: entry
                .names()
                .iter()
                .filter_map(|name| calls::find(name))
                .collect(),
            action: entry.action().as_u32(entry.errno_ret()),
            alternatives: rules::alternatives(entry.args().as_deref().unwrap_or_default()),
        });
    SeccompProfile {
        default,
        newer,
        entries: entries.collect(),
    }
}

/// A warning for each name that is no system call of any architecture: it is misspelt, and what the
/// rule was to do is not done.
fn unknown(seccomp: &LinuxSeccomp) -> Vec<String> {
    let mut warnings = Vec::new();
    for (i, entry) in seccomp.syscalls().iter().flatten().enumerate() {
        let names = entry.names().iter().enumerate();
        let unknown = names.filter(|(_, name)| !is_call(name));
        warnings.extend(unknown.map(|(j, name)| {
            format!("linux.seccomp.syscalls[{i}].names[{j}]: no system call {name:?}, left out")
        }));
    }
    warnings
}
