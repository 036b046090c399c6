//! What a filter does, judged by running it: against libseccomp, against seccompiler, and against
//! the rules of the profile read one by one.

mod generate;
mod interpreter;
mod model;
mod oracle;
mod seccompiler;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::security::seccomp::calls::Call;
use crate::security::seccomp::rules::{ARM, X32_BIT, X86};
use crate::security::seccomp::tests::interpreter::{Entered, run};
use crate::security::seccomp::tests::model::Said;
use crate::security::seccomp::*;

/// What docker gives a container without options.
const DOCKER: &str = include_str!("tests/docker.json");

/// Values of arguments, and of the constants that they are compared with.
const VALUES: [u64; 13] = [
    0,
    1,
    2,
    9,
    40,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0002,
    0x7e02_0000,
    u64::MAX - 1,
    u64::MAX,
];

fn parse(profile: Value) -> LinuxSeccomp {
    serde_json::from_value(profile).unwrap()
}

fn docker() -> LinuxSeccomp {
    serde_json::from_str(DOCKER).unwrap()
}

/// Returns the ABIs of `family` that the profile includes.
fn abis(family: &[SyscallAbi], profile: &LinuxSeccomp) -> Vec<SyscallAbi> {
    let asked = profile.architectures().clone().unwrap_or_default();
    let wanted = |abi: &&SyscallAbi| abi.arch == family[0].arch || asked.contains(&abi.arch);
    family.iter().filter(wanted).copied().collect()
}

/// Six arguments that are all different, and one after the other everything in [`VALUES`].
fn arguments(turn: usize) -> [u64; 6] {
    std::array::from_fn(|i| VALUES[(turn + 5 * i) % VALUES.len()])
}

#[test]
fn calls_are_in_order() {
    assert!(calls::ELSEWHERE.is_sorted());
    assert!(calls::CALLS.is_sorted_by(|a, b| a.0 < b.0));
}

/// libseccomp may know fewer calls, but none by another number.
#[test]
fn a_name_that_no_architecture_has_gets_a_warning() {
    let profile = parse(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["mkdir", "s390_pci_mmio_read"], "action": "SCMP_ACT_ERRNO" },
        { "names": ["swapcontext", "mkdri"], "action": "SCMP_ACT_ERRNO" },
        { "names": ["MKDIR", "a\nb"], "action": "SCMP_ACT_KILL" },
    ] }));
    let begins = |names: &[&str]| {
        let warnings = unknown(&profile);
        assert_eq!(warnings.len(), names.len(), "{warnings:?}");
        for (warning, name) in warnings.iter().zip(names) {
            assert!(
                warning.starts_with(&format!("linux.seccomp.syscalls{name}")),
                "{warning}"
            );
        }
    };
    begins(&[
        "[1].names[1]: no system call \"mkdri\"",
        "[2].names[0]",
        "[2].names[1]",
    ]);
    assert_eq!(unknown(&docker()), [""; 0]);
}

#[test]
fn libseccomp_has_the_same_numbers() {
    let names: Vec<&str> = calls::CALLS.iter().map(|call| call.0).collect();
    for abi in X86.iter().chain(&ARM) {
        let numbers = oracle::numbers(abi, &names);
        let mut known = 0;
        for (call, theirs) in calls::CALLS.iter().zip(numbers) {
            // libseccomp has numbers below 0 for calls that exist only through socketcall or ipc,
            // and for those that do not exist.
            let Ok(theirs) = u32::try_from(theirs) else {
                continue;
            };
            assert_eq!(abi.number(call), Some(theirs), "{} on {}", call.0, abi.arch);
            known += 1;
        }
        assert!(known > 300, "{}: {known}", abi.arch);
    }
}

/// The numbers that the profile knows.
fn known(profile: &LinuxSeccomp, abi: &SyscallAbi) -> Vec<u32> {
    let names = profile
        .syscalls()
        .iter()
        .flatten()
        .flat_map(|entry| entry.names());
    let by_way = |name: &String| calls::multiplexed(name).filter(|_| abi.multiplexes);
    let names = names.flat_map(|name| [Some(&**name), by_way(name).map(|(by, ..)| by)]);
    names
        .flatten()
        .filter_map(|name| abi.number(calls::find_call(name)?))
        .collect()
}

