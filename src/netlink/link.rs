//! Interfaces, addresses and routes by rtnetlink(7).

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::netlink::address::{Cidr, Mac, octets};
use crate::netlink::{
    CREATE, DUMP, EXCL, NetlinkMessage, NetlinkSocket, REPLACE, attribute, attributes, text, u32_at,
};

// <linux/rtnetlink.h>, <linux/if_link.h>, <linux/veth.h>, <linux/if_addr.h>
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_GETNSID: u16 = 90;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
/// The flags that the kernel sets itself: permanent, secondary, tentative, a duplicate, deprecated.
const IFA_F_OF_KERNEL: u32 = IFA_F_PERMANENT | 0x01 | 0x40 | 0x08 | 0x20;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
const IFF_UP: u32 = 1;
const IFA_F_NODAD: u8 = 0x02;
/// The scope of a route straight onto the link.
const RT_SCOPE_LINK: u8 = 253;
const RTPROT_BOOT: u8 = 3;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;

/// The properties of a new bridge, or of one end of a new veth pair.
#[derive(Clone, Copy, Debug)]
pub struct NewLink<'a> {
    pub name: &'a str,
    pub mtu: u32,
    pub mac: Option<Mac>,
}

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkLink {
    pub name: String,
    pub index: u32,
    pub up: bool,
    pub kind: String,
    pub mtu: u32,
    pub mac: Option<Mac>,
    /// The bridge that it is a port of; 0 if none.
    pub master: u32,
    /// A text for people and programs, which stays with the interface.
    pub alias: String,
    /// The number that this namespace has for the namespace of the other end, if that is another
    /// one.
    pub peer_namespace: Option<u32>,
}

/// A route: the destination, and the interface that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub to: Cidr,
    pub index: u32,
    /// Whether it is in the main table.
    pub main: bool,
}

/// An address as the kernel describes it: a header and attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    payload: Vec<u8>,
    flags: u32,
}

/// A socket for the rtnetlink of one network namespace.
#[derive(Debug)]
pub struct RouteNetlink(NetlinkSocket);

fn info(index: u32, up: bool) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        header[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        header[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    header
}

fn describe(message: &mut NetlinkMessage, new: NewLink<'_>) {
    message.string(IFLA_IFNAME, new.name);
    if new.mtu != 0 {
        message.u32(IFLA_MTU, new.mtu);
    }
    if let Some(mac) = new.mac {
        message.bytes(IFLA_ADDRESS, &mac.0);
    }
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    }) as u8
}

impl RouteNetlink {
    /// Opens rtnetlink of the network namespace that the calling thread is in.
    pub fn here() -> Result<Self> {
        Ok(Self(NetlinkSocket::route().context("netlink")?))
    }

    /// Returns the interface of that name, if there is one.
    pub fn find(&mut self, name: &str) -> Result<Option<NetworkLink>> {
        let mut message = NetlinkMessage::new(RTM_GETLINK, 0, &info(0, false));
        message.string(IFLA_IFNAME, name);
        let mut found = None;
        let result = self.0.query(message, |_, payload| found = parse(payload));
        match result {
            Err(Errno::ENODEV) => Ok(None),
            result => result.map(|()| found).with_context(|| name.to_owned()),
        }
    }

    /// Returns every interface.
    pub fn all(&mut self) -> Result<Vec<NetworkLink>> {
        let mut all = Vec::new();
        let message = NetlinkMessage::new(RTM_GETLINK, DUMP, &info(0, false));
        self.0
            .query(message, |_, payload| all.extend(parse(payload)))
            .context("netlink")?;
        Ok(all)
    }

    /// Returns the names of all interfaces.
    pub fn names(&mut self) -> Result<Vec<String>> {
        Ok(self.all()?.into_iter().map(|link| link.name).collect())
    }

    /// Returns the number that this namespace has for `other`, if it has one.
    pub fn number_of(&mut self, other: BorrowedFd<'_>) -> Result<Option<u32>> {
        let mut message = NetlinkMessage::new(RTM_GETNSID, 0, &[0; 4]);
        message.u32(NETNSA_FD, other.as_raw_fd() as u32);
        let mut number = None;
        self.0
            .query(message, |_, payload| {
                let value = payload
                    .get(4..)
                    .and_then(|bytes| attribute(bytes, NETNSA_NSID));
                number = value.and_then(|value| u32_at(value, 0));
            })
            .context("netlink")?;
        // NETNSA_NSID_NOT_ASSIGNED
        Ok(number.filter(|number| *number != u32::MAX))
    }

    pub fn add_bridge(&mut self, new: NewLink<'_>) -> nix::Result<()> {
        let mut message = NetlinkMessage::new(RTM_NEWLINK, CREATE | EXCL, &info(0, true));
        describe(&mut message, new);
        message.nest(IFLA_LINKINFO, |m| {
            m.string(IFLA_INFO_KIND, "bridge");
        });
        self.0.request(message)
    }

