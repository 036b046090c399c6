//! `exec`: one more process in a container. The same [`init::run`](crate::init::run) as for the
//! first one, with every namespace joined and no root file system to build.

use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;
use nix::sys::wait::{Id, WaitPidFlag, waitid};

use crate::cgroup::{Cgroup, Seen};
use crate::error::{InPhase, Phase};
use crate::foreground::Foreground;
use crate::namespace::Namespaces;
use crate::plan::Plan;
use crate::state::{Container, Status};
use crate::sync::Caller;
use crate::{launch, log, spec, sys};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Request {
    /// `--root`.
    pub(crate) root: PathBuf,
    pub(crate) id: String,
    /// The program and its arguments, never empty.
    pub(crate) args: Vec<String>,
}

/// `rt exec`: the status of the process.
pub(crate) fn exec(request: &Request) -> Result<i32> {
    let container = Container::open(&request.root, &request.id)?;
    let plan = plan(request, &container).phase(Phase::Plan)?;
    let foreground = Foreground::prepare(true)?;
    // Where init is now, which need not be where it was born: a systemd in the container moves.
    let init = container.record.init.context("no init")?;
    // The process may be seen by the container from its first moment: nothing of the host is open.
    let seen = if plan.namespaces.has_user() { Seen::ByNobody } else { Seen::ByContainer };
    let group = Cgroup::of_process(init.pid).and_then(|c| c.open(seen)).phase(Phase::Cgroup)?;
    drop(container);
    let (pid, caller) = launch::clone(&plan, group, None)?;
    let guard = Guard(&caller);
    launch::prepare(&plan, pid)?;
    caller.go().phase(Phase::Process)?;
    caller.ready()?;
    launch::schedule(&plan, pid).phase(Phase::Process)?;
    caller.detach().phase(Phase::Process)?;
    caller.executed()?;
    // From here on the process may run on without us only if we are killed.
    let status = foreground.wait(pid, None)?;
    std::mem::forget(guard);
    Ok(status)
}

fn plan(request: &Request, container: &Container) -> Result<Plan> {
    let id = &request.id;
    let (status, init) = container.status()?;
    let init = match (status, init) {
        (Status::Created | Status::Running, Some(init)) => init,
        (Status::Paused, _) => bail!("{id}: cannot exec in a paused container"),
        (Status::Creating, _) => bail!("{id}: cannot exec in a container that is being created"),
        _ => bail!("{id}: cannot exec in a stopped container"),
    };
    let mut loaded = spec::process(&container.process()?)?;
    loaded.process.set_args(Some(request.args.clone()));
    loaded.process.set_terminal(Some(false));
    spec::check_process(&loaded.process)?;
    let kinds = CloneFlags::from_bits_retain(container.record.namespaces);
    let namespaces = Namespaces::of_container(init, kinds);
    let plan =
        Plan::for_exec(namespaces, &loaded.process, &container.record, &mut loaded.warnings)?;
    loaded.warnings.iter().for_each(log::debug);
    Ok(plan)
}

/// Ends the process if it did not come as far as its program.
struct Guard<'a>(&'a Caller);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let _ = sys::pidfd_send_signal(self.0.process().as_fd(), libc::SIGKILL);
        let _ = waitid(Id::PIDFd(self.0.process().as_fd()), WaitPidFlag::WEXITED);
    }
}
