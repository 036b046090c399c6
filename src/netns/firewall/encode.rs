//! Tables, sets, chains and rules in the form that nf_tables understands: attributes of
//! `<linux/netfilter/nf_tables.h>`, and types of sets as nft(8) records them for itself.

use crate::netlink::{APPEND, CREATE, NetlinkMessage};

// Message types: the low byte; the high byte is the number of the subsystem.
pub(super) const NEWTABLE: u8 = 0;
pub(super) const DELTABLE: u8 = 2;
pub(super) const NEWCHAIN: u8 = 3;
pub(super) const GETCHAIN: u8 = 4;
pub(super) const NEWRULE: u8 = 6;
pub(super) const GETRULE: u8 = 7;
pub(super) const DELRULE: u8 = 8;
pub(super) const NEWSET: u8 = 9;
pub(super) const NEWSETELEM: u8 = 12;
pub(super) const DELSETELEM: u8 = 14;

const SUBSYSTEM: u16 = 10;
const LIST_ELEM: u16 = 1;
const NFT_SET_MAP: u32 = 8;

/// NFPROTO_* of `<linux/netfilter.h>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NftFamily(pub(super) u8);

pub(super) const INET: NftFamily = NftFamily(1);
pub(super) const IPV4: NftFamily = NftFamily(2);
pub(super) const BRIDGE: NftFamily = NftFamily(7);
pub(super) const IPV6: NftFamily = NftFamily(10);

/// A message of the nf_tables subsystem.
pub(super) fn message(kind: u8, flags: u16, family: NftFamily) -> NetlinkMessage {
    NetlinkMessage::new(
        SUBSYSTEM << 8 | u16::from(kind),
        flags,
        &[family.0, 0, 0, 0],
    )
}

pub(super) fn table(kind: u8, family: NftFamily, name: &str) -> NetlinkMessage {
    let mut message = message(kind, if kind == NEWTABLE { CREATE } else { 0 }, family);
    message.string(1, name);
    message
}

/// A field of a set's key or of a map's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NftField {
    Ip,
    Ip6,
    Protocol,
    Port,
    Interface,
}

impl NftField {
    /// Returns the number that nft(8) has for the type, so that it can print sets which it did not
    /// make.
    fn number(self) -> u32 {
        match self {
            Self::Ip => 7,
            Self::Ip6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Interface => 41,
        }
    }

    /// Returns the length in bytes. In a concatenation a field takes whole words of 4 bytes.
    fn length(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Ip => 4,
            Self::Ip6 | Self::Interface => 16,
        }
    }

    fn type_of(fields: &[Self]) -> (u32, u32) {
        match fields {
            [one] => (one.number(), one.length()),
            many => many.iter().fold((0, 0), |(number, length), field| {
                (
                    number << 6 | field.number(),
                    length + field.length().next_multiple_of(4),
                )
            }),
        }
    }
}

/// A set, or with a value a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct NftSet {
    pub(super) family: NftFamily,
    pub(super) name: &'static str,
    pub(super) key: &'static [NftField],
    pub(super) value: &'static [NftField],
}

impl NftSet {
    pub(super) fn create(&self, table: &str, id: u32) -> NetlinkMessage {
        let mut message = message(NEWSET, CREATE, self.family);
        let (number, length) = NftField::type_of(self.key);
        message.string(1, table).string(2, self.name);
        message.be32(
            3,
            if self.value.is_empty() {
                0
            } else {
                NFT_SET_MAP
            },
        );
        message.be32(4, number).be32(5, length);
        if !self.value.is_empty() {
            let (number, length) = NftField::type_of(self.value);
            message.be32(6, number).be32(7, length);
        }
        message.be32(10, id);
        if self.key.contains(&NftField::Interface) {
            // Tells nft(8) that the byte order is the host's; it takes names for big-endian numbers
            // otherwise.
            message.bytes(13, &[0, 4, 1, 0, 0, 0]);
        }
        message
    }

    /// Returns a message about elements. No element at all means every element of the set.
    pub(super) fn elements(
        &self,
        kind: u8,
        table: &str,
        elements: &[&NftElement],
    ) -> NetlinkMessage {
        let flags = if kind == NEWSETELEM { CREATE } else { 0 };
        let mut message = message(kind, flags, self.family);
        message.string(1, table).string(2, self.name);
        if elements.is_empty() {
            return message;
        }
        message.nest(3, |m| {
            for element in elements {
                m.nest(LIST_ELEM, |m| {
                    m.nest(1, |m| {
                        m.bytes(1, &element.key);
                    });
                    if !element.value.is_empty() && kind == NEWSETELEM {
                        m.nest(2, |m| {
                            m.bytes(1, &element.value);
                        });
                    }
                });
            }
        });
        message
    }
}

/// An element of the set named `set`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NftElement {
    pub(super) set: &'static str,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// Joins the fields, each padded to whole words if there are several.
pub(super) fn concat(fields: &[&[u8]]) -> Vec<u8> {
    match fields {
        [one] => one.to_vec(),
        many => many.iter().fold(Vec::new(), |mut all, field| {
            all.extend_from_slice(field);
            all.resize(all.len().next_multiple_of(4), 0);
            all
        }),
    }
}

