//! libseccomp as runc uses it, behind a small program in C that speaks lines of words:
//! `number ARCHITECTURE NAME`, and for a profile `profile ACTION`, `architecture TOKEN`…,
//! `rule ACTION NAME [ARGUMENT OPERATOR VALUE VALUE]…`…, `end`. Every `number` and every `end` is
//! answered by a line: the number, or the instructions.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use libc::sock_filter;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg};

use crate::security::seccomp::rules::SyscallAbi;
use crate::security::seccomp::tests::model::alternatives;

/// The lines that answer `questions`.
fn ask(questions: String) -> Vec<String> {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/security/seccomp/tests/libseccomp.c");
    let program = std::env::temp_dir().join(format!("rt-libseccomp-{}", nix::unistd::gettid()));
    let compiled = Command::new("cc")
        .arg(source)
        .arg("-lseccomp")
        .arg("-o")
        .arg(&program)
        .output();
    let compiled = compiled.unwrap();
    let errors = String::from_utf8_lossy(&compiled.stderr);
    assert!(
        compiled.status.success(),
        "is libseccomp-dev installed? {errors}"
    );
    let oracle = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    std::fs::remove_file(&program).unwrap();
    let mut oracle = oracle.unwrap();
    let mut input = oracle.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(questions.as_bytes()));
    let answer = oracle.wait_with_output().unwrap();
    assert!(answer.status.success());
    writer.join().unwrap().unwrap();
    String::from_utf8(answer.stdout)
        .unwrap()
        .lines()
        .map(str::to_string)
        .collect()
}

/// The number that libseccomp has for each of `names` on `abi`; negative where there is none.
pub(super) fn numbers(abi: &SyscallAbi, names: &[&str]) -> Vec<i32> {
    let arch = abi.arch as u32;
    let questions = names
        .iter()
        .map(|name| format!("number {arch} {name}\n"))
        .collect();
    ask(questions)
        .iter()
        .map(|line| line.parse().unwrap())
        .collect()
}

/// The programs of the profiles, made as runc makes them but for the answer to newer calls.
pub(super) fn programs(profiles: &[(Vec<SyscallAbi>, LinuxSeccomp)]) -> Vec<Vec<sock_filter>> {
    let questions = profiles
        .iter()
        .map(|(abis, profile)| question(abis, profile))
        .collect();
    ask(questions).iter().map(|line| program(line)).collect()
}

fn question(abis: &[SyscallAbi], profile: &LinuxSeccomp) -> String {
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let mut text = format!("profile {default}\n");
    for abi in abis {
        writeln!(text, "architecture {}", abi.arch as u32).unwrap();
    }
    for entry in profile.syscalls().iter().flatten() {
        let action = entry.action().as_u32(entry.errno_ret());
        if action == default {
            continue;
        }
        let arguments = alternatives(entry.args().as_deref().unwrap_or_default());
        let rules: Vec<String> = arguments
            .into_iter()
            .map(|rule| rule.into_iter().map(words).collect())
            .collect();
        for name in entry.names() {
            for rule in &rules {
                writeln!(text, "rule {action} {name}{rule}").unwrap();
            }
        }
    }
    text + "end\n"
}

fn words(argument: &LinuxSeccompArg) -> String {
    let second = argument.value_two().unwrap_or(0);
    format!(
        " {} {} {} {second}",
        argument.index(),
        argument.op() as u32,
        argument.value()
    )
}

fn program(line: &str) -> Vec<sock_filter> {
    let numbers: Vec<u32> = line
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    let instruction = |of: &[u32]| sock_filter {
        code: of[0] as u16,
        jt: of[1] as u8,
        jf: of[2] as u8,
        k: of[3],
    };
    numbers.chunks_exact(4).map(instruction).collect()
}
