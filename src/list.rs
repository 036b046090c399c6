//! `list` and `state`: show the state of containers in the formats of runc.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, bail};
use serde::Serialize;

use crate::container::state::{Container, ContainerStatus};
use crate::error::line;
use crate::log;

/// The state of a container as in runtime.md of runtime-spec, with the fields that runc adds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateOutput {
    oci_version: String,
    id: String,
    /// The pid of init; 0 if it has ended.
    pid: i32,
    status: ContainerStatus,
    bundle: PathBuf,
    rootfs: PathBuf,
    created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    owner: String,
}

impl StateOutput {
    fn from_container(container: Container) -> Result<Self> {
        let (status, init) = container.status()?;
        let record = container.record;
        let pid = record
            .init
            .filter(|_| init.is_some())
            .map_or(0, |process| process.pid);
        Ok(Self {
            oci_version: record.oci_version,
            id: record.id,
            pid,
            status,
            bundle: record.bundle,
            rootfs: record.rootfs,
            created: record.created,
            annotations: record.annotations,
            owner: user_name(record.owner),
        })
    }
}

/// Runs `rt state`; returns the text for standard output.
pub fn state(root: &Path, id: &str) -> Result<String> {
    let state = StateOutput::from_container(Container::open_existing(root, id)?)?;
    Ok(serde_json::to_string_pretty(&state)? + "\n")
}

/// How `list` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ListFormat {
    Table,
    Json,
    /// Ids only.
    #[value(skip)]
    Quiet,
}

/// Runs `rt list`; returns the text for standard output. A missing `root` has no containers, but is
/// an error if it was given with `--root` (`explicit_root`).
pub fn list(root: &Path, explicit_root: bool, format: ListFormat) -> Result<String> {
    let (all, errors) = if root.is_dir() {
        Container::all(root)?
    } else if explicit_root {
        bail!("--root {}: no such directory", root.display())
    } else {
        Default::default()
    };
    errors.iter().for_each(complain);
    if format == ListFormat::Quiet {
        return Ok(all
            .iter()
            .map(|container| container.record.id.clone() + "\n")
            .collect());
    }
    let states: Vec<StateOutput> = all.into_iter().filter_map(readable).collect();
    match format {
        // runc prints null if there is no container.
        ListFormat::Json if states.is_empty() => Ok("null\n".to_string()),
        ListFormat::Json => Ok(serde_json::to_string(&states)? + "\n"),
        _ => Ok(table(&states)),
    }
}

fn readable(container: Container) -> Option<StateOutput> {
    let id = container.record.id.clone();
    StateOutput::from_container(container)
        .inspect_err(|error| complain(&anyhow!("{id}: {}", line(error))))
        .ok()
}

/// Warns about a container that cannot be read; the others are listed nevertheless.
fn complain(error: &Error) {
    log::warn(line(error));
}

fn table(states: &[StateOutput]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from);
    let rows: Vec<[String; 6]> = std::iter::once(head)
        .chain(states.iter().map(row))
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(|column| width(column).max(9) + 3).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths).take(5) {
            let _ = write!(text, "{cell:width$}");
        }
        let _ = writeln!(text, "{}", row[5]);
    }
    text
}

fn row(state: &StateOutput) -> [String; 6] {
    [
        state.id.clone(),
        state.pid.to_string(),
        state.status.to_string(),
        state.bundle.display().to_string(),
        state.created.clone(),
        state.owner.clone(),
    ]
}

/// Returns the name of user `uid`, or `#UID` if there is none. It is read from /etc/passwd, because
/// a static executable has no name service switch (nsswitch.conf(5)).
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd")
        .context("/etc/passwd")
        .unwrap_or_default();
    let entry = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_string())
    });
    entry.unwrap_or_else(|| format!("#{uid}"))
}
