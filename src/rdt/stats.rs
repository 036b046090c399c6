//! Statistics of a class of service and a monitoring group, as `events` prints them. The JSON has
//! the shape of runc's `types/events.go`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Rdt, number};
use crate::sys;

/// The resources: the name in resctrl, the prefix of the JSON fields, and the files to read.
const RESOURCES: [(&str, &str, &[&str]); 2] = [
    (
        "L3",
        "l3_cache",
        &["cbm_mask", "min_cbm_bits", "num_closids"],
    ),
    (
        "MB",
        "mem_bw",
        &[
            "bandwidth_gran",
            "delay_linear",
            "min_bandwidth",
            "num_closids",
        ],
    ),
];

/// The lists of counters, one entry for each domain.
const COUNTERS: [(&str, &[&str]); 2] = [
    ("mbm_stats", &["mbm_total_bytes", "mbm_local_bytes"]),
    ("cmt_stats", &["llc_occupancy"]),
];

impl Rdt {
    /// Returns the statistics. Fields that this hardware or kernel does not have are left out.
    pub fn stats(&self) -> Map<String, Value> {
        let mut stats = Map::new();
        let mut put = |name: String, value: Value| drop(stats.insert(name, value));
        let (root, own) = (lines(&self.root), lines(&self.class));
        for (resource, prefix, files) in RESOURCES {
            let info = self.root.join("info").join(resource);
            if !info.is_dir() {
                continue;
            }
            put(format!("{prefix}_info"), object(&info, files));
            for (name, lines) in [("schema_root", &root), ("schema", &own)] {
                if let Some(line) = lines.iter().find(|line| line.starts_with(resource)) {
                    put(format!("{prefix}_{name}"), line.as_str().into());
                }
            }
        }
        let known = fs::read_to_string(self.root.join("info/L3_MON/mon_features"));
        let known = known.unwrap_or_default();
        let domains = domains(self.monitoring.as_ref().unwrap_or(&self.class));
        for (name, files) in COUNTERS {
            if known.lines().any(|feature| files.contains(&feature)) {
                let counts = domains.iter().map(|domain| object(domain, files));
                put(name.to_owned(), counts.collect());
            }
        }
        put("schemata".to_owned(), json!(own));
        stats
    }
}

fn lines(class: &Path) -> Vec<String> {
    let text = fs::read_to_string(class.join("schemata")).unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// Returns the directories of `mon_data`, sorted by name.
fn domains(group: &Path) -> Vec<PathBuf> {
    let top = group.join("mon_data");
    let entries = sys::list_directory(&top).unwrap_or_default();
    let mut domains: Vec<_> = entries
        .into_iter()
        .map(|entry| top.join(entry.name))
        .collect();
    domains.sort();
    domains
}

/// Reads files as the fields of an object. All are numbers, except the mask.
fn object(directory: &Path, files: &[&str]) -> Value {
    let field = |name: &&str| {
        let text = fs::read_to_string(directory.join(name)).ok()?;
        let value = match *name {
            "cbm_mask" => text.trim().into(),
            _ => number(&text).parse::<u64>().ok()?.into(),
        };
        Some(((*name).to_owned(), value))
    };
    files.iter().filter_map(field).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Made;
    use super::*;

    #[test]
    fn statistics_are_in_the_shape_of_runcs() {
        let made = Made::new("stats");
        let rdt = made
            .plan(json!({ "closID": "gold", "enableMonitoring": true }))
            .unwrap();
        assert_eq!(
            Value::Object(rdt.stats()),
            json!({ "schemata": ["MB:0= 20;1=070", "L3:0=007f0;1=0001f"] })
        );
        for (path, text) in [
            ("info/L3/cbm_mask", "7ff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/MB/bandwidth_gran", "10\n"),
            (
                "info/L3_MON/mon_features",
                "llc_occupancy\nmbm_total_bytes\n",
            ),
            (
                "gold/mon_groups/box/mon_data/mon_L3_01/llc_occupancy",
                "7\n",
            ),
            (
                "gold/mon_groups/box/mon_data/mon_L3_00/llc_occupancy",
                "300\n",
            ),
            (
                "gold/mon_groups/box/mon_data/mon_L3_00/mbm_total_bytes",
                "Unavailable\n",
            ),
        ] {
            let path = made.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(made.0.join("schemata"), "L3:0=7ff;1=7ff\n").unwrap();
        let expected = json!({
            "l3_cache_info": { "cbm_mask": "7ff", "min_cbm_bits": 1, "num_closids": 16 },
            "l3_cache_schema_root": "L3:0=7ff;1=7ff",
            "l3_cache_schema": "L3:0=007f0;1=0001f",
            "mem_bw_info": { "bandwidth_gran": 10 },
            "mem_bw_schema": "MB:0= 20;1=070",
            "mbm_stats": [{}, {}],
            "cmt_stats": [{ "llc_occupancy": 300 }, { "llc_occupancy": 7 }],
            "schemata": ["MB:0= 20;1=070", "L3:0=007f0;1=0001f"]
        });
        assert_eq!(Value::Object(rdt.stats()), expected);
    }
}
