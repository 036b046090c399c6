//! Clients of the helper, and the kinds of work that it does for them. Pure.

use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

/// The kinds of work that have a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WorkKind {
    /// A question over UDP that another server has been asked.
    UdpQuery,
    /// A connection to the resolver.
    TcpQuery,
    /// A UDP client of a published port that has not yet sent anything after an answer: its address
    /// may be forged.
    FirstDatagrams,
    /// A UDP client of a published port that has sent something after an answer.
    UdpFlow,
    /// A connection to a published port.
    Relay,
}

/// All kinds.
pub(super) const KINDS: [WorkKind; 5] = [
    WorkKind::UdpQuery,
    WorkKind::TcpQuery,
    WorkKind::FirstDatagrams,
    WorkKind::UdpFlow,
    WorkKind::Relay,
];

/// What counts as one client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClientAddress {
    /// A container of the network, whichever of its addresses it uses.
    Member(Rc<str>),
    /// An IPv4 address, or an IPv6 prefix of 64 bits, since one host can use a whole prefix.
    Address(IpAddr),
}

impl ClientAddress {
    pub(super) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_64_bit_prefix_are_one_client() {
        let at = |text: &str| ClientAddress::at(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:0:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }
}
