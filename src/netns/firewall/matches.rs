//! The conditions of rules: headers, connections and routes of a packet. Each method appends
//! expressions of nf_tables that continue with the next one only if the packet matches.

use super::encode::{
    IIFNAME, IPV6, L4PROTO, LINK, NETWORK, NFPROTO, NftFamily, NftRule, OIFNAME, R1, R2, TRANSPORT,
    WORD,
};

// `<linux/netfilter/nf_tables.h>`: what `fib` is asked about, and for.
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const FIB_INPUT: u32 = 8;
/// The result is only whether there is such a route: 1 or 0.
const FIB_PRESENT: u32 = 32;
const FIB_INTERFACE: u32 = 1;
const FIB_TYPE: u32 = 3;
/// The type of a route to an address of the host, of `<linux/rtnetlink.h>`.
const RTN_LOCAL: [u8; 4] = 2_u32.to_ne_bytes();
/// IPv4, ARP, IPv6.
const ETHER_TYPES: [u16; 3] = [0x0800, 0x0806, 0x86dd];
const LOOPBACK6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

impl NftRule {
    fn ct(self, key: u32, bits: u32) -> Self {
        self.push("ct", |m| {
            m.be32(1, R1).be32(2, key);
        })
        .mask(R1, &bits.to_ne_bytes())
        .cmp(R1, false, &[0; 4])
    }

    /// Matches a packet of a known connection, or of one that is related to a known one.
    pub(super) fn established(self) -> Self {
        self.ct(0, 2 | 4)
    }

    /// Matches a packet of a known or related connection, written as iptables writes it: `-m
    /// conntrack --ctstate RELATED,ESTABLISHED`, revision 3 of `<linux/netfilter/xt_conntrack.h>`.
    pub(super) fn established_match(self) -> Self {
        let mut info = [0; 168];
        // match_flags: the state; state_mask: bit 1 is ESTABLISHED, bit 2 RELATED.
        info[146..148].copy_from_slice(&1_u16.to_ne_bytes());
        info[150..152].copy_from_slice(&6_u16.to_ne_bytes());
        self.push("match", |m| {
            m.string(1, "conntrack").be32(2, 3).bytes(3, &info);
        })
    }

    /// Matches a packet of a connection whose destination was translated.
    pub(super) fn translated(self) -> Self {
        self.ct(2, 0x20)
    }

    /// Matches an answer in a connection that somebody on the other side of the interface began.
    pub(super) fn answer(self) -> Self {
        let established = self.ct(0, 2);
        // The direction, which is 1 for answers, takes one byte.
        let direction = established.push("ct", |m| {
            m.be32(1, R1).be32(2, 1);
        });
        direction.cmp(R1, true, &[1])
    }

    /// Asks the routing table: `flags` select what it is asked about, `result` what is to be known.
    fn fib(self, result: u32, flags: u32) -> Self {
        self.push("fib", |m| {
            m.be32(1, R1).be32(2, result).be32(3, flags);
        })
    }

    /// Matches a packet to an address of this host.
    pub(super) fn for_this_host(self) -> Self {
        self.fib(FIB_TYPE, FIB_DESTINATION)
            .cmp(R1, true, &RTN_LOCAL)
    }

    /// Matches a packet whose source is an address of this host.
    pub(super) fn source_is_local(self) -> Self {
        self.fib(FIB_TYPE, FIB_SOURCE).cmp(R1, true, &RTN_LOCAL)
    }

    /// Matches a packet whose source is an address of the interface that it came in by.
    pub(super) fn source_is_of_interface(self) -> Self {
        self.fib(FIB_TYPE, FIB_SOURCE | FIB_INPUT)
            .cmp(R1, true, &RTN_LOCAL)
    }

    /// Matches an IPv6 source that is not link-local: hosts on different links may have the same
    /// link-local address.
    pub(super) fn not_link_local(self) -> Self {
        let prefix = self.payload(NETWORK, 8, 2, R1).mask(R1, &[0xff, 0xc0]);
        prefix.cmp(R1, false, &[0xfe, 0x80])
    }

    /// Matches a packet from a source to which the host has no route through the interface that
    /// the packet came in by.
    pub(super) fn source_is_elsewhere(self) -> Self {
        self.fib(FIB_INTERFACE, FIB_SOURCE | FIB_INPUT | FIB_PRESENT)
            .cmp(R1, true, &[0; 4])
    }

    /// Matches if the pair of the incoming interface and the destination is in `set`, or with
    /// `invert` if it is not.
    pub(super) fn at_interface(self, family: NftFamily, set: &str, invert: bool) -> Self {
        let rule = match family {
            IPV6 => self.ipv6().payload(NETWORK, 24, 16, R2),
            _ => self.ipv4().payload(NETWORK, 16, 4, R2),
        };
        rule.meta(IIFNAME, R1).lookup(set, invert)
    }

    pub(super) fn ipv4(self) -> Self {
        self.meta(NFPROTO, R1).cmp(R1, true, &[2])
    }

    pub(super) fn ipv6(self) -> Self {
        self.meta(NFPROTO, R1).cmp(R1, true, &[10])
    }

