//! The scope of a container: planning, starting, setting limits, stopping.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::super::cgroup_dir::CgroupDir;
use super::super::devices::DeviceRule;
use super::super::file;
use super::super::limits::Limits;
use super::bus::{Bus, Refusal};
use super::scope::{is_ordinary_user, scope, slice_path};
use super::wire::{Property, Reader, Value, Writer};
use super::{annotation, properties};

/// The scope of a container, as its record stores it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unit {
    name: String,
    slice: String,
    /// Whether it belongs to the user's manager instead of the system's.
    user: bool,
}

impl Unit {
    /// Returns the scope for container `id`, and its path from the root of each hierarchy. For an
    /// ordinary user the manager is asked for its own cgroup.
    pub fn plan(path: Option<&Path>, id: &str) -> Result<(Self, PathBuf)> {
        let user = is_ordinary_user()?;
        let default_slice = if user { "user.slice" } else { "system.slice" };
        let path = path.and_then(Path::to_str).unwrap_or_default();
        let (slice, name) = scope(path, id, default_slice)?;
        let directory = slice_path(slice).with_context(|| format!("linux.cgroupsPath: {path}"))?;
        let fits = name.len() < 256
            && name.chars().all(|c| {
                // systemd.unit(5)
                c.is_ascii_alphanumeric() || ":-_.\\@".contains(c)
            });
        ensure!(fits, "linux.cgroupsPath: {name}: not the name of a unit");
        let above = match user {
            true => Bus::connect(true)?
                .manager_text("ControlGroup")
                .context("systemd")?,
            false => String::new(),
        };
        let place = Path::new("/").join(above.trim_start_matches('/'));
        let place = place.join(directory).join(&name);
        let slice = slice.to_owned();
        Ok((Self { name, slice, user }, place))
    }

    /// Connects to the manager that has the unit.
    pub fn connect(&self) -> Result<UnitConnection> {
        let bus = Bus::connect(self.user).context("--systemd-cgroup")?;
        Ok(UnitConnection {
            unit: self.clone(),
            bus,
        })
    }
}

/// Returns the properties with which a scope starts: those of annotations, and `devices`, the device
/// rules, which are given for version 1 only. Without them systemd would allow every device again.
/// Setting them later would turn on its device controller, which makes it move processes. On version
/// 2 this is not needed: systemd's device program is separate from rt's.
pub(in crate::cgroup) fn start_properties(
    annotations: &HashMap<String, String>,
    devices: Option<&[DeviceRule]>,
) -> Result<Vec<Property>> {
    let mut all = devices.map_or(Ok(vec![]), properties::devices)?;
    for (key, value) in annotations {
        all.extend(annotation::property(key, value)?);
    }
    Ok(all)
}

/// A connection to the systemd manager that has the scope of a container.
#[derive(Debug)]
pub struct UnitConnection {
    unit: Unit,
    bus: Bus,
}