    /// Adds a veth pair: `here` in this namespace, and at once a port of the bridge `master` unless
    /// that is 0; `there` in the namespace `target`.
    pub fn add_pair(
        &mut self,
        here: NewLink<'_>,
        there: NewLink<'_>,
        target: BorrowedFd<'_>,
        master: u32,
    ) -> nix::Result<()> {
        let mut message = NetlinkMessage::new(RTM_NEWLINK, CREATE | EXCL, &info(0, false));
        describe(&mut message, here);
        if master != 0 {
            message.u32(IFLA_MASTER, master);
        }
        message.nest(IFLA_LINKINFO, |m| {
            m.string(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    m.raw(&info(0, false));
                    describe(m, there);
                    m.u32(IFLA_NET_NS_FD, target.as_raw_fd() as u32);
                });
            });
        });
        self.0.request(message)
    }

    pub fn up(&mut self, index: u32) -> nix::Result<()> {
        self.0
            .request(NetlinkMessage::new(RTM_NEWLINK, 0, &info(index, true)))
    }

    /// Brings the interface up and gives it an alias.
    pub fn up_with_alias(&mut self, index: u32, alias: &str) -> nix::Result<()> {
        let mut message = NetlinkMessage::new(RTM_NEWLINK, 0, &info(index, true));
        message.bytes(IFLA_IFALIAS, alias.as_bytes());
        self.0.request(message)
    }

    /// Lets frames leave the bridge port that they came from. If bridged traffic goes through the
    /// packet filter, the packets of a container to its own published port do that.
    pub fn hairpin(&mut self, index: u32) -> nix::Result<()> {
        let mut header = info(index, false);
        header[0] = libc::AF_BRIDGE as u8;
        let mut message = NetlinkMessage::new(RTM_SETLINK, 0, &header);
        message.nest(IFLA_PROTINFO, |m| {
            m.bytes(IFLA_BRPORT_MODE, &[1]);
        });
        self.0.request(message)
    }

    /// Removes the interface, and with it the other half of a pair. It may be gone already.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        let mut message = NetlinkMessage::new(RTM_DELLINK, 0, &info(0, false));
        message.string(IFLA_IFNAME, name);
        match self.0.request(message) {
            Err(Errno::ENODEV) => Ok(()),
            result => result.with_context(|| name.to_owned()),
        }
    }

    /// Moves the interface into the namespace `target`, a descriptor, and renames it to `name`.
    pub fn move_to(&mut self, index: u32, target: RawFd, name: &str) -> nix::Result<()> {
        let mut message = NetlinkMessage::new(RTM_NEWLINK, 0, &info(index, false));
        message
            .string(IFLA_IFNAME, name)
            .u32(IFLA_NET_NS_FD, target as u32);
        self.0.request(message)
    }

    /// Returns the addresses of the interface that are permanent and of global scope.
    pub fn permanent_addresses(&mut self, index: u32) -> Result<Vec<InterfaceAddress>> {
        let mut found = Vec::new();
        let message = NetlinkMessage::new(RTM_GETADDR, DUMP, &[0; 8]);
        let each = |_, payload: &[u8]| {
            let bytes = payload.get(8..).unwrap_or_default();
            // IFA_FLAGS contains the eight flags of the header, too.
            let flags = attribute(bytes, IFA_FLAGS)
                .and_then(|value| u32_at(value, 0))
                .unwrap_or(0);
            let is_own = u32_at(payload, 4) == Some(index);
            if is_own && flags & IFA_F_PERMANENT != 0 && payload.get(3) == Some(&0) {
                found.push(InterfaceAddress {
                    payload: payload.to_vec(),
                    flags,
                });
            }
        };
        self.0.query(message, each).context("netlink")?;
        Ok(found)
    }

    /// Gives an interface an address that another interface has or had. If the label of the address
    /// begins with that one's name, it gets the new name.
    pub fn add_permanent(
        &mut self,
        address: &InterfaceAddress,
        index: u32,
        (old, new): (&str, &str),
    ) -> nix::Result<()> {
        let (header, bytes) = address.payload.split_at(8);
        let mut header = header.to_vec();
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut message = NetlinkMessage::new(RTM_NEWADDR, CREATE | EXCL, &header);
        for (kind, value) in attributes(bytes) {
            match kind {
                IFA_CACHEINFO => {}
                IFA_FLAGS => drop(message.u32(kind, address.flags & !IFA_F_OF_KERNEL)),
                IFA_LABEL => {
                    let label = text(value);
                    let rest = label.strip_prefix(old).map(|rest| format!("{new}{rest}"));
                    let label = rest.unwrap_or_else(|| label.to_owned());
                    let fits = label.len() < libc::IFNAMSIZ;
                    message.string(kind, if fits { &label } else { new });
                }
                kind => drop(message.bytes(kind, value)),
            }
        }
        self.0.request(message)
    }

    /// Adds an address without duplicate address detection: the address is assigned by `rt`, and
    /// used at once.
    pub fn add_address(&mut self, index: u32, address: Cidr) -> nix::Result<()> {
        let ip = address.address;
        let mut header = [family(ip), address.prefix, IFA_F_NODAD, 0, 0, 0, 0, 0];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut message = NetlinkMessage::new(RTM_NEWADDR, CREATE | EXCL, &header);
        message
            .bytes(IFA_LOCAL, &octets(ip))
            .bytes(IFA_ADDRESS, &octets(ip));
        if ip.is_ipv4() && address.prefix < 31 {
            message.bytes(IFA_BROADCAST, &octets(address.last()));
        }
        self.0.request(message)
    }

    /// Returns all addresses of the interface.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Cidr>> {
        let mut found = Vec::new();
        let message = NetlinkMessage::new(RTM_GETADDR, DUMP, &[0; 8]);
        self.0
            .query(message, |_, payload| {
                let parse = || {
                    let own = u32_at(payload, 4)? == index;
                    let bytes = payload.get(8..)?;
                    let value = attribute(bytes, IFA_LOCAL).or(attribute(bytes, IFA_ADDRESS))?;
                    let address = parse_address(value)?;
                    own.then_some(Cidr {
                        address,
                        prefix: *payload.get(1)?,
                    })
                };
                found.extend(parse());
            })
            .context("netlink")?;
        Ok(found)
    }

    /// Adds a route to `to` over the interface `index`: through `gateway`, or directly on the link.
    pub fn add_route(
        &mut self,
        to: Cidr,
        index: u32,
        gateway: Option<IpAddr>,
        source: Option<IpAddr>,
    ) -> nix::Result<()> {
        let scope = if gateway.is_some() || to.address.is_ipv6() {
            0
        } else {
            RT_SCOPE_LINK
        };
        let header = [
            family(to.address),
            to.prefix,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_BOOT,
            scope,
            RTN_UNICAST,
            0,
            0,
            0,
            0,
        ];
        // A route without a gateway leads to the one host of a point-to-point link. It must not
        // replace a route that is there.
        let flag = if gateway.is_some() { REPLACE } else { EXCL };
        let mut message = NetlinkMessage::new(RTM_NEWROUTE, CREATE | flag, &header);
        if to.prefix > 0 {
            message.bytes(RTA_DST, &octets(to.network()));
        }
        message.u32(RTA_OIF, index);
        if let Some(gateway) = gateway {
            message.bytes(RTA_GATEWAY, &octets(gateway));
        }
        if let Some(source) = source {
            message.bytes(RTA_PREFSRC, &octets(source));
        }
        self.0.request(message)
    }

    /// Returns every network to which this namespace has a route in the main table, without the
    /// default routes.
    pub fn routes(&mut self) -> Result<Vec<Cidr>> {
        let all = self.all_routes()?;
        Ok(all
            .into_iter()
            .filter(|route| route.main)
            .map(|route| route.to)
            .collect())
    }

    /// Returns every route of every table, without the default routes.
    pub fn all_routes(&mut self) -> Result<Vec<Route>> {
        let mut found = Vec::new();
        let message = NetlinkMessage::new(RTM_GETROUTE, DUMP, &[0; 12]);
        self.0
            .query(message, |_, payload| {
                let parse = || {
                    let bytes = payload.get(12..)?;
                    let address = parse_address(attribute(bytes, RTA_DST)?)?;
                    let index = attribute(bytes, RTA_OIF).and_then(|index| u32_at(index, 0));
                    Some(Route {
                        to: Cidr {
                            address,
                            prefix: *payload.get(1)?,
                        },
                        index: index.unwrap_or(0),
                        main: *payload.get(4)? == RT_TABLE_MAIN,
                    })
                };
                found.extend(parse());
            })
            .context("netlink")?;
        Ok(found)
    }
}

