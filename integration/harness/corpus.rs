//! What real clients have given to a runtime: see `integration/corpus/README.md`.

use serde_json::{Map, Value};

const PARTS: &str = include_str!("../corpus/parts.json");
const CLIENTS: [(&str, &str); 3] = [
    ("containerd", include_str!("../corpus/containerd.json")),
    ("docker", include_str!("../corpus/docker.json")),
    ("podman", include_str!("../corpus/podman.json")),
];

/// A `config.json`, a `process.json` or the resources of an update.
#[derive(Debug)]
pub(crate) struct Input {
    /// `docker.run_tmpfs.create.1`
    pub(crate) name: String,
    pub(crate) value: Value,
}

/// Every input that was given to a command: `create`, `exec` or `update`.
pub(crate) fn inputs(command: &str) -> Vec<Input> {
    let parts: Map<String, Value> = serde_json::from_str(PARTS).unwrap();
    let mut inputs = Vec::new();
    for (client, text) in CLIENTS {
        let all: Map<String, Value> = serde_json::from_str(text).unwrap();
        let command = format!(".{command}.");
        for (name, value) in all.into_iter().filter(|(name, _)| name.contains(&command)) {
            let name = format!("{client}.{name}");
            let value = whole(value, &parts);
            inputs.push(Input { name, value });
        }
    }
    inputs
}

/// With the parts in their places.
fn whole(value: Value, parts: &Map<String, Value>) -> Value {
    let member = |(name, value)| (name, whole(value, parts));
    match value {
        Value::Object(object) => match object.get("$part").and_then(Value::as_str) {
            Some(name) => whole(parts[name].clone(), parts),
            None => object.into_iter().map(member).collect(),
        },
        Value::Array(list) => list.into_iter().map(|value| whole(value, parts)).collect(),
        value => value,
    }
}

/// Takes out what an error says is not yet supported (`mounts[3].options[1]: idmap: not yet
/// supported`); its path without the numbers.
pub(crate) fn take_out(config: &mut Value, error: &str) -> Option<String> {
    let (path, _) = error.strip_suffix("not yet supported")?.split_once(": ")?;
    let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
    let (parent, name) = pointer.rsplit_once('/')?;
    match config.pointer_mut(parent)? {
        Value::Array(list) => drop(list.remove(name.parse().ok()?)),
        object => drop(object.as_object_mut()?.remove(name)?),
    }
    Some(path.replace(|c: char| c.is_ascii_digit(), ""))
}
