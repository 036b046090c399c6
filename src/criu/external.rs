//! Mounts of the container whose source is on the host, as the configuration describes them.

use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::config::mount_options::{Bind, MountOptions};
use crate::plan::{MountKind, MountPoint, RootfsPlan};

/// The name that mounts which hide files have in the images; runc uses it, too.
pub(super) const MASK: &str = "/dev/null";

/// A mount of something that is on the host.
#[derive(Debug)]
pub(super) struct ExternalSource<'a> {
    pub(super) destination: PathBuf,
    /// Its name in the images.
    pub(super) name: String,
    pub(super) source: PathBuf,
    /// Whether the mounts below the source come along.
    pub(super) recursive: bool,
    /// The options of its own entry and of the entries that remount it, in their order.
    options: Vec<&'a MountOptions>,
    /// Whether it is read-only, whatever the options say.
    readonly: bool,
    /// Whether the container has a user namespace, in which a mount keeps the attributes of its
    /// source.
    pub(super) locked: bool,
}

impl<'a> ExternalSource<'a> {
    fn new(root: &'a RootfsPlan, destination: &Path, source: &Path) -> Self {
        Self {
            destination: destination.to_owned(),
            name: destination.to_string_lossy().into_owned(),
            source: source.to_owned(),
            recursive: false,
            options: Vec::new(),
            readonly: false,
            locked: root.devices_by_bind,
        }
    }

    /// Returns the `MOUNT_ATTR_*` that the mount has if its source has the attributes `source`;
    /// with `below`, those of a mount below it.
    pub(super) fn attributes(&self, source: u64, below: bool) -> u64 {
        let mut attributes = source;
        for options in &self.options {
            let own = options.bind_attr().filter(|_| !below);
            let recursive = (options.rec_attr_set, options.rec_attr_clr);
            for (set, clear) in own.into_iter().chain([recursive]) {
                attributes = attributes & !clear | set;
            }
        }
        if self.readonly && !below {
            attributes |= libc::MOUNT_ATTR_RDONLY;
        }
        if self.locked {
            attributes | source
        } else {
            attributes
        }
    }
}

/// Returns the external mounts that a container with this root has, if all of them can be made.
pub(super) fn external_sources(root: &RootfsPlan) -> Vec<ExternalSource<'_>> {
    let external =
        |destination: &Path, source: &Path| ExternalSource::new(root, destination, source);
    let mut all: Vec<ExternalSource<'_>> = Vec::new();
    for mount in &root.mounts {
        let options = vec![&mount.options];
        match &mount.what {
            MountKind::Bind { source, .. } => all.push(ExternalSource {
                recursive: mount.options.bind == Bind::Recursive,
                options,
                ..external(&mount.destination, source)
            }),
            MountKind::Cgroup => {
                all.extend(root.cgroups.directories.iter().map(|(name, group)| {
                    let place = if root.cgroups.unified { "" } else { name };
                    ExternalSource {
                        options: options.clone(),
                        readonly: root.cgroups.borrowed,
                        ..external(&mount.destination.join(place), group)
                    }
                }))
            }
            MountKind::Remount { .. } => {
                let same =
                    |external: &&mut ExternalSource<'_>| external.destination == mount.destination;
                all.iter_mut()
                    .filter(same)
                    .for_each(|e| e.options.extend(&options));
            }
            MountKind::FileSystem(_) => {}
        }
    }
    if root.devices_by_bind {
        let devices = root.devices.iter().flatten();
        all.extend(devices.map(|device| external(&device.path, &device.path)));
    }
    let masked = root.masked.iter();
    all.extend(masked.map(|path| ExternalSource {
        name: MASK.into(),
        ..external(path, MASK.as_ref())
    }));
    all
}

/// Returns the external mounts whose source exists, with its links resolved, and the root.
pub(super) fn sources(root: &RootfsPlan) -> Vec<ExternalSource<'_>> {
    let mut all = external_sources(root);
    all.retain_mut(|external| match fs::canonicalize(&external.source) {
        Ok(source) => {
            external.source = source;
            true
        }
        Err(_) => false,
    });
    let mut top = ExternalSource::new(root, Path::new("/"), &root.path);
    let at_top = |mount: &&MountPoint| {
        matches!(mount.what, MountKind::Remount { .. }) && mount.destination == top.destination
    };
    top.options = root
        .mounts
        .iter()
        .filter(at_top)
        .map(|mount| &mount.options)
        .collect();
    all.push(ExternalSource {
        recursive: true,
        readonly: root.readonly,
        ..top
    });
    all
}

/// Returns the places and kinds of the container's own file systems.
pub(super) fn file_systems(root: &RootfsPlan) -> impl Iterator<Item = (&Path, &CStr)> {
    root.mounts.iter().filter_map(|mount| match &mount.what {
        MountKind::FileSystem(fs) => Some((&*mount.destination, &*fs.kind)),
        _ => None,
    })
}

#[cfg(test)]
impl ExternalSource<'_> {
    /// Returns a mount of `source` without options.
    pub(super) fn plain(source: &str, recursive: bool) -> Self {
        Self {
            destination: "/".into(),
            name: String::new(),
            source: source.into(),
            recursive,
            options: Vec::new(),
            readonly: false,
            locked: false,
        }
    }
}
