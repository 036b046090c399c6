//! Chains that other programs have made (docker, ufw, firewalld). A packet has to pass every chain
//! of a hook. A chain whose policy is to drop, or which ends with a reject, stops the packets of
//! containers whatever the tables of `rt` say. There, and only there, `rt` puts rules first that
//! accept its bridge: in docker's `DOCKER-USER` if that exists. They are written as iptables writes
//! them, so that `iptables -S` can still show its tables. They carry a comment, and are removed
//! with the bridge.

use std::fs;

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::super::description::Driver;
use super::encode::{
    DELRULE, GETCHAIN, GETRULE, IIFNAME, INET, IPV4, IPV6, NftFamily, NftRule, NftVerdict, OIFNAME,
    R1, interface, message,
};
use super::iptables::run;
use super::nft::TABLE;
use crate::netlink::{DUMP, NetlinkSocket, attribute, attributes, text};

const FORWARD: u32 = 2;
const INPUT: u32 = 1;
const DOCKER: &str = "DOCKER-USER";

/// A chain of another program that filters packets which are forwarded or come in.
#[derive(Debug)]
struct ForeignChain {
    family: NftFamily,
    table: String,
    name: String,
    hook: u32,
    drops: bool,
}

/// A rule in such a chain, as far as it is needed here.
struct ForeignRule {
    handle: Vec<u8>,
    comment: Vec<u8>,
    /// The names of its expressions; `drop` is a verdict.
    expressions: Vec<String>,
}

fn comment(bridge: &str) -> String {
    format!("rt netns {bridge}")
}

/// Opens every chain that would stop the bridge's packets. The driver iptables has accepting and
/// dropping rules of its own in `FORWARD`, before which no other rule may be put.
pub(super) fn open(bridge: &str, driver: Driver) -> Result<()> {
    let mut socket = NetlinkSocket::netfilter().context("nf_tables")?;
    let (chains, docker) = chains(&mut socket)?;
    for chain in &chains {
        let decided = driver == Driver::Iptables && chain.name == "FORWARD";
        let ends = rules(&mut socket, chain, &chain.name)?;
        if decided || !chain.drops && !ends.last().is_some_and(ends_all) {
            continue;
        }
        let user = chain.hook == FORWARD && docker.contains(&(chain.family.0, chain.table.clone()));
        let place = if user { DOCKER } else { &chain.name };
        let present = rules(&mut socket, chain, place)?;
        let ours = comment(bridge);
        if present.iter().any(|rule| is_ours(rule, &ours)) {
            continue;
        }
        let rules = accepting(bridge, chain);
        let messages = rules
            .iter()
            .map(|rule| rule.create(chain.family, &chain.table, place, Some(&ours)))
            .collect();
        socket.batch(messages).map_err(|(_, errno)| errno).with_context(|| {
            format!("chain {place} of table {} drops packets: a rule that accepts {bridge} is needed there", chain.table)
        })?;
    }
    legacy(bridge, true, driver == Driver::Iptables)
}

/// Removes the rules that [`open`] has put into the chains.
pub(super) fn close(bridge: &str) -> Result<()> {
    let mut socket = NetlinkSocket::netfilter().context("nf_tables")?;
    let (chains, docker) = chains(&mut socket)?;
    let ours = comment(bridge);
    for chain in &chains {
        let mut places = vec![chain.name.as_str()];
        if docker.contains(&(chain.family.0, chain.table.clone())) {
            places.push(DOCKER);
        }
        for place in places {
            let rules = rules(&mut socket, chain, place)?;
            let messages = rules
                .iter()
                .filter(|rule| is_ours(rule, &ours))
                .map(|rule| {
                    let mut delete = message(DELRULE, 0, chain.family);
                    delete
                        .string(1, &chain.table)
                        .string(2, place)
                        .bytes(3, &rule.handle);
                    delete
                });
            match socket.batch(messages.collect()) {
                Ok(()) | Err((_, Errno::ENOENT)) => {}
                Err((_, errno)) => return Err(errno).with_context(|| place.to_owned()),
            }
        }
    }
    legacy(bridge, false, false)
}

type Docker = Vec<(u8, String)>;

fn chains(socket: &mut NetlinkSocket) -> Result<(Vec<ForeignChain>, Docker)> {
    let (mut found, mut docker) = (Vec::new(), Vec::new());
    let request = message(GETCHAIN, DUMP, NftFamily(0));
    let result = socket.query(request, |_, payload| {
        let Some(family) = payload.first() else {
            return;
        };
        let bytes = payload.get(4..).unwrap_or_default();
        let string = |kind| {
            attribute(bytes, kind)
                .map(text)
                .unwrap_or_default()
                .to_owned()
        };
        let (table, name) = (string(1), string(3));
        if name == DOCKER {
            docker.push((*family, table.clone()));
        }
        let hook = attribute(bytes, 4).and_then(|hook| be32(attribute(hook, 1)?));
        let filters = string(7) == "filter" && [INET, IPV4, IPV6].contains(&NftFamily(*family));
        if let Some(hook @ (FORWARD | INPUT)) = hook
            && filters
            && table != TABLE
        {
            let drops = attribute(bytes, 5).and_then(be32) == Some(0);
            found.push(ForeignChain {
                family: NftFamily(*family),
                table,
                name,
                hook,
                drops,
            });
        }
    });
    match result {
        Ok(()) => Ok((found, docker)),
        Err(errno) => Err(errno).context("nf_tables"),
    }
}

