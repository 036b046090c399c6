//! The commands of `rt netns`, and the hook.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use super::description::Config;
use super::entry::RecordEntry;
use super::file::write;
use super::host::Host;
use super::in_use::InUse;
use super::network::{DEFAULT, Network, check_name};
use super::request::{ANNOTATION, NetworkRequest, Options};
use super::store::{Active, Store};
use super::target::Target;
use super::{attach, bridge, detach, firewall, hosts, serve, show};
use crate::id::check_id;
use crate::log;
use crate::netlink::address::Cidr;
use crate::netlink::link::RouteNetlink;

/// The longest state that is read from standard input, in bytes.
const STATE_MAX: u64 = 1 << 20;

/// The network namespace that is named on the command line of `add`.
#[derive(Clone, Debug)]
pub enum NamespacePlace {
    Pid(i32),
    Path(PathBuf),
}

/// A command of `rt netns` with its arguments.
#[derive(Debug)]
pub enum Verb {
    /// The OCI hooks `createRuntime` and `poststop`: the state on standard input says which one it
    /// is.
    Hook(Options),
    Add {
        id: String,
        place: NamespacePlace,
        options: Options,
    },
    Del {
        id: String,
    },
    List {
        json: bool,
    },
    Inspect {
        name: String,
        json: bool,
    },
    Check {
        repair: bool,
    },
    Prune,
    Create {
        name: String,
        options: Options,
    },
    Rm {
        name: String,
    },
    /// Runs the helper process.
    Serve {
        name: String,
    },
}

/// Executes the command. Returns the text for standard output.
pub fn run(host: &Host, verb: Verb) -> Result<String> {
    match verb {
        Verb::Hook(options) => hook(host, &options),
        Verb::Add { id, place, options } => {
            let mut request = NetworkRequest::new(pairs(&options))?;
            // The person who types this command may write anywhere anyway. Only here are links in
            // the path followed.
            if let Some(files) = request.files {
                let context = || format!("files: {}", files.display());
                fs::create_dir_all(&files).with_context(context)?;
                request.files = Some(files.canonicalize().with_context(context)?);
            }
            add(host, &id, &place, request)
        }
        Verb::Del { id } => del(host, &id),
        Verb::List { json } => show::list(host, json),
        Verb::Inspect { name, json } => show::inspect(host, &name, json),
        Verb::Check { repair } => check(host, repair),
        Verb::Prune => prune(host),
        Verb::Create { name, options } => create(host, &name, &options),
        Verb::Rm { name } => rm(host, &name),
        Verb::Serve { name } => serve::serve(&host.state, &name).map(|()| String::new()),
    }
}

fn pairs(options: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    options
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
}

/// The state of a container as the runtime-spec defines it, as far as it is needed here.
#[derive(Deserialize)]
struct StateInput {
    id: String,
    status: String,
    #[serde(default)]
    pid: i32,
    #[serde(default)]
    bundle: PathBuf,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

fn hook(host: &Host, options: &[(String, String)]) -> Result<String> {
    let mut text = Vec::new();
    std::io::stdin()
        .take(STATE_MAX)
        .read_to_end(&mut text)
        .context("standard input")?;
    let state: StateInput =
        serde_json::from_slice(&text).context("standard input: not the state of a container")?;
    if state.status == "stopped" {
        return del(host, &state.id);
    }
    let own = state
        .annotations
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(ANNOTATION)?, value.as_str())));
    let mut request = NetworkRequest::new(own.chain(pairs(options)))?;
    if let Some(files) = request.files {
        request.files = Some(hosts::directory(&state.bundle, &host.state, &files)?);
    }
    if state.pid == 0 {
        bail!("{}: status {}, but no pid", state.id, state.status);
    }
    add(host, &state.id, &NamespacePlace::Pid(state.pid), request)
}

fn add(host: &Host, id: &str, place: &NamespacePlace, request: NetworkRequest) -> Result<String> {
    check_id(id)?;
    let target = match place {
        NamespacePlace::Pid(pid) => Target::of_process(*pid)?,
        NamespacePlace::Path(path) => Target::at(path)?,
    };
    attach::attach(host, id, &target, &request).map(|_| String::new())
}

/// Removes the network of a container. A second call is no error.
fn del(host: &Host, id: &str) -> Result<String> {
    check_id(id)?;
    let store = Store::lock(host)?;
    remove(&store, id)?;
    Ok(String::new())
}

