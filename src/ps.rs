//! `ps`: shows the processes of a container, with their pids on the host.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::container::state::Container;
use crate::error::{InPhase, Phase};
use crate::list::ListFormat;

/// Runs `rt ps`; returns the text for standard output: a JSON array of pids, or the lines about
/// these pids that ps(1) prints with `options` (`-ef` by default).
pub fn ps(root: &Path, id: &str, format: ListFormat, options: &[String]) -> Result<String> {
    let cgroup = Container::open_existing(root, id)?.record.cgroup;
    if cgroup.is_nowhere() {
        bail!("{id}: container has no cgroup");
    }
    let pids = cgroup.pids().phase(Phase::Cgroup)?;
    if format == ListFormat::Json {
        return Ok(serde_json::to_string(&pids)? + "\n");
    }
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() {
        &default
    } else {
        options
    };
    let done = Command::new("ps").args(options).output().context("ps")?;
    if !done.status.success() {
        bail!("ps: {}", String::from_utf8_lossy(&done.stderr).trim_end());
    }
    table(&String::from_utf8_lossy(&done.stdout), &pids)
}

/// Returns the title of `text` and its lines about one of `pids`.
///
/// # Errors
/// If the title has no column PID.
fn table(text: &str, pids: &[i32]) -> Result<String> {
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default();
    let column = title
        .split_ascii_whitespace()
        .position(|word| word == "PID");
    let column = column.context("ps: its output has no column PID")?;
    let is_member = |line: &&str| {
        let pid = line
            .split_ascii_whitespace()
            .nth(column)
            .and_then(|word| word.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Ok(std::iter::once(title)
        .chain(lines.filter(is_member))
        .map(|l| l.to_owned() + "\n")
        .collect())
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn only_members_are_shown() {
        let text = "UID          PID    PPID CMD\nroot           1       0 init\nroot 77 1 7 1\n";
        assert_eq!(
            table(text, &[77]).unwrap(),
            "UID          PID    PPID CMD\nroot 77 1 7 1\n"
        );
        assert!(table("CMD\n7\n", &[7]).is_err());
    }
}