fn be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn rules(socket: &mut NetlinkSocket, chain: &ForeignChain, name: &str) -> Result<Vec<ForeignRule>> {
    let mut found = Vec::new();
    let mut request = message(GETRULE, DUMP, chain.family);
    request.string(1, &chain.table).string(2, name);
    let result = socket.query(request, |_, payload| {
        let bytes = payload.get(4..).unwrap_or_default();
        // Kernels before 4.15 dump every table's rules.
        let same = |kind, value: &str| attribute(bytes, kind).map(text) == Some(value);
        if same(1, &chain.table) && same(2, name) {
            let list = attribute(bytes, 4).unwrap_or_default();
            found.push(ForeignRule {
                handle: attribute(bytes, 3).unwrap_or_default().to_vec(),
                comment: attribute(bytes, 7).unwrap_or_default().to_vec(),
                expressions: attributes(list).map(|(_, one)| expression(one)).collect(),
            });
        }
    });
    match result {
        Ok(()) | Err(Errno::ENOENT) => Ok(found),
        Err(errno) => Err(errno).with_context(|| name.to_owned()),
    }
}

fn expression(bytes: &[u8]) -> String {
    let name = attribute(bytes, 1).map(text).unwrap_or_default();
    let verdict = || {
        let data = attribute(attribute(bytes, 2)?, 2)?;
        be32(attribute(attribute(data, 2)?, 1)?)
    };
    match name {
        "immediate" if verdict() == Some(0) => "drop".to_owned(),
        name => name.to_owned(),
    }
}

/// Whether the rule stops every packet that reaches it.
fn ends_all(rule: &ForeignRule) -> bool {
    let end = |name: &String| name == "drop" || name == "reject";
    let harmless = |name: &String| name == "counter" || name == "log" || end(name);
    rule.expressions.iter().any(end) && rule.expressions.iter().all(harmless)
}

fn is_ours(rule: &ForeignRule, comment: &str) -> bool {
    // Type, length, text, zero.
    rule.comment.get(2..).map(text) == Some(comment)
}

/// Returns the rules that accept packets in the chain. Everything that is forwarded from or to the
/// bridge is accepted, since the table of `rt` decides about that. Of the packets that come in only
/// questions for names, answers, and ICMPv6 (for neighbour discovery) are accepted.
fn accepting(bridge: &str, chain: &ForeignChain) -> Vec<NftRule> {
    let from = |key| {
        NftRule::default()
            .meta(key, R1)
            .cmp(R1, true, &name(bridge))
    };
    let accept = |rule: NftRule| rule.counter().verdict(NftVerdict::Accept);
    if chain.hook == FORWARD {
        return vec![accept(from(IIFNAME)), accept(from(OIFNAME))];
    }
    let mut rules: Vec<_> = [6, 17]
        .map(|protocol| from(IIFNAME).protocol(protocol).destination_port(53))
        .into_iter()
        .collect();
    if chain.family != IPV4 {
        rules.push(from(IIFNAME).protocol(58));
    }
    // iptables can show the state of a connection only if it is written as its own match.
    rules.push(match chain.family {
        INET => from(IIFNAME).established(),
        _ => from(IIFNAME).established_match(),
    });
    rules.into_iter().map(accept).collect()
}

/// Returns the name with its final zero, which makes it a whole name instead of the beginning of
/// one.
fn name(bridge: &str) -> Vec<u8> {
    interface(bridge)[..=bridge.len()].to_vec()
}

/// Adds or removes the rules in the tables of iptables-legacy, which nf_tables does not show. They
/// exist only if somebody has used that program.
fn legacy(bridge: &str, add: bool, input_only: bool) -> Result<()> {
    for (file, program) in [
        ("/proc/net/ip_tables_names", "iptables-legacy"),
        ("/proc/net/ip6_tables_names", "ip6tables-legacy"),
    ] {
        let tables = fs::read_to_string(file).unwrap_or_default();
        if !tables.lines().any(|table| table == "filter") {
            continue;
        }
        let ours = comment(bridge);
        for (chain, rules) in legacy_rules(bridge) {
            if input_only && chain == "FORWARD" {
                continue;
            }
            let listed = run(program, &["-w", "-S", chain], "")?;
            let drops = listed.lines().next() == Some(&format!("-P {chain} DROP"));
            let place = match chain {
                "FORWARD" if run(program, &["-w", "-S", DOCKER], "").is_ok() => DOCKER,
                chain => chain,
            };
            for rule in rules {
                let mut words = vec!["-w", "-C", place];
                words.extend(rule.split(' '));
                words.extend(["-m", "comment", "--comment", &ours, "-j", "ACCEPT"]);
                let present = run(program, &words, "").is_ok();
                if present != add && (drops || !add) {
                    words[1] = if add { "-I" } else { "-D" };
                    run(program, &words, "")?;
                }
            }
        }
    }
    Ok(())
}

fn legacy_rules(bridge: &str) -> [(&'static str, Vec<String>); 2] {
    let input = [
        "-p udp --dport 53",
        "-p tcp --dport 53",
        "-m conntrack --ctstate RELATED,ESTABLISHED",
    ];
    [
        (
            "FORWARD",
            vec![format!("-i {bridge}"), format!("-o {bridge}")],
        ),
        (
            "INPUT",
            input
                .iter()
                .map(|rule| format!("-i {bridge} {rule}"))
                .collect(),
        ),
    ]
}
