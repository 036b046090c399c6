//! `update`: changes the limits of an existing container.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxIntelRdt, LinuxMemory, LinuxPids, LinuxResources,
};

use crate::cgroup::Cgroup;
use crate::container::state::{Container, ContainerRecord, ContainerStatus};
use crate::error::{InPhase, Phase};
use crate::rdt::Rdt;
use crate::{config, log};

/// The largest file of resources that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// Runs `rt update`. If the limits cannot be set, the schemata of Intel RDT are restored.
pub fn update(root: &Path, id: &str, resources: LinuxResources, schemata: &Schemata) -> Result<()> {
    let schema = config::check_resources(&resources)
        .and_then(|()| schemata.lines())
        .phase(Phase::Config)?;
    let (container, _lock) = Container::open_existing_locked(root, id)?;
    if matches!(
        container.status()?.0,
        ContainerStatus::Creating | ContainerStatus::Stopped
    ) {
        bail!("{id}: container not running");
    }
    let ContainerRecord { cgroup, rdt, .. } = &container.record;
    if cgroup.is_nowhere() && resources != Values::default().into() {
        bail!("{id}: container has no cgroup");
    }
    if schema.is_empty() {
        return cgroup.update(resources).phase(Phase::Cgroup);
    }
    let rdt = rdt
        .as_ref()
        .with_context(|| format!("{id}: container has no linux.intelRdt"))?;
    update_with_schema(cgroup, rdt, resources, &schema).phase(Phase::Cgroup)
}

fn update_with_schema(
    cgroup: &Cgroup,
    rdt: &Rdt,
    resources: LinuxResources,
    schema: &str,
) -> Result<()> {
    let before = rdt.undo_of(schema)?;
    rdt.write(schema)?;
    cgroup.update(resources).inspect_err(|_| {
        // An error of this write is ignored: the first error tells more.
        let _ = rdt.write(&before);
    })
}

/// Reads resources (an object like `linux.resources` in `config.json`) from `file`, or from
/// standard input if that is `-`.
pub fn read(file: &Path) -> Result<LinuxResources> {
    let read = || {
        let mut bytes = Vec::new();
        let mut limited = match file.to_str() {
            Some("-") => Box::new(std::io::stdin()) as Box<dyn Read>,
            _ => Box::new(File::open(file)?),
        }
        .take(LIMIT + 1);
        limited.read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LIMIT {
            bail!("larger than {} MiB", LIMIT >> 20);
        }
        config::resources(&bytes)
    };
    read()
        .with_context(|| format!("--resources {}", file.display()))
        .phase(Phase::Config)
}

/// Intel RDT, also together with a file.
#[derive(Debug, Args)]
pub struct Schemata {
    /// Schema of the L3 cache, such as L3:0=7f0
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Schema of the memory's bandwidth, such as MB:0=20
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
}

impl Schemata {
    /// Checks the schemata, and returns the lines to write.
    fn lines(&self) -> Result<String> {
        let mut rdt = LinuxIntelRdt::default();
        rdt.set_l3_cache_schema(self.l3_cache_schema.clone());
        rdt.set_mem_bw_schema(self.mem_bw_schema.clone());
        config::check_intel_rdt(&rdt)?;
        let lines = [&self.l3_cache_schema, &self.mem_bw_schema]
            .into_iter()
            .flatten();
        Ok(lines
            .filter(|line| !line.is_empty())
            .cloned()
            .collect::<Vec<_>>()
            .join("\n"))
    }
}

/// What runc takes, and ignores as well: no kernel has such limits any more.
#[derive(Debug, Args)]
pub struct Obsolete {
    #[arg(long, hide = true, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    kernel_memory: Option<i64>,
    #[arg(long, hide = true, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    kernel_memory_tcp: Option<i64>,
}

impl Obsolete {
    pub fn warn(&self) {
        if self.kernel_memory.or(self.kernel_memory_tcp).is_some() {
            log::warn("--kernel-memory and --kernel-memory-tcp are ignored");
        }
    }
}

/// The limits that the command line can name one by one.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct Values {
    /// Limit of memory: bytes, or with k, m, g; -1 for none
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory: Option<i64>,
    /// Soft limit of memory
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory_reservation: Option<i64>,
    /// Limit of memory and swap together
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Period of the CPU quota in microseconds
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// CPU time in each period in microseconds; -1 for no limit
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long, value_name = "US")]
    cpu_burst: Option<u64>,
    /// Share of the CPU, relative to others
    #[arg(long, value_name = "N")]
    cpu_share: Option<u64>,
    /// 1 to run only when nobody else wants to, else 0
    #[arg(long, value_name = "0|1", allow_hyphen_values = true)]
    cpu_idle: Option<i64>,
    /// Period of real-time scheduling in microseconds
    #[arg(long, value_name = "US")]
    cpu_rt_period: Option<u64>,
    /// Real time in each period in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// CPUs, such as 0-2,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// How many processes and threads there may be; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Share of the disks, 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,
}

impl From<Values> for LinuxResources {
    fn from(values: Values) -> Self {
        let mut memory = LinuxMemory::default();
        memory.set_limit(values.memory);
        memory.set_reservation(values.memory_reservation);
        memory.set_swap(values.memory_swap);
        let mut cpu = LinuxCpu::default();
        cpu.set_period(values.cpu_period)
            .set_quota(values.cpu_quota);
        cpu.set_burst(values.cpu_burst)
            .set_shares(values.cpu_share)
            .set_idle(values.cpu_idle);
        cpu.set_realtime_period(values.cpu_rt_period);
        cpu.set_realtime_runtime(values.cpu_rt_runtime);
        cpu.set_cpus(values.cpuset_cpus)
            .set_mems(values.cpuset_mems);
        let mut io = LinuxBlockIo::default();
        io.set_weight(values.blkio_weight);
        let mut resources = Self::default();
        resources
            .set_memory(Some(memory))
            .set_cpu(Some(cpu))
            .set_block_io(Some(io));
        resources.set_pids(values.pids_limit.map(|limit| {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            pids
        }));
        resources
    }
}

/// Parses a size into bytes: a number, or one with a unit such as `64k` or `1.5GiB`. Units are
/// powers of 1024, as in runc and docker. `-1` is accepted as well.
fn size(text: &str) -> std::result::Result<i64, String> {
    let wrong = || format!("{text:?} is not a size");
    if text == "-1" {
        return Ok(-1);
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if matches!(&*unit, "" | "b") => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    let factor = 1i64 << (10 * power);
    if !number.contains('.') {
        let whole = number.parse::<i64>().ok();
        return whole
            .and_then(|whole| whole.checked_mul(factor))
            .ok_or_else(wrong);
    }
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
    if bytes < i64::MAX as f64 {
        Ok(bytes as i64)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("-1", -1),
            ("1024", 1024),
            ("10b", 10),
            ("64k", 65_536),
            ("50M", 50 << 20),
            ("50mb", 50 << 20),
            ("1 GiB", 1 << 30),
            ("1.5g", 3 << 29),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "-2",
            "k",
            "1x",
            "1kk",
            "1.2.3",
            "99999999999999999999",
            "1ib",
            "9p9",
            "1e3",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
        assert!(size("9000000000000p").is_err());
    }
}
