//! The log: `--log`, `--log-format` and `--debug`.
//!
//! Engines read the last line of level `error` from the log file and show its `msg` to their users,
//! so every line is written with one write(2). Standard error belongs to the user of the container:
//! without a log file it gets warnings, and debug output if that was asked for. The error that ends
//! the command is printed by `cli.rs`. Therefore only something that is wrong is a warning, and not
//! something that is merely unusual.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Error, Result, bail};
use serde::Serialize;

use crate::error::one_line;

static LOG: OnceLock<Log> = OnceLock::new();

/// The format of the log, as named after `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `time="…" level=error msg="…"`, the format of logrus.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => bail!("unknown log format {word:?}: text or json"),
        }
    }
}

/// Where lines are written, in which format, and whether debug lines are.
#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    format: LogFormat,
    debug: bool,
}

/// A line, with its keys in the order of logrus.
#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'a str>,
    time: &'a str,
}

impl Log {
    /// Opens `path` for appending, and creates it if it is missing. It may have the prefix `file:`,
    /// as in crun. Without a path, warnings go to standard error, and with `debug` debug lines too.
    ///
    /// # Errors
    /// `--log PATH: …` if the file cannot be opened, or if the path begins with `journald:` or
    /// `syslog:`, which crun supports and `rt` does not.
    pub fn open(path: Option<&Path>, format: LogFormat, debug: bool) -> Result<Self> {
        let path = path.filter(|path| !path.as_os_str().is_empty());
        let file =
            path.map(|path| append(path).with_context(|| format!("--log {}", path.display())));
        Ok(Self {
            file: file.transpose()?,
            format,
            debug,
        })
    }

    /// Makes this the log of the process. Only the first call for a process has an effect.
    pub fn install(self) {
        let _ = LOG.set(self);
    }

    /// Returns the descriptor of the log file, if there is one.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.file.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Writes what happened, for a person who looks for a fault. Does nothing without `--debug`.
    pub fn debug(&self, msg: impl Display) {
        if self.debug {
            self.line("debug", &msg.to_string(), None);
        }
    }

    /// Writes a warning: something went wrong but does not end the command, or something was asked
    /// for that is not possible, and the specification wants the runtime to continue. Without a log
    /// file it is a line on standard error.
    pub fn warn(&self, msg: impl Display) {
        let msg = one_line(&msg.to_string());
        match self.file {
            Some(_) => self.line("warning", &msg, None),
            // If standard error cannot be written, there is no better place for the warning.
            None => drop(io::stderr().write_all(format!("rt: warning: {msg}\n").as_bytes())),
        }
    }

    /// Writes the error that ends the command; `phase` is the step of the command. Does nothing
    /// without a log file: `cli.rs` prints the error on standard error.
    pub fn error(&self, msg: impl Display, phase: Option<&str>) {
        if self.file.is_some() {
            self.line("error", &msg.to_string(), phase);
        }
    }

    fn line(&self, level: &str, msg: &str, phase: Option<&str>) {
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let line = Line {
            level,
            msg,
            phase,
            time: &time,
        }
        .format(self.format);
        // If the log cannot be written, there is no better place to report that.
        let _ = match self.file.as_ref() {
            Some(mut file) => file.write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }
}

fn append(path: &Path) -> Result<File> {
    let path = match path.to_str().and_then(|path| path.split_once(':')) {
        Some(("file", path)) => Path::new(path),
        Some(("journald" | "syslog", _)) => bail!("only a file can be written"),
        _ => path,
    };
    Ok(OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?)
}

impl Line<'_> {
    fn format(&self, format: LogFormat) -> String {
        let mut line = match format {
            LogFormat::Json => serde_json::to_string(self).unwrap_or_default(),
            LogFormat::Text => {
                let phase = self
                    .phase
                    .map(|phase| format!(" phase={phase:?}"))
                    .unwrap_or_default();
                format!(
                    "time={:?} level={} msg={:?}{phase}",
                    self.time, self.level, self.msg
                )
            }
        };
        line.push('\n');
        line
    }
}

/// Calls [`Log::debug`] of the installed log; does nothing before [`Log::install`].
pub fn debug(msg: impl Display) {
    if let Some(log) = LOG.get() {
        log.debug(msg);
    }
}

/// Calls [`Log::warn`] of the installed log; does nothing before [`Log::install`].
pub fn warn(msg: impl Display) {
    if let Some(log) = LOG.get() {
        log.warn(msg);
    }
}

/// Calls [`Log::error`] of the installed log; does nothing before [`Log::install`].
pub fn error(msg: impl Display, phase: Option<&str>) {
    if let Some(log) = LOG.get() {
        log.error(msg, phase);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn lines(format: LogFormat, debug: bool) -> Vec<String> {
        let name = format!("rt-log-{}-{format:?}-{debug}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let log = Log::open(Some(&path), format, debug).unwrap();
        log.debug("a step");
        log.warn("CAP_X: unknown");
        log.error("process.cwd: \"a\nb\"", Some("create"));
        Log::open(Some(&path), format, debug)
            .unwrap()
            .error("appended", None);
        let text = std::fs::read_to_string(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(mode & 0o077, 0);
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_json_line_is_what_clients_parse() {
        let lines = lines(LogFormat::Json, false);
        assert_eq!(lines.len(), 3);
        let value: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(value["level"], "error");
        assert_eq!(value["msg"], "process.cwd: \"a\nb\"");
        assert_eq!(value["phase"], "create");
        assert!(humantime::parse_rfc3339(value["time"].as_str().unwrap()).is_ok());
        assert!(!lines[2].contains("phase"), "{}", lines[2]);
    }

    #[test]
    fn a_text_line_is_quoted_and_debug_comes_on_demand() {
        let lines = lines(LogFormat::Text, true);
        assert_eq!(lines.len(), 4);
        assert!(
            lines[0].ends_with(" level=debug msg=\"a step\""),
            "{}",
            lines[0]
        );
        assert!(lines[1].contains(" level=warning "), "{}", lines[1]);
        let end = r#" level=error msg="process.cwd: \"a\nb\"" phase="create""#;
        assert!(
            lines[2].starts_with("time=\"") && lines[2].ends_with(end),
            "{}",
            lines[2]
        );
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_an_error() {
        let path = Path::new("/proc/self/status/x");
        let error = Log::open(Some(path), LogFormat::Text, false).unwrap_err();
        assert_eq!(error.to_string(), "--log /proc/self/status/x");
    }

    #[test]
    fn formats_have_names() {
        assert_eq!("json".parse::<LogFormat>().unwrap(), LogFormat::Json);
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
