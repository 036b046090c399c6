//! Subnets in CIDR notation, hardware addresses, and what follows from them. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Error, Result, bail};
use serde::{Deserialize, Serialize};

/// An address with the length of its network's prefix, as `172.20.0.1/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix: u8,
}

/// Returns the address as a number, so that the same arithmetic serves both families.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Returns the length of an address of this family in bits: 32 or 128.
pub fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Cidr {
    pub fn host(address: IpAddr) -> Self {
        Self {
            address,
            prefix: width(address),
        }
    }

    fn with(self, bits: u128) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
        }
    }

    /// Returns the mask whose bits are one where the hosts of the network differ.
    fn host_mask(self) -> u128 {
        match u32::from(width(self.address) - self.prefix) {
            128 => u128::MAX,
            length => (1 << length) - 1,
        }
    }

    /// Returns the address of the network itself.
    pub fn network(self) -> IpAddr {
        self.with(bits(self.address) & !self.host_mask())
    }

    /// Returns the highest address, which is the broadcast address in IPv4.
    pub fn last(self) -> IpAddr {
        self.with(bits(self.address) | self.host_mask())
    }

    /// Returns the `n`-th address of the network; 0 is the network's own address.
    pub fn nth(self, n: u128) -> IpAddr {
        self.with(bits(self.network()) + (n & self.host_mask()))
    }

    /// Returns the place of `address` among the addresses of the network, from 0 on.
    pub fn position(self, address: IpAddr) -> u128 {
        bits(address) & self.host_mask()
    }

    /// Returns how many addresses the network has beyond its first.
    pub fn size(self) -> u128 {
        self.host_mask()
    }

    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && bits(address) & !self.host_mask() == bits(self.network())
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    /// Whether this is the address of a network, and not of a host in one.
    pub fn is_network(self) -> bool {
        self.host_mask() > 1 && self.address == self.network()
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
            let prefix = prefix
                .parse()
                .ok()
                .filter(|prefix| *prefix <= width(address))?;
            digits.then_some(Self { address, prefix })
        };
        match parse() {
            Some(cidr) => Ok(cidr),
            None => bail!("{text:?}: not an address with a prefix length, such as 172.20.0.1/16"),
        }
    }
}

impl TryFrom<String> for Cidr {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Returns the bytes of an address in network byte order.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A hardware address, as `02:42:ac:14:00:02`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Returns `02:42` followed by the IPv4 address, which is docker's rule. The cache of a
    /// neighbour then stays right when the address is used again.
    pub fn from_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl TryFrom<String> for Mac {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes: Option<Vec<u8>> = text
            .split(':')
            .map(|part| {
                u8::from_str_radix(part, 16)
                    .ok()
                    .filter(|_| part.len() == 2)
            })
            .collect();
        match bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()) {
            // The lowest bit of the first byte marks a multicast address.
            Some(bytes) if bytes[0] & 1 == 0 && bytes != [0; 6] => Ok(Self(bytes)),
            _ => bail!("{text:?}: not a hardware address, such as 02:42:ac:14:00:02"),
        }
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if at == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_a_first_and_a_last_address() {
        let net = cidr("172.20.3.7/16");
        assert_eq!(net.network().to_string(), "172.20.0.0");
        assert_eq!(net.last().to_string(), "172.20.255.255");
        assert_eq!(net.nth(258).to_string(), "172.20.1.2");
        assert_eq!(net.position("172.20.1.2".parse().unwrap()), 258);
        assert!(!net.is_network() && cidr("192.168.1.0/24").is_network());
        assert!(!cidr("10.0.0.0/31").is_network());
    }

    #[test]
    fn a_network_contains_its_own_family_only() {
        assert!(cidr("0.0.0.0/0").contains("1.2.3.4".parse().unwrap()));
        assert!(!cidr("::/0").contains("1.2.3.4".parse().unwrap()));
        assert!(cidr("fd00::1/64").contains("fd00::ffff".parse().unwrap()));
        assert!(cidr("10.0.0.0/8").overlaps(cidr("10.1.0.0/16")));
        assert!(!cidr("10.0.0.0/16").overlaps(cidr("10.1.0.0/16")));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "1.2.3.4",
            "1.2.3.4/33",
            "1.2.3/8",
            "::1/129",
            "1.2.3.4/+8",
            "1.2.3.4/",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        for text in [
            "02:42:ac:14:00",
            "2:42:ac:14:00:02",
            "01:00:00:00:00:01",
            "x",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_hardware_address_follows_from_the_address() {
        let mac = Mac::from_ipv4(Ipv4Addr::new(172, 20, 0, 2));
        assert_eq!(mac.to_string(), "02:42:ac:14:00:02");
        assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
    }
}