/// Whether the number is above all known ones of its block; false if none is known.
fn is_newer(known: &[u32], number: u32) -> bool {
    let reached = |other: &u32| number >> 16 == other >> 16 && number <= *other;
    !known.is_empty() && !known.iter().any(reached)
}

/// Whether libseccomp is known to give another answer than the profile demands.
fn is_known_difference(
    profile: &LinuxSeccomp,
    abi: &SyscallAbi,
    name: &str,
    entered: &[u64; 6],
) -> bool {
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpMaskedEq, ScmpCmpNe};
    // ipc(2) ignores the upper half of its first argument; libseccomp compares all of it.
    if abi.multiplexes && name == "ipc" && entered[0] as u32 > 0xffff {
        return true;
    }
    // libseccomp 2.5 confuses an order comparison with other comparisons of the same argument.
    let rules = profile.syscalls().iter().flatten();
    let rules = rules.filter(|entry| entry.names().iter().any(|named| named == name));
    let arguments: Vec<_> = rules
        .flat_map(|entry| entry.args().iter().flatten())
        .collect();
    let orders = arguments
        .iter()
        .filter(|argument| ![ScmpCmpEq, ScmpCmpMaskedEq, ScmpCmpNe].contains(&argument.op()));
    let with = |index| {
        arguments
            .iter()
            .filter(|argument| argument.index() == index)
            .count()
    };
    orders
        .map(|order| order.index())
        .any(|index| with(index) > 1)
}

/// Compares the answers of rt's program with the rules, for every call and all [`VALUES`]. `judge`
/// can check each answer further: it gets the call, the input of the program, and the answer.
fn check(
    family: &[SyscallAbi],
    profile: &LinuxSeccomp,
    judge: impl Fn(usize, &SyscallAbi, &Call, &Entered, u32),
) {
    let program = program(family, profile);
    let newer = crate::security::seccomp::profile(profile).newer;
    for abi in abis(family, profile) {
        let known = known(profile, &abi);
        for (i, call) in calls::CALLS.iter().enumerate() {
            let Some(number) = abi.number(call) else {
                continue;
            };
            let said = Said::new(profile, &abi, call.0);
            let is_newer = is_newer(&known, number);
            for turn in 0..VALUES.len() {
                let arguments = arguments(turn);
                let entered = Entered {
                    number,
                    architecture: abi.audit,
                    arguments,
                };
                let (answer, _) = run(&program, &entered);
                let expected = if is_newer {
                    newer
                } else {
                    said.about(&arguments)
                };
                assert_eq!(answer, expected, "{} on {}: {entered:x?}", call.0, abi.arch);
                if !is_newer {
                    judge(i, &abi, call, &entered, answer);
                }
            }
        }
    }
}

fn answer(profile: &LinuxSeccomp, architecture: u32, number: u32) -> u32 {
    let entered = Entered {
        number,
        architecture,
        arguments: [0; 6],
    };
    run(&program(&X86, profile), &entered).0
}

/// Only x86 has sigpending(2), with a number that others have for another call.
#[test]
fn an_architecture_without_rules_has_none_of_another_one() {
    for default in [
        "SCMP_ACT_TRACE",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_KILL_PROCESS",
    ] {
        for others in [&[][..], &["SCMP_ARCH_X32"]] {
            let architectures: Vec<_> = others.iter().chain(&["SCMP_ARCH_X86"]).collect();
            let profile = parse(json!({
                "defaultAction": default,
                "architectures": architectures,
                "syscalls": [{ "names": ["sigpending"], "action": "SCMP_ACT_KILL" }],
            }));
            check(&X86, &profile, |_, _, _, _, _| {});
        }
    }
}

#[test]
fn a_call_of_an_architecture_that_the_profile_does_not_have_ends_the_process() {
    let mut profile = docker();
    profile.set_architectures(Some(vec![Arch::ScmpArchX86_64]));
    let [x86_64, x32, x86] = X86.map(|abi| abi.audit);
    assert_eq!(answer(&profile, x86_64, 0), libc::SECCOMP_RET_ALLOW);
    assert_eq!(answer(&profile, x86, 3), libc::SECCOMP_RET_KILL_PROCESS);
    assert_eq!(
        answer(&profile, ARM[0].audit, 0),
        libc::SECCOMP_RET_KILL_PROCESS
    );
    assert_eq!(
        answer(&profile, x32, X32_BIT),
        libc::SECCOMP_RET_KILL_PROCESS
    );
    assert_eq!(
        answer(&profile, x32, u32::MAX - 1),
        libc::SECCOMP_RET_KILL_PROCESS
    );
    // A tracer skips a call with this number, which must not end the process.
    let no_such_call = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    assert_eq!(answer(&profile, x86_64, u32::MAX), no_such_call);
}