impl UnitConnection {
    fn in_unit<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| format!("systemd: {}", self.unit.name))
    }

    /// Starts the scope with process `pid` in it.
    pub fn start(&mut self, pid: i32, unified: bool, start_properties: &[Property]) -> Result<()> {
        let yes = |name: &str| (name.to_owned(), Value::Bool(true));
        let text = |name: &str, text: &str| (name.to_owned(), Value::Text(text.to_owned()));
        let mut properties = vec![
            text("Description", &format!("container {}", self.unit.name)),
            text("Slice", &self.unit.slice),
            yes("Delegate"),
            ("PIDs".to_owned(), Value::Pids(vec![pid.unsigned_abs()])),
            yes("MemoryAccounting"),
            yes("CPUAccounting"),
            yes(if unified {
                "IOAccounting"
            } else {
                "BlockIOAccounting"
            }),
            yes("TasksAccounting"),
            ("DefaultDependencies".to_owned(), Value::Bool(false)),
            // Otherwise a scope that has run out of memory would stay in the failed state until
            // somebody resets it.
            text("CollectMode", "inactive-or-failed"),
        ];
        properties.extend_from_slice(start_properties);
        let mut body = Writer::default();
        body.text(&self.unit.name);
        // `fail`: a waiting job for a unit of this name belongs to somebody else, and must not be
        // replaced.
        body.text("fail");
        body.properties(&properties);
        body.no_units();
        let started = self.start_scope(&body);
        self.in_unit(started)
    }

    fn start_scope(&mut self, body: &Writer) -> Result<()> {
        let signature = "ssa(sv)a(sa(sv))";
        let reply = match self.bus.manager("StartTransientUnit", signature, body) {
            // A failed unit of this name may be left over from an earlier container.
            Err(error) if is_refusal(&error, "UnitExists") => {
                self.reset()?;
                self.bus.manager("StartTransientUnit", signature, body)?
            }
            reply => reply?,
        };
        self.wait(&reply)
    }

    /// Sets the limits for which systemd has properties; [`properties::from_limits`] says how it adapts
    /// `limits`. `cpu` is the cgroup whose CPU control files are read.
    pub(in crate::cgroup) fn set(
        &mut self,
        cpu: Option<&CgroupDir>,
        limits: &mut Limits,
    ) -> Result<()> {
        let present = |name: &str| file::read(&cpu?.directory.join(name)).ok();
        let mut properties = properties::from_limits(limits, present);
        if properties.contains(&properties::idle()) && !self.knows_idle()? {
            properties.retain(|property| *property != properties::idle());
        }
        self.set_properties(&properties)
    }

    fn knows_idle(&mut self) -> Result<bool> {
        let version = self.bus.manager_text("Version");
        let version = self.in_unit(version)?;
        let digits = version
            .split(|c: char| !c.is_ascii_digit())
            .find(|part| !part.is_empty());
        Ok(digits
            .and_then(|digits| digits.parse::<u32>().ok())
            .is_some_and(|v| v >= 252))
    }

    /// Replaces the device rules.
    pub fn set_devices(&mut self, rules: &[DeviceRule]) -> Result<()> {
        self.set_properties(&properties::devices(rules)?)
    }

    fn set_properties(&mut self, properties: &[Property]) -> Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        let mut body = Writer::default();
        body.text(&self.unit.name);
        // `runtime`: until the next boot, as the unit itself.
        body.u32(1);
        body.properties(properties);
        let reply = self.bus.manager("SetUnitProperties", "sba(sv)", &body);
        self.in_unit(reply).map(drop)
    }

    /// Stops the scope and waits until it has stopped. A missing scope is no error.
    pub fn stop(&mut self) -> Result<()> {
        let mut body = Writer::default();
        body.text(&self.unit.name);
        body.text("replace");
        let stopped = match self.bus.manager("StopUnit", "ss", &body) {
            Err(error) if is_refusal(&error, "NoSuchUnit") => Ok(()),
            Err(error) => Err(error),
            Ok(reply) => self.wait(&reply).and_then(|()| self.reset()),
        };
        self.in_unit(stopped)
    }

    fn wait(&mut self, reply: &[u8]) -> Result<()> {
        let job = Reader::new(reply).text().context("no job")?;
        match self.bus.wait(job)?.as_str() {
            "done" => Ok(()),
            result => {
                let _ = self.reset();
                bail!("the job ended as {result:?}")
            }
        }
    }

    /// Resets the unit, since systemd keeps a failed one until then.
    fn reset(&mut self) -> Result<()> {
        let mut body = Writer::default();
        body.text(&self.unit.name);
        match self.bus.manager("ResetFailedUnit", "s", &body) {
            Err(error) if !is_refusal(&error, "NoSuchUnit") => Err(error),
            _ => Ok(()),
        }
    }
}

fn is_refusal(error: &anyhow::Error, name: &str) -> bool {
    let refusal = error.downcast_ref::<Refusal>();
    refusal.is_some_and(|refusal| refusal.name.rsplit('.').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(path: &str) -> Result<(String, PathBuf)> {
        let planned = Unit::plan(Some(Path::new(path)), "box")?;
        Ok((planned.0.name, planned.1))
    }

    #[test]
    fn a_scope_has_a_slice_a_prefix_and_a_name() {
        if is_ordinary_user().unwrap() {
            return;
        }
        let expected = |name: &str, path: &str| (name.to_owned(), PathBuf::from(path));
        let planned = plan("user-x.slice:libpod:abc").unwrap();
        let path = "/user.slice/user-x.slice/libpod-abc.scope";
        assert_eq!(planned, expected("libpod-abc.scope", path));
        assert_eq!(
            plan("").unwrap(),
            expected("rt-box.scope", "/system.slice/rt-box.scope")
        );
        assert_eq!(
            plan(":a:b").unwrap(),
            expected("a-b.scope", "/system.slice/a-b.scope")
        );
        assert_eq!(plan("-.slice::b").unwrap(), expected("b.scope", "/b.scope"));
        for wrong in [
            "/a/b",
            "a:b",
            "a:b:c:d",
            "a:b:c",
            "x.slice:a:b/c",
            "x.slice:a:b c",
        ] {
            assert!(plan(wrong).is_err(), "{wrong}");
        }
    }
}
