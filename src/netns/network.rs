//! Networks. A file in `/etc/rt/networks` describes each, and one is built in. What the file leaves
//! open is decided here.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::description::{Config, Driver, Localhost, check_driver, localhost};
use super::interface::{INTERFACE_MAX, check_interface, hash};
use crate::netlink::address::{Cidr, width};
use crate::sys;

/// The network of a container that names none.
pub(super) const DEFAULT: &str = "default";
const DEFAULT_BRIDGE: &str = "rtbr0";
const DEFAULT_SUBNET: Cidr = Cidr {
    address: IpAddr::V4(Ipv4Addr::new(172, 20, 0, 0)),
    prefix: 16,
};
const NAME_MAX: usize = 32;

/// A network, everything about it decided.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) name: String,
    pub(super) config: Config,
    pub(super) bridge: String,
    /// The host's address on the bridge.
    pub(super) gateway: Cidr,
    /// The range from which containers get their addresses.
    pub(super) range: Cidr,
    pub(super) gateway6: Option<Cidr>,
    /// The MTU of the interfaces in bytes; 0 leaves the choice to the kernel.
    pub(super) mtu: u32,
    pub(super) icc: bool,
    pub(super) internal: bool,
    pub(super) masquerade: bool,
    pub(super) isolated: bool,
    pub(super) driver: Driver,
    pub(super) resolver: bool,
    pub(super) localhost: Localhost,
}

/// Parses arbitrary bytes, for [`crate::fuzz`], as the file of a network.
#[cfg(any(test, fuzzing))]
pub(super) fn read_anything(json: &[u8]) {
    let Ok(config) = serde_json::from_slice(json) else {
        return;
    };
    let Ok(network) = Network::decide("fuzz", config) else {
        return;
    };
    let (gateway, range) = (network.gateway, network.range);
    assert!(
        gateway.contains(range.address),
        "{range} is not within {gateway}"
    );
    for gateway in network.gateways() {
        let _ = gateway.position(gateway.last());
    }
}

impl Network {
    /// Returns the network `name` as its file below `directory` describes it.
    pub(super) fn load(directory: &Path, name: &str) -> Result<Self> {
        check_name(name)?;
        let path = directory.join(format!("{name}.json"));
        let config = match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?
            }
            Err(error) if error.kind() == ErrorKind::NotFound && name == DEFAULT => {
                Config::default()
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!(
                    "network {name}: there is none: {} does not exist",
                    path.display()
                )
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        Self::decide(name, config).with_context(|| path.display().to_string())
    }