#[test]
fn the_native_architecture_is_always_in_and_foreign_ones_are_nothing() {
    let profile = |architectures: &[&str]| {
        let rule = json!([{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }]);
        parse(json!({
            "defaultAction": "SCMP_ACT_TRAP", "architectures": architectures, "syscalls": rule
        }))
    };
    for architectures in [
        &[] as &[&str],
        &["SCMP_ARCH_AARCH64"],
        &["SCMP_ARCH_NATIVE"],
    ] {
        let profile = profile(architectures);
        assert_eq!(answer(&profile, X86[0].audit, 0), libc::SECCOMP_RET_ALLOW);
        assert_eq!(
            answer(&profile, ARM[0].audit, 63),
            libc::SECCOMP_RET_KILL_PROCESS
        );
    }
}

#[test]
fn new_calls_are_special_only_where_the_default_forbids() {
    let newer = |default: &str, errno: Option<u32>| {
        let profile = parse(json!({
            "defaultAction": default,
            "defaultErrnoRet": errno,
            "syscalls": [{ "names": ["read", "mkdir"], "action": "SCMP_ACT_LOG" }],
        }));
        (
            answer(&profile, X86[0].audit, 82),
            answer(&profile, X86[0].audit, 84),
        )
    };
    let no_such_call = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    for (default, errno, value) in [
        ("SCMP_ACT_ERRNO", Some(7), libc::SECCOMP_RET_ERRNO | 7),
        ("SCMP_ACT_KILL", None, libc::SECCOMP_RET_KILL_THREAD),
        (
            "SCMP_ACT_KILL_PROCESS",
            None,
            libc::SECCOMP_RET_KILL_PROCESS,
        ),
        ("SCMP_ACT_TRAP", None, libc::SECCOMP_RET_TRAP),
    ] {
        assert_eq!(newer(default, errno), (value, no_such_call), "{default}");
    }
    for (default, value) in [
        ("SCMP_ACT_ALLOW", libc::SECCOMP_RET_ALLOW),
        (
            "SCMP_ACT_TRACE",
            libc::SECCOMP_RET_TRACE | libc::EPERM as u32,
        ),
        ("SCMP_ACT_NOTIFY", libc::SECCOMP_RET_USER_NOTIF),
    ] {
        assert_eq!(newer(default, None), (value, value), "{default}");
    }
}

/// On average over its calls on all three architectures.
#[test]
fn dockers_profile_is_decided_in_twenty_instructions() {
    let profile = docker();
    let program = program(&X86, &profile);
    let mut counts = Vec::new();
    for abi in &X86 {
        for number in known(&profile, abi) {
            let entered = Entered {
                number,
                architecture: abi.audit,
                arguments: [0; 6],
            };
            counts.push(run(&program, &entered).1);
        }
    }
    let most = counts.iter().max();
    let average = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    println!(
        "{} instructions, {average:.1} on average, {most:?} at most",
        program.len()
    );
    assert!(
        counts.len() > 900 && average <= 20.0,
        "{average} of {}",
        counts.len()
    );
}