/// Returns the name of an interface in the form in which the kernel compares it.
pub(super) fn interface(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

/// Where a base chain is attached: type, hook number, priority.
#[derive(Clone, Copy, Debug)]
pub(super) struct NftHook(pub(super) &'static str, pub(super) u32, pub(super) i32);

pub(super) fn chain(
    family: NftFamily,
    table: &str,
    name: &str,
    hook: Option<NftHook>,
) -> NetlinkMessage {
    let mut message = message(NEWCHAIN, CREATE, family);
    message.string(1, table).string(3, name);
    if let Some(NftHook(kind, number, priority)) = hook {
        message.nest(4, |m| {
            m.be32(1, number).be32(2, priority as u32);
        });
        message.be32(5, 1).string(7, kind);
    }
    message
}

/// The verdict that a rule ends with.
#[derive(Clone, Copy, Debug)]
pub(super) enum NftVerdict {
    Accept,
    Drop,
    Return,
    Jump(&'static str),
    Goto(&'static str),
}

// Registers of 16 bytes. Each consists of four words, and the words are numbered from 8.
pub(super) const R1: u32 = 1;
pub(super) const R2: u32 = 2;
pub(super) const WORD: u32 = 8;

/// The key of `meta` for the incoming interface; the other keys follow, then the headers that
/// `payload` reads from.
pub(super) const IIFNAME: u32 = 6;
pub(super) const OIFNAME: u32 = 7;
pub(super) const NFPROTO: u32 = 15;
pub(super) const L4PROTO: u32 = 16;
pub(super) const LINK: u32 = 0;
pub(super) const NETWORK: u32 = 1;
pub(super) const TRANSPORT: u32 = 2;

/// The expressions of a rule, in the order of evaluation.
#[derive(Clone, Debug, Default)]
pub(super) struct NftRule(Vec<(&'static str, Vec<u8>)>);

impl NftRule {
    pub(super) fn push(
        mut self,
        name: &'static str,
        fill: impl FnOnce(&mut NetlinkMessage),
    ) -> Self {
        let mut data = NetlinkMessage::new(0, 0, &[]);
        fill(&mut data);
        self.0.push((name, data.body().to_vec()));
        self
    }

    pub(super) fn meta(self, key: u32, register: u32) -> Self {
        self.push("meta", |m| {
            m.be32(1, register).be32(2, key);
        })
    }

    pub(super) fn cmp(self, register: u32, equal: bool, value: &[u8]) -> Self {
        self.push("cmp", |m| {
            m.be32(1, register).be32(2, u32::from(!equal)).nest(3, |m| {
                m.bytes(1, value);
            });
        })
    }

    pub(super) fn payload(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        self.push("payload", |m| {
            m.be32(1, register)
                .be32(2, base)
                .be32(3, offset)
                .be32(4, length);
        })
    }

    pub(super) fn mask(self, register: u32, mask: &[u8]) -> Self {
        let zero = vec![0; mask.len()];
        self.push("bitwise", |m| {
            m.be32(1, register)
                .be32(2, register)
                .be32(3, mask.len() as u32);
            m.nest(4, |m| {
                m.bytes(1, mask);
            });
            m.nest(5, |m| {
                m.bytes(1, &zero);
            });
        })
    }

    pub(super) fn interface(self, key: u32, set: &str) -> Self {
        self.meta(key, R1).lookup(set, false)
    }

    pub(super) fn not_interface(self, key: u32, set: &str) -> Self {
        self.meta(key, R1).lookup(set, true)
    }

    /// Matches if the pair of the incoming and the outgoing interface is in `set`.
    pub(super) fn pair(self, set: &str) -> Self {
        self.meta(IIFNAME, R1).meta(OIFNAME, R2).lookup(set, false)
    }

    pub(super) fn lookup(self, set: &str, invert: bool) -> Self {
        self.push("lookup", |m| {
            m.string(1, set).be32(2, R1);
            if invert {
                m.be32(5, 1);
            }
        })
    }

    pub(super) fn masquerade(self) -> Self {
        self.push("masq", |_| {})
    }

    pub(super) fn counter(self) -> Self {
        self.push("counter", |m| {
            m.bytes(1, &[0; 8]).bytes(2, &[0; 8]);
        })
    }

    pub(super) fn verdict(self, verdict: NftVerdict) -> Self {
        let (code, chain) = match verdict {
            NftVerdict::Drop => (0, None),
            NftVerdict::Accept => (1, None),
            NftVerdict::Jump(chain) => (-3, Some(chain)),
            NftVerdict::Goto(chain) => (-4, Some(chain)),
            NftVerdict::Return => (-5, None),
        };
        self.push("immediate", |m| {
            m.be32(1, 0).nest(2, |m| {
                m.nest(2, |m| {
                    m.be32(1, code as u32);
                    if let Some(chain) = chain {
                        m.string(2, chain);
                    }
                });
            });
        })
    }

    /// Returns a message that adds the rule at the end of its chain, or with a comment at its
    /// beginning.
    pub(super) fn create(
        &self,
        family: NftFamily,
        table: &str,
        chain: &str,
        comment: Option<&str>,
    ) -> NetlinkMessage {
        let flags = if comment.is_some() {
            CREATE
        } else {
            CREATE | APPEND
        };
        let mut message = message(NEWRULE, flags, family);
        message.string(1, table).string(2, chain).nest(4, |m| {
            for (name, data) in &self.0 {
                m.nest(LIST_ELEM, |m| {
                    m.string(1, name).nest(2, |m| {
                        m.raw(data);
                    });
                });
            }
        });
        if let Some(comment) = comment {
            // libnftnl's record of a comment: type 0, length, text with its final zero.
            let mut data = vec![0, comment.len() as u8 + 1];
            data.extend_from_slice(comment.as_bytes());
            data.push(0);
            message.bytes(7, &data);
        }
        message
    }
}
