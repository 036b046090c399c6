//! What a container wants of its network: options of `rt netns add` and `rt spec`, or annotations
//! `org.rt.network.*` that say the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Error, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::interface::check_interface;
use crate::id::check_id;
use crate::netlink::address::Mac;

/// Before the name of an option, an annotation's key.
pub(crate) const ANNOTATION: &str = "org.rt.network.";

/// The options: name, what stands for the value in the help, the help.
pub(crate) const OPTIONS: [(&str, &str, &str); 17] = [
    (
        "network",
        "NAME",
        "A network, default, none, or several; host or container:ID (rt spec)",
    ),
    (
        "publish",
        "[IP:][HOST:]PORT",
        "Publish a port or a range of them (/tcp, /udp, /sctp)",
    ),
    (
        "publish-all",
        "",
        "Publish every exposed port on a free port of the host",
    ),
    ("expose", "PORT[/PROTO]", "A port that the container serves"),
    ("ip", "ADDRESS", "The IPv4 address"),
    ("ip6", "ADDRESS", "The IPv6 address"),
    ("mac", "ADDRESS", "The hardware address"),
    (
        "dns",
        "ADDRESS",
        "A server to ask instead of the network's resolver",
    ),
    ("dns-search", "DOMAIN", "A domain to search names in"),
    ("dns-option", "OPTION", "An option for resolv.conf"),
    (
        "add-host",
        "NAME:ADDRESS",
        "A line for /etc/hosts (host-gateway is the host)",
    ),
    ("alias", "NAME", "One more name in the container's networks"),
    ("hostname", "NAME", "The container's host name"),
    (
        "link",
        "ID[:NAME]",
        "Reach this container's ports, whatever icc is",
    ),
    (
        "point-to-point",
        "PEER:OWN:ITS[:IF]",
        "A link to host or a container: two addresses",
    ),
    (
        "files",
        "DIR",
        "Keep hosts, hostname and resolv.conf there up to date",
    ),
    (
        "interface",
        "NAME",
        "The interface's name in the container [default: eth0]",
    ),
];

/// Options given: name and value.
pub(crate) type Options = Vec<(String, String)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// IPPROTO_* of `<netinet/in.h>`.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => bail!("{word:?}: not tcp, udp or sctp"),
        }
    }
}

/// Ports `first..first + count` of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) first: u16,
    pub(crate) count: u16,
    pub(crate) protocol: Protocol,
}

impl Range {
    pub(super) fn ports(self) -> impl Iterator<Item = u16> {
        (0..self.count).map(move |n| self.first + n)
    }
}

/// A published range. Host port 0 is one that is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Publish {
    /// Every address of the host if missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bind: Option<IpAddr>,
    pub(crate) host: u16,
    #[serde(flatten)]
    pub(crate) to: Range,
}

/// Another container whose ports may be reached, under this name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LinkTo {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// A veth pair of its own to `peer`, a container or `host`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PointToPoint {
    pub(crate) peer: String,
    pub(crate) own: IpAddr,
    pub(crate) its: IpAddr,
    pub(crate) interface: Option<String>,
}

/// Everything that can be wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) networks: Vec<String>,
    pub(crate) publish: Vec<Publish>,
    pub(crate) publish_all: bool,
    pub(crate) expose: Vec<Range>,
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) ip6: Option<Ipv6Addr>,
    pub(crate) mac: Option<Mac>,
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) dns_options: Vec<String>,
    /// `None` is the host itself.
    pub(crate) hosts: Vec<(String, Option<IpAddr>)>,
    pub(crate) aliases: Vec<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) links: Vec<LinkTo>,
    pub(crate) point_to_point: Vec<PointToPoint>,
    pub(crate) files: Option<PathBuf>,
    pub(crate) interface: Option<String>,
}