/// Removes everything of a container, whatever the state of its record.
fn remove(store: &Store, id: &str) -> Result<()> {
    match store.entry(id)? {
        Some(RecordEntry::Whole(record)) => detach::detach(store, &record),
        Some(RecordEntry::Unreadable(_)) => detach::sweep(store, id, true),
        None => detach::sweep(store, id, false),
    }
}

/// Removes what containers that are gone have left, and containers whose record cannot be read. An
/// error with one container does not keep the others from being removed.
fn prune(host: &Host) -> Result<String> {
    let store = Store::lock(host)?;
    let (mut removed, mut first) = (String::new(), None);
    for id in store.ids()? {
        let prune = || -> Result<bool> {
            match store.entry(&id)? {
                Some(RecordEntry::Whole(record)) if record.is_alive()? => return Ok(false),
                Some(RecordEntry::Unreadable(error)) => log::warn(crate::error::line(&error)),
                _ => {}
            }
            remove(&store, &id).map(|()| true)
        };
        match prune() {
            Ok(true) => removed += &format!("{id}\n"),
            Ok(false) => {}
            Err(error) => drop(first.get_or_insert(error.context(id.clone()))),
        }
    }
    detach::tidy(&store)?;
    match first {
        Some(error) => Err(error),
        None => Ok(removed),
    }
}

/// Reports what is not as it should be; with `repair` it is repaired first.
fn check(host: &Host, repair: bool) -> Result<String> {
    let report = if repair { prune(host)? } else { String::new() };
    let store = Store::lock(host)?;
    let mut faults = Vec::new();
    let mut here = RouteNetlink::here()?;
    faults.extend(
        store
            .unreadable()?
            .iter()
            .map(|(_, error)| crate::error::line(error)),
    );
    for record in store.records()? {
        match record.is_alive()? {
            false => faults.push(format!("{}: the container is gone", record.id)),
            true if !record.complete => faults.push(format!("{}: incomplete", record.id)),
            true => {}
        }
        for endpoint in &record.endpoints {
            if here.find(&endpoint.host_interface)?.is_none() {
                faults.push(format!(
                    "{}: {}: missing",
                    record.id, endpoint.host_interface
                ));
            }
        }
    }
    for in_use in store.all_in_use()? {
        let name = in_use.network.name.clone();
        let result = match repair {
            true => put_right(&store, in_use, &mut here),
            false => look_at(&store, in_use),
        };
        match result {
            Ok(found) => faults.extend(found),
            // An error with one network must not keep the others from being looked at.
            Err(error) => faults.push(format!("{name}: {}", crate::error::line(&error))),
        }
    }
    match (faults.is_empty(), repair) {
        (true, _) => Ok(report),
        (false, true) => bail!("not repaired: {}", faults.join("; ")),
        (false, false) => bail!("{} (rt netns check --repair)", faults.join("; ")),
    }
}

/// Returns what is wrong with a network.
fn look_at(store: &Store, in_use: InUse) -> Result<Vec<String>> {
    let name = &in_use.network.name;
    let mut faults: Vec<_> = in_use.error.iter().map(crate::error::line).collect();
    let firewall = firewall::check(store, &in_use.network)?;
    faults.extend(firewall.map(|fault| format!("{name}: {fault}")));
    if !serve::is_up(store, name)? {
        faults.push(format!("{name}: the helper process does not run"));
    }
    Ok(faults)
}

/// Makes everything of a network anew. Returns the faults that cannot be repaired.
fn put_right(store: &Store, in_use: InUse, here: &mut RouteNetlink) -> Result<Vec<String>> {
    let InUse {
        network,
        made_bridge,
        error,
        is_closed,
    } = in_use;
    if let Some(error) = error {
        if is_closed {
            firewall::repair(store, &network)?;
            return Ok(vec![crate::error::line(&error)]);
        }
        store.activate(
            &network.name,
            &Active {
                config: network.config.clone(),
                made_bridge,
            },
        )?;
    }
    bridge::ensure(&network, here)?;
    bridge::forward(&network)?;
    firewall::repair(store, &network)?;
    serve::repair(store, &network)?;
    Ok(vec![])
}

