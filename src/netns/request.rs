//! What a container asks of its network: options of `rt netns add` and `rt spec`, or annotations
//! `org.rt.network.*` with the same meaning.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::interface::check_interface;
use super::publish::{Publish, Range, address, split_colons};
use crate::id::check_id;
use crate::netlink::address::Mac;

/// The prefix of an annotation's key, before the name of the option.
pub const ANNOTATION: &str = "org.rt.network.";

/// The options: name, placeholder of the value in the help, the help.
pub const OPTIONS: [(&str, &str, &str); 17] = [
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

/// The options that were given: name and value.
pub type Options = Vec<(String, String)>;

/// Another container whose ports the container may reach, under this name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkTo {
    pub id: String,
    pub name: String,
}

/// A veth pair that leads to `peer` alone, a container or `host`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointToPoint {
    pub peer: String,
    pub own: IpAddr,
    pub its: IpAddr,
    pub interface: Option<String>,
}

/// Everything that a container can ask for.
#[derive(Clone, Debug, Default)]
pub struct NetworkRequest {
    pub networks: Vec<String>,
    pub publish: Vec<Publish>,
    pub publish_all: bool,
    pub expose: Vec<Range>,
    pub ip: Option<Ipv4Addr>,
    pub ip6: Option<Ipv6Addr>,
    pub mac: Option<Mac>,
    pub dns: Vec<IpAddr>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// More lines for `/etc/hosts`; `None` is the host itself.
    pub hosts: Vec<(String, Option<IpAddr>)>,
    pub aliases: Vec<String>,
    pub hostname: Option<String>,
    pub links: Vec<LinkTo>,
    pub point_to_point: Vec<PointToPoint>,
    pub files: Option<PathBuf>,
    pub interface: Option<String>,
}

impl NetworkRequest {
    /// Makes a request from options and their values. A value may be a list, with commas or white
    /// space between its items.
    pub fn new<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self> {
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

/// Returns the value if it can be a word of a configuration file without changing its meaning.
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

/// Returns the value if it is a name for the resolver and `/etc/hosts`. An id of a container is
/// one, too.
pub fn domain(value: &str) -> Result<String> {
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

/// Parses `PEER:OWN:ITS[:INTERFACE]`, with IPv6 addresses in brackets.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_hold_lists() {
        let pairs = [
            ("publish", "80:80, 53:53/udp"),
            ("dns-search", "a.b\tc"),
            ("network", "x"),
        ];
        let request = NetworkRequest::new(pairs.into_iter()).unwrap();
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
            assert!(NetworkRequest::new([bad].into_iter()).is_err(), "{bad:?}");
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
