//! The parsers of untrusted input, as functions that take any bytes and must neither panic nor
//! hang. libFuzzer calls them (`make fuzz`, which builds a separate program), and a unit test calls
//! them with random changes of the files in `fuzz/seeds`.

#[cfg(test)]
mod random;

use std::path::Path;

use libc::sock_filter;
use oci_spec::runtime::Spec;

use crate::cgroup::Cgroup;
use crate::config::cpus::Cpus;
use crate::config::{self, capabilities, mount_options};
use crate::exec::user::{self, User};
use crate::namespace::Namespaces;
use crate::netns;
use crate::plan::{Extras, Plan, PlanSource};
use crate::security::landlock::LandlockRules;
use crate::security::seccomp::SeccompFilter;

/// A function that takes any bytes.
type Target = fn(&[u8]);

/// The targets by name; the directory of a target's seeds has the same name.
pub const TARGETS: [(&str, Target); 6] = [
    ("config", config),
    ("mounts", mount_options),
    ("seccomp", seccomp),
    ("ids", ids),
    ("annotations", annotations),
    ("network", netns::read_anything),
];

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let name = std::env::var("RT_FUZZ").unwrap_or_default();
    let target = TARGETS.iter().find(|(one, _)| *one == name);
    let Some((_, target)) = target else {
        panic!("RT_FUZZ: {TARGETS:?}")
    };
    target(bytes);
});

/// Plans a configuration that passes the checks; an error is a valid result. Nothing that the bytes
/// name is opened: see [`make_harmless`].
fn config(bytes: &[u8]) {
    let Ok(mut loaded) = config::parse_spec(bytes) else {
        return;
    };
    let Ok(checked) = config::check_spec(&loaded.spec) else {
        return;
    };
    make_harmless(&mut loaded.spec);
    let root = Path::new("/");
    let source = PlanSource {
        spec: &loaded.spec,
        checked: &checked,
        bundle: root,
        rootfs: root,
        id: "fuzz",
    };
    let cgroup = Cgroup::default();
    let Ok(namespaces) = Namespaces::from_spec(&loaded.spec) else {
        return;
    };
    let (extras, warnings) = (Extras::default(), &mut loaded.warnings);
    let _ = Plan::for_container(&source, &namespaces, &cgroup, extras, warnings);
}

fn make_harmless(spec: &mut Spec) {
    let Some(linux) = spec.linux_mut() else {
        return;
    };
    for namespace in linux.namespaces_mut().iter_mut().flatten() {
        namespace.set_path(None);
    }
    if let Some(seccomp) = linux.seccomp_mut() {
        seccomp.set_listener_path(None);
    }
}

/// Compiles a seccomp profile that passes the checks; if that succeeds, the kernel has to accept
/// the program.
fn seccomp(bytes: &[u8]) {
    let before = br#"{"ociVersion":"1.0.0","root":{"path":"r"},"linux":{"seccomp":"#;
    let after = br#","namespaces":[{"type":"mount"}]}}"#;
    let Ok(mut loaded) = config::parse_spec(&[before, bytes, after].concat()) else {
        return;
    };
    if config::check_spec(&loaded.spec).is_err() {
        return;
    }
    make_harmless(&mut loaded.spec);
    let profile = loaded
        .spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref());
    if let Some(Ok(filter)) = profile.map(SeccompFilter::compile) {
        assert_valid(&filter.program);
    }
}

/// Checks what bpf_check_classic() of the kernel requires: no jump leaves the program, and its last
/// instruction returns.
fn assert_valid(program: &[sock_filter]) {
    const CLASS: u32 = 7;
    for (at, step) in program.iter().enumerate() {
        let far = match u32::from(step.code) {
            code if code & CLASS != libc::BPF_JMP => continue,
            code if code & 0xf0 == libc::BPF_JA => step.k as usize,
            _ => step.jt.max(step.jf).into(),
        };
        assert!(
            at + far + 1 < program.len(),
            "a jump out of the program at {at}"
        );
    }
    let last = program.last().map(|step| u32::from(step.code) & CLASS);
    assert_eq!(last, Some(libc::BPF_RET));
}

