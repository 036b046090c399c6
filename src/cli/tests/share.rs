//! Shell completions and manual pages, generated from the definition of the command line. A test
//! writes them, so that the program does not depend on the crates for it; `make install` installs
//! the files that the test has written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Program;

use clap::Command;
use clap_complete::{Generator, Shell, generate};
use clap_mangen::Man;

use crate::cli::commands::{COMMANDS, command_line};

/// The sections of the manual page of `rt` that clap cannot generate.
const FILES_AND_STATUS: &str = r#".SH "EXIT STATUS"
\fBrun\fR and \fBexec\fR end with the status of the process, or with 128 plus the number of the signal that ended it. An error of
\fBrt\fR itself is one line on standard error and the status 1, or 255 of \fBexec\fR.
.SH FILES
.TP
.I /run/rt
One directory per container, unless \fB\-\-root\fR names another place.
.TP
.I config.json
The configuration of a bundle, as the OCI runtime specification describes it.
.SH ENVIRONMENT
.TP
.B LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES
Sockets of a service manager, which \fBcreate\fR and \fBrun\fR pass to the container (\fBsd_listen_fds\fR(3)).
.TP
.B NOTIFY_SOCKET
Where \fBstart\fR and \fBrun\fR pass on that the container is ready (\fBsd_notify\fR(3)).
"#;

/// Returns the definition of all commands, with the names that manual pages use.
fn definition() -> Command {
    let mut command = command_line(None).version(env!("CARGO_PKG_VERSION"));
    command = command
        .disable_version_flag(true)
        .disable_help_subcommand(true);
    command.build();
    command
}

/// Creates and returns the directory for the files: `share` in the directory of the build profile
/// (`target/TRIPLE/release/share`).
fn directory() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let directory = own.ancestors().nth(2).unwrap().join("share");
    fs::create_dir_all(directory.join("man")).unwrap();
    directory
}

fn completions(shell: impl Generator) -> String {
    let mut text = Vec::new();
    generate(shell, &mut definition(), "rt", &mut text);
    String::from_utf8(text).unwrap()
}

/// Returns the name and the text of each manual page.
fn pages() -> Vec<(String, String)> {
    let definition = definition();
    let page = |command: Command, more: &str| {
        let man = Man::new(command).source(format!("rt {}", env!("CARGO_PKG_VERSION")));
        let mut text = Vec::new();
        man.render(&mut text).unwrap();
        String::from_utf8(text).unwrap() + more
    };
    let mut pages = vec![(
        "rt.1".to_owned(),
        page(definition.clone(), FILES_AND_STATUS),
    )];
    for (name, _) in COMMANDS {
        let command = definition.find_subcommand(name).unwrap().clone();
        pages.push((format!("rt-{name}.1"), page(command, "")));
    }
    pages
}

#[test]
fn each_command_and_each_option_is_in_the_completions_and_in_a_page() {
    let directory = directory();
    let files = [
        ("rt", Shell::Bash),
        ("_rt", Shell::Zsh),
        ("rt.fish", Shell::Fish),
    ];
    let texts: Vec<_> = files
        .map(|(name, shell)| {
            let text = completions(shell);
            fs::write(directory.join(name), &text).unwrap();
            text
        })
        .into();
    for (name, text) in pages() {
        let about = COMMANDS
            .iter()
            .find(|(command, _)| name == format!("rt-{command}.1"));
        assert!(
            about.is_none_or(|(_, about)| text.contains(about)),
            "{name}"
        );
        fs::write(directory.join("man").join(&name), &text).unwrap();
        assert!(
            text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"),
            "{name}"
        );
    }
    for (command, _) in COMMANDS {
        let page = fs::read_to_string(directory.join(format!("man/rt-{command}.1"))).unwrap();
        let definition = definition();
        for option in definition.find_subcommand(command).unwrap().get_arguments() {
            let Some(long) = option.get_long().filter(|_| !option.is_hide_set()) else {
                continue;
            };
            for text in &texts {
                assert!(
                    text.contains(long),
                    "{command} --{long} is in each completion"
                );
            }
            assert!(
                page.contains(&long.replace('-', "\\-")),
                "{command} --{long} has a page"
            );
        }
    }
}

/// Returns what bash proposes as completions of the last of `words`.
fn proposed(script: &Path, words: &[&str]) -> Vec<String> {
    let line = format!(
        "source {}; COMP_WORDS=({}); COMP_CWORD={}; _rt rt \"${{COMP_WORDS[-1]}}\" \
         \"${{COMP_WORDS[-2]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        words
            .iter()
            .map(|word| format!("'{word}'"))
            .collect::<Vec<_>>()
            .join(" "),
        words.len() - 1
    );
    let done = Program::new("bash")
        .args(["--norc", "-c", &line])
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn bash_completes_commands_and_options() {
    let script = std::env::temp_dir().join(format!("rt-{}.bash", std::process::id()));
    fs::write(&script, completions(Shell::Bash)).unwrap();
    assert_eq!(proposed(&script, &["rt", "exe"]), ["exec"]);
    assert_eq!(
        proposed(&script, &["rt", "exec", "--console"]),
        ["--console-socket"]
    );
    assert_eq!(proposed(&script, &["rt", "delete", "--fo"]), ["--force"]);
    assert_eq!(proposed(&script, &["rt", "--log-f"]), ["--log-format"]);
    fs::remove_file(script).unwrap();
}
