//! Look-ups below a root directory: `RootFd` of `rt` and libpathrs have to find the same file, or
//! both refuse. libpathrs does it twice: with openat2(2), and by its own walk over the components,
//! which it takes when the kernel has no openat2(2).

#[allow(dead_code, reason = "the program uses what these tests do not")]
#[path = "../../src/sys/rootfd.rs"]
#[rustfmt::skip]
mod rootfd;
#[path = "../../fuzz/random.rs"]
#[rustfmt::skip]
mod random;
mod tree;

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::fstat;
use pathrs::Root;
use pathrs::error::{Error, ErrorKind};
use pathrs::flags::ResolverFlags;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::temp::TempDir;
use random::Xorshift;
use rootfd::{Missing, RootFd};

/// How libpathrs resolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PathrsBackend {
    Openat2,
    Walk,
}

/// A way to look a path up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LookUp {
    Open,
    /// A link at the end of the path is not followed.
    OpenLink,
    WithoutLinks,
}

const LOOK_UPS: [LookUp; 3] = [LookUp::Open, LookUp::OpenLink, LookUp::WithoutLinks];

/// A look-up's device and inode, or its error: a number, or 0 if libpathrs refuses by itself.
type Found = Result<(u64, u64), i32>;

fn found(fd: impl AsFd) -> Found {
    let stat = fstat(fd).unwrap();
    Ok((stat.st_dev, stat.st_ino))
}

fn open_root(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn look_up_as_rt(root: &RootFd, path: &Path, way: LookUp) -> Found {
    let fd = match way {
        LookUp::Open => root.open(path, OFlag::O_PATH),
        LookUp::OpenLink => root.open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW),
        LookUp::WithoutLinks => root.open_without_links(path, OFlag::O_PATH),
    };
    fd.map_err(|errno| errno as i32).and_then(found)
}

fn look_up_as_pathrs(root: &Root, path: &Path, way: LookUp) -> Found {
    let handle = match way {
        LookUp::Open => root.resolve(path),
        LookUp::OpenLink => root.resolve_nofollow(path),
        LookUp::WithoutLinks => {
            let root = root.try_clone().unwrap();
            root.with_resolver_flags(ResolverFlags::NO_SYMLINKS).resolve(path)
        }
    };
    handle.map_err(|error| number(&error)).and_then(found)
}

fn number(error: &Error) -> i32 {
    match error.kind() {
        ErrorKind::OsError(Some(errno)) => errno,
        _ => 0,
    }
}

/// Differences that are right: the backend, the path, and the reason.
const RIGHT: [(PathrsBackend, &str, &str); 3] = [
    (
        PathrsBackend::Openat2,
        "",
        "the parent of a path of one name: rt takes the root, as the walk does",
    ),
    (PathrsBackend::Openat2, "a\0b", "refused by both, before the kernel sees it: EINVAL, ENOENT"),
    (
        PathrsBackend::Walk,
        "chains/41/41",
        "this walk follows 128 links; rt and the kernel follow 40",
    ),
];

#[test]
fn paths_lead_where_they_lead_for_libpathrs() {
    // The mounts of this test are seen by its thread and by those that it starts.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    // In this order: once libpathrs has no openat2(2), it never tries again.
    for (backend, trees) in [(PathrsBackend::Openat2, 300), (PathrsBackend::Walk, 30)] {
        compare_known(backend);
        for seed in 1..=trees {
            compare_random(backend, seed);
        }
    }
}

/// A procfs in a root, which is gone before the directory is removed.
struct MountedProc(PathBuf);

impl MountedProc {
    fn new(place: PathBuf) -> Self {
        mount(Some("proc"), &place, Some("proc"), MsFlags::empty(), None::<&str>).unwrap();
        Self(place)
    }
}