impl Request {
    /// From options and their values; several values of one may stand in a list with commas or
    /// white space between them.
    pub(crate) fn new<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut request = Self::default();
        for (name, values) in pairs {
            if name == "files" {
                request.files = Some(values.into());
                continue;
            }
            let separator = |c: char| c == ',' || c.is_ascii_whitespace();
            for value in values.split(separator).filter(|value| !value.is_empty()) {
                request.set(name, value).with_context(|| name.to_owned())?;
            }
        }
        request.check()?;
        Ok(request)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "network" => self.networks.push(value.to_owned()),
            "publish" => self.publish.push(value.parse()?),
            "publish-all" => self.publish_all = flag(value)?,
            "expose" => self.expose.push(value.parse()?),
            "ip" => self.ip = Some(address(value)?),
            "ip6" => self.ip6 = Some(address(value)?),
            "mac" => self.mac = Some(value.parse()?),
            "dns" => self.dns.push(address(value)?),
            "dns-search" => self.dns_search.push(domain(value)?),
            "dns-option" => self.dns_options.push(printable(value)?),
            "add-host" => self.hosts.push(host(value)?),
            "alias" => self.aliases.push(domain(value)?),
            "hostname" => self.hostname = Some(domain(value)?),
            "link" => self.links.push(link(value)?),
            "point-to-point" => self.point_to_point.push(point_to_point(value)?),
            "interface" => self.interface = Some(interface(value)?),
            _ => bail!("no such option"),
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let alone = |name: &String| name == "none" || name == "host" || name.contains(':');
        if self.networks.len() > 1 && self.networks.iter().any(alone) {
            bail!("network: none, host and container:ID stand alone");
        }
        let mut names = self.networks.clone();
        names.sort();
        names.dedup();
        if names.len() != self.networks.len() {
            bail!("network: the same one twice");
        }
        Ok(())
    }
}

fn flag(value: &str) -> Result<bool> {
    value
        .parse()
        .map_err(|_| anyhow!("{value:?}: not true or false"))
}

fn address<T: FromStr>(value: &str) -> Result<T> {
    value
        .parse()
        .map_err(|_| anyhow!("{value:?}: not such an address"))
}

/// What may stand in a file of words without changing its meaning.
fn printable(value: &str) -> Result<String> {
    match value.len() <= 255
        && value
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        true => Ok(value.to_owned()),
        false => bail!("{value:.64?}: not a word"),
    }
}

/// A name for the resolver and `/etc/hosts`: an id of a container is one as well.
pub(crate) fn domain(value: &str) -> Result<String> {
    let label = |label: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || "_-+".contains(c);
        (1..=63).contains(&label.len()) && label.chars().all(good)
    };
    match value.len() <= 253 && value.split('.').all(label) {
        true => Ok(value.to_owned()),
        false => bail!("{value:.64?}: not a name"),
    }
}

fn interface(value: &str) -> Result<String> {
    check_interface(value)?;
    Ok(value.to_owned())
}

fn host(value: &str) -> Result<(String, Option<IpAddr>)> {
    let (name, to) = value
        .split_once([':', '='])
        .ok_or_else(|| anyhow!("{value:?}: no address"))?;
    let to = match to {
        "host-gateway" => None,
        to => Some(address(to.trim_matches(['[', ']']))?),
    };
    Ok((domain(name)?, to))
}

fn link(value: &str) -> Result<LinkTo> {
    let (id, name) = value.split_once(':').unwrap_or((value, value));
    check_id(id)?;
    Ok(LinkTo {
        id: id.to_owned(),
        name: domain(name)?,
    })
}

/// `PEER:OWN:ITS[:INTERFACE]`, IPv6 addresses in brackets.
fn point_to_point(value: &str) -> Result<PointToPoint> {
    let parts = split_colons(value);
    let (peer, own, its, name) = match parts[..] {
        [peer, own, its] => (peer, own, its, None),
        [peer, own, its, name] => (peer, own, its, Some(interface(name)?)),
        _ => bail!("{value:?}: not PEER:ADDRESS:ADDRESS"),
    };
    check_id(peer)?;
    let link = PointToPoint {
        peer: peer.to_owned(),
        own: address(own)?,
        its: address(its)?,
        interface: name,
    };
    if link.own.is_ipv4() != link.its.is_ipv4() || link.own == link.its {
        bail!("{value:?}: not two addresses of one family");
    }
    Ok(link)
}

/// The parts between colons; an IPv6 address in brackets is one, without them.
fn split_colons(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        if let Some((address, after)) = rest
            .strip_prefix('[')
            .and_then(|inner| inner.split_once(']'))
        {
            parts.push(address);
            match after.strip_prefix(':') {
                Some(after) => rest = after,
                None if after.is_empty() => return parts,
                // Whatever this is, it is nothing that anybody takes.
                None => return vec![],
            }
        } else if let Some((part, after)) = rest.split_once(':') {
            parts.push(part);
            rest = after;
        } else {
            parts.push(rest);
            return parts;
        }
    }
}

