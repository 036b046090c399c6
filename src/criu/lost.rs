//! Settings that a container would silently lose by a checkpoint and a restore.

use anyhow::{Result, bail, ensure};
use oci_spec::runtime::Spec;

use crate::annotations;
use crate::plan::{MountKind, RootfsPlan, personality};
use crate::security::{landlock, seccomp};

/// Refuses a configuration with a setting that CRIU does not keep. Both `checkpoint` and `restore`
/// call it.
pub fn refuse_what_is_lost(spec: &Spec, root: &RootfsPlan) -> Result<()> {
    let lost = |what: &str| bail!("{what}: criu does not keep it");
    for mount in &root.mounts {
        let mapped = matches!(mount.what, MountKind::Bind { ids: Some(_), .. });
        ensure!(
            !mapped,
            "{}: criu does not keep the ids of an id-mapped mount",
            mount.origin
        );
        ensure!(
            !mount.options.minds_links(),
            "{}: criu follows links",
            mount.origin
        );
        let attributes = mount.options.attr_set | mount.options.rec_attr_set;
        let follows = attributes & libc::MOUNT_ATTR_NOSYMFOLLOW == 0;
        ensure!(follows, "{}: criu does not keep nosymfollow", mount.origin);
    }
    let mut named = spec.annotations().iter().flatten();
    if let Some((name, _)) = named.find(|(n, _)| n.starts_with(landlock::PREFIX)) {
        lost(&annotations::origin(name))?;
    }
    let Some(linux) = spec.linux() else {
        return Ok(());
    };
    if linux.seccomp().as_ref().is_some_and(seccomp::notifies) {
        lost("linux.seccomp: SCMP_ACT_NOTIFY")?;
    }
    if linux.memory_policy().is_some() {
        lost("linux.memoryPolicy")?;
    }
    if personality(linux).is_some_and(|domain| domain != 0) {
        lost("linux.personality")?;
    }
    Ok(())
}