/// Parses arbitrary bytes, for [`crate::fuzz`], as a message about an interface, and as nested
/// attributes.
#[cfg(any(test, fuzzing))]
pub fn read_anything(payload: &[u8]) {
    let _ = parse(payload);
    for (_, value) in attributes(payload) {
        text(value);
        parse_address(value);
        for (_, inner) in attributes(value) {
            let _ = u32_at(inner, 0);
        }
    }
}

fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or(<[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn parse(payload: &[u8]) -> Option<NetworkLink> {
    let attributes = payload.get(16..)?;
    let kind = attribute(attributes, IFLA_LINKINFO)
        .and_then(|info| attribute(info, IFLA_INFO_KIND))
        .map(text);
    let number = |kind| attribute(attributes, kind).and_then(|value| u32_at(value, 0));
    let string = |kind| {
        attribute(attributes, kind)
            .map(text)
            .unwrap_or_default()
            .to_owned()
    };
    Some(NetworkLink {
        name: string(IFLA_IFNAME),
        index: u32_at(payload, 4)?,
        up: u32_at(payload, 8)? & IFF_UP != 0,
        kind: kind.unwrap_or_default().to_owned(),
        mtu: number(IFLA_MTU).unwrap_or(0),
        mac: attribute(attributes, IFLA_ADDRESS)
            .and_then(|mac| <[u8; 6]>::try_from(mac).ok())
            .map(Mac),
        master: number(IFLA_MASTER).unwrap_or(0),
        alias: string(IFLA_IFALIAS),
        peer_namespace: number(IFLA_LINK_NETNSID),
    })
}
