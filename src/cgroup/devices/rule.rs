//! A device rule, and the set of devices that it is for.

use std::fmt::{self, Display, Formatter};

use anyhow::{Result, bail};

// The bits of `BPF_DEVCG_ACC_*`.
pub(super) const MKNOD: u8 = 1;
pub(super) const READ: u8 = 2;
pub(super) const WRITE: u8 = 4;
pub(super) const ALL: u8 = MKNOD | READ | WRITE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceKind {
    Block,
    Char,
}

/// A set of devices and accesses to them; no number means every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Devices {
    pub(super) kind: DeviceKind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: u8,
}

/// Allows or denies access to a set of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    pub(super) allow: bool,
    /// None stands for every access to every device.
    pub(super) devices: Option<Devices>,
    /// The index in the configuration, or None for a default rule.
    pub(super) index: Option<usize>,
}

pub(super) fn access(text: &str) -> Result<u8> {
    if text.is_empty() {
        bail!("access: missing");
    }
    text.chars().try_fold(0, |bits, letter| match letter {
        'r' => Ok(bits | READ),
        'w' => Ok(bits | WRITE),
        'm' => Ok(bits | MKNOD),
        _ => bail!("access: `{letter}` is none of r, w, m"),
    })
}

/// Writes the notation of `devices.allow` and `devices.list`.
impl Display for Devices {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        let kind = if self.kind == DeviceKind::Char {
            'c'
        } else {
            'b'
        };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        for (bit, letter) in [(READ, "r"), (WRITE, "w"), (MKNOD, "m")] {
            f.write_str(if self.access & bit == 0 { "" } else { letter })?;
        }
        Ok(())
    }
}

impl Devices {
    /// Parses the notation of `devices.list`. Returns None for `a *:* rwm`, which stands for every
    /// device.
    pub(super) fn read(line: &str) -> Option<Self> {
        let mut parts = line.split([' ', ':']);
        let kind = match parts.next()? {
            "c" => DeviceKind::Char,
            "b" => DeviceKind::Block,
            _ => return None,
        };
        let mut number = || match parts.next()? {
            "*" => Some(None),
            digits => digits.parse().ok().map(Some),
        };
        let (major, minor) = (number()?, number()?);
        Some(Self {
            kind,
            major,
            minor,
            access: access(parts.next()?).ok()?,
        })
    }

    pub(super) fn same_numbers(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let both = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind
            && both(self.major, other.major)
            && both(self.minor, other.minor)
            && self.access & other.access != 0
    }

    /// Whether every device of `other` is in this set; accesses are not compared.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.kind == other.kind
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
    }
}
