//! The driver that runs the `iptables` commands, for hosts whose tools and people look there. Its
//! result reads like docker's. The chains of `rt` are made anew from the records each time, in one
//! `iptables-restore`; the rules that lead to them are inserted once.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::super::description::{Driver, Localhost};
use super::super::network::Network;
use super::super::publish::Publish;
use super::super::record::{Endpoint, NetworkRecord};
use super::super::store::Store;
use crate::netlink::address::Cidr;

const RAW: &str = "RT-RAW";
const DNAT: &str = "RT";
const POSTROUTING: &str = "RT-POSTROUTING";
const FORWARD: &str = "RT-FORWARD";
const INPUT: &str = "RT-INPUT";
/// The user's chain: packets come to it first, and `rt` never changes it.
const USER: &str = "RT-USER";

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The chains of `rt`: table, name, and the rules that lead there.
const CHAINS: [(&str, &str, &[&str]); 8] = [
    ("raw", RAW, &["PREROUTING"]),
    // Packets that must not pass are dropped in the table mangle, where no rule of the table filter
    // can accept them before.
    ("mangle", INPUT, &["INPUT"]),
    ("mangle", FORWARD, &["FORWARD"]),
    // Ports on 127.0.0.1 serve the host itself only (moby#45610).
    (
        "nat",
        DNAT,
        &[
            "PREROUTING ! -d LOOPBACK -m addrtype --dst-type LOCAL",
            "OUTPUT -m addrtype --dst-type LOCAL",
        ],
    ),
    ("nat", POSTROUTING, &["POSTROUTING"]),
    ("filter", FORWARD, &["FORWARD"]),
    ("filter", USER, &["FORWARD"]),
    ("filter", INPUT, &["INPUT"]),
];

/// The commands for one address family.
#[derive(Clone, Copy)]
struct Family {
    program: &'static str,
    restore: &'static str,
    loopback: &'static str,
    v4: bool,
}

const FAMILIES: [Family; 2] = [
    Family {
        program: "iptables",
        restore: "iptables-restore",
        loopback: "127.0.0.0/8",
        v4: true,
    },
    Family {
        program: "ip6tables",
        restore: "ip6tables-restore",
        loopback: "::1/128",
        v4: false,
    },
];

/// Makes all rules from the records, except those of the container `without`.
pub(super) fn rebuild(store: &Store, without: &str) -> Result<()> {
    restore(&networks(store)?, &store.records_and_remains(without)?)
}

/// Makes all rules from the records, except those of `network`, which ends.
pub(super) fn retire(store: &Store, network: &str) -> Result<()> {
    let mut networks = networks(store)?;
    networks.retain(|one| one.name != network);
    restore(&networks, &store.records_and_remains("")?)
}

fn restore(networks: &[Network], records: &[NetworkRecord]) -> Result<()> {
    for family in FAMILIES {
        if !family.is_needed(networks) {
            continue;
        }
        let endpoints: Vec<_> = records
            .iter()
            .flat_map(|record| &record.endpoints)
            .collect();
        let text = family.tables(networks, &endpoints);
        run(family.restore, &["-w", "--noflush"], &text)?;
        if run(family.program, &["-w", "-S", USER], "").is_err() {
            run(family.program, &["-w", "-N", USER], "")?;
        }
        for (table, chain, jumps) in CHAINS {
            for jump in jumps {
                family.jump(table, chain, jump, true)?;
            }
        }
    }
    Ok(())
}

fn networks(store: &Store) -> Result<Vec<Network>> {
    let mut networks = store.all_in_use()?;
    networks.retain(|one| one.is_of(Driver::Iptables));
    Ok(networks.into_iter().map(|one| one.network).collect())
}

/// Removes all chains, except the user's if there is something in it.
pub(super) fn end() -> Result<()> {
    for family in FAMILIES {
        for (table, chain, jumps) in CHAINS {
            let listed = match run(family.program, &["-w", "-t", table, "-S", chain], "") {
                Ok(listed) => listed,
                Err(_) => continue,
            };
            if chain == USER && listed.lines().count() > 1 {
                continue;
            }
            for jump in jumps {
                family.jump(table, chain, jump, false)?;
            }
            run(family.program, &["-w", "-t", table, "-F", chain], "")?;
            run(family.program, &["-w", "-t", table, "-X", chain], "")?;
        }
    }
    Ok(())
}

impl Family {
    fn jump(self, table: &str, chain: &str, jump: &str, wanted: bool) -> Result<()> {
        let jump = jump.replace("LOOPBACK", self.loopback);
        let mut words = vec!["-w", "-t", table, "-C"];
        words.extend(jump.split(' '));
        words.extend(["-j", chain]);
        if run(self.program, &words, "").is_ok() == wanted {
            return Ok(());
        }
        // In the table nat the administrator's own rules stay first.
        words[3] = match (wanted, table) {
            (false, _) => "-D",
            (true, "nat") => "-A",
            (true, _) => "-I",
        };
        run(self.program, &words, "").map(drop)
    }

