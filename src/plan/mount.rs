//! The entries of `mounts`: what is mounted, where, and with which data.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use oci_spec::runtime::{Mount, Spec};

use super::strings::c_string;
use crate::annotations::Annotations;
use crate::config::clean;
use crate::config::mount_options::{Bind, MountOptions};
use crate::namespace::IdMap;
use crate::security::lsm;

/// The paths in `/proc` that a mount may cover: files that lxcfs makes for a container. Everything
/// else there has to be the kernel's own answer, for the container and for whoever looks into it.
const OF_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];
/// The longest value that fsconfig(2) takes, in bytes.
const VALUE_MAX: usize = 255;

/// One entry of `mounts`.
#[derive(Debug)]
pub struct MountPoint {
    /// `mounts[3] /data`, for errors.
    pub origin: String,
    /// Its index in `mounts`.
    pub index: u32,
    pub destination: PathBuf,
    pub what: MountKind,
    pub options: MountOptions,
}

/// What is mounted.
#[derive(Debug)]
pub enum MountKind {
    Bind {
        source: PathBuf,
        ids: Option<MountIds>,
    },
    Cgroup,
    FileSystem(FileSystem),
    /// A change of the mount that is there already, and with `file_system` of its file system as
    /// well.
    Remount {
        file_system: bool,
    },
}

/// Which ids an id-mapped mount shows.
#[derive(Debug)]
pub enum MountIds {
    /// The ids of the container's user namespace.
    OfContainer,
    Own(IdMap, IdMap),
}

/// A new file system.
#[derive(Debug)]
pub struct FileSystem {
    pub kind: CString,
    pub source: Option<CString>,
    /// The directory at which relative paths in its data begin, if it has any.
    pub directory: Option<PathBuf>,
}

impl MountPoint {
    /// Whether the mount becomes read-only only when the root is complete. These are `/dev`, which
    /// is filled after it is mounted, and every tmpfs, in which further mounts may need a
    /// directory.
    pub fn is_late_read_only(&self) -> bool {
        let late = match &self.what {
            MountKind::FileSystem(fs) => fs.kind.as_c_str() == c"tmpfs" || self.is_dev(),
            MountKind::Remount { .. } => self.is_dev(),
            MountKind::Bind { .. } | MountKind::Cgroup => false,
        };
        late && self.options.attr_set & libc::MOUNT_ATTR_RDONLY != 0
    }

    fn is_dev(&self) -> bool {
        self.destination == Path::new("/dev")
    }
}

/// Plans the entries of `mounts`. `label` is the context of new file systems.
pub(super) fn mount_points(
    spec: &Spec,
    options: &[MountOptions],
    bundle: &Path,
    label: Option<&str>,
) -> Result<Vec<MountPoint>> {
    let context = match spec.annotations() {
        Some(annotations) => annotations.context_type()?,
        None => "context",
    };
    let mounts = spec.mounts().iter().flatten();
    mounts
        .zip(options)
        .enumerate()
        .map(|(i, (mount, options))| {
            let mut point = mount_point(i, mount, options.clone(), bundle)?;
            if let (MountKind::FileSystem(fs), Some(label)) = (&point.what, label) {
                add_context(&mut point.options, fs, (context, label))?;
            }
            Ok(point)
        })
        .collect()
}

/// Adds the label as a context option, unless the mount has such an option itself.
fn add_context(
    options: &mut MountOptions,
    fs: &FileSystem,
    (context, label): (&str, &str),
) -> Result<()> {
    let has_context = options
        .data
        .iter()
        .any(|(name, _)| name.ends_with("context"));
    if !has_context && lsm::takes_context(&fs.kind.to_string_lossy()) {
        ensure!(
            label.len() <= VALUE_MAX,
            "linux.mountLabel: longer than {VALUE_MAX} bytes"
        );
        options
            .data
            .push((context.to_owned(), Some(label.to_owned())));
    }
    Ok(())
}

