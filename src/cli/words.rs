//! Rewrites the words of the command line for clap. Engines write them for runc, which uses Go's
//! flag package: that accepts `-option` for `--option`, and `--switch=true`. runc also treats an
//! empty value like a missing option, and passes everything after the id to the program of `exec`
//! and to ps(1).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgAction, Command};

/// Options whose empty value is kept, so that it is an error: an unset variable in a script should
/// not select other files or another user than intended.
const NEVER_EMPTY: [&str; 3] = ["bundle", "root", "user"];

/// Returns `args` as the words for `command`, the parser of the whole command line.
pub(super) fn normal(command: &Command, args: &[OsString]) -> Vec<OsString> {
    let mut normal: Vec<OsString> = args.iter().take(1).cloned().collect();
    let mut rest = args.iter().skip(1).peekable();
    let mut command = command;
    while let Some(word) = rest.next() {
        let known = match word.as_bytes() {
            b"--" => {
                normal.push(word.clone());
                break;
            }
            b"-" => None,
            [b'-', ..] => Some(option(command, word)),
            _ => None,
        };
        match known {
            Some(KnownWords::Switch(word)) => normal.extend(word),
            Some(KnownWords::Option { arg, long, value }) => {
                let value = value.or_else(|| rest.next().cloned());
                let in_list = matches!(arg.get_action(), ArgAction::Append) && long != "cgroup";
                let is_none = !in_list
                    && !NEVER_EMPTY.contains(&long)
                    && value.as_ref().is_some_and(|value| value.is_empty());
                if !is_none {
                    normal.push(joined(long, value.as_deref()));
                }
            }
            Some(KnownWords::Cluster { wants_value }) => {
                normal.push(word.clone());
                normal.extend(rest.next_if(|_| wants_value).cloned());
            }
            None => {
                normal.push(word.clone());
                match command.find_subcommand(word) {
                    Some(chosen) => command = chosen,
                    None if matches!(command.get_name(), "exec" | "ps") => {
                        if rest.peek().is_some_and(|next| *next != "--") {
                            normal.push("--".into());
                        }
                        break;
                    }
                    None => {}
                }
            }
        }
    }
    normal.extend(rest.cloned());
    normal
}

/// What a word that begins with a dash is.
enum KnownWords<'a> {
    /// A switch, and the word for it: none if the switch is off.
    Switch(Option<OsString>),
    Option {
        arg: &'a Arg,
        long: &'a str,
        value: Option<OsString>,
    },
    /// Several short options in one word, or an unknown option, about which clap reports an error.
    Cluster { wants_value: bool },
}

fn option<'a>(command: &'a Command, word: &OsStr) -> KnownWords<'a> {
    let bytes = word.as_bytes();
    let name = bytes.strip_prefix(b"--").unwrap_or(&bytes[1..]);
    let mut parts = name.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or_default();
    let value = parts.next().map(|value| OsString::from_vec(value.to_vec()));
    let same = |arg: &&Arg| match name {
        [letter] if bytes[1] != b'-' => arg.get_short() == Some(char::from(*letter)),
        _ => arg.get_long().is_some_and(|long| long.as_bytes() == name),
    };
    let Some(arg) = command.get_arguments().find(same) else {
        return KnownWords::Cluster {
            wants_value: wants_value(command, &bytes[1..]),
        };
    };
    let long = arg.get_long().unwrap_or_default();
    // A switch for which `=false` has another meaning than a missing switch.
    let may_have_value = arg.is_require_equals_set();
    if arg.get_action().takes_values() && !may_have_value {
        return KnownWords::Option { arg, long, value };
    }
    match value.as_deref().map(OsStr::as_bytes) {
        None | Some(b"true" | b"True" | b"TRUE" | b"t" | b"T" | b"1") => {
            KnownWords::Switch(Some(joined(long, None)))
        }
        Some(b"false" | b"False" | b"FALSE" | b"f" | b"F" | b"0") => {
            KnownWords::Switch(may_have_value.then(|| joined(long, Some("false".as_ref()))))
        }
        Some(_) => KnownWords::Cluster { wants_value: false },
    }
}

/// Whether the next word is the value of the last one of several short options.
fn wants_value(command: &Command, letters: &[u8]) -> bool {
    let takes = |letter: u8| {
        let same = |arg: &&Arg| arg.get_short() == Some(char::from(letter));
        command
            .get_arguments()
            .find(same)
            .is_some_and(|arg| arg.get_action().takes_values())
    };
    letters.iter().position(|letter| takes(*letter)) == letters.len().checked_sub(1)
}

fn joined(long: &str, value: Option<&OsStr>) -> OsString {
    let mut word = OsString::from("--");
    word.push(long);
    if let Some(value) = value {
        word.push("=");
        word.push(value);
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal_words(line: &str) -> String {
        let args: Vec<OsString> = line
            .split(' ')
            .map(|word| word.replace("''", "").into())
            .collect();
        let words = normal(&super::super::commands::command_line(None), &args);
        words
            .iter()
            .map(|word| word.to_str().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn words_are_taken_as_runc_takes_them() {
        for (line, words) in [
            ("rt -root /x list", "rt --root=/x list"),
            (
                "rt --root=/x --log '' --debug=true list -f json",
                "rt --root=/x --debug list --format=json",
            ),
            ("rt --systemd-cgroup=false --log= run c", "rt run c"),
            (
                "rt run -no-subreaper -b '' -pid-file P --console-socket= c",
                "rt run --no-subreaper --bundle= --pid-file=P c",
            ),
            (
                "rt exec -tu 0 c -x --debug=true",
                "rt exec -tu 0 c -- -x --debug=true",
            ),
            (
                "rt exec -u 0 --cwd '' -e '' c -- sh --",
                "rt exec --user=0 --env= c -- sh --",
            ),
            (
                "rt exec -t=false -d=true -e=A=B -u=0 c",
                "rt exec --detach --env=A=B --user=0 c",
            ),
            (
                "rt exec -d=false -eA=B -t=maybe c",
                "rt exec -eA=B -t=maybe c",
            ),
            (
                "rt exec -no-new-privs --no-new-privs=F c",
                "rt exec --no-new-privs --no-new-privs=false c",
            ),
            ("rt delete -f=true c", "rt delete --force c"),
            ("rt kill -a=1 c -f=0", "rt kill --all c -f=0"),
            ("rt exec --cgroup '' c", "rt exec c"),
            ("rt exec c", "rt exec c"),
            ("rt ps c -ef", "rt ps c -- -ef"),
            ("rt ps -f json c", "rt ps --format=json c"),
            ("rt delete c --force", "rt delete c --force"),
            ("rt --root= kill '' TERM", "rt --root= kill '' TERM"),
            ("rt update --cpu-quota -1 c", "rt update --cpu-quota=-1 c"),
            (
                "rt --bogus=1 --debug=maybe list -q",
                "rt --bogus=1 --debug=maybe list --quiet",
            ),
        ] {
            let words = words.replace("''", "");
            assert_eq!(normal_words(line), words, "{line}");
        }
    }
}
