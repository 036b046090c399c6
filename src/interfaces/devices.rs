//! `linux.netDevices`: interfaces of the host that move into the container (config-linux.md
//! "Network Devices"). The kernel keeps the name, the MAC and the MTU of an interface that moves,
//! and forgets its addresses. When the namespace ends the kernel gives a physical interface back.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::Linux;

use crate::log;
use crate::netlink::link::{InterfaceAddress, RouteNetlink};

/// One entry of `linux.netDevices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    name: String,
    /// The name in the container; with `%d` the kernel chooses a number.
    new_name: String,
}

impl NetDevice {
    /// Returns all entries, sorted by name.
    pub fn all(linux: &Linux) -> Vec<Self> {
        let devices = linux.net_devices().iter().flatten();
        let mut all: Vec<_> = devices
            .map(|(name, device)| {
                let new_name = device.name().clone().filter(|name| !name.is_empty());
                Self {
                    name: name.clone(),
                    new_name: new_name.unwrap_or_else(|| name.clone()),
                }
            })
            .collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Whether the device can have this name in the container.
    fn may_be(&self, name: &str) -> bool {
        let Some((before, after)) = self.new_name.split_once("%d") else {
            return self.new_name == name;
        };
        let number = name
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after));
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|digit| digit.is_ascii_digit()))
    }
}

/// Devices that have moved into the container. Drop moves them back, because the container has not
/// come into being; [`MovedDevice::keep`] leaves them there.
#[derive(Debug)]
pub struct MovedDevice {
    /// The network namespaces of the runtime and of the container.
    home: OwnedFd,
    target: OwnedFd,
    devices: Vec<InContainer>,
}

#[derive(Debug)]
struct InContainer {
    name: String,
    /// Its index in the container; `None` if that is not known yet, or if it has not moved.
    index: Option<u32>,
    /// The names of the interfaces that the container had before this one.
    others: Vec<String>,
    was_up: bool,
    addresses: Vec<InterfaceAddress>,
}

impl InContainer {
    /// Returns the name and the index of the device in the container. Before the next device moves
    /// it is the only new interface there.
    fn find(&self, there: &mut RouteNetlink) -> Result<Option<(String, u32)>> {
        let Some(name) = there
            .names()?
            .into_iter()
            .find(|name| !self.others.contains(name))
        else {
            return Ok(None);
        };
        Ok(there.find(&name)?.map(|link| (name, link.index)))
    }
}

impl MovedDevice {
    /// Moves `devices` into the network namespace of process `pid`.
    pub fn all(devices: &[NetDevice], pid: i32) -> Result<Self> {
        let open = |path: &str| File::open(path).map(OwnedFd::from).context(path.to_owned());
        let (home, target) = (
            open("/proc/self/ns/net")?,
            open(&format!("/proc/{pid}/ns/net"))?,
        );
        let mut moved = Self {
            home,
            target,
            devices: Vec::new(),
        };
        let mut here = RouteNetlink::here()?;
        let mut there = moved.inside()?;
        for device in devices {
            let origin = || format!("linux.netDevices.{}", device.name);
            moved
                .take(device, &mut here, &mut there)
                .with_context(origin)?;
        }
        Ok(moved)
    }

    /// Moves those of `devices` that are not in the network namespace of process `pid` yet.
    pub fn missing(devices: &[NetDevice], pid: i32) -> Result<Self> {
        let names = Self::all(&[], pid)?.inside()?.names()?;
        let is_missing = |device: &&NetDevice| !names.iter().any(|name| device.may_be(name));
        let missing: Vec<NetDevice> = devices.iter().filter(is_missing).cloned().collect();
        Self::all(&missing, pid)
    }

    /// Leaves the devices in the container.
    pub fn keep(mut self) {
        self.devices.clear();
    }

    /// Opens rtnetlink in the container's network namespace.
    fn inside(&self) -> Result<RouteNetlink> {
        setns(&self.target, CloneFlags::CLONE_NEWNET).context("the container's network")?;
        let links = RouteNetlink::here();
        setns(&self.home, CloneFlags::CLONE_NEWNET).context("back to the own network")?;
        links
    }

    fn take(
        &mut self,
        device: &NetDevice,
        here: &mut RouteNetlink,
        there: &mut RouteNetlink,
    ) -> Result<()> {
        let Some(link) = here.find(&device.name)? else {
            bail!("no such interface")
        };
        if !device.new_name.contains("%d") && there.find(&device.new_name)?.is_some() {
            bail!("{}: is there already in the container", device.new_name);
        }
        self.devices.push(InContainer {
            name: device.name.clone(),
            index: None,
            others: there.names()?,
            was_up: link.up,
            addresses: here.permanent_addresses(link.index)?,
        });
        let Some(last) = self.devices.last_mut() else {
            return Ok(());
        };
        // It is in `devices` already: it may have moved even if the kernel answers with an error.
        here.move_to(link.index, self.target.as_raw_fd(), &device.new_name)?;
        let (name, index) = last.find(there)?.context("it has vanished on the way")?;
        last.index = Some(index);
        for address in &last.addresses {
            there
                .add_permanent(address, index, (&last.name, &name))
                .context("its address")?;
        }
        Ok(there.up(index)?)
    }

    fn give_back(&self, device: &InContainer) -> Result<()> {
        let (mut here, mut there) = (RouteNetlink::here()?, self.inside()?);
        let index = match device.index {
            Some(index) => Some(index),
            None => device.find(&mut there)?.map(|(_, index)| index),
        };
        let Some(index) = index else { return Ok(()) };
        there.move_to(index, self.home.as_raw_fd(), &device.name)?;
        let index = here
            .find(&device.name)?
            .context("it has vanished on the way")?
            .index;
        for address in &device.addresses {
            here.add_permanent(address, index, (&device.name, &device.name))?;
        }
        if device.was_up {
            here.up(index)?;
        }
        Ok(())
    }
}

impl Drop for MovedDevice {
    fn drop(&mut self) {
        for device in &self.devices {
            if let Err(error) = self.give_back(device) {
                log::warn(format!(
                    "linux.netDevices.{}: giving it back: {error:#}",
                    device.name
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_any_number_and_another_name_is_itself() {
        let device = |new_name: &str| NetDevice {
            name: "eth0".into(),
            new_name: new_name.into(),
        };
        for (new_name, name, is) in [
            ("lan", "lan", true),
            ("lan", "lan0", false),
            ("lan%d", "lan12", true),
            ("lan%d", "lan", false),
            ("lan%d", "lanx", false),
            ("a%db", "a3b", true),
            ("a%db", "a3", false),
        ] {
            assert_eq!(device(new_name).may_be(name), is, "{new_name} {name}");
        }
    }
}
