//! The control files of a cgroup, read as numbers, tables and lists.

use std::collections::BTreeMap;
use std::path::Path;

use nix::fcntl::OFlag;
use serde_json::Value;

use super::super::file;
use super::types::Pressure;
use crate::sys;

/// The control files of one cgroup.
#[derive(Clone, Copy)]
pub(super) struct Files<'a>(pub(super) &'a Path);

impl Files<'_> {
    /// Returns a whole file.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        file::open(&self.0.join(name), OFlag::O_RDONLY)
            .and_then(file::read_all)
            .ok()
    }

    /// Returns a number; `max` becomes the largest one, as in runc.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        let text = self.text(name)?;
        if text.trim() == "max" {
            Some(u64::MAX)
        } else {
            text.trim().parse().ok()
        }
    }

    /// Returns numbers that are separated by white space.
    pub(super) fn numbers(&self, name: &str) -> Option<Vec<u64>> {
        Some(
            self.text(name)?
                .split_ascii_whitespace()
                .flat_map(str::parse)
                .collect(),
        )
    }

    /// Returns lines of a key and a number.
    pub(super) fn table(&self, name: &str) -> Option<BTreeMap<String, u64>> {
        let text = self.text(name)?;
        let line = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        };
        Some(text.lines().filter_map(line).collect())
    }

    /// Returns the numbers of a list such as `0-2,4`.
    pub(super) fn list(&self, name: &str) -> Option<Vec<u64>> {
        Some(ranges(self.text(name)?.trim()))
    }

    /// Returns pressure stall information (Linux 4.20). A kernel may be built or booted without it.
    pub(super) fn pressure(&self, name: &str) -> Option<Pressure> {
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
            Some((kind.to_owned(), rest.split(' ').filter_map(field).collect()))
        };
        let kinds: Pressure = text.lines().filter_map(line).collect();
        Some(kinds).filter(|kinds| !kinds.is_empty())
    }
}

/// Returns the number of a key, or 0.
pub(super) fn count(table: &BTreeMap<String, u64>, key: &str) -> u64 {
    table.get(key).copied().unwrap_or(0)
}

fn ranges(text: &str) -> Vec<u64> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Returns the sizes of the kernel's huge pages, as in the names of control files.
pub(super) fn page_sizes() -> Vec<String> {
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
    use super::super::tests::cgroup;
    use super::*;

    #[test]
    fn lists_of_processors() {
        assert_eq!(ranges("0-2,4"), [0, 1, 2, 4]);
        assert_eq!(ranges(""), [0; 0]);
    }

    #[test]
    fn pressure_is_some_and_full() {
        let text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\n\
            full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let directory = cgroup(&[("cpu.pressure", text)]);
        let psi = Files(&directory).pressure("cpu.pressure").unwrap();
        assert_eq!(psi["some"]["avg10"], 1.5);
        assert_eq!(psi["some"]["total"], 77);
        assert_eq!(psi["full"]["total"], 5);
        assert!(Files(&directory).pressure("io.pressure").is_none());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