impl Drop for MountedProc {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

fn compare_known(backend: PathrsBackend) {
    let directory = TempDir::new();
    let root = directory.path().join("root");
    tree::make_known(&root);
    let proc = MountedProc::new(root.join("proc"));
    let paths = tree::known_paths(&root);
    let (mut wrong, mut met) = (vec![], vec![]);
    for (path, line) in differences(backend, &root, &paths) {
        let text = path.to_str().unwrap();
        match RIGHT.iter().position(|one| (one.0, one.1) == (backend, text)) {
            Some(row) => met.push(row),
            None => wrong.push(line),
        }
    }
    drop(proc);
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (row, right) in RIGHT.iter().enumerate().filter(|(_, right)| right.0 == backend) {
        assert!(met.contains(&row), "no difference: {right:?}");
    }
    let is_right = |path: &Path| RIGHT.iter().any(|one| Path::new(one.1) == path);
    let paths: Vec<PathBuf> = paths.into_iter().filter(|path| !is_right(path)).collect();
    assert_creates_the_same(backend, &root, &paths);
}

fn compare_random(backend: PathrsBackend, seed: u64) {
    let directory = TempDir::new();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut random = Xorshift(seed);
    tree::make_random(&root, &mut random);
    let paths: Vec<PathBuf> = (0..50).map(|_| tree::random_path(&mut random)).collect();
    let wrong = differences(backend, &root, &paths);
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    assert_creates_the_same(backend, &root, &paths);
}

/// The paths at which a look-up of `rt` ends otherwise than one of libpathrs.
fn differences(backend: PathrsBackend, root: &Path, paths: &[PathBuf]) -> Vec<(PathBuf, String)> {
    let look_ups: Vec<(&PathBuf, LookUp)> =
        paths.iter().flat_map(|path| LOOK_UPS.map(|way| (path, way))).collect();
    let mine = RootFd::new(open_root(root));
    let mine: Vec<Found> =
        look_ups.iter().map(|(path, way)| look_up_as_rt(&mine, path, *way)).collect();
    let its: Vec<Found> = in_backend(backend, || {
        let root = Root::from_fd(open_root(root));
        look_ups.iter().map(|(path, way)| look_up_as_pathrs(&root, path, *way)).collect()
    });
    let all = look_ups.into_iter().zip(mine).zip(its);
    let different = all.filter(|((_, mine), its)| match backend {
        PathrsBackend::Openat2 => mine != its,
        // The walk has errors of its own.
        PathrsBackend::Walk => mine.ok() != its.ok(),
    });
    different
        .map(|(((path, way), mine), its)| {
            let line = format!("{backend:?} {way:?} {path:?}: rt {mine:?}, libpathrs {its:?}");
            (path.clone(), line)
        })
        .collect()
}

/// `rt` creates each path that is missing. libpathrs has to find there what `rt` has made, and to
/// refuse to make what `rt` refuses.
fn assert_creates_the_same(backend: PathrsBackend, root: &Path, paths: &[PathBuf]) {
    let mine = RootFd::new(open_root(root));
    let mut made = vec![];
    for path in paths {
        let fd = mine.open_or_create(path, Missing::Directory);
        if let Ok(fd) = &fd {
            assert_below(root, fd, path);
        }
        made.push(fd.map_err(|errno| errno as i32).and_then(found));
    }
    let its: Vec<Found> = in_backend(backend, || {
        let root = Root::from_fd(open_root(root));
        let find = |(path, made): (&PathBuf, &Found)| match made {
            Ok(_) => look_up_as_pathrs(&root, path, LookUp::Open),
            Err(_) => {
                let handle = root.mkdir_all(path, &PermissionsExt::from_mode(0o755));
                handle.map_err(|error| number(&error)).and_then(found)
            }
        };
        paths.iter().zip(&made).map(find).collect()
    });
    for ((path, made), its) in paths.iter().zip(made).zip(its) {
        assert_eq!(made.ok(), its.ok(), "{backend:?} {path:?}: rt {made:?}, libpathrs {its:?}");
    }
    let beside = fs::read_dir(root.parent().unwrap()).unwrap().count();
    assert_eq!(beside, 1, "something is beside the root");
}

fn assert_below(root: &Path, fd: &OwnedFd, path: &Path) {
    let place = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    assert!(place.starts_with(root), "{path:?} leads to {place:?}");
}

/// Calls `run` where libpathrs resolves in one way. For its walk that is a thread of its own, in
/// which the kernel says that it has no openat2(2).
fn in_backend<T: Send>(backend: PathrsBackend, run: impl FnOnce() -> T + Send) -> T {
    if backend == PathrsBackend::Openat2 {
        return run();
    }
    let run = || {
        forbid_openat2();
        run()
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap())
}

fn forbid_openat2() {
    let refuse = SeccompAction::Errno(Errno::ENOSYS as u32);
    let filter = SeccompFilter::new(
        [(nix::libc::SYS_openat2, vec![])].into(),
        SeccompAction::Allow,
        refuse,
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}