fn port(text: &str) -> Result<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => bail!("{text:?}: not a port (1 to 65535)"),
    }
}

/// `80` or `8000-8010`: the first and how many.
fn ports(text: &str) -> Result<(u16, u16)> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if last < first {
        bail!("{text:?}: the range ends before it begins");
    }
    // 1-65535 has as many as fit.
    Ok((first, last - first + 1))
}

fn split_protocol(text: &str) -> Result<(&str, Protocol)> {
    match text.split_once('/') {
        Some((ports, protocol)) => Ok((ports, protocol.parse()?)),
        None => Ok((text, Protocol::Tcp)),
    }
}

impl FromStr for Range {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (text, protocol) = split_protocol(text)?;
        let (first, count) = ports(text)?;
        Ok(Self {
            first,
            count,
            protocol,
        })
    }
}

impl FromStr for Publish {
    type Err = Error;

    /// `[ip:][hostport[-range]:]port[-range][/tcp|udp|sctp]`
    fn from_str(text: &str) -> Result<Self> {
        let (rest, protocol) = split_protocol(text)?;
        let parts = split_colons(rest);
        let (bind, host, container) = match parts[..] {
            [container] => (None, "", container),
            [host, container] => (None, host, container),
            [bind, host, container] => (Some(bind), host, container),
            _ => bail!("{text:?}: not [IP:]HOSTPORT:PORT (IPv6 addresses stand in brackets)"),
        };
        let bind = bind
            .filter(|bind| !bind.is_empty())
            .map(address)
            .transpose()?;
        let (first, count) = ports(container)?;
        let host = match host {
            "" if count > 1 => bail!("{text:?}: a range needs the host's ports"),
            "" => 0,
            host => match ports(host)? {
                (host, number) if number == count => host,
                _ => bail!("{text:?}: the two ranges differ in length"),
            },
        };
        Ok(Self {
            bind,
            host,
            to: Range {
                first,
                count,
                protocol,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(text: &str) -> Publish {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error:#}"))
    }

    #[test]
    fn ports_are_published_in_docker_s_words() {
        let one = publish("8080:80");
        assert_eq!(
            (one.bind, one.host, one.to.first, one.to.count),
            (None, 8080, 80, 1)
        );
        assert_eq!(one.to.protocol, Protocol::Tcp);
        let one = publish("127.0.0.1:5353:53/udp");
        assert_eq!(one.bind, Some("127.0.0.1".parse().unwrap()));
        assert_eq!((one.host, one.to.protocol), (5353, Protocol::Udp));
        let range = publish("8000-8010:9000-9010/sctp");
        assert_eq!(
            (range.host, range.to.first, range.to.count),
            (8000, 9000, 11)
        );
        assert_eq!(publish("80").host, 0);
        assert_eq!(publish("127.0.0.1::80").host, 0);
        assert_eq!(publish("[::1]:80:80").bind, Some("::1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in [
            "",
            ":",
            "0",
            "65536",
            "80-",
            "-80",
            "90-80",
            "80:",
            "a:80",
            "80/icmp",
            "80-81",
            "80-81:80",
            "1:2:3:4",
            "::1:80:80",
            "+80:80",
            "[::1]80:80",
            "1.2.3:80:80",
        ] {
            assert!(text.parse::<Publish>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn annotations_hold_lists() {
        let pairs = [
            ("publish", "80:80, 53:53/udp"),
            ("dns-search", "a.b\tc"),
            ("network", "x"),
        ];
        let request = Request::new(pairs.into_iter()).unwrap();
        assert_eq!(request.publish.len(), 2);
        assert_eq!(request.dns_search, ["a.b", "c"]);
        for bad in [
            ("publsh", "1:1"),
            ("network", "none,web"),
            ("network", "a,a"),
            ("hostname", "a b\n1.2.3.4 c/"),
            ("add-host", "x"),
            ("point-to-point", "host:10.0.0.1:fd00::1"),
        ] {
            assert!(Request::new([bad].into_iter()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_link_between_two_points_has_two_addresses() {
        let link = point_to_point("host:10.1.1.1:10.1.1.2:p0").unwrap();
        assert_eq!(
            (link.peer.as_str(), link.interface.as_deref()),
            ("host", Some("p0"))
        );
        let link = point_to_point("db:[fd00::1]:[fd00::2]").unwrap();
        assert_eq!(link.its.to_string(), "fd00::2");
    }
}
