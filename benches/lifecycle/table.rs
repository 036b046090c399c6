//! Medians, quartiles and ratios, as a table.

use std::fmt;

use crate::course::Verb;

/// What one runtime needed for one verb.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) verb: Verb,
    pub(crate) name: &'static str,
    /// One a round, in milliseconds.
    pub(crate) times: Vec<f64>,
    pub(crate) calls: Option<u64>,
    /// In KiB.
    pub(crate) peak: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: Vec<Entry>,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// A runtime that cannot do `verb` here.
    pub(crate) fn note(&mut self, verb: Verb, name: &str, why: &str) {
        self.notes.push(format!("{name} {}: {why}", verb.name()));
    }

    /// The times of `rt` divided by those of `entry`, round by round.
    fn ratios(&self, entry: &Entry) -> Option<Vec<f64>> {
        let first = self.entries.iter().find(|first| first.verb == entry.verb)?;
        let pairs = first.times.iter().zip(&entry.times);
        (first.name != entry.name).then(|| pairs.map(|(rt, other)| rt / other).collect())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = [
            "command",
            "runtime",
            "wall, ms",
            "rt / this",
            "system calls",
            "peak, MiB",
        ];
        let mut rows = vec![heads.map(str::to_owned), heads.map(|_| "---".to_owned())];
        for entry in &self.entries {
            let number = |number: Option<String>| number.unwrap_or_else(|| "?".to_owned());
            rows.push([
                entry.verb.name().to_owned(),
                entry.name.to_owned(),
                quartiles(entry.times.clone()),
                self.ratios(entry).map_or_else(String::new, quartiles),
                number(entry.calls.map(|calls| calls.to_string())),
                number(entry.peak.map(|kib| format!("{:.1}", kib as f64 / 1024.0))),
            ]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        for row in &rows {
            for (cell, width) in row.iter().zip(&widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

/// The median, and the quartiles around it.
fn quartiles(mut values: Vec<f64>) -> String {
    values.sort_unstable_by(f64::total_cmp);
    let at = |quarter: usize| {
        values
            .get(values.len() * quarter / 4)
            .copied()
            .unwrap_or(f64::NAN)
    };
    format!("{:.2} ({:.2} to {:.2})", at(2), at(1), at(3))
}