    /// Returns the names of all networks: the files below `directory`, and the one that is built
    /// in.
    pub(super) fn names(directory: &Path) -> Result<Vec<String>> {
        let mut names = vec![DEFAULT.to_owned()];
        match sys::list_directory(directory) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry
                        .name
                        .to_str()
                        .and_then(|name| name.strip_suffix(".json"));
                    names.extend(
                        name.filter(|name| check_name(name).is_ok())
                            .map(str::to_owned),
                    );
                }
            }
            Err(Errno::ENOENT) => {}
            Err(error) => return Err(error).with_context(|| directory.display().to_string()),
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Decides what a file means.
    ///
    /// # Errors
    /// The file is contradictory or incomplete.
    pub(super) fn decide(name: &str, config: Config) -> Result<Self> {
        let subnet = match (config.subnet, config.gateway) {
            (Some(subnet), _) => subnet,
            (None, Some(gateway)) => Cidr {
                address: gateway.network(),
                ..gateway
            },
            (None, None) if name == DEFAULT => DEFAULT_SUBNET,
            (None, None) => bail!("subnet: missing"),
        };
        check_subnet(subnet, true, 30).context("subnet")?;
        let gateway = config.gateway.unwrap_or(Cidr {
            address: subnet.nth(1),
            ..subnet
        });
        check_gateway(gateway, subnet).context("gateway")?;
        let range = config.ip_range.unwrap_or(subnet);
        if range.prefix < subnet.prefix || !subnet.contains(range.address) {
            bail!("ipRange: {range} is not within the subnet {subnet}");
        }
        if let Some(subnet6) = config.subnet6 {
            check_subnet(subnet6, false, 120).context("subnet6")?;
        }
        if config.mtu.is_some_and(|mtu| !(68..=65_535).contains(&mtu)) {
            bail!("mtu: not between 68 and 65535");
        }
        let bridge = config
            .bridge
            .clone()
            .unwrap_or_else(|| default_bridge(name));
        check_interface(&bridge).context("bridge")?;
        let internal = config.internal.unwrap_or(false);
        if internal && config.masquerade == Some(true) {
            bail!("masquerade: an internal network has no way out");
        }
        check_driver(&config)?;
        Ok(Self {
            name: name.to_owned(),
            bridge,
            gateway,
            range,
            gateway6: config.subnet6.map(gateway6),
            mtu: config.mtu.unwrap_or(0),
            icc: config.icc.unwrap_or(true),
            internal,
            masquerade: config.masquerade.unwrap_or(!internal),
            isolated: config.isolated.unwrap_or(true),
            driver: config.driver.unwrap_or_default(),
            resolver: config.resolver.unwrap_or(true),
            localhost: localhost(&config, internal),
            config,
        })
    }

    /// Returns a network of which nothing is known but its bridge and the host's addresses there.
    /// It is internal and its members are apart, so that nothing is let through by mistake.
    pub(super) fn closed(name: &str, bridge: String, addresses: &[Cidr]) -> Self {
        let is_local = |ip| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let global = addresses
            .iter()
            .copied()
            .filter(|one| !is_local(one.address));
        let of_family = |v4| global.clone().find(|one| one.address.is_ipv4() == v4);
        let gateway = of_family(true).unwrap_or(Cidr::host(Ipv4Addr::UNSPECIFIED.into()));
        Self {
            name: name.to_owned(),
            config: Config::default(),
            bridge,
            gateway,
            range: gateway,
            gateway6: of_family(false),
            mtu: 0,
            icc: false,
            internal: true,
            masquerade: false,
            isolated: true,
            driver: Driver::default(),
            resolver: false,
            localhost: Localhost::Proxy,
        }
    }

    /// Returns the host's addresses on the bridge.
    pub(super) fn gateways(&self) -> impl Iterator<Item = Cidr> {
        std::iter::once(self.gateway).chain(self.gateway6)
    }
}

/// Returns the host's address in an IPv6 subnet: its first one, unless the file names another.
fn gateway6(subnet: Cidr) -> Cidr {
    match subnet.address == subnet.network() {
        true => Cidr {
            address: subnet.nth(1),
            ..subnet
        },
        false => subnet,
    }
}

fn check_subnet(subnet: Cidr, ipv4: bool, longest: u8) -> Result<()> {
    if subnet.address.is_ipv4() != ipv4 {
        bail!("{subnet}: not IPv{}", if ipv4 { 4 } else { 6 });
    }
    if subnet.prefix > longest || subnet.prefix < width(subnet.address) / 8 {
        bail!(
            "{subnet}: the prefix is not between /{} and /{longest}",
            width(subnet.address) / 8
        );
    }
    if ipv4 && !subnet.is_network() {
        let address = subnet.network();
        bail!(
            "{subnet}: a host's address; the network's is {address}/{}",
            subnet.prefix
        );
    }
    Ok(())
}

fn check_gateway(gateway: Cidr, subnet: Cidr) -> Result<()> {
    if gateway.is_network() {
        bail!(
            "{gateway}: a network's address; the gateway is the host's own in it, such as {}/{}",
            gateway.nth(1),
            gateway.prefix
        );
    }
    if gateway.prefix != subnet.prefix || !subnet.contains(gateway.address) {
        bail!("{gateway}: not in the subnet {subnet}");
    }
    if gateway.address == gateway.last() {
        bail!("{gateway}: the broadcast address");
    }
    Ok(())
}

pub(super) fn default_bridge(name: &str) -> String {
    let bridge = format!("rt-{name}");
    match name {
        DEFAULT => DEFAULT_BRIDGE.to_owned(),
        _ if bridge.len() <= INTERFACE_MAX => bridge,
        _ => format!("rt-{:010x}", hash(name) & 0xff_ffff_ffff),
    }
}

