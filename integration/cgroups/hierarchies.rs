//! Which hierarchies a host has, and which control files a group has there: looked up without the
//! runtime, so that it cannot hide what it does not use.

use std::path::Path;

use super::is_v2;
use crate::harness::{Bundle, TempDir, View};

/// One hierarchy of a view.
#[derive(Debug)]
pub(super) struct Hierarchy {
    is_v2: bool,
    controllers: Vec<String>,
    /// Of a group below the root.
    files: Vec<String>,
}

impl Hierarchy {
    fn controls(&self, controller: &str) -> bool {
        let v2_name = if controller == "blkio" { "io" } else { controller };
        let name = if self.is_v2 { v2_name } else { controller };
        self.controllers.iter().any(|one| one == name)
    }

    fn has_file(&self, name: &str) -> bool {
        self.files.iter().any(|file| file == name)
    }
}

/// Makes a group in each hierarchy of the view, and looks what is in it.
fn hierarchies(view: View) -> Vec<Hierarchy> {
    const LOOK: &str = r#"
        tops=/sys/fs/cgroup
        [ -e $tops/cgroup.procs ] || tops=$(ls -d $tops/*)
        for top in $tops; do
            # A link may have the name of a controller that the kernel lacks.
            [ -e $top/cgroup.procs ] && ! [ -L $top ] || continue
            names=$(basename $top | tr , ' ')
            if [ -e $top/cgroup.controllers ]; then
                names="v2 $(cat $top/cgroup.controllers)"
                sed 's/[^ ]\+/+&/g' $top/cgroup.controllers >$top/cgroup.subtree_control
            fi
            mkdir $top/$1
            echo "$names:" $(ls $top/$1)
            rmdir $top/$1
        done"#;
    let name = TempDir::new();
    let done = view.command("sh").args(["-ec", LOOK, "sh", name.mark()]).output().unwrap();
    assert!(done.status.success(), "{view:?}: {done:?}");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    let hierarchy = |line: &str| {
        let (names, files) = line.split_once(':').unwrap();
        let v2 = names.strip_prefix("v2");
        Hierarchy {
            is_v2: v2.is_some(),
            controllers: words(v2.unwrap_or(names)),
            files: words(files),
        }
    };
    String::from_utf8(done.stdout).unwrap().lines().map(hierarchy).collect()
}

/// Does the view have the controller? By its name in version 1.
pub(crate) fn has(view: View, controller: &str) -> bool {
    hierarchies(view).iter().any(|hierarchy| hierarchy.controls(controller))
}

/// The control files that a guest is known to have, from `make test-vm`.
fn known_files() -> Option<String> {
    std::env::var("RT_CONTROL_FILES").ok()
}

/// Of `all` those whose view has the controller. Without any a test would pass in silence: only a
/// guest that is known not to have it is excused.
fn with_controller<T: Copy>(all: Vec<T>, view: fn(T) -> View, controller: &str) -> Vec<T> {
    let found: Vec<T> = all.into_iter().filter(|one| has(view(*one), controller)).collect();
    let of_v2 = if controller == "blkio" { "io" } else { controller };
    let excused = known_files().is_some_and(|files| {
        let mut controllers = files.split(' ').filter_map(|file| Some(file.split_once('.')?.0));
        !controllers.any(|name| name == controller || name == of_v2)
    });
    assert!(!found.is_empty() || excused, "no view of this host has the controller {controller}");
    found
}

/// The views that have the controller.
pub(crate) fn views_with(controller: &str) -> Vec<View> {
    with_controller(View::all().collect(), |view| view, controller)
}

/// Who makes a container's groups, and what the host looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) view: View,
    pub(super) systemd: bool,
}

impl Setup {
    /// The runtime in every view, and systemd where it runs. A guest is there for what it is, and
    /// not for what it can look like.
    pub(super) fn all() -> Vec<Self> {
        let count = if known_files().is_some() { 1 } else { usize::MAX };
        let own = View::all().take(count).map(|view| Self { view, systemd: false });
        let systemd = has_systemd().then_some(Self { view: View::Host, systemd: true });
        own.chain(systemd).collect()
    }

    pub(super) fn with(controller: &str) -> Vec<Self> {
        with_controller(Self::all(), |setup| setup.view, controller)
    }

    /// A bundle whose groups are below one that is new as well.
    pub(super) fn bundle(self) -> Bundle {
        let bundle = Bundle::busybox().in_view(self.view);
        let (mark, id) = (bundle.mark().to_owned(), bundle.id());
        if self.systemd {
            let path = format!("rttest-a.slice:rt:{id}");
            let bundle = bundle.config(|c| c["linux"]["cgroupsPath"] = path.into());
            return bundle.global_options(&["--systemd-cgroup"]);
        }
        bundle.config(|c| c["linux"]["cgroupsPath"] = format!("/{mark}above/{id}").into())
    }

    pub(super) fn sleeper(self) -> Bundle {
        self.bundle().args(["sleep", "1000"])
    }
}

pub(crate) fn has_systemd() -> bool {
    Path::new("/run/systemd/private").exists()
}

/// Control files of one controller, each with a line of it.
pub(super) type Files<'a> = &'a [(&'a str, &'a str)];

/// The files of a field in a view, or else what its refusal has to say. Version 1 counts where both
/// have the controller; without files a version has no such limit.
pub(super) fn place<'a>(view: View, v1: Files<'a>, v2: Files<'a>) -> Result<Files<'a>, String> {
    let all = hierarchies(view);
    let controller = v1[0].0.split('.').next().unwrap();
    let of_v1 = all.iter().find(|one| !one.is_v2 && one.controls(controller));
    let of_v2 = all.iter().find(|one| one.is_v2);
    let (hierarchy, files) = match (of_v1, of_v2) {
        (Some(of_v1), _) => (of_v1, v1),
        (None, Some(of_v2)) if !v2.is_empty() => (of_v2, v2),
        (None, Some(of_v2)) if is_v2(view) || of_v2.controls(controller) => {
            return Err("cgroup v2 has no such limit".to_owned());
        }
        _ => return Err(format!("`{controller}` is mounted")),
    };
    match files.iter().find(|(name, _)| !hierarchy.has_file(name)) {
        Some((name, _)) => Err(format!("/{name}: ")),
        None => Ok(files),
    }
}

/// Version 2's file of a weight, which whoever divides the time of a disk decides.
pub(super) fn v2_weight<'a>(
    view: View,
    of_bfq: &'a str,
    of_iocost: &'a str,
) -> (&'static str, &'a str) {
    const IOCOST: &str = "io.weight";
    const BFQ: &str = "io.bfq.weight";
    let is_there = |name| place(view, &[("none.at.all", "")], &[(name, "")]).is_ok();
    if is_there(IOCOST) && !is_there(BFQ) { (IOCOST, of_iocost) } else { (BFQ, of_bfq) }
}

/// `make test-vm` says what its guests have. Any other host has these.
#[test]
fn this_host_has_the_control_files_that_it_is_known_to_have() {
    let known = known_files().unwrap_or("pids.max cpu.stat memory.stat".to_owned());
    let all: Vec<_> = View::all().flat_map(hierarchies).collect();
    for file in known.split(' ') {
        let controller = file.split('.').next().unwrap();
        let is_there = |one: &Hierarchy| {
            one.has_file(file) && one.controllers.iter().any(|name| name == controller)
        };
        assert!(all.iter().any(is_there), "{file}");
    }
}
