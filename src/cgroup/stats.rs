//! What a container uses, as `events` prints it: the shape is that of runc's `types/events.go`,
//! with `memory.events` added. A file that a kernel does not have leaves its field out or at 0.

mod v1;
mod v2;

use std::path::Path;

use nix::fcntl::OFlag;
use serde_json::{Map, Value};

use super::{Group, file};
use crate::sys;

/// A JSON object in the making.
type Object = Map<String, Value>;

/// The control files of one group.
#[derive(Clone, Copy)]
struct Files<'a>(&'a Path);

impl Files<'_> {
    /// A whole file.
    fn text(&self, name: &str) -> Option<String> {
        file::open(&self.0.join(name), OFlag::O_RDONLY)
            .and_then(file::read_all)
            .ok()
    }

    /// A number; `max` is the largest one, as with runc.
    fn number(&self, name: &str) -> Option<u64> {
        let text = self.text(name)?;
        if text.trim() == "max" {
            Some(u64::MAX)
        } else {
            text.trim().parse().ok()
        }
    }

    /// Numbers with white space between them.
    fn numbers(&self, name: &str) -> Option<Vec<u64>> {
        Some(
            self.text(name)?
                .split_ascii_whitespace()
                .flat_map(str::parse)
                .collect(),
        )
    }

    /// Lines of a key and a number.
    fn table(&self, name: &str) -> Option<Object> {
        let text = self.text(name)?;
        let line = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse::<u64>().ok()?.into()))
        };
        Some(text.lines().filter_map(line).collect())
    }

    /// A list such as `0-2,4`.
    fn list(&self, name: &str) -> Option<Vec<u64>> {
        Some(ranges(self.text(name)?.trim()))
    }

    /// Pressure stall information (Linux 4.20), which a kernel can be built or booted without.
    fn pressure(&self, name: &str) -> Option<Value> {
        let text = self.text(name)?;
        let line = |line: &str| {
            let (kind, rest) = line.split_once(' ')?;
            let field = |field: &str| {
                let (key, value) = field.split_once('=')?;
                let number: Option<Value> = match key {
                    "total" => value.parse::<u64>().ok().map(Into::into),
                    _ => value.parse::<f64>().ok().map(Into::into),
                };
                Some((key.to_owned(), number?))
            };
            let fields: Object = rest.split(' ').filter_map(field).collect();
            Some((kind.to_owned(), fields.into()))
        };
        let kinds: Object = text.lines().filter_map(line).collect();
        (!kinds.is_empty()).then(|| kinds.into())
    }
}

fn ranges(text: &str) -> Vec<u64> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// The number behind a key, or 0.
fn count(table: &Object, key: &str) -> u64 {
    table.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// Adds what there is.
fn put(object: &mut Object, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value.into());
    }
}

/// `{"limit", "usage", "max", "failcnt"}` of memory.
fn entry(limit: u64, usage: u64, max: u64, failures: u64) -> Value {
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

/// `{"major", "minor", "op", "value"}` of a disk.
fn disk(device: &str, op: &str, value: u64) -> Option<Value> {
    let (major, minor) = device.split_once(':')?;
    let mut object = Object::new();
    put(&mut object, "major", Some(major.parse::<u64>().ok()?));
    put(&mut object, "minor", Some(minor.parse::<u64>().ok()?));
    put(&mut object, "op", Some(op).filter(|op| !op.is_empty()));
    put(&mut object, "value", Some(value));
    Some(object.into())
}

/// The statistics of a container: each controller from the version that has it.
pub(super) fn read(groups: &[Group]) -> Value {
    let v1 = |controller| {
        super::group::with_controller(groups, controller).map(|group| Files(&group.directory))
    };
    let v2 = groups
        .iter()
        .find(|group| group.is_v2())
        .map(|group| Files(&group.directory));
    let one = |v1: Option<Object>, of_v2: fn(Files<'_>) -> Object| {
        v1.or_else(|| v2.map(of_v2)).unwrap_or_default()
    };
    let mut cpu = one(v1("cpuacct").map(|acct| v1::cpu(acct, v1("cpu"))), v2::cpu);
    let mut memory = one(v1("memory").map(v1::memory), v2::memory);
    let mut disks = one(v1("blkio").map(v1::disks), v2::disks);
    // A hybrid host has it in version 2 whatever is in version 1.
    if let Some(files) = v2 {
        put(&mut cpu, "psi", files.pressure("cpu.pressure"));
        put(&mut memory, "psi", files.pressure("memory.pressure"));
        put(&mut disks, "psi", files.pressure("io.pressure"));
    }
    let mut stats = Object::new();
    for (name, object) in [
        ("cpu", cpu),
        ("cpuset", one(v1("cpuset").map(v1::cpuset), v2::cpuset)),
        ("memory", memory),
        ("pids", one(v1("pids").map(pids), pids)),
        ("blkio", disks),
        (
            "hugetlb",
            one(v1("hugetlb").map(v1::huge_pages), v2::huge_pages),
        ),
        ("intel_rdt", Object::new()),
    ] {
        stats.insert(name.to_owned(), object.into());
    }
    stats.insert("network_interfaces".to_owned(), Value::Null);
    stats.into()
}

/// Both versions have the same files. Without the controller: how many processes there are.
fn pids(files: Files<'_>) -> Object {
    let processes = || Some(files.text("cgroup.procs")?.lines().count() as u64);
    let mut pids = Object::new();
    put(
        &mut pids,
        "current",
        files.number("pids.current").or_else(processes),
    );
    // No limit is 0, as with runc.
    put(
        &mut pids,
        "limit",
        files.number("pids.max").filter(|limit| *limit != u64::MAX),
    );
    pids
}

/// The sizes of huge pages that the kernel has, as they stand in the names of control files.
fn page_sizes() -> Vec<String> {
    let entries = sys::list_directory("/sys/kernel/mm/hugepages").unwrap_or_default();
    let size = |name: &str| {
        let kilobytes: u64 = name
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        Some(match kilobytes {
            ..1024 => format!("{kilobytes}KB"),
            1024..1_048_576 => format!("{}MB", kilobytes >> 10),
            _ => format!("{}GB", kilobytes >> 20),
        })
    };
    entries
        .iter()
        .filter_map(|entry| size(entry.name.to_str()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group made of plain files.
    pub(super) fn group(files: &[(&str, &str)]) -> std::path::PathBuf {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("rt-stats-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        for (name, text) in files {
            std::fs::write(directory.join(name), text).unwrap();
        }
        directory
    }

    #[test]
    fn lists_of_processors() {
        assert_eq!(ranges("0-2,4"), [0, 1, 2, 4]);
        assert_eq!(ranges(""), [0; 0]);
    }

    #[test]
    fn pressure_is_some_and_full() {
        let text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\n\
            full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let directory = group(&[("cpu.pressure", text)]);
        let psi = Files(&directory).pressure("cpu.pressure").unwrap();
        assert_eq!(psi["some"]["avg10"], 1.5);
        assert_eq!(psi["some"]["total"], 77);
        assert_eq!(psi["full"]["total"], 5);
        assert!(Files(&directory).pressure("io.pressure").is_none());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn no_group_has_no_numbers() {
        let stats = read(&[]);
        assert_eq!(stats["cpu"], Value::Object(Object::new()));
        assert!(stats["network_interfaces"].is_null());
    }
}