/// Refuses what cannot be the name of a network, and the names of the modes, which are no networks.
pub(super) fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let reserved = ["host", "none", "container", "bridge"].contains(&name);
    if name.is_empty() || name.len() > NAME_MAX || reserved || !name.chars().all(good) {
        bail!("network {name:.64?}: not a name (letters, digits, _ and -, at most {NAME_MAX})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(json: &str) -> Result<Network> {
        Network::decide("web", serde_json::from_str(json)?)
    }

    #[test]
    fn the_default_network_is_built_in() {
        let network = Network::decide(DEFAULT, Config::default()).unwrap();
        assert_eq!(network.bridge, "rtbr0");
        assert_eq!(network.gateway.to_string(), "172.20.0.1/16");
        assert_eq!(network.range.to_string(), "172.20.0.0/16");
        assert!(network.masquerade && network.icc && network.isolated && !network.internal);
    }

    #[test]
    fn a_gateway_is_a_host_and_says_so() {
        let error = format!("{:#}", decide(r#"{"bip":"192.168.1.0/24"}"#).unwrap_err());
        assert!(
            error.contains("gateway: 192.168.1.0/24: a network's address"),
            "{error}"
        );
        assert!(error.contains("192.168.1.1/24"), "{error}");
        let network = decide(r#"{"bip":"192.168.1.254/24"}"#).unwrap();
        assert_eq!(network.range.network().to_string(), "192.168.1.0");
    }

    #[test]
    fn docker_s_words_are_understood() {
        let json =
            r#"{"bip":"10.9.0.1/16","fixed-cidr":"10.9.7.0/24","ip":"127.0.0.1","ip-masq":false}"#;
        let network = decide(json).unwrap();
        assert_eq!(network.range.to_string(), "10.9.7.0/24");
        assert!(!network.masquerade);
    }

    #[test]
    fn route_localnet_is_for_networks_whose_rules_keep_it_safe() {
        for (json, kernel) in [
            (r#"{"subnet":"10.0.0.0/24"}"#, true),
            (r#"{"subnet":"10.0.0.0/24","driver":"iptables"}"#, true),
            (r#"{"subnet":"10.0.0.0/24","driver":"none"}"#, false),
            (r#"{"subnet":"10.0.0.0/24","internal":true}"#, false),
        ] {
            assert_eq!(
                decide(json).unwrap().localhost == Localhost::Kernel,
                kernel,
                "{json}"
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for json in [
            "{}",
            r#"{"subnet":"10.0.0.5/8"}"#,
            r#"{"subnet":"10.0.0.0/31"}"#,
            r#"{"subnet":"fd00::/64"}"#,
            r#"{"subnet":"10.0.0.0/24","gateway":"10.0.1.1/24"}"#,
            r#"{"subnet":"10.0.0.0/24","ipRange":"10.0.0.0/16"}"#,
            r#"{"subnet":"10.0.0.0/24","subnet6":"10.0.0.0/24"}"#,
            r#"{"subnet":"10.0.0.0/24","mtu":10}"#,
            r#"{"subnet":"10.0.0.0/24","bridge":"rt"}"#,
            r#"{"subnet":"10.0.0.0/24","bridge":"a/b"}"#,
            r#"{"subnet":"10.0.0.0/24","internal":true,"masquerade":true}"#,
            r#"{"subnet":"10.0.0.0/24","colour":"blue"}"#,
            r#"{"subnet":"10.0.0.0/24","driver":"none","internal":true}"#,
            r#"{"subnet":"10.0.0.0/24","driver":"none","isolated":true}"#,
            r#"{"subnet":"10.0.0.0/24","driver":"none","masquerade":true}"#,
            r#"{"subnet":"10.0.0.0/24","driver":"none","icc":false}"#,
            r#"{"subnet":"10.0.0.0/24","driver":"none","localhost":"kernel"}"#,
            r#"{"subnet":"10.0.0.0/24","driver":"iptables","icc":false}"#,
        ] {
            assert!(decide(json).is_err(), "{json}");
        }
    }

    #[test]
    fn bridges_have_names_that_the_kernel_takes() {
        for name in ["web", "a-network-with-a-very-long-name"] {
            let bridge = default_bridge(name);
            assert!(check_interface(&bridge).is_ok(), "{bridge}");
        }
        for name in ["", "host", "a/b", "..", &"x".repeat(33)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
