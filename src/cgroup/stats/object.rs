//! Building JSON objects.

use serde_json::{Map, Value};

/// A JSON object that is being built.
pub(super) type Object = Map<String, Value>;

/// Returns the number of a key, or 0.
pub(super) fn count(table: &Object, key: &str) -> u64 {
    table.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// Adds a value if there is one.
pub(super) fn put(object: &mut Object, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value.into());
    }
}

/// Returns `{"usage", "throttling"}` for the processor. `table` is `cpu.stat`, and `throttled` the
/// time in nanoseconds for which processes were throttled.
pub(super) fn processor(usage: Object, table: &Object, throttled: u64) -> Object {
    let mut throttling = Object::new();
    put(&mut throttling, "periods", Some(count(table, "nr_periods")));
    let periods = count(table, "nr_throttled");
    put(&mut throttling, "throttledPeriods", Some(periods));
    put(&mut throttling, "throttledTime", Some(throttled));
    let mut object = Object::new();
    put(&mut object, "usage", Some(usage));
    put(&mut object, "throttling", Some(throttling));
    object
}

/// Returns `{"limit", "usage", "max", "failcnt"}` for memory.
pub(super) fn entry(limit: u64, usage: u64, max: u64, failures: u64) -> Value {
    let pairs = [
        ("limit", limit),
        ("usage", usage),
        ("max", max),
        ("failcnt", failures),
    ];
    pairs
        .map(|(name, value)| (name.to_owned(), value.into()))
        .into_iter()
        .collect::<Object>()
        .into()
}

/// Returns `{"major", "minor", "op", "value"}` for a disk.
pub(super) fn disk(device: &str, op: &str, value: u64) -> Option<Value> {
    let (major, minor) = device.split_once(':')?;
    let mut object = Object::new();
    put(&mut object, "major", Some(major.parse::<u64>().ok()?));
    put(&mut object, "minor", Some(minor.parse::<u64>().ok()?));
    put(&mut object, "op", Some(op).filter(|op| !op.is_empty()));
    put(&mut object, "value", Some(value));
    Some(object.into())
}
