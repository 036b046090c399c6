//! Published ports and ranges of ports, in docker's syntax. Pure.

use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Error, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
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
pub struct Range {
    pub first: u16,
    pub count: u16,
    pub protocol: Protocol,
}

impl Range {
    pub(super) fn ports(self) -> impl Iterator<Item = u16> {
        (0..self.count).map(move |n| self.first + n)
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

/// A published range of ports. Host port 0 stands for a free port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The address of the host; every address if missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<IpAddr>,
    pub host: u16,
    #[serde(flatten)]
    pub to: Range,
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

fn port(text: &str) -> Result<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => bail!("{text:?}: not a port (1 to 65535)"),
    }
}

/// Parses `80` or `8000-8010` into the first port and the number of ports.
fn ports(text: &str) -> Result<(u16, u16)> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if last < first {
        bail!("{text:?}: the range ends before it begins");
    }
    // The longest range, 1-65535, has as many ports as fit into the type.
    Ok((first, last - first + 1))
}

fn split_protocol(text: &str) -> Result<(&str, Protocol)> {
    match text.split_once('/') {
        Some((ports, protocol)) => Ok((ports, protocol.parse()?)),
        None => Ok((text, Protocol::Tcp)),
    }
}

/// Returns the parts between colons. An IPv6 address in brackets is one part, without the brackets.
pub(super) fn split_colons(text: &str) -> Vec<&str> {
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
                // No caller takes an empty list.
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

/// Parses an address; the error quotes what is none.
pub(super) fn address<T: FromStr>(value: &str) -> Result<T> {
    value
        .parse()
        .map_err(|_| anyhow!("{value:?}: not such an address"))
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
}
