//! Names where the program begins (`src/sealed_exe/entry.rs`), and generates the arrays of system
//! calls (`src/security/seccomp/calls.rs`).
#![allow(clippy::expect_used, clippy::panic)]

use std::fmt::Write;
use std::path::Path;

const SYSCALLS: &str = "src/security/seccomp/syscalls.tbl";

fn main() {
    // Also from the package of `make fuzz`, which is in another directory.
    let table = Path::new(file!()).with_file_name(SYSCALLS);
    println!("cargo:rerun-if-changed={}", file!());
    println!("cargo:rerun-if-changed={}", table.display());
    let is = |name: &str, value: &str| std::env::var(name).as_deref() == Ok(value);
    let is_wanted = std::env::var_os("CARGO_FEATURE_EARLY_START").is_some();
    if is_wanted && is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo:rustc-link-arg-bin=rt=-Wl,--entry=rt_entry");
    }
    let table = std::fs::read_to_string(&table).expect(SYSCALLS);
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out).join("syscalls.rs"), syscalls(&table)).expect("OUT_DIR");
}

/// Returns the two arrays as Rust: the calls with their numbers, and the names of those that only
/// other architectures have.
fn syscalls(table: &str) -> String {
    let (mut calls, mut elsewhere, mut last) = (String::new(), String::new(), "");
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_ascii_whitespace();
        let name = words
            .next()
            .unwrap_or_else(|| panic!("{SYSCALLS}: an empty line"));
        assert!(
            last < name,
            "{SYSCALLS}: {name} does not follow {last} in order"
        );
        last = name;
        let numbers: Vec<i32> = words
            .map(|word| match word {
                "-" => -1,
                number => number
                    .parse()
                    .unwrap_or_else(|_| panic!("{SYSCALLS}: {line}")),
            })
            .collect();
        let written = match numbers.len() {
            0 => writeln!(elsewhere, "{name:?},"),
            5 => writeln!(calls, "({name:?}, {numbers:?}),"),
            _ => panic!("{SYSCALLS}: not five numbers: {line}"),
        };
        written.expect("a string takes everything");
    }
    format!(
        "pub(super) const CALLS: &[Call] = &[\n{calls}];\n\
         pub(super) const ELSEWHERE: &[&str] = &[\n{elsewhere}];\n"
    )
}
