//! Every system call of the runtime's own fails once, and the runtime is killed once at every call.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::{counting, goes_on, has_begun};
use crate::harness::inject::{Call, Fault, Traced, inject_alone, sweep_step, trace_alone};
use crate::harness::{Rt, reap, until};

/// Told if the test fails of it.
struct Case(String);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// Every call of the runtime's own, each with an error and with SIGKILL: what CRIU does is its own
/// affair, but it must not go on alone.
fn each_fault(rt: &Rt, files: (&Path, &Path), mut judge: impl FnMut(&Traced)) {
    let sample = trace_alone(rt, files.0, files.1);
    assert_eq!(sample.status, 0, "{}", fs::read_to_string(files.1).unwrap());
    judge(&sample);
    // Before its execve it is another program, which sets PATH.
    let begin = sample.calls.iter().rposition(Call::is_execve).unwrap() + 1;
    let own = sample.calls[begin..].iter().filter(|call| !call.startup);
    let calls = own.step_by(sweep_step(1));
    for call in calls {
        let error = call.can_fail().then_some(Fault::Error(Errno::EIO));
        for fault in error.into_iter().chain([Fault::Kill]) {
            fs::write(files.1, "").unwrap();
            let traced = inject_alone(rt, files, call.n, fault);
            let _case = Case(format!("{fault} at {call}: {}", traced.status));
            assert!(!traced.hung, "it hangs");
            judge(&traced);
            let errors = fs::read_to_string(files.1).unwrap();
            let told = errors.lines().count() == 1 && errors.starts_with("rt: ");
            assert!(told || traced.status == 0 || matches!(fault, Fault::Kill), "{errors:?}");
        }
    }
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_fault_at_any_system_call_of_restore_leaves_nothing() {
    let c = counting().start();
    has_begun(&c);
    c.checkpoint(&[]).success();
    c.wait();
    let bundle = c.bundle();
    let images = bundle.beside("images").display().to_string();
    let [out, err, pid_file] = ["out", "err", "pid"].map(|name| bundle.beside(name));
    let rt = bundle.launch(&["restore", "--detach", "--image-path", &images], &c.id);
    let rt = rt.redirections("");
    each_fault(&rt, (&out, &err), |traced| {
        if traced.status == 0 {
            assert_eq!(c.status(), "running");
        }
        c.rt(["delete", "--force", &c.id]).run().success();
        if let Ok(pid) = fs::read_to_string(&pid_file) {
            reap(pid.parse().unwrap(), Duration::from_secs(10));
        }
        bundle.leftovers().assert_none_since();
        let _ = fs::remove_file(&pid_file);
    });
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_fault_at_any_system_call_of_checkpoint_lets_the_container_go_on() {
    let c = counting().start();
    has_begun(&c);
    let bundle = c.bundle();
    let images = bundle.beside("images").display().to_string();
    let [out, err] = ["out", "err"].map(|name| bundle.beside(name));
    let rt = c.rt(["checkpoint", "--leave-running", "--image-path", &images, &c.id]);
    each_fault(&rt, (&out, &err), |_| {
        until("it runs", || c.status() == "running");
        goes_on(&c);
    });
}
