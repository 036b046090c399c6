//! One write to a control file, and what it means if the kernel has no such file.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Error, Result};
use nix::errno::Errno;

use super::file;
use crate::log;

/// One write to a control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The JSON path of the property that asks for this write.
    pub(super) field: Cow<'static, str>,
    pub(super) controller: Cow<'static, str>,
    pub(super) file: Cow<'static, str>,
    pub(super) value: String,
    /// Whether the first word of the file is kept, and the value written behind it.
    pub(super) keeps_first: bool,
    absent: Absent,
}

/// What it means if the kernel has no such file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Absent {
    /// The limit is not available, which is an error.
    Error,
    /// The kernel behaves as if the value were set.
    Met,
    /// Another value is written to another file.
    Instead(&'static str, String),
    /// An error. It is also an error if the file shows more than the value after the write, since
    /// some kernels accept the write without an effect.
    Checked,
    /// A warning, also if the file shows more than the value after the write. No present kernel
    /// has this limit, but old clients still ask for it.
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

    /// Returns the file and the value to write; `is_there` tells whether the kernel has a file.
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
            // A limit that has been withdrawn from version 1 may still have a file.
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

    /// Whether the value that the file shows is not above that of the setting.
    fn holds(&self, path: &Path) -> nix::Result<bool> {
        let number = |text: &str| text.parse().unwrap_or(u64::MAX);
        Ok(number(&file::read(path)?) <= number(&self.value))
    }
}

/// Returns a value that is present and not zero.
pub(super) fn set<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

/// Writes the settings of one controller to the cgroup `directory`. Some settings bound each other
/// (memory and memory+swap, period and quota). One that the kernel refuses with EINVAL is tried
/// again after the others, so that any allowed state can be reached from any other.
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

/// Returns the error of a write: the JSON path, the control file, and what the user can do about
/// it.
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

/// Whether `directory` is a version 2 cgroup in which `controller` is not enabled.
fn lacks_controller(directory: &Path, controller: &str) -> bool {
    // The files `cgroup.*` belong to no controller.
    controller != "cgroup"
        && file::read(&directory.join("cgroup.controllers"))
            .is_ok_and(|enabled| !enabled.split(' ').any(|name| name == controller))
}
