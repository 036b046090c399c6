//! One write to a control file, and what it means that the kernel has no such file.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Error, Result};
use nix::errno::Errno;

use super::file;
use crate::log;

/// One write to a control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The JSON path of what the user asked for.
    pub(super) field: Cow<'static, str>,
    pub(super) controller: Cow<'static, str>,
    pub(super) file: Cow<'static, str>,
    pub(super) value: String,
    /// The first word of the file stays, and the value comes behind it.
    pub(super) keeps_first: bool,
    absent: Absent,
}

/// What it means that the kernel has no such file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Absent {
    /// The limit cannot be had.
    Error,
    /// It behaves as if the value were set.
    Met,
    /// Another file takes another value.
    Instead(&'static str, String),
    /// As `Error`, and so it is if the file then shows more than the value: some kernels take the
    /// write and do nothing.
    Checked,
    /// A warning, also if the file then shows more than the value: nobody can have this limit any
    /// more, and old clients still ask for it.
    Obsolete,
}

impl Setting {
    pub(super) fn new(
        field: impl Into<Cow<'static, str>>,
        controller: impl Into<Cow<'static, str>>,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> Self {
        Self {
            field: field.into(),
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            keeps_first: false,
            absent: Absent::Error,
        }
    }

    pub(super) fn behind_first(mut self) -> Self {
        self.keeps_first = true;
        self
    }

    pub(super) fn met_if_absent(mut self, met: bool) -> Self {
        self.absent = if met { Absent::Met } else { Absent::Error };
        self
    }

    pub(super) fn or_instead(mut self, file: &'static str, value: impl ToString) -> Self {
        self.absent = Absent::Instead(file, value.to_string());
        self
    }

    pub(super) fn checked(mut self) -> Self {
        self.absent = Absent::Checked;
        self
    }

    pub(super) fn obsolete(mut self) -> Self {
        self.absent = Absent::Obsolete;
        self
    }

    /// The file and its value, where `is_there` knows which files the kernel has.
    pub(super) fn chosen(&self, is_there: impl Fn(&str) -> bool) -> (&str, &str) {
        match &self.absent {
            Absent::Instead(file, value) if !is_there(&self.file) => (file, value),
            _ => (&self.file, &self.value),
        }
    }

    fn write(&self, directory: &Path) -> nix::Result<()> {
        let path = directory.join(&*self.file);
        let written = match self.keeps_first {
            false => file::write(&path, &self.value),
            true => file::read(&path).and_then(|now| {
                let first = now.split(' ').next().unwrap_or_default();
                file::write(&path, &format!("{first} {}", self.value))
            }),
        };
        match (written, &self.absent) {
            // What has been withdrawn from version 1 may still have a file.
            (Err(Errno::ENOENT | Errno::EOPNOTSUPP), Absent::Met) => Ok(()),
            (Err(Errno::ENOENT), Absent::Instead(name, value)) => {
                file::write(&directory.join(name), value)
            }
            (Ok(()), Absent::Checked) if !self.holds(&path)? => Err(Errno::EOPNOTSUPP),
            (Ok(()), Absent::Obsolete) if self.holds(&path)? => Ok(()),
            (Ok(()) | Err(Errno::ENOENT | Errno::EOPNOTSUPP), Absent::Obsolete) => {
                log::warn(format!(
                    "{}: left out, the kernel has no such limit",
                    self.field
                ));
                Ok(())
            }
            (result, _) => result,
        }
    }

    /// Whether the file shows no more than the value.
    fn holds(&self, path: &Path) -> nix::Result<bool> {
        let number = |text: &str| text.parse().unwrap_or(u64::MAX);
        Ok(number(&file::read(path)?) <= number(&self.value))
    }
}

/// A number that is present and not zero.
pub(super) fn set<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

/// Writes the settings of one controller to the group `directory`. Several of them bound each
/// other (memory and memory+swap, period and quota): what the kernel finds invalid is tried again
/// after the others, so that any allowed state can be reached from any other.
pub(super) fn write(settings: &[Setting], directory: &Path) -> Result<()> {
    let mut pending: Vec<&Setting> = settings.iter().collect();
    while let Some(first) = pending.first().copied() {
        let count = pending.len();
        let mut refused = Vec::new();
        for setting in pending {
            match setting.write(directory) {
                Ok(()) => {}
                Err(Errno::EINVAL) => refused.push(setting),
                Err(errno) => return Err(refusal(setting, directory, errno)),
            }
        }
        if refused.len() == count {
            return Err(refusal(first, directory, Errno::EINVAL));
        }
        pending = refused;
    }
    Ok(())
}

/// The error of a write: the JSON path, the control file, and what the user can do about it.
fn refusal(setting: &Setting, directory: &Path, errno: Errno) -> Error {
    let Setting {
        field,
        controller,
        file,
        value,
        ..
    } = setting;
    let path = directory.join(&**file);
    let path = path.display();
    match errno {
        Errno::ENOENT if lacks_controller(directory, controller) => {
            anyhow::anyhow!(
                "{field}: {path}: the cgroup controller `{controller}` is not available"
            )
        }
        Errno::EBUSY => Error::new(errno).context(format!("{field}: {path}: {value} is in use")),
        _ => Error::new(errno).context(format!("{field}: {path}: {value}")),
    }
}

/// Whether `directory` is a version 2 group in which `controller` is not enabled.
fn lacks_controller(directory: &Path, controller: &str) -> bool {
    // The files of this one are not a controller's.
    controller != "cgroup"
        && file::read(&directory.join("cgroup.controllers"))
            .is_ok_and(|enabled| !enabled.split(' ').any(|name| name == controller))
}