fn mount_point(
    i: usize,
    mount: &Mount,
    mut options: MountOptions,
    bundle: &Path,
) -> Result<MountPoint> {
    // runtime-spec 1.2: a relative destination is relative to the root.
    let destination = Path::new("/").join(mount.destination());
    let origin = format!("mounts[{i}] {}", destination.display());
    let kind = mount.typ().as_deref().unwrap_or("none");
    let what = if options.remount {
        MountKind::Remount {
            file_system: options.bind == Bind::No,
        }
    } else if options.bind != Bind::No || kind == "bind" {
        let source = mount.source().as_deref();
        let source = source.with_context(|| format!("mounts[{i}].source: missing"))?;
        MountKind::Bind {
            source: bundle.join(source),
            ids: ids(mount, &options),
        }
    } else if kind == "cgroup" || kind == "cgroup2" {
        MountKind::Cgroup
    } else {
        MountKind::FileSystem(file_system(i, mount, bundle, &mut options)?)
    };
    check_proc(&destination, &what, &options).with_context(|| origin.clone())?;
    Ok(MountPoint {
        origin,
        index: u32::try_from(i)?,
        destination,
        what,
        options,
    })
}

/// Refuses anything but a procfs on `/proc`, and most mounts inside it. The errors are in the words
/// of runc.
fn check_proc(destination: &Path, what: &MountKind, options: &MountOptions) -> Result<()> {
    let path = clean(destination);
    if !path.starts_with("/proc") {
        return Ok(());
    }
    if path != Path::new("/proc") {
        let may_be = OF_PROC.iter().any(|known| Path::new(known) == path);
        ensure!(
            may_be,
            "{path:?} cannot be mounted because it is inside /proc"
        );
        return Ok(());
    }
    let is_proc = match what {
        MountKind::FileSystem(fs) => fs.kind.as_c_str() == c"proc",
        // The link could lead anywhere by the time of the mount, whatever is there now.
        MountKind::Bind { .. } if options.minds_links() => false,
        // A missing source is reported later.
        MountKind::Bind { source, .. } => {
            statfs(source).map_or(true, |fs| fs.filesystem_type() == PROC_SUPER_MAGIC)
        }
        MountKind::Remount { .. } => true,
        MountKind::Cgroup => false,
    };
    ensure!(
        is_proc,
        "\"/proc\" cannot be mounted because it is not of type proc"
    );
    Ok(())
}

fn ids(mount: &Mount, options: &MountOptions) -> Option<MountIds> {
    let own = [mount.uid_mappings(), mount.gid_mappings()].map(IdMap::new);
    match own {
        [uids, gids] if !uids.is_empty() => Some(MountIds::Own(uids, gids)),
        _ => options.id_map.map(|_| MountIds::OfContainer),
    }
}

fn file_system(
    i: usize,
    mount: &Mount,
    bundle: &Path,
    options: &mut MountOptions,
) -> Result<FileSystem> {
    let kind = mount.typ().as_deref().unwrap_or("none");
    let source = mount
        .source()
        .as_ref()
        .map(|source| source.to_string_lossy());
    let mut directory = None;
    if kind == "overlay" {
        options.data = std::mem::take(&mut options.data)
            .into_iter()
            .flat_map(layers)
            .collect();
        directory = options
            .data
            .iter()
            .any(names_relative)
            .then(|| bundle.to_owned());
    }
    for (name, value) in &options.data {
        let fits = value.as_ref().is_none_or(|value| value.len() <= VALUE_MAX);
        ensure!(
            fits,
            "mounts[{i}].options: {name}: longer than {VALUE_MAX} bytes"
        );
    }
    let fits = source
        .as_ref()
        .is_none_or(|source| source.len() <= VALUE_MAX);
    ensure!(fits, "mounts[{i}].source: longer than {VALUE_MAX} bytes");
    Ok(FileSystem {
        kind: c_string(kind, &format!("mounts[{i}].type"))?,
        source: source
            .map(|s| c_string(&s, &format!("mounts[{i}].source")))
            .transpose()?,
        directory,
    })
}

