//! Compiles `linux.seccomp`: a profile becomes a program for the kernel (seccomp(2)) before the
//! fork.
//!
//! One program serves every architecture of the profile, with a balanced search through the numbers
//! of its calls. Where the specification leaves something open, the program does what that of
//! libseccomp does under runc and crun, since profiles have been tried with these:
//!
//! - A rule without conditions wins over those with conditions for the same call. Of several rules
//!   without conditions the first one in the profile counts.
//! - A rule whose action is the default action is ignored.
//! - On 32-bit architectures only the lower halves of constants count.
//! - The native architecture is always included. Calls of an architecture that is not included end
//!   the process.
//! - Names that are unknown here are ignored. A name that no architecture has gets a warning.

pub mod agent;
mod bpf;
mod calls;
mod evaluate;
mod rules;
#[cfg(test)]
mod tests;
pub mod wait;

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
pub const ACTIONS: [LinuxSeccompAction; 9] = [
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

/// Every operator, in the order of the specification.
pub const OPERATORS: [LinuxSeccompOperator; 7] = [
    LinuxSeccompOperator::ScmpCmpNe,
    LinuxSeccompOperator::ScmpCmpLt,
    LinuxSeccompOperator::ScmpCmpLe,
    LinuxSeccompOperator::ScmpCmpEq,
    LinuxSeccompOperator::ScmpCmpGe,
    LinuxSeccompOperator::ScmpCmpGt,
    LinuxSeccompOperator::ScmpCmpMaskedEq,
];

/// The flags of the specification, and the bits of seccomp(2) for them.
pub const FLAGS: [(LinuxSeccompFilterFlag, u64); 4] = [
    // No bit is needed: there is only one thread to synchronise.
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

/// The longest program that the kernel accepts (`BPF_MAXINSNS`), in instructions.
const LONGEST: usize = libc::BPF_MAXINSNS as usize;

/// A filter as seccomp(2) takes it.
#[derive(Debug)]
pub struct SeccompFilter {
    pub program: Vec<sock_filter>,
    pub terms: FilterTerms,
}

/// What a filter has beside its program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FilterTerms {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
}

/// Returns the architectures whose calls this kernel can serve, the native one first.
pub fn architectures() -> impl Iterator<Item = Arch> {
    family().iter().map(|abi| abi.arch)
}

/// Returns the flags that this kernel knows.
pub fn supported_flags() -> impl Iterator<Item = LinuxSeccompFilterFlag> {
    // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is valid only together with a listener.
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
    /// Compiles a profile that has passed the checks of `config`.
    ///
    /// # Errors
    /// The kernel would refuse the program or a flag, no agent listens, or `rt` does not know the
    /// system calls of this architecture.
    pub fn compile(seccomp: &LinuxSeccomp) -> Result<Self> {
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
        let agent = notifies(seccomp)
            .then(|| Agent::from_spec(seccomp))
            .flatten();
        agent.as_ref().map(Agent::probe).transpose()?;
        Ok(Self {
            program,
            terms: FilterTerms { flags, agent },
        })
    }

    /// Whether an agent is asked about system calls.
    pub fn has_listener(&self) -> bool {
        self.terms.flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0
    }

    /// Returns the program in the kernel's byte format.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = |step: &sock_filter| {
            let [a, b] = step.code.to_ne_bytes();
            let [c, d, e, f] = step.k.to_ne_bytes();
            [a, b, step.jt, step.jf, c, d, e, f]
        };
        self.program.iter().flat_map(bytes).collect()
    }

    /// Returns the filter with a program from [`Self::to_bytes`].
    ///
    /// # Errors
    /// The bytes are not those of a program.
    pub fn from_bytes(bytes: &[u8], terms: FilterTerms) -> Result<Self> {
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

/// Whether some architecture has a system call of that name.
pub fn is_call(name: &str) -> bool {
    calls::find_call(name).is_some() || calls::is_elsewhere(name)
}

/// Whether the profile asks an agent about system calls.
pub fn notifies(seccomp: &LinuxSeccomp) -> bool {
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
        // runc and crun set this flag if the configuration has no list of flags.
        None => &[LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow],
    };
    let known = FLAGS.iter().filter(|(flag, _)| asked.contains(flag));
    let flags = known.fold(0, |all, (_, bit)| all | bit);
    match notifies(seccomp) {
        true => flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
        // No call waits for an answer, so the kernel would refuse this flag.
        false => flags & !libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    }
}

/// Returns the program for those architectures of the profile that are in `family`. Calls of others
/// never reach this kernel.
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
        // Calls are allowed, or something else decides about them, so a new call needs no special
        // answer.
        ScmpActAllow | ScmpActLog | ScmpActTrace | ScmpActNotify => default,
        // As in runc: programs fall back to older calls after ENOSYS, but not after EPERM.
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
                .filter_map(|name| calls::find_call(name))
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

/// Returns a warning for each name that is no system call of any architecture: it is misspelt, and
/// its rule has no effect.
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
