//! The plans of some of the inputs that real clients have given, held against what they were when
//! somebody last read them: `src/plan/tests/snapshots/INPUT.txt`. A change of a plan shows there as a
//! difference to review. `RT_SNAPSHOTS=write` makes the test write the files anew.

use std::fs;
use std::path::Path;

use super::corpus::inputs::{Input, inputs};
use super::corpus::{plan, with_new_namespaces};

const CHOSEN: [&str; 20] = [
    "containerd.run_config.create.1",
    "containerd.run_mount.create.1",
    "containerd.run_rootfs_propagation.create.1",
    "containerd.run_tty.create.1",
    "containerd.run_uidmap.create.1",
    "docker.run_bind_file.create.1",
    "docker.run_device.create.1",
    "docker.run_it.create.1",
    "docker.run_masked_paths.create.1",
    "docker.run_readonly.create.1",
    "docker.run_sysctl.create.1",
    "docker.run_tmpfs.create.1",
    "docker.run_ulimit.create.1",
    "podman.run_group_add.create.1",
    "podman.run_hooks.create.1",
    "podman.run_mount_idmap.create.1",
    "podman.run_oom_score.create.1",
    "podman.run_systemd_mode.create.1",
    "podman.run_userns_map.create.1",
    "podman.run_volume_ro.create.1",
];

/// Fields that depend on the kernel and on the process of the test.
const OF_THIS_HOST: [&str; 6] = [
    "affinity:",
    "capabilities:",
    "has_kcore:",
    "ignored_signals:",
    "label:",
    "labels:",
];
/// What a field is as long as nothing sets it.
const UNSET: [&str; 5] = ["None,", "[],", "{},", "false,", "0,"];
const WIDTH: usize = 100;

/// Writes the pretty form of `Debug` shorter: without fields that are unset, and with everything on
/// one line that fits.
fn compact(pretty: &str) -> String {
    let lines: Vec<&str> = pretty.lines().map(str::trim).collect();
    let (mut at, mut text) = (0, String::new());
    while at < lines.len() {
        take_value(&lines, &mut at, 0, &mut text);
    }
    text
}

/// Adds the value that begins at the line `at` to `text`, and goes on behind it.
fn take_value(lines: &[&str], at: &mut usize, depth: usize, text: &mut String) {
    let head = lines[*at];
    *at += 1;
    let (name, value) = head.split_once(' ').unwrap_or((head, ""));
    let is_unset = name.ends_with(':') && UNSET.contains(&value);
    let is_shown = !is_unset && !OF_THIS_HOST.contains(&name);
    let indent = "  ".repeat(depth);
    if !head.ends_with(['(', '[', '{']) {
        if is_shown {
            *text += &format!("{indent}{head}\n");
        }
        return;
    }
    let mut inner = String::new();
    while !lines[*at].starts_with([')', ']', '}']) {
        take_value(lines, at, depth + 1, &mut inner);
    }
    let end = lines[*at];
    *at += 1;
    if name == "program:" && value == "[" {
        *text += &format!("{indent}{name} the compiled filter,\n");
    } else if is_shown {
        let words: Vec<&str> = inner.lines().map(str::trim).collect();
        let joined = words.join(" ");
        let line = format!("{indent}{head}{}{end}", joined.trim_end_matches(','));
        match line.len() <= WIDTH {
            true => *text += &format!("{line}\n"),
            false => *text += &format!("{indent}{head}\n{inner}{indent}{end}\n"),
        }
    }
}

#[test]
fn the_plans_of_twenty_inputs_are_what_they_were() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/tests/snapshots");
    let writes = std::env::var("RT_SNAPSHOTS").is_ok_and(|value| value == "write");
    let mut compared = 0;
    for Input { name, value } in inputs("create") {
        if !CHOSEN.contains(&&*name) {
            continue;
        }
        let (_, plan) = plan(&with_new_namespaces(value)).unwrap();
        let (text, file) = (
            compact(&format!("{plan:#?}")),
            directory.join(format!("{name}.txt")),
        );
        if writes {
            fs::write(&file, &text).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        let differs = expected
            .lines()
            .zip(text.lines())
            .find(|(was, is)| was != is);
        assert_eq!(differs, None, "{name}: see the head of this file");
        assert_eq!(expected, text, "{name}: see the head of this file");
        compared += 1;
    }
    assert_eq!(compared, CHOSEN.len());
}
