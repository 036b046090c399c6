//! `docs/cves.md` names no test that is not there, and leaves none of its rows without one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../docs/cves.md");

/// The cells of those tables that end with a column of tests.
fn rows() -> Vec<Vec<&'static str>> {
    let mut rows = Vec::new();
    let mut has_tests = false;
    for line in PAGE.lines() {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        match line.starts_with('|') {
            false => has_tests = false,
            true if cells.last() == Some(&"tests") => has_tests = true,
            true if has_tests && !cells[0].starts_with("--") => rows.push(cells),
            true => {}
        }
    }
    rows
}

/// What stands between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether a file of the module has this test: `a::b::c` is the test `c` in `a/b.rs`.
fn exists(test: &str) -> bool {
    let Some((module, name)) = test.rsplit_once("::") else { return false };
    let file = format!("{}.rs", module.replace("::", "/"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["integration", "src"].map(|top| root.join(top).join(&file));
    files.into_iter().any(|file| has_test(file, name))
}

fn has_test(file: PathBuf, name: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let tests = text.split("#[test]").skip(1).filter_map(|rest| rest.split_once("fn "));
    tests.map(|(_, rest)| rest).any(|rest| rest.starts_with(&format!("{name}(")))
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let mut wrong = Vec::new();
    for row in rows() {
        let tests: Vec<_> = quoted(row[row.len() - 1]).collect();
        if tests.is_empty() {
            wrong.push(format!("{}: no test", row[0]));
        }
        wrong.extend(
            tests.iter().filter(|t| !exists(t)).map(|test| format!("{}: no test {test}", row[0])),
        );
    }
    assert!(rows().len() > 60, "{} rows", rows().len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_row_has_all_columns_and_no_advisory_is_named_as_ours_and_not_ours() {
    assert!(rows().iter().all(|row| row.len() == 4), "{:#?}", rows().iter().find(|r| r.len() != 4));
    let names = |text: &'static str| -> BTreeSet<&'static str> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        words.filter(|word| word.starts_with("CVE-") || word.starts_with("GHSA-")).collect()
    };
    let title = "## Not about what `rt` does";
    let (_, rest) = PAGE.split_once(title).unwrap();
    let others = names(rest.split("\n## ").next().unwrap());
    let ours: BTreeSet<_> = rows().iter().flat_map(|row| names(row[0])).collect();
    let both: Vec<_> = ours.intersection(&others).collect();
    assert!(both.is_empty() && others.len() > 50, "{both:?}");
}
