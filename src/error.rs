//! Errors as the user reads them: one line that names the thing to act on, and the cause. In the
//! code they are [`anyhow::Error`]s whose contexts name these things. The phase in which an error
//! happened is attached to it, and is shown in the log but not in the line.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The step of a command that an error belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Phase {
    /// Reading and checking the configuration and the command line.
    Config,
    /// Computing and opening what the container needs, before any side effect.
    Plan,
    /// The state directory.
    State,
    /// Creating cgroups, entering them and setting their limits.
    Cgroup,
    /// Creating or joining namespaces.
    Namespaces,
    /// The root file system and everything mounted in it.
    Mounts,
    /// Running the hooks of the configuration.
    Hooks,
    /// The terminal.
    Terminal,
    /// User, capabilities, resource limits and working directory of the process.
    Process,
    /// Executing the program of the container.
    Exec,
}

impl Phase {
    const ALL: [Self; 10] = [
        Self::Config,
        Self::Plan,
        Self::State,
        Self::Cgroup,
        Self::Namespaces,
        Self::Mounts,
        Self::Hooks,
        Self::Terminal,
        Self::Process,
        Self::Exec,
    ];

    /// Returns the phase with that number in a message of the protocol between init and the parent.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| *phase as u8 == number)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// An error that is a whole line already, together with its phase. Init reports its errors to the
/// parent in this form.
#[derive(Debug)]
pub struct Failure {
    pub phase: Phase,
    pub line: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for Failure {}

/// Attaches the phase to an error that is passed up. The innermost phase is kept.
pub trait InPhase<T> {
    fn phase(self, phase: Phase) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> InPhase<T> for Result<T, E> {
    fn phase(self, phase: Phase) -> anyhow::Result<T> {
        self.map_err(|error| {
            let error = error.into();
            if error.downcast_ref::<Failure>().is_some() {
                return error;
            }
            Failure {
                phase,
                line: line(&error),
            }
            .into()
        })
    }
}

/// Returns the phase that was attached to the error, if any.
pub fn phase(error: &anyhow::Error) -> Option<Phase> {
    error.downcast_ref::<Failure>().map(|failure| failure.phase)
}

/// Returns the error as the one line that the user reads: the outermost context comes first, and
/// control characters are escaped, so that a hostile file name cannot break the line or the log.
pub fn line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = describe(cause);
        // A library's error often repeats its source in its own text.
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    one_line(&text)
}

/// Escapes the control characters in `text`, so that nothing in it breaks the line.
pub fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect()
}

/// Returns the text of one error of a chain. For an errno this is the text of strerror(3), without
/// the `ENOENT: ` of nix and the ` (os error 2)` of the standard library; for some of them nix
/// would have another text.
fn describe(cause: &(dyn std::error::Error + 'static)) -> String {
    let errno = cause
        .downcast_ref::<nix::errno::Errno>()
        .map(|errno| *errno as i32);
    let of_std = || {
        cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error)
    };
    let Some(number) = errno.or_else(of_std) else {
        return cause.to_string();
    };
    let text = std::io::Error::from_raw_os_error(number).to_string();
    text.strip_suffix(&format!(" (os error {number})"))
        .unwrap_or(&text)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn an_error_is_one_line_from_noun_to_cause() {
        let error = Err::<(), _>(Errno::ENOENT)
            .context("mounts[3] /data")
            .unwrap_err();
        assert_eq!(line(&error), "mounts[3] /data: No such file or directory");
    }

    #[test]
    fn an_errno_is_worded_as_strerror_does() {
        let line = |errno: Errno| super::line(&errno.into());
        assert_eq!(line(Errno::ERANGE), "Numerical result out of range");
        assert_eq!(line(Errno::EOPNOTSUPP), "Operation not supported");
        let error = std::io::Error::from_raw_os_error(Errno::ENOSPC as i32);
        assert_eq!(super::line(&error.into()), "No space left on device");
    }

    #[test]
    fn a_file_name_cannot_break_the_line() {
        assert_eq!(line(&anyhow!("a\nb\u{1b}")), "a\\nb\\u{1b}");
    }

    #[test]
    fn the_innermost_phase_stands() {
        let error = Err::<(), _>(Errno::EIO)
            .phase(Phase::Mounts)
            .phase(Phase::Process)
            .unwrap_err();
        assert_eq!(phase(&error), Some(Phase::Mounts));
    }

    #[test]
    fn a_phase_survives_its_number() {
        for phase in Phase::ALL {
            assert_eq!(Phase::from_number(phase as u8), Some(phase));
        }
        assert_eq!(Phase::from_number(200), None);
    }
}
