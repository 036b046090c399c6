//! The id maps of a user namespace (`uid_map` and `gid_map` in user_namespaces(7)). Root may write
//! any map. An ordinary user may map only the user's own id; further ids need newuidmap(1) and
//! newgidmap(1), which allow those that `/etc/subuid` and `/etc/subgid` list for the user.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{getegid, geteuid};
use oci_spec::runtime::LinuxIdMapping;

use crate::child::{self, ChildProgram, RunPlace};
use crate::sys::{self, Fork};

/// The time limit of newuidmap and newgidmap, in seconds: they may ask a directory service.
const HELPER_LIMIT: Duration = Duration::from_secs(30);

/// One of the two maps, as ranges: first id inside, first id outside, count.
#[derive(Debug, Default)]
pub struct IdMap(Vec<[u32; 3]>);

impl IdMap {
    pub fn new(mappings: &Option<Vec<LinuxIdMapping>>) -> Self {
        let numbers = |m: &LinuxIdMapping| [m.container_id(), m.host_id(), m.size()];
        Self(mappings.iter().flatten().map(numbers).collect())
    }

    /// Reads the map of users of the user namespace of process `pid`, as seen from outside it.
    pub fn of_users_of(pid: i32) -> Result<Self> {
        Self::from_process(pid, 'u')
    }

    /// Reads the maps of users and of groups of the user namespace of process `pid`.
    pub(super) fn both_of(pid: i32) -> Result<[Self; 2]> {
        Ok([Self::from_process(pid, 'u')?, Self::from_process(pid, 'g')?])
    }

    fn from_process(pid: i32, kind: char) -> Result<Self> {
        let path = format!("/proc/{pid}/{kind}id_map");
        let text = fs::read_to_string(&path).context(path)?;
        let numbers = text
            .split_ascii_whitespace()
            .map(str::parse)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self(
            numbers
                .chunks_exact(3)
                .map(|n| [n[0], n[1], n[2]])
                .collect(),
        ))
    }

    /// Returns the id (inside) that init has while it builds the container: 0, or the first id of
    /// the map if 0 is not the start of a range. 0 for an empty map.
    pub(super) fn builder(&self) -> u32 {
        let mut ids = self.0.iter().map(|[inside, ..]| *inside);
        let first = ids.clone().next().unwrap_or(0);
        if ids.any(|id| id == 0) { 0 } else { first }
    }

    /// Returns the id outside for `id` inside; `None` if it is not mapped.
    pub fn outside(&self, id: u32) -> Option<u32> {
        self.0.iter().find_map(|[inside, outside, count]| {
            let offset = id.checked_sub(*inside).filter(|offset| offset < count)?;
            outside.checked_add(offset)
        })
    }

    /// Whether `id` outside is mapped to an id inside.
    pub fn shows(&self, id: u32) -> bool {
        self.0
            .iter()
            .any(|[_, outside, n]| id.checked_sub(*outside).is_some_and(|id| id < *n))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both maps have the same ranges, in any order: the kernel may have sorted them.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let sorted = |map: &Self| {
            let mut ranges = map.0.clone();
            ranges.sort_unstable();
            ranges
        };
        sorted(self) == sorted(other)
    }

    fn is_only(&self, id: u32) -> bool {
        matches!(self.0[..], [[_, outside, 1]] if outside == id)
    }

    fn write(&self, pid: i32, kind: char) -> Result<()> {
        let lines: String = self
            .0
            .iter()
            .map(|[a, b, c]| format!("{a} {b} {c}\n"))
            .collect();
        match fs::write(format!("/proc/{pid}/{kind}id_map"), lines) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied && !geteuid().is_root() => {
                self.write_by_helper(pid, kind)
            }
            result => Ok(result?),
        }
    }

    fn write_by_helper(&self, pid: i32, kind: char) -> Result<()> {
        let name = format!("new{kind}idmap");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::split_paths(&path).map(|directory| directory.join(&name));
        let Some(path) = path
            .into_iter()
            .find(|path| path.is_absolute() && path.is_file())
        else {
            bail!(
                "an ordinary user can map only the own id; for more ids {name} has to be installed"
            );
        };
        let numbers = self.0.iter().flatten().map(|number| number.to_string());
        let args = [name.clone(), pid.to_string()].into_iter().chain(numbers);
        let helper = ChildProgram {
            path: CString::new(path.into_os_string().into_vec())?,
            args: args.map(CString::new).collect::<Result<_, _>>()?,
            env: vec![],
            time_limit: Some(HELPER_LIMIT),
        };
        child::run(&helper, b"", &RunPlace::outside(None)).context(name)
    }
}