#[test]
fn flags_are_the_kernels() {
    let flags = |profile: Value| crate::security::seccomp::flags(&parse(profile));
    let all = json!(FLAGS.map(|(flag, _)| flag));
    let wait = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let plain = libc::SECCOMP_FILTER_FLAG_LOG | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    assert_eq!(
        flags(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": all })),
        plain
    );
    assert_eq!(
        flags(json!({ "defaultAction": "SCMP_ACT_NOTIFY", "flags": all })),
        plain | wait | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
    );
    assert_eq!(
        flags(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": [] })),
        0
    );
    let default = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    assert_eq!(flags(json!({ "defaultAction": "SCMP_ACT_ALLOW" })), default);
}

#[test]
fn a_filter_comes_back_as_it_was_kept() {
    let filter = SeccompFilter::compile(&docker()).unwrap();
    let bytes = filter.to_bytes();
    let again = SeccompFilter::from_bytes(&bytes, filter.terms.clone()).unwrap();
    assert_eq!(again.to_bytes(), bytes);
    assert_eq!(again.program.len(), filter.program.len());
    for broken in [&bytes[..0], &bytes[1..]] {
        assert!(SeccompFilter::from_bytes(broken, filter.terms.clone()).is_err());
    }
}

#[test]
fn what_the_kernel_would_not_take_is_refused() {
    let argument = |i: u64| json!({ "index": i % 6, "value": i << 31, "op": "SCMP_CMP_GT" });
    let entry =
        |i: u64| json!({ "names": ["read"], "action": "SCMP_ACT_LOG", "args": [argument(i)] });
    let profile = |rules: u64| {
        parse(json!({
            "defaultAction": "SCMP_ACT_ALLOW", "syscalls": (0..rules).map(entry).collect::<Vec<_>>()
        }))
    };
    assert!(SeccompFilter::compile(&profile(600)).is_ok());
    let error = SeccompFilter::compile(&profile(1200))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("linux.seccomp: ") && error.ends_with("at most 4096"),
        "{error}"
    );
}

/// `cargo test --release --bin rt -- --ignored --nocapture measure`
#[test]
#[ignore = "measures, and asserts nothing"]
fn measure_dockers_profile() {
    let profile = docker();
    let smallest = |run: &mut dyn FnMut()| {
        let time = |_| {
            let start = std::time::Instant::now();
            run();
            start.elapsed()
        };
        (0..200).map(time).min().unwrap()
    };
    println!("parsed:   {:?}", smallest(&mut || drop(docker())));
    println!(
        "compiled: {:?}",
        smallest(&mut || drop(SeccompFilter::compile(&profile)))
    );
    let filter = SeccompFilter::compile(&profile).unwrap();
    // A filter holds for the thread that loads it, and for good.
    let loaded = || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        let start = std::time::Instant::now();
        sys::set_filter(&filter.program, filter.terms.flags).unwrap();
        start.elapsed()
    };
    let times = std::iter::repeat_with(|| std::thread::scope(|s| s.spawn(loaded).join().unwrap()));
    println!("loaded:   {:?}", times.take(200).min().unwrap());
}

/// 200 profiles for x86, some for arm, and docker's.
#[test]
fn a_filter_does_what_libseccomps_does() {
    let names: Vec<&str> = calls::CALLS.iter().map(|call| call.0).collect();
    let mut runner = TestRunner::deterministic();
    for (family, count, docker) in [(X86.as_slice(), 200, Some(docker())), (&ARM, 40, None)] {
        let strategy = generate::undisputed_profiles(family);
        let generated = || strategy.new_tree(&mut runner).unwrap().current();
        let profiles = std::iter::repeat_with(generated).take(count).chain(docker);
        let profiles: Vec<_> = profiles
            .map(|profile| (abis(family, &profile), profile))
            .collect();
        let theirs = oracle::programs(&profiles);
        assert_eq!(theirs.len(), profiles.len());
        let numbers: BTreeMap<String, Vec<i32>> = family
            .iter()
            .map(|abi| (abi.arch.to_string(), oracle::numbers(abi, &names)))
            .collect();
        for ((_, profile), theirs) in profiles.iter().zip(theirs) {
            check(family, profile, |i, abi, call, entered, answer| {
                let is_known = numbers[&abi.arch.to_string()][i] >= 0;
                if is_known && !is_known_difference(profile, abi, call.0, &entered.arguments) {
                    let theirs = run(&theirs, entered).0;
                    assert_eq!(answer, theirs, "{} {}: {entered:x?}", call.0, abi.arch);
                }
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_filter_does_what_its_profile_says(profile in generate::profiles(&X86)) {
        check(&X86, &profile, |_, _, _, _, _| {});
    }

    #[test]
    fn a_filter_does_what_seccompilers_does(profile in generate::simple_profiles(&X86[..1])) {
        let theirs = seccompiler::program(&profile);
        check(&X86[..1], &profile, |_, _, _, entered, answer| {
            assert_eq!(answer, run(&theirs, entered).0, "{entered:x?}");
        });
    }
}
