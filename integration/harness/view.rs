//! Cgroup views: the same kernel seen as a hybrid, a pure v1 or a pure v2 host.

use std::ffi::OsString;
use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;

/// How the host's cgroups look to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum View {
    /// Whatever this host is.
    #[default]
    Host,
    /// v1 hierarchies with a cgroup2 beside them: only where the host is so.
    Hybrid,
    V1,
    V2,
}

const V1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/views/v1.sh");
const V2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/views/v2.sh");

impl View {
    /// Every view that this host can show; one loud line for each that it cannot.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Self::Hybrid, Self::V1, Self::V2].into_iter().filter(|view| view.is_possible())
    }

    /// What to put before a command so that it runs in this view.
    pub(crate) fn prefix(self) -> Vec<OsString> {
        match self {
            Self::Host | Self::Hybrid => vec![],
            Self::V1 => ["unshare", "-m", V1].map(Into::into).to_vec(),
            Self::V2 => ["unshare", "-m", V2].map(Into::into).to_vec(),
        }
    }

    pub(crate) fn command(self, program: &str) -> Command {
        let mut words = self.prefix();
        words.push(program.into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    fn is_possible(self) -> bool {
        static V1: OnceLock<bool> = OnceLock::new();
        static V2: OnceLock<bool> = OnceLock::new();
        static HYBRID: OnceLock<bool> = OnceLock::new();
        match self {
            Self::Host => true,
            Self::Hybrid => *HYBRID.get_or_init(|| {
                let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
                let hybrid = table.contains(" - cgroup ") && table.contains(" - cgroup2 ");
                hybrid || skipped(self, "this host has no hybrid cgroups")
            }),
            Self::V1 => *V1.get_or_init(|| self.try_script()),
            Self::V2 => *V2.get_or_init(|| self.try_script()),
        }
    }

    fn try_script(self) -> bool {
        let done = self.command("true").output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        match done.status.code() {
            Some(0) => true,
            Some(77) => skipped(self, said.trim()),
            _ => panic!("the script of view {self:?} fails: {}: {said}", done.status),
        }
    }
}

/// Past libtest's capture, since a skip that nobody sees is a lie.
fn skipped(view: View, why: &str) -> bool {
    let line = format!("\nSKIPPED: cgroup view {view:?}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    false
}
