//! `docs/spec-coverage.md` has every field of the published schema, and names no file and no test
//! that is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::Schema;

const TABLE: &str = include_str!("../docs/spec-coverage.md");

/// Fields of features-linux.md 1.3.0 that its schema has not.
const NOT_IN_THE_SCHEMA: [&str; 5] = [
    "linux.intelRdt.monitoring",
    "linux.intelRdt.schemata",
    "linux.memoryPolicy",
    "linux.memoryPolicy.flags",
    "linux.memoryPolicy.modes",
];

/// How the second column begins where nothing is done.
const UNDONE: [&str; 3] = ["not yet: ", "absent: ", "other platforms"];

struct Row {
    /// The title above the table.
    of: &'static str,
    what: &'static str,
    place: &'static str,
    tests: &'static str,
}

fn rows() -> Vec<Row> {
    let mut of = "";
    let mut rows = Vec::new();
    for line in TABLE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            of = title;
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let ["", what, place, tests, ""] = cells[..] else {
            assert!(!line.starts_with('|'), "three columns: {line}");
            continue;
        };
        if !what.starts_with("--") && !tests.starts_with("tested by") {
            rows.push(Row { of, what, place, tests });
        }
    }
    rows
}

/// What stands between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// `a.{b,c}.d` is `a.b.d` and `a.c.d`.
fn expand(pattern: &str) -> Vec<String> {
    let Some((before, rest)) = pattern.split_once('{') else { return vec![pattern.to_owned()] };
    let (list, after) = rest.split_once('}').unwrap_or_else(|| panic!("{pattern}"));
    list.split(',').flat_map(|one| expand(&format!("{before}{one}{after}"))).collect()
}

/// The fields that the tables below `title` name.
fn fields_of(title: &str) -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    for row in rows().iter().filter(|row| row.of == title) {
        for field in quoted(row.what).flat_map(expand) {
            assert!(fields.insert(field.clone()), "{title}: {field} has two rows");
        }
    }
    fields
}

#[track_caller]
fn assert_same(title: &str, published: impl IntoIterator<Item = String>) {
    let (ours, published) = (fields_of(title), published.into_iter().collect::<BTreeSet<_>>());
    let missing: Vec<_> = published.difference(&ours).collect();
    let unknown: Vec<_> = ours.difference(&published).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "{title}: no row for {missing:#?}, no field {unknown:#?}"
    );
}

#[test]
fn every_field_of_the_published_schema_has_one_row() {
    assert_same("Configuration", Schema::config().fields());
    let features = Schema::features().fields().into_iter();
    assert_same("Features", features.chain(NOT_IN_THE_SCHEMA.map(String::from)));
    assert_same("State", Schema::state().fields());
}

/// The names of all tests, and the file of each.
fn tests() -> BTreeMap<String, PathBuf> {
    let mut tests = BTreeMap::new();
    let mut todo = ["src", "integration"].map(|name| here().join(name)).to_vec();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for test in text.split("#[test]\n").skip(1) {
                let name = test.split_once("fn ").and_then(|(_, rest)| rest.split_once('('));
                tests.insert(name.unwrap().0.to_owned(), path.clone());
            }
        }
    }
    tests
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_row_names_files_and_tests_that_exist() {
    let tests = tests();
    let mut wrong = Vec::new();
    for Row { of, what, place, tests: names } in rows() {
        let undone = UNDONE.iter().any(|word| place.starts_with(word));
        let files: Vec<_> = quoted(place).filter(|word| word.ends_with(".rs")).collect();
        if !undone && files.is_empty() {
            wrong.push(format!("{of}: {what}: no file"));
        }
        for file in files.iter().filter(|file| !here().join("src").join(file).is_file()) {
            wrong.push(format!("{of}: {what}: no file src/{file}"));
        }
        if place != "other platforms" && quoted(names).next().is_none() {
            wrong.push(format!("{of}: {what}: no test"));
        }
        for test in quoted(names).filter(|name| !tests.contains_key(*name)) {
            wrong.push(format!("{of}: {what}: no test {test}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn braces_stand_for_each_of_their_words() {
    assert_eq!(expand("a.{b,c}[].{d,e}"), ["a.b[].d", "a.b[].e", "a.c[].d", "a.c[].e"]);
    assert_eq!(quoted("`a`, `b c`").collect::<Vec<_>>(), ["a", "b c"]);
}

/// Who looks for something looks there first.
#[test]
fn the_architecture_has_a_line_for_every_room() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let rows: Vec<_> = document.lines().filter(|line| line.starts_with("| `")).collect();
    for entry in fs::read_dir(root.join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_there = rows.iter().any(|row| row.contains(&format!("`{name}`")));
        assert!(is_there || !name.ends_with(".rs"), "{name}");
    }
}