    /// Returns the input of `iptables-restore`, which empties each chain that it declares.
    fn tables(self, networks: &[Network], endpoints: &[&Endpoint]) -> String {
        let mut text = format!("*raw\n:{RAW} - [0:0]\n");
        self.raw(&mut text, networks);
        for endpoint in endpoints {
            // A bridge delivers frames to addresses of its own on the port at which they arrive,
            // where no rule that names the bridge matches.
            let _ = writeln!(text, "-A {RAW} -i {} -j DROP", endpoint.host_interface);
        }
        let _ = write!(
            text,
            "COMMIT\n*mangle\n:{INPUT} - [0:0]\n:{FORWARD} - [0:0]\n"
        );
        self.resolvers(&mut text, networks);
        for network in networks.iter().filter(|network| network.internal) {
            self.internal(&mut text, network);
        }
        let _ = write!(
            text,
            "COMMIT\n*nat\n:{DNAT} - [0:0]\n:{POSTROUTING} - [0:0]\n"
        );
        for network in networks {
            for endpoint in endpoints.iter().filter(|one| one.network == network.name) {
                self.dnat(&mut text, network, endpoint);
            }
            self.postrouting(&mut text, network);
        }
        let _ = write!(
            text,
            "COMMIT\n*filter\n:{FORWARD} - [0:0]\n:{INPUT} - [0:0]\n"
        );
        self.filter(&mut text, networks);
        text + "COMMIT\n"
    }

    /// Whether the family has anything to filter. An internal network without IPv6 addresses still
    /// has a link-local one if the host has IPv6.
    fn is_needed(self, networks: &[Network]) -> bool {
        let here = |network: &Network| network.gateway6.is_some() || network.internal;
        self.v4 || Path::new("/proc/net/if_inet6").exists() && networks.iter().any(here)
    }

    /// Writes the rules that drop sources and destinations that no packet of a container has, and
    /// packets of neighbours to the gateways' addresses.
    fn raw(self, text: &mut String, networks: &[Network]) {
        let mut rule = |rule: String| {
            let _ = writeln!(text, "-A {RAW} {rule}");
        };
        for network in networks {
            let (bridge, loopback) = (&network.bridge, self.loopback);
            rule(format!("-i {bridge} -d {loopback} -j DROP"));
            rule(format!("-i {bridge} -s {loopback} -j DROP"));
            if !network.internal {
                continue;
            }
            // Dropped before connection tracking: where that sees bridged packets, two containers
            // that pose as the host would make a connection that passes for one of the host's.
            let from_this_host = "-m addrtype --src-type LOCAL";
            match self.v4 {
                true => rule(format!("-i {bridge} {from_this_host} -j DROP")),
                false => {
                    // Hosts on different links may have the same link-local address.
                    rule(format!(
                        "-i {bridge} ! -s fe80::/10 {from_this_host} -j DROP"
                    ));
                    rule(format!(
                        "-i {bridge} {from_this_host} --limit-iface-in -j DROP"
                    ));
                }
            }
            // Answers, which the input hook lets in, must arrive where the host's questions left.
            rule(format!(
                "-i {bridge} -m addrtype --dst-type LOCAL -m rpfilter --invert -j DROP"
            ));
        }
        for network in networks {
            let Some(Cidr { address, .. }) = self.gateway(network) else {
                continue;
            };
            for inside in networks.iter().map(|one| one.bridge.as_str()).chain(["lo"]) {
                rule(format!("-i {inside} -d {address} -j RETURN"));
            }
            rule(format!("-d {address} -j DROP"));
        }
    }

    /// Writes the rules that let only the members of a network ask its resolver.
    fn resolvers(self, text: &mut String, networks: &[Network]) {
        for network in networks {
            let Some(Cidr { address, .. }) = self.gateway(network) else {
                continue;
            };
            for protocol in ["tcp", "udp"] {
                let question = format!("-A {INPUT} -d {address} -p {protocol} --dport 53");
                for inside in ["lo", &network.bridge] {
                    let _ = writeln!(text, "{question} -i {inside} -j RETURN");
                }
                let _ = writeln!(text, "{question} -j DROP");
            }
        }
    }

    /// Writes the rules for an internal network. Of the host it reaches its own resolver, and its
    /// gateway by ICMP; it may answer what the host has begun. Beyond the host it reaches nothing.
    fn internal(self, text: &mut String, network: &Network) {
        let bridge = &network.bridge;
        let mut rule = |rule: String| {
            let _ = writeln!(text, "-A {rule}");
        };
        let icmp = if self.v4 { "icmp" } else { "icmpv6" };
        if !self.v4 {
            // Neighbour discovery, which IPv6 uses instead of ARP.
            for kind in [135, 136] {
                rule(format!(
                    "{INPUT} -i {bridge} -p {icmp} --icmpv6-type {kind} -j RETURN"
                ));
            }
        }
        rule(format!(
            "{INPUT} -i {bridge} -m conntrack --ctstate ESTABLISHED --ctdir REPLY -j RETURN"
        ));
        if let Some(Cidr { address, .. }) = self.gateway(network) {
            for protocol in ["tcp", "udp"] {
                rule(format!(
                    "{INPUT} -i {bridge} -d {address} -p {protocol} --dport 53 -j RETURN"
                ));
            }
            rule(format!(
                "{INPUT} -i {bridge} -d {address} -p {icmp} -j RETURN"
            ));
        }
        rule(format!("{INPUT} -i {bridge} -j DROP"));
        rule(format!("{FORWARD} -i {bridge} ! -o {bridge} -j DROP"));
        rule(format!("{FORWARD} ! -i {bridge} -o {bridge} -j DROP"));
    }

