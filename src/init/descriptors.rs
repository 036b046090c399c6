//! What init has open from its clone on.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::cgroup::OpenCgroup;
use crate::child::{HookOutputs, NO_OUTPUTS};
use crate::config::hooks::HookKind;
use crate::namespace::Namespaces;
use crate::plan::Plan;
use crate::sys::procfd::ProcFd;

/// What the parent has opened for init, or for the process of `exec`: everything that a plan needs,
/// which is data alone, besides the connection to the parent.
pub struct InitDescriptors<'a> {
    pub namespaces: &'a Namespaces,
    pub cgroup: OpenCgroup,
    /// The start socket. It stays open until the program runs, also where the parent sends Start
    /// itself: as long as it is open, the container is *created*.
    pub listener: Option<OwnedFd>,
    /// The detached mount with the socket of sd_notify(3).
    pub notify: Option<&'a OwnedFd>,
    pub hook_outputs: &'a HookOutputs,
    /// A private procfs, if init writes to it. It is closed before any other process can see init.
    pub procfs: Option<ProcFd>,
}

impl<'a> InitDescriptors<'a> {
    /// Those of a process that joins a running container.
    pub fn new(namespaces: &'a Namespaces, cgroup: OpenCgroup) -> Self {
        Self {
            namespaces,
            cgroup,
            listener: None,
            notify: None,
            hook_outputs: &NO_OUTPUTS,
            procfs: None,
        }
    }

    /// Returns the descriptors that stay open while init confines itself.
    pub(super) fn of_set_up(&self, plan: &Plan) -> Vec<RawFd> {
        let mut all = self.namespaces.descriptors();
        all.extend(self.cgroup.descriptors());
        all.extend(self.notify.map(AsRawFd::as_raw_fd));
        all.extend(self.procfs.as_ref().map(AsRawFd::as_raw_fd));
        all.extend(self.of_hooks(plan, &[HookKind::CreateContainer, HookKind::StartContainer]));
        all.extend(self.listener.as_ref().map(AsRawFd::as_raw_fd));
        all
    }

    /// Returns the descriptors that a process which a builder clones needs.
    pub(super) fn of_program(&self, plan: &Plan) -> Vec<RawFd> {
        let mut all = self.of_hooks(plan, &[HookKind::StartContainer]);
        all.extend(self.cgroup.descriptors());
        all.extend(self.listener.as_ref().map(AsRawFd::as_raw_fd));
        all
    }

    fn of_hooks(&self, plan: &Plan, kinds: &[HookKind]) -> Vec<RawFd> {
        let outputs = self.hook_outputs.0.iter().flatten();
        let outputs = outputs.filter(|_| plan.has_hooks(kinds));
        outputs.map(AsRawFd::as_raw_fd).collect()
    }
}