/// In the parent: writes both maps of the user namespace of process `pid`.
pub(super) fn write(pid: i32, uids: &IdMap, gids: &IdMap) -> Result<()> {
    uids.write(pid, 'u').context("linux.uidMappings")?;
    // Since Linux 3.19 an ordinary user can map the user's own group only if setgroups(2) is
    // denied in the namespace, so that no group can be dropped (CVE-2014-8989).
    if !geteuid().is_root() && gids.is_only(getegid().as_raw()) {
        fs::write(format!("/proc/{pid}/setgroups"), "deny").context("linux.gidMappings")?;
    }
    gids.write(pid, 'g').context("linux.gidMappings")
}

/// Creates a user namespace with these maps and without any process, from which a mount takes its
/// id map.
pub fn user_namespace(uids: &IdMap, gids: &IdMap) -> Result<OwnedFd> {
    let (mut reader, writer) = pipe().context("a pipe")?;
    let Fork::Parent { pid, pidfd } = sys::clone3(libc::CLONE_NEWUSER as u64, None)? else {
        // Waits until the parent has closed its end, or has ended.
        drop(writer);
        let _ = reader.read(&mut [0]);
        sys::exit_now(0);
    };
    let path = format!("/proc/{pid}/ns/user");
    let made = write(pid, uids, gids).and_then(|()| File::open(&path).context(path));
    drop(writer);
    waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED)?;
    Ok(made?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(json: &str) -> IdMap {
        IdMap::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn the_builder_is_root_where_there_is_one() {
        let root =
            r#"[{"containerID":5,"hostID":9,"size":1},{"containerID":0,"hostID":7,"size":1}]"#;
        assert_eq!(map(root).builder(), 0);
        assert_eq!(
            map(r#"[{"containerID":5,"hostID":9,"size":2}]"#).builder(),
            5
        );
        assert_eq!(map("null").builder(), 0);
    }

    #[test]
    fn the_map_of_a_process_is_read() {
        let map = IdMap::of_users_of(std::process::id().cast_signed()).unwrap();
        let uid = nix::unistd::getuid().as_raw();
        assert!(map.outside(uid).is_some() && map.shows(uid));
    }

    #[test]
    fn an_id_is_shown_that_is_outside_of_a_range() {
        let map = map(
            r#"[{"containerID":0,"hostID":7,"size":1},{"containerID":1,"hostID":20,"size":5}]"#,
        );
        assert_eq!(
            [6, 7, 8, 19, 20, 24, 25].map(|id| map.shows(id)),
            [false, true, false, false, true, true, false]
        );
        assert_eq!(
            [0, 1, 5, 6].map(|id| map.outside(id)),
            [Some(7), Some(20), Some(24), None]
        );
    }

    #[test]
    fn only_a_single_id_is_a_users_own() {
        assert!(map(r#"[{"containerID":0,"hostID":7,"size":1}]"#).is_only(7));
        assert!(!map(r#"[{"containerID":0,"hostID":7,"size":2}]"#).is_only(7));
        assert!(!map(r#"[{"containerID":0,"hostID":8,"size":1}]"#).is_only(7));
    }
}