fn mount_options(bytes: &[u8]) {
    let words: Vec<String> = String::from_utf8_lossy(bytes)
        .lines()
        .map(String::from)
        .collect();
    let Ok(options) = mount_options::parse(&words, "options") else {
        return;
    };
    let both = options.attr_set & options.attr_clr & !libc::MOUNT_ATTR__ATIME;
    assert_eq!(both, 0, "set and cleared");
    let (locked, _) = bytes.split_at(bytes.len().min(2));
    let locked = locked
        .iter()
        .fold(0, |all, byte| all << 8 | u64::from(*byte));
    if let Ok((set, clear)) = options.bind_attr_locked(mount_options::statfs_attr(locked)) {
        assert_eq!(set & clear, 0, "set and cleared");
    }
}

/// Parses lines as users, ids, capabilities and lists of CPUs, which are texts on the command line
/// or in the configuration.
fn ids(bytes: &[u8]) {
    for text in String::from_utf8_lossy(bytes).lines() {
        if let Ok(user) = text.parse::<User>() {
            assert!(
                user.uid != u32::MAX && user.gid != Some(u32::MAX),
                "{text:?}"
            );
            assert!(
                text.starts_with(|first: char| first.is_ascii_digit()),
                "{text:?}"
            );
        }
        let _ = user::id(text);
        let _ = user::capability(text);
        let _ = capabilities::bit(text);
        if let Ok(cpus) = Cpus::parse(text) {
            assert!(!cpus.mask().is_empty());
        }
    }
}

/// Parses lines `name=value` as annotations.
fn annotations(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let _ = netns::NetworkRequest::new(pairs.clone());
    let pairs: Vec<_> = pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let _ = LandlockRules::parse(pairs.iter().map(|(name, value)| (name, value)));
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::random::Xorshift;
    use super::*;

    /// Values that parsers often fail to handle.
    const ODD: [&[u8]; 12] = [
        b"-1",
        b"0",
        b"4294967295",
        b"18446744073709551616",
        b"9223372036854775808",
        b"1e999",
        b"null",
        b"[]",
        b"{}",
        b"\"\"",
        b"\xff\xff",
        b"\0",
    ];

    fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Xorshift) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(6) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..end, ODD[random.below(ODD.len())].iter().copied())),
            2 => bytes.insert(at, random.below(256) as u8),
            3 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            4 => {
                let from = random.below(other.len() + 1);
                let to = (from + random.below(64)).min(other.len());
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
            _ => {
                let piece = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, piece));
            }
        }
    }

    /// Prints the target and its input if the target panics.
    struct Last<'a>(&'a str, &'a [u8]);

    impl Drop for Last<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{}: {}", self.0, self.1.escape_ascii());
            }
        }
    }

    fn run(name: &str, target: Target, bytes: &[u8]) {
        let _last = Last(name, bytes);
        target(bytes);
    }

    #[test]
    fn no_change_of_a_seed_breaks_a_parser() {
        for (name, target) in TARGETS {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("fuzz/seeds")
                .join(name);
            let entries = crate::sys::list_directory(&directory).unwrap();
            let mut files: Vec<_> = entries
                .into_iter()
                .map(|entry| directory.join(entry.name))
                .collect();
            files.sort();
            let seeds: Vec<Vec<u8>> = files
                .iter()
                .map(|file| std::fs::read(file).unwrap())
                .collect();
            seeds.iter().for_each(|seed| run(name, target, seed));
            // At most as many as two seconds allow; the same ones in the same order on any machine.
            let end = Instant::now() + Duration::from_secs(2);
            let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
            for _ in 0..20_000 {
                let mut bytes = seeds[random.below(seeds.len())].clone();
                let other = &seeds[random.below(seeds.len())];
                (0..=random.below(8)).for_each(|_| change(&mut bytes, other, &mut random));
                run(name, target, &bytes);
                if Instant::now() > end {
                    break;
                }
            }
        }
    }
}
