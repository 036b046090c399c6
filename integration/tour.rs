//! The tour of README.md, typed as it stands on the page: in network and mount namespaces of the
//! test's own, in which `/tmp` and `/run` are empty.

use std::fs;
use std::process::Command;

use crate::harness::runtime;

/// One command of the page, and the lines below it, which are its output.
#[derive(Debug, Default)]
struct Step {
    command: String,
    shown: String,
}

/// Returns the commands of the section `title`.
fn steps(title: &str) -> Vec<Step> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let section = page.split(&format!("## {title}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut steps: Vec<Step> = Vec::new();
    for block in section.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            match line.strip_prefix("# ") {
                Some(command) => {
                    steps.push(Step { command: command.to_owned(), ..Step::default() })
                }
                None => steps.last_mut().unwrap().shown += &format!("{line}\n"),
            }
        }
    }
    steps
}

/// Types `commands` one after the other, up to the first that fails. Returns their outputs. What is
/// behind a `#` is a comment for the shell, too.
fn typed(commands: &[String]) -> Vec<String> {
    let rt = runtime();
    let path = rt.parent().unwrap().display().to_string();
    let prepare = "mount -t tmpfs tmpfs /tmp && mount -t tmpfs tmpfs /run && ip link set lo up
        curl() { /bin/busybox wget -q -O - \"$1\"; }";
    let mut script = format!("{prepare}\nPATH={path}:$PATH\nset -e\n");
    for command in commands {
        script += &format!("{command}\nprintf '\\0'\n");
    }
    let done = Command::new("timeout")
        .args(["60", "unshare", "-n", "-m", "sh", "-c", &script])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{script}\n{done:?}");
    let output = String::from_utf8(done.stdout).unwrap();
    output.split_terminator('\0').map(str::to_owned).collect()
}

#[track_caller]
fn assert_shown(steps: &[Step], outputs: &[String]) {
    assert_eq!(steps.len(), outputs.len(), "{outputs:?}");
    for (step, output) in steps.iter().zip(outputs) {
        if !step.shown.is_empty() {
            assert_eq!(*output, step.shown, "{}", step.command);
        }
        // `rt state nap  # "status": "created"`
        let comment = step.command.split("# ").nth(1).filter(|comment| comment.starts_with('"'));
        if let Some(comment) = comment {
            assert!(output.contains(comment), "{}: {output}", step.command);
        }
    }
}

#[test]
fn the_short_tour_goes_as_the_page_says() {
    let steps = steps("A short tour");
    assert!(steps.len() >= 10, "{steps:?}");
    let commands: Vec<String> = steps.iter().map(|step| step.command.clone()).collect();
    assert_shown(&steps, &typed(&commands));
}

#[test]
fn the_tour_of_networks_goes_as_the_page_says() {
    let mut steps = steps("Networking in five minutes");
    // The program that is tested is in the search path already.
    assert_eq!(steps.remove(0).command, "make install");
    let commands = steps.iter().map(|step| match step.command.split_once("# a shell; in it: ") {
        None => step.command.clone(),
        // The shell gets a terminal and the line; it ends with the test.
        Some((shell, line)) => format!(
            "(echo '{line}'; sleep 30) 2>/dev/null | script -qec '{}' /dev/null >/dev/null & shell=$!
            trap 'rt delete --force web; kill $shell' EXIT
            until curl http://127.0.0.1:8080/hostname >/dev/null 2>&1; do sleep 0.05; done",
            shell.trim()
        ),
    });
    let outputs = typed(&commands.collect::<Vec<_>>());
    assert_shown(&steps, &outputs);
    assert!(steps.iter().filter(|step| !step.shown.is_empty()).count() == 2, "{steps:?}");
}