/// The options of `create`: name, placeholder of the value, help. Values that are no words are
/// JSON's `true` and `false` or a number.
pub const NETWORK_OPTIONS: [(&str, &str, &str); 15] = [
    (
        "bridge",
        "NAME",
        "The bridge's name, also of one that exists",
    ),
    (
        "subnet",
        "CIDR",
        "The IPv4 subnet [default: a free one of 172.21.0.0/16 and on]",
    ),
    (
        "gateway",
        "CIDR",
        "The host's address in it, with the prefix length",
    ),
    (
        "ipRange",
        "CIDR",
        "Give addresses from this part of the subnet only",
    ),
    ("subnet6", "CIDR", "The IPv6 subnet"),
    ("mtu", "BYTES", "The interfaces' MTU"),
    (
        "icc",
        "BOOL",
        "Containers of this network reach each other [default: true]",
    ),
    (
        "internal",
        "BOOL",
        "No way out of this network [default: false]",
    ),
    (
        "masquerade",
        "BOOL",
        "Packets leave with the host's address [default: true]",
    ),
    (
        "bind",
        "ADDRESS",
        "Where ports are published if nothing else is said",
    ),
    (
        "isolated",
        "BOOL",
        "No way to other networks of this host [default: true]",
    ),
    (
        "driver",
        "NAME",
        "nftables, iptables or none [default: nftables]",
    ),
    (
        "resolver",
        "BOOL",
        "Answer for the containers' names [default: true]",
    ),
    (
        "dns",
        "ADDRESS",
        "A server to ask about other names [default: the host's]",
    ),
    (
        "localhost",
        "WHO",
        "kernel or proxy: who serves published ports on 127.0.0.1",
    ),
];

fn create(host: &Host, name: &str, options: &[(String, String)]) -> Result<String> {
    check_name(name)?;
    let path = host.networks.join(format!("{name}.json"));
    if path.exists() {
        bail!("network {name}: exists: {}", path.display());
    }
    let mut object = serde_json::Map::new();
    for (key, value) in options {
        let is_json = matches!(
            key.as_str(),
            "icc" | "internal" | "masquerade" | "isolated" | "resolver" | "mtu"
        );
        let value = match key.as_str() {
            "dns" => value
                .split(',')
                .map(Into::into)
                .collect::<Vec<serde_json::Value>>()
                .into(),
            _ if is_json => {
                let expected = if key == "mtu" {
                    "a number"
                } else {
                    "true or false"
                };
                serde_json::from_str(value)
                    .map_err(|_| anyhow!("--{key}: {value:?} is not {expected}"))?
            }
            _ => value.as_str().into(),
        };
        object.insert(key.clone(), value);
    }
    let mut config: Config = serde_json::from_value(object.into())?;
    if config.subnet.is_none() && config.gateway.is_none() && name != DEFAULT {
        config.subnet = Some(free_subnet(host)?);
    }
    let network = Network::decide(name, config).with_context(|| format!("network {name}"))?;
    for other in Network::names(&host.networks)? {
        let Ok(other) = Network::load(&host.networks, &other) else {
            continue;
        };
        let both = |cidr: Cidr| other.gateways().any(|its| its.overlaps(cidr));
        if other.name != name && (network.gateways().any(both) || other.bridge == network.bridge) {
            bail!(
                "network {name}: its subnet or bridge is that of network {}",
                other.name
            );
        }
    }
    fs::create_dir_all(&host.networks).with_context(|| host.networks.display().to_string())?;
    write(&path, &network.config)?;
    Ok(String::new())
}

/// Returns the first of 172.21.0.0/16 … 172.31.0.0/16 and 192.168.0.0/20 … that nothing uses.
fn free_subnet(host: &Host) -> Result<Cidr> {
    let mut used = RouteNetlink::here()?.routes()?;
    for name in Network::names(&host.networks)? {
        used.extend(
            Network::load(&host.networks, &name)
                .iter()
                .flat_map(Network::gateways),
        );
    }
    let first = (21..32).map(|n| ([172, n, 0, 0], 16));
    let second = (0..16).map(|n| ([192, 168, n * 16, 0], 20));
    let all = first.chain(second).map(|(bytes, prefix)| Cidr {
        address: bytes.into(),
        prefix,
    });
    all.into_iter()
        .find(|cidr| !used.iter().any(|other| other.overlaps(*cidr)))
        .ok_or_else(|| anyhow!("subnet: no free one is left: name one"))
}

fn rm(host: &Host, name: &str) -> Result<String> {
    check_name(name)?;
    let store = Store::lock(host)?;
    if store.active(name)?.is_some() {
        let holders = store.leases(name)?;
        let holder = holders.first().map_or("somebody", |(_, holder)| holder);
        bail!("network {name}: in use by {holder} (rt netns del, or rt netns prune)");
    }
    let path = host.networks.join(format!("{name}.json"));
    match fs::remove_file(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("network {name}: there is no {}", path.display())
        }
        result => result
            .map(|()| String::new())
            .with_context(|| path.display().to_string()),
    }
}