    /// Matches every protocol but IPv4, ARP and IPv6, and so all that follows a VLAN tag, too.
    pub(super) fn other_ether_type(self) -> Self {
        let kind = self.payload(LINK, 12, 2, R1);
        ETHER_TYPES.iter().fold(kind, |rule, known| {
            rule.cmp(R1, false, &known.to_be_bytes())
        })
    }

    pub(super) fn ether_type(self, kind: u16) -> Self {
        self.payload(LINK, 12, 2, R1)
            .cmp(R1, true, &kind.to_be_bytes())
    }

    /// Matches an IPv4 destination in 127.0.0.0/8.
    pub(super) fn for_loopback4(self) -> Self {
        self.ipv4()
            .payload(NETWORK, 16, 1, R1)
            .cmp(R1, true, &[127])
    }

    pub(super) fn loopback4_source(self) -> Self {
        self.ipv4()
            .payload(NETWORK, 12, 1, R1)
            .cmp(R1, true, &[127])
    }

    pub(super) fn for_loopback6(self) -> Self {
        self.ipv6()
            .payload(NETWORK, 24, 16, R1)
            .cmp(R1, true, &LOOPBACK6)
    }

    pub(super) fn loopback6_source(self) -> Self {
        self.ipv6()
            .payload(NETWORK, 8, 16, R1)
            .cmp(R1, true, &LOOPBACK6)
    }

    /// Matches a bridged frame from a loopback address; in a bridge's table each packet has the
    /// bridge's family.
    pub(super) fn bridged_loopback_source(self, family: NftFamily) -> Self {
        match family {
            IPV6 => {
                let rule = self.ether_type(ETHER_TYPES[2]).payload(NETWORK, 8, 16, R1);
                rule.cmp(R1, true, &LOOPBACK6)
            }
            _ => {
                let rule = self.ether_type(ETHER_TYPES[0]).payload(NETWORK, 12, 1, R1);
                rule.cmp(R1, true, &[127])
            }
        }
    }

    pub(super) fn source(self, family: NftFamily, set: &str) -> Self {
        match family {
            IPV6 => self.ipv6().payload(NETWORK, 8, 16, R1),
            _ => self.ipv4().payload(NETWORK, 12, 4, R1),
        }
        .lookup(set, false)
    }

    pub(super) fn destination(self, family: NftFamily, set: &str) -> Self {
        match family {
            IPV6 => self.ipv6().payload(NETWORK, 24, 16, R1),
            _ => self.ipv4().payload(NETWORK, 16, 4, R1),
        }
        .lookup(set, false)
    }

    /// Matches if the pair of interfaces is in `set` together with the protocol and the destination
    /// port, or with `source` the source port.
    pub(super) fn pair_port(self, set: &str, source: bool) -> Self {
        let offset = if source { 0 } else { 2 };
        self.meta(IIFNAME, R1)
            .meta(OIFNAME, R2)
            .meta(L4PROTO, 3)
            .payload(TRANSPORT, offset, 2, WORD + 9)
            .lookup(set, false)
    }

    pub(super) fn protocol(self, number: u8) -> Self {
        self.meta(L4PROTO, R1).cmp(R1, true, &[number])
    }

    pub(super) fn icmp_type(self, kind: u8) -> Self {
        self.protocol(58)
            .payload(TRANSPORT, 0, 1, R1)
            .cmp(R1, true, &[kind])
    }

    pub(super) fn destination_port(self, port: u16) -> Self {
        self.payload(TRANSPORT, 2, 2, R1)
            .cmp(R1, true, &port.to_be_bytes())
    }

    /// Matches TCP, but not the first packet of a connection.
    pub(super) fn tcp_reply(self) -> Self {
        self.protocol(6)
            .payload(TRANSPORT, 13, 1, R1)
            .mask(R1, &[0x12])
            .cmp(R1, false, &[2])
    }

    /// Translates the destination to the address and port that `map` has for protocol and port, or
    /// with `by_address` for address, protocol and port.
    pub(super) fn translate(self, family: NftFamily, map: &str, by_address: bool) -> Self {
        let rule = match (by_address, family) {
            (false, _) => self.meta(L4PROTO, R1).payload(TRANSPORT, 2, 2, WORD + 1),
            (true, IPV6) => self
                .ipv6()
                .payload(NETWORK, 24, 16, R1)
                .meta(L4PROTO, R2)
                .payload(TRANSPORT, 2, 2, WORD + 5),
            (true, _) => self
                .ipv4()
                .payload(NETWORK, 16, 4, R1)
                .meta(L4PROTO, WORD + 1)
                .payload(TRANSPORT, 2, 2, WORD + 2),
        };
        let port = if family == IPV6 { R2 } else { WORD + 1 };
        let rule = rule.push("lookup", |m| {
            m.string(1, map).be32(2, R1).be32(3, R1);
        });
        rule.push("nat", |m| {
            m.be32(1, 1)
                .be32(2, u32::from(family.0))
                .be32(3, R1)
                .be32(5, port);
        })
    }
}
