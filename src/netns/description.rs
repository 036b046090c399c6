//! The content of a network's file.

use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Error, Result, bail};
use serde::{Deserialize, Serialize};

use crate::netlink::address::Cidr;

/// What translates and filters packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Driver {
    /// nf_tables by netlink, in tables of its own.
    #[default]
    Nftables,
    /// The `iptables` commands, for hosts whose tools expect them.
    Iptables,
    /// Nothing: published ports go through the helper process.
    None,
}

impl FromStr for Driver {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "nftables" => Ok(Self::Nftables),
            "iptables" => Ok(Self::Iptables),
            "none" => Ok(Self::None),
            _ => bail!("{word:?}: not nftables, iptables or none"),
        }
    }
}

/// What serves published ports on 127.0.0.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Localhost {
    /// The kernel, with `route_localnet` on the bridge.
    #[default]
    Kernel,
    /// The helper process.
    Proxy,
}

/// The content of a network's file. Docker's names for the same options are understood, too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bridge: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subnet: Option<Cidr>,
    #[serde(skip_serializing_if = "Option::is_none", alias = "bip")]
    pub(super) gateway: Option<Cidr>,
    #[serde(skip_serializing_if = "Option::is_none", alias = "fixed-cidr")]
    pub(super) ip_range: Option<Cidr>,
    #[serde(skip_serializing_if = "Option::is_none", alias = "fixed-cidr-v6")]
    pub(super) subnet6: Option<Cidr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) icc: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) internal: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", alias = "ip-masq")]
    pub(super) masquerade: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", alias = "ip")]
    pub(super) bind: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) isolated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) driver: Option<Driver>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resolver: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dns: Option<Vec<IpAddr>>,
    /// `kernel` or `proxy`: what serves published ports on 127.0.0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) localhost: Option<Localhost>,
}

/// Refuses options that the driver cannot implement.
pub(super) fn check_driver(config: &Config) -> Result<()> {
    let driver = config.driver.unwrap_or_default();
    if config.icc == Some(false) && driver != Driver::Nftables {
        bail!("icc: false: only with the driver nftables, which filters within a bridge");
    }
    if driver != Driver::None {
        return Ok(());
    }
    let promises = [
        ("internal", config.internal == Some(true)),
        ("isolated", config.isolated == Some(true)),
        ("masquerade", config.masquerade == Some(true)),
        (
            "localhost: kernel",
            config.localhost == Some(Localhost::Kernel),
        ),
    ];
    match promises.iter().find(|(_, wanted)| *wanted) {
        Some((name, _)) => bail!("{name}: not with the driver none, which filters nothing"),
        None => Ok(()),
    }
}

/// Returns what serves 127.0.0.1. The kernel can only do it with `route_localnet`, which needs
/// rules that keep containers from the host's own loopback services. So it is on only where it is
/// needed.
pub(super) fn localhost(config: &Config, internal: bool) -> Localhost {
    match config.driver {
        Some(Driver::None) => Localhost::Proxy,
        _ if internal => Localhost::Proxy,
        _ => config.localhost.unwrap_or_default(),
    }
}