/// Splits a list of layers that is too long for one value into a value for each layer, which Linux
/// 6.7 and later take. The layers behind an empty one are those that hold data only
/// (`Documentation/filesystems/overlayfs.rst`).
fn layers((name, value): (String, Option<String>)) -> Vec<(String, Option<String>)> {
    let list = value
        .as_deref()
        .filter(|list| name == "lowerdir" && list.len() > VALUE_MAX);
    let Some(list) = list else {
        return vec![(name, value)];
    };
    let (mut layers, mut key) = (Vec::new(), "lowerdir+");
    let (mut layer, mut characters) = (String::new(), list.chars());
    loop {
        match characters.next() {
            Some('\\') => layer.extend(characters.next()),
            Some(other) if other != ':' => layer.push(other),
            end => {
                match layer.is_empty() {
                    true => key = "datadir+",
                    false => layers.push((key.to_owned(), Some(std::mem::take(&mut layer)))),
                }
                if end.is_none() {
                    return layers;
                }
            }
        }
    }
}

/// Whether an option of an overlay contains a path that is not absolute, alone or in a list.
fn names_relative((name, value): &(String, Option<String>)) -> bool {
    let value = value.as_deref().unwrap_or_default();
    let relative = |path: &str| !path.is_empty() && !path.starts_with('/');
    match &**name {
        "lowerdir" => value.split(':').any(relative),
        "lowerdir+" | "datadir+" | "upperdir" | "workdir" => relative(value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::mount_options;

    fn point(json: serde_json::Value) -> Result<MountPoint> {
        let mount: Mount = serde_json::from_value(json).unwrap();
        let options = mount_options::of_mount(format_args!("mounts[0]"), &mount)?;
        mount_point(0, &mount, options, Path::new("/bundle"))
    }

    fn overlay(option: &str) -> (Vec<(String, String)>, Option<PathBuf>) {
        let point = point(serde_json::json!({ "destination": "/o", "type": "overlay",
            "options": [option] }));
        let point = point.unwrap();
        let MountKind::FileSystem(fs) = point.what else {
            panic!()
        };
        let data = point
            .options
            .data
            .into_iter()
            .map(|(name, value)| (name, value.unwrap()));
        (data.collect(), fs.directory)
    }

    #[test]
    fn on_proc_there_is_a_procfs_and_little_in_it_is_something_else() {
        let at = |destination: &str, kind: &str, source: &str| {
            let json = serde_json::json!({ "destination": destination, "type": kind,
                "source": source });
            point(json).map(drop).map_err(|error| format!("{error:#}"))
        };
        for (destination, kind, source) in [
            ("/proc", "proc", "proc"),
            ("/proc/", "bind", "/proc"),
            ("/proc/cpuinfo", "bind", "/etc/hostname"),
            ("/proc/./sys//kernel/ns_last_pid", "bind", "/etc/hostname"),
            ("/process", "bind", "/"),
            ("/proc/..", "tmpfs", "tmpfs"),
        ] {
            assert_eq!(at(destination, kind, source), Ok(()), "{destination}");
        }
        for (destination, kind, source) in [
            ("/proc", "tmpfs", "tmpfs"),
            ("/proc", "bind", "/"),
            ("proc/sys", "bind", "/proc/sys"),
            ("/tmp/../proc/self/attr", "tmpfs", "tmpfs"),
            ("/proc/tty", "proc", "proc"),
        ] {
            assert!(
                at(destination, kind, source)
                    .unwrap_err()
                    .contains("cannot be mounted because")
            );
        }
    }

    #[test]
    fn a_long_list_of_layers_is_given_one_by_one() {
        let long = "/x".repeat(100);
        let (data, directory) = overlay(&format!(r"lowerdir={long}:/a\:b:{long}::/d"));
        let names: Vec<_> = data
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let lower = "lowerdir+";
        assert_eq!(
            names,
            [
                (lower, &*long),
                (lower, "/a:b"),
                (lower, &*long),
                ("datadir+", "/d")
            ]
        );
        assert_eq!(directory, None);
        let (data, _) = overlay("lowerdir=/a:/b");
        assert_eq!(data, [("lowerdir".to_owned(), "/a:/b".to_owned())]);
    }

    #[test]
    fn relative_layers_begin_at_the_bundle() {
        let bundle = Some(PathBuf::from("/bundle"));
        for option in ["lowerdir=a", "lowerdir=/a:b", "upperdir=u", "workdir=./w"] {
            assert_eq!(overlay(option).1, bundle, "{option}");
        }
        for option in ["lowerdir=/a::/b", "upperdir=/u", "redirect_dir=on"] {
            assert_eq!(overlay(option).1, None, "{option}");
        }
    }

    #[test]
    fn a_value_that_the_kernel_would_not_take_is_refused() {
        let option = format!("context={}", "x".repeat(256));
        let error = point(serde_json::json!({ "destination": "/t", "type": "tmpfs",
            "options": [option] }));
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "mounts[0].options: context: longer than 255 bytes");
    }

    fn first_data(spec: serde_json::Value, label: &str) -> Vec<(String, Option<String>)> {
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let mount = &spec.mounts().as_ref().unwrap()[0];
        let options = [mount_options::of_mount(format_args!("mounts[0]"), mount).unwrap()];
        let points = mount_points(&spec, &options, Path::new("/bundle"), Some(label)).unwrap();
        points.into_iter().next().unwrap().options.data
    }

    #[test]
    fn a_label_is_another_context_if_that_is_asked_for() {
        let spec = serde_json::json!({ "ociVersion": "1.0.0",
            "annotations": { "run.oci.mount_context_type": "rootcontext" },
            "mounts": [{ "destination": "/t", "type": "tmpfs", "source": "tmpfs" }] });
        let data = first_data(spec, "u:r:t:s0");
        assert_eq!(
            data,
            [("rootcontext".to_owned(), Some("u:r:t:s0".to_owned()))]
        );
    }

    #[test]
    fn a_label_is_the_context_of_file_systems_that_have_none() {
        let contexts = |kind: &str, options: &[&str]| {
            let json = serde_json::json!({ "destination": "/t", "type": kind, "source": "/",
                "options": options });
            let spec = serde_json::json!({ "ociVersion": "1.0.0", "mounts": [json] });
            first_data(spec, "u:r:t:s0:c1,c2")
        };
        let datum = |value: &str| ("context".to_owned(), Some(value.to_owned()));
        assert_eq!(contexts("tmpfs", &[]), [datum("u:r:t:s0:c1,c2")]);
        assert_eq!(
            contexts("tmpfs", &["context=\"own:c1,c2\""]),
            [datum("own:c1,c2")]
        );
        for kind in ["proc", "sysfs", "mqueue", "cgroup", "bind"] {
            assert_eq!(contexts(kind, &[]), [], "{kind}");
        }
    }

    #[test]
    fn what_becomes_read_only_late() {
        let late = |destination: &str, kind: &str, options: &[&str]| {
            let json = serde_json::json!({ "destination": destination, "type": kind,
                "source": "/", "options": options });
            point(json).unwrap().is_late_read_only()
        };
        assert!(late("/t", "tmpfs", &["ro"]) && late("dev/", "devtmpfs", &["ro"]));
        assert!(late("/dev", "none", &["remount", "ro"]));
        assert!(!late("/t", "tmpfs", &["ro", "rw"]) && !late("/t", "sysfs", &["ro"]));
        assert!(!late("/dev", "none", &["bind", "ro"]) && !late("/t", "tmpfs", &["rro"]));
    }
}
