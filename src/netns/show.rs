//! `list` and `inspect`: for people, and as JSON.

use std::fmt::Write;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::entry::RecordEntry;
use super::host::Host;
use super::in_use::load;
use super::network::Network;
use super::publish::Publish;
use super::record::{Endpoint, NetworkRecord};
use super::store::Store;
use crate::id::check_id;
use crate::log;

/// Returns every container with its networks.
pub(super) fn list(host: &Host, json: bool) -> Result<String> {
    let store = Store::lock(host)?;
    let mut records = Vec::new();
    for id in store.ids()? {
        match store.entry(&id) {
            Ok(Some(RecordEntry::Whole(record))) => records.push(*record),
            Ok(Some(RecordEntry::Unreadable(error))) | Err(error) => {
                log::warn(crate::error::line(&error))
            }
            Ok(None) => {}
        }
    }
    for in_use in store.all_in_use()? {
        if let Some(error) = &in_use.error {
            log::warn(crate::error::line(error));
        }
    }
    if json {
        return pretty(
            &records
                .iter()
                .map(record)
                .collect::<Result<Vec<_>>>()?
                .into(),
        );
    }
    let mut rows = vec![["ID", "NETWORK", "ADDRESS", "PORTS", "STATUS"].map(str::to_owned)];
    for record in &records {
        let status = status(record)?;
        for endpoint in &record.endpoints {
            let addresses: Vec<_> = endpoint.addresses().map(|ip| ip.to_string()).collect();
            let ports: Vec<_> = endpoint.publish.iter().map(port).collect();
            rows.push([
                record.id.clone(),
                endpoint.network.clone(),
                addresses.join(","),
                ports.join(","),
                status.to_owned(),
            ]);
        }
        for point in &record.points {
            let address = format!("{} > {}", point.own, point.its);
            let peer = format!("({})", point.peer);
            rows.push([
                record.id.clone(),
                peer,
                address,
                String::new(),
                status.to_owned(),
            ]);
        }
    }
    Ok(table(&rows))
}

fn table(rows: &[[String; 5]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn status(record: &NetworkRecord) -> Result<&'static str> {
    Ok(match (record.complete, record.is_alive()?) {
        (true, true) => "up",
        (false, _) => "incomplete",
        (true, false) => "gone",
    })
}

/// Returns a published port in the form of docker's `ps`: `0.0.0.0:8080->80/tcp`.
fn port(publish: &Publish) -> String {
    let range = |first: u16| match publish.to.count {
        1 => first.to_string(),
        count => format!("{first}-{}", first + count - 1),
    };
    let bind = match publish.bind {
        Some(std::net::IpAddr::V6(bind)) => format!("[{bind}]"),
        Some(bind) => bind.to_string(),
        None => "*".to_owned(),
    };
    let (host, to) = (range(publish.host), range(publish.to.first));
    format!("{bind}:{host}->{to}/{}", publish.to.protocol.name())
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "network": endpoint.network,
        "interface": endpoint.interface,
        "hostInterface": endpoint.host_interface,
        "mac": endpoint.mac,
        "address": endpoint.address,
        "address6": endpoint.address6,
        "ports": endpoint.publish.iter().map(port).collect::<Vec<_>>(),
    })
}

fn record(record: &NetworkRecord) -> Result<Value> {
    Ok(json!({
        "id": record.id,
        "status": status(record)?,
        "pid": record.process.map(|process| process.pid),
        "netns": record.namespace.path,
        "names": record.names,
        "endpoints": record.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "pointToPoint": record.points,
        "links": record.links,
    }))
}

fn network(store: &Store, network: &Network) -> Result<Value> {
    let leases = store.leases(&network.name)?;
    Ok(json!({
        "name": network.name,
        "bridge": network.bridge,
        "gateway": network.gateway,
        "gateway6": network.gateway6,
        "ipRange": network.range,
        "icc": network.icc,
        "internal": network.internal,
        "masquerade": network.masquerade,
        "isolated": network.isolated,
        "driver": network.driver,
        "inUse": store.active(&network.name)?.is_some(),
        "containers": leases
            .into_iter()
            .map(|(address, id)| json!({ "id": id, "address": address }))
            .collect::<Vec<_>>(),
    }))
}

/// Describes a container or, if there is none of that name, a network.
pub(super) fn inspect(host: &Host, name: &str, json: bool) -> Result<String> {
    let store = Store::lock(host)?;
    let entry = if check_id(name).is_ok() {
        store.entry(name)?
    } else {
        None
    };
    let value = match entry {
        Some(RecordEntry::Whole(found)) => record(&found)?,
        Some(RecordEntry::Unreadable(error)) => return Err(error),
        None => match load(&store, host, name) {
            Ok(found) => network(&store, &found)?,
            Err(_) if !host.networks.join(format!("{name}.json")).exists() => {
                bail!("{name}: neither a container with a network nor a network")
            }
            Err(error) => return Err(error),
        },
    };
    if json {
        return pretty(&value);
    }
    let mut text = String::new();
    outline(&mut text, &value, 0);
    Ok(text)
}

fn pretty(value: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Writes one line for each value, indented. Missing values are left out.
fn outline(text: &mut String, value: &Value, depth: usize) {
    let Value::Object(object) = value else { return };
    for (key, value) in object {
        let indent = "  ".repeat(depth);
        match value {
            Value::Null => {}
            Value::Array(items) if items.is_empty() => {}
            Value::Array(items) if items.iter().all(Value::is_object) => {
                for item in items {
                    let _ = writeln!(text, "{indent}{key}:");
                    outline(text, item, depth + 1);
                }
            }
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(plain).collect();
                let _ = writeln!(text, "{indent}{key}: {}", items.join(", "));
            }
            value => {
                let _ = writeln!(text, "{indent}{key}: {}", plain(value));
            }
        }
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