    fn gateway(self, network: &Network) -> Option<Cidr> {
        if self.v4 {
            Some(network.gateway)
        } else {
            network.gateway6
        }
    }

    fn dnat(self, text: &mut String, network: &Network, endpoint: &Endpoint) {
        let Some(to) = endpoint
            .addresses()
            .find(|address| address.is_ipv4() == self.v4)
        else {
            return;
        };
        for publish in &endpoint.publish {
            let Some(bind) = self.bind(network, publish) else {
                continue;
            };
            for n in 0..publish.to.count {
                let (host, port) = (publish.host + n, publish.to.first + n);
                let protocol = publish.to.protocol.name();
                let target = match to {
                    IpAddr::V4(to) => format!("{to}:{port}"),
                    IpAddr::V6(to) => format!("[{to}]:{port}"),
                };
                let _ = writeln!(
                    text,
                    "-A {DNAT} {bind}-p {protocol} --dport {host} -j DNAT --to-destination {target}"
                );
            }
        }
    }

    /// Returns the match for the address that a port is published on; `None` if the helper process
    /// serves it.
    fn bind(self, network: &Network, publish: &Publish) -> Option<String> {
        let kernel = self.v4 && network.localhost == Localhost::Kernel;
        match publish.bind {
            Some(bind) if bind.is_ipv4() != self.v4 => None,
            Some(bind) if bind.is_loopback() && !kernel => None,
            Some(bind) if !bind.is_unspecified() => Some(format!("-d {bind} ")),
            _ if kernel => Some(String::new()),
            _ => Some(format!("! -d {} ", self.loopback)),
        }
    }

    fn postrouting(self, text: &mut String, network: &Network) {
        let (bridge, Some(gateway)) = (&network.bridge, self.gateway(network)) else {
            return;
        };
        let subnet = format!("{}/{}", gateway.network(), gateway.prefix);
        if network.masquerade {
            let _ = writeln!(
                text,
                "-A {POSTROUTING} -s {subnet} ! -o {bridge} -j MASQUERADE"
            );
        }
        if self.v4 {
            let _ = writeln!(
                text,
                "-A {POSTROUTING} -s 127.0.0.0/8 -o {bridge} -j MASQUERADE"
            );
        }
        let _ = writeln!(
            text,
            "-A {POSTROUTING} -s {subnet} -o {bridge} -m conntrack --ctstate DNAT -j MASQUERADE"
        );
    }

    fn filter(self, text: &mut String, networks: &[Network]) {
        let here = || {
            networks
                .iter()
                .filter(|network| self.gateway(network).is_some())
        };
        let mut rule = |rule: String| {
            let _ = writeln!(text, "-A {rule}");
        };
        for network in here() {
            let bridge = &network.bridge;
            rule(format!("{FORWARD} -i {bridge} -o {bridge} -j ACCEPT"));
            if network.internal {
                rule(format!("{FORWARD} -i {bridge} -j DROP"));
                rule(format!("{FORWARD} -o {bridge} -j DROP"));
            }
            if !self.v4 {
                rule(format!(
                    "{INPUT} -i {bridge} -p icmpv6 --icmpv6-type 134 -j DROP"
                ));
            }
        }
        for network in here() {
            let bridge = &network.bridge;
            let state = format!("{FORWARD} -o {bridge} -m conntrack --ctstate");
            rule(format!("{state} RELATED,ESTABLISHED -j ACCEPT"));
            rule(format!("{state} DNAT -j ACCEPT"));
            let open = here().filter(|other| !other.isolated && other.name != network.name);
            for other in open.filter(|_| !network.isolated) {
                rule(format!(
                    "{FORWARD} -i {} -o {bridge} -j ACCEPT",
                    other.bridge
                ));
            }
            rule(format!("{FORWARD} -o {bridge} -j DROP"));
        }
        for network in here() {
            rule(format!("{FORWARD} -i {} -j ACCEPT", network.bridge));
        }
    }
}

/// Runs a command with `input` and returns its output.
///
/// # Errors
/// The command fails: with what it says on standard error.
pub(super) fn run(program: &str, words: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(program);
    // A hook's environment is mostly empty.
    command
        .env("PATH", PATH)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{program}: not installed, but its tables are needed")
        }
        result => result.with_context(|| program.to_owned())?,
    };
    if let Some(mut stdin) = child.stdin.take() {
        // The command may end before it has read everything; its exit status and its output say
        // why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let done = child
        .wait_with_output()
        .with_context(|| program.to_owned())?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!(
            "{program} {}: {}",
            words.join(" "),
            said.trim().replace('\n', " ")
        );
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
