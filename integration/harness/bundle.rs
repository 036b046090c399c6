//! A bundle of a test's own, built in a sentence.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::config::configuration;
use super::rt::{MARK, Running};
use super::temp::{copy_program, write_program};
use super::{Container, Done, Leftovers, Rt, TempDir, View, runtime, user};

/// The first host id of user namespaces that tests make, and how many there are.
const MAPPED: (u32, u32) = (100_000, 65_536);

/// A root file system and a configuration, changed until the container is created.
#[derive(Debug)]
pub(crate) struct Bundle {
    directory: TempDir,
    config: Value,
    program: PathBuf,
    view: View,
    globals: Vec<String>,
    /// Words before the runtime, for every command.
    between: Vec<String>,
    options: Vec<String>,
    redirections: String,
    leftovers: Leftovers,
}

impl Bundle {
    /// Busybox with all its applets, and what runc's `spec` writes, without a terminal.
    pub(crate) fn busybox() -> Self {
        let directory = TempDir::new();
        let rootfs = directory.path().join("bundle/rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "var"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        // Debian's package busybox-static.
        copy_program(Path::new("/bin/busybox"), &rootfs.join("bin/busybox"));
        for applet in applets() {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::write(rootfs.join("etc/group"), "root:x:0:\n").unwrap();
        Self::over(directory, configuration())
    }

    fn over(directory: TempDir, mut config: Value) -> Self {
        let mark = directory.mark();
        let env = &mut config["process"]["env"];
        env.as_array_mut().unwrap().push(json!(format!("{MARK}={mark}")));
        let root = directory.path().join("state");
        let leftovers = Leftovers::before(&root, mark, View::Host);
        Self {
            directory,
            config,
            program: runtime().to_owned(),
            view: View::Host,
            globals: vec![],
            between: vec![],
            options: vec![],
            redirections: String::new(),
            leftovers,
        }
    }

    /// A copy of a bundle of this repository, its root file system taken from where it stands.
    pub(crate) fn of_repository(name: &str) -> Self {
        let bundles = Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles");
        let (place, script) = (bundles.join(name), bundles.join("rootfs.sh"));
        let done = Command::new(&script).arg(&place).output();
        let done = done.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        assert!(done.status.success(), "{}: {done:?}", script.display());
        let directory = TempDir::new();
        let copy = directory.path().join("bundle");
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(&place).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
            }
        }
        let text = fs::read(copy.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&text).unwrap();
        let rootfs = place.join(config["root"]["path"].as_str().unwrap());
        config["root"]["path"] = json!(rootfs);
        Self::over(directory, config)
    }

    pub(crate) fn args<S: AsRef<str>>(self, args: impl IntoIterator<Item = S>) -> Self {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        self.config(|c| c["process"]["args"] = json!(args))
    }

    /// A shell script as the container's process.
    pub(crate) fn script(self, script: &str) -> Self {
        self.args(["sh", "-c", script])
    }

    pub(crate) fn config(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    pub(crate) fn in_view(mut self, view: View) -> Self {
        self.view = view;
        self.leftovers =
            Leftovers::before(&self.directory.path().join("state"), self.directory.mark(), view);
        self
    }

    /// For another runtime, to compare with.
    pub(crate) fn for_runtime(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    /// New namespaces of these types, and no others.
    pub(crate) fn namespaces(self, kinds: &[&str]) -> Self {
        let list: Vec<_> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
        self.config(|c| c["linux"]["namespaces"] = json!(list))
    }

    /// The namespace of this type is the one of another process.
    pub(crate) fn joins(self, kind: &str, path: &str) -> Self {
        self.without_namespace(kind).config(|c| {
            let list = c["linux"]["namespaces"].as_array_mut().unwrap();
            list.push(json!({ "type": kind, "path": path }));
        })
    }

    pub(crate) fn without_namespace(self, kind: &str) -> Self {
        self.config(|c| {
            let list = c["linux"]["namespaces"].as_array_mut().unwrap();
            list.retain(|one| one["type"] != kind);
        })
    }

    /// The root file system belongs to this id of the host.
    pub(crate) fn owned_by(self, id: u32) -> Self {
        own_all(&self.rootfs(), id);
        self
    }

    /// A new user namespace that maps 65536 ids, which own the root file system.
    pub(crate) fn user_namespace(self) -> Self {
        own_all(&self.rootfs(), MAPPED.0);
        let map = json!([{ "containerID": 0, "hostID": MAPPED.0, "size": MAPPED.1 }]);
        self.config(|c| {
            let list = c["linux"]["namespaces"].as_array_mut().unwrap();
            list.push(json!({ "type": "user" }));
            c["linux"]["uidMappings"] = map.clone();
            c["linux"]["gidMappings"] = map;
        })
    }

    /// For an ordinary user, who owns it, and runs the runtime: what `spec --rootless` writes.
    pub(crate) fn of_user(self) -> Self {
        self.of_user_behind(user::PLAIN)
    }

    /// The same with another group that he is in.
    pub(crate) fn of_user_in_group(self, id: u32) -> Self {
        let groups = format!("--groups={id}");
        self.of_user_behind(&["setpriv", "--reuid=65533", "--regid=65533", &groups, "--"])
    }

    /// The same on a machine where `/etc/subuid` and `/etc/subgid` give him more ids.
    pub(crate) fn of_user_with_more_ids(self) -> Self {
        self.of_user_behind(&["unshare", "-m", user::WITH_MORE_IDS]).maps(&user::MORE_IDS)
    }

    /// The same for the user of the guests' image, who has a systemd of his own.
    pub(crate) fn of_user_of_guest(self) -> Self {
        let words = [
            "setpriv",
            "--reuid=1000",
            "--regid=1000",
            "--clear-groups",
            "--",
            "env",
            "XDG_RUNTIME_DIR=/run/user/1000",
            "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus",
            // Among his manager's groups, from where he may put a process into another of them.
            "systemd-run",
            "--user",
            "--scope",
            "--quiet",
            "--",
        ];
        let bundle = self.of_user_behind(&words).maps(&[[0, user::OF_GUEST, 1]]);
        own_all(bundle.directory.path(), user::OF_GUEST);
        bundle
    }

    /// Where the runtime has been built, not everybody may be able to go.
    pub(crate) fn with_own_program(mut self) -> Self {
        let program = self.beside("rt");
        copy_program(&self.program, &program);
        self.program = program;
        self
    }

    fn of_user_behind(self, words: &[&str]) -> Self {
        let mut this = self.with_own_program();
        this.between = words.iter().map(ToString::to_string).collect();
        let place = this.directory.path().to_owned();
        own_all(&place, user::ID);
        this.without_namespace("network").maps(&[[0, user::ID, 1]]).config(|c| {
            c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
            c["linux"].as_object_mut().unwrap().remove("resources");
            for mount in c["mounts"].as_array_mut().unwrap() {
                if mount["type"] == "devpts" {
                    mount["options"].as_array_mut().unwrap().retain(|word| word != "gid=5");
                } else if mount["type"] == "sysfs" {
                    *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                        "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
                }
            }
        })
    }

    /// Both maps of a new user namespace: first id inside, first id outside, count.
    pub(crate) fn maps(self, lines: &[[u32; 3]]) -> Self {
        let map = |[inside, outside, count]: &[u32; 3]| json!({ "containerID": inside, "hostID": outside, "size": count });
        let map: Vec<_> = lines.iter().map(map).collect();
        self.config(|c| {
            c["linux"]["uidMappings"] = json!(map);
            c["linux"]["gidMappings"] = json!(map);
        })
    }

    /// The program that starts the runtime.
    pub(crate) fn through(mut self, words: &[&str]) -> Self {
        self.between.extend(words.iter().map(ToString::to_string));
        self
    }

    /// A program that starts everything else.
    pub(crate) fn behind(mut self, words: &[&str]) -> Self {
        self.between.splice(0..0, words.iter().map(ToString::to_string));
        self
    }

    pub(crate) fn mount(self, mount: Value) -> Self {
        self.config(|c| c["mounts"].as_array_mut().unwrap().push(mount))
    }

    /// Neither a mount at this destination nor any below it.
    pub(crate) fn without_mount(self, destination: &str) -> Self {
        self.config(|c| {
            let list = c["mounts"].as_array_mut().unwrap();
            list.retain(|one| {
                !Path::new(one["destination"].as_str().unwrap()).starts_with(destination)
            });
        })
    }

    pub(crate) fn writable(self) -> Self {
        self.config(|c| c["root"]["readonly"] = json!(false))
    }

    pub(crate) fn with_capabilities(self, names: &[&str]) -> Self {
        self.config(|c| {
            for set in ["bounding", "effective", "permitted"] {
                c["process"]["capabilities"][set] = json!(names);
            }
            c["process"]["noNewPrivileges"] = json!(false);
        })
    }

    pub(crate) fn resources(self, resources: Value) -> Self {
        self.config(|c| {
            for (name, value) in resources.as_object().unwrap() {
                c["linux"]["resources"][name] = value.clone();
            }
        })
    }

    /// A file of the image; its directories are made.
    pub(crate) fn file(self, path: &str, contents: &str) -> Self {
        let file = self.in_image(path);
        write_program(&file, contents.as_bytes());
        self
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        fs::create_dir_all(self.in_image(path)).unwrap();
        self
    }

    /// A symbolic link of the image, in the place of whatever was there.
    pub(crate) fn link(self, path: &str, target: impl AsRef<Path>) -> Self {
        let link = self.in_image(path);
        if link.is_dir() && !link.is_symlink() {
            fs::remove_dir_all(&link).unwrap();
        }
        let _ = fs::remove_file(&link);
        symlink(target, &link).unwrap();
        self
    }

    fn in_image(&self, path: &str) -> PathBuf {
        let place = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    /// Options before `create` and `run`.
    pub(crate) fn global_options(mut self, options: &[&str]) -> Self {
        self.globals.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// Options for `create` and `run`.
    pub(crate) fn options<S: AsRef<str>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options.extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// Shell redirections with which `create` and `run` are started.
    pub(crate) fn redirections(mut self, redirections: &str) -> Self {
        redirections.clone_into(&mut self.redirections);
        self
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// The bundle's directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("bundle")
    }

    /// A path beside the bundle, which the container does not see.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn view(&self) -> View {
        self.view
    }

    pub(crate) fn mark(&self) -> &str {
        self.directory.mark()
    }

    pub(crate) fn id(&self) -> String {
        format!("{}box", self.mark())
    }

    pub(crate) fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    /// Any command of the runtime, with this test's `--root`.
    pub(crate) fn rt<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Rt {
        let rt = Rt::bare(args).root(&self.beside("state"), self.mark());
        let between: Vec<_> = self.between.iter().map(String::as_str).collect();
        rt.program(&self.program).view(self.view).between(&between)
    }

    pub(crate) fn write(&self) {
        let text = serde_json::to_vec_pretty(&self.config).unwrap();
        fs::write(self.path().join("config.json"), text).unwrap();
    }

    /// `create` or `run` of this bundle: the pid file is `pid`, the output is in `out` and `err`.
    pub(crate) fn launch(&self, verb: &[&str], id: &str) -> Rt {
        self.write();
        let mut args = self.globals.clone();
        args.extend(verb.iter().map(|word| (*word).to_owned()));
        let options = ["--bundle", &self.path().display().to_string()];
        args.extend(options.map(str::to_owned));
        args.extend(["--pid-file".to_owned(), self.beside("pid").display().to_string()]);
        args.extend(self.options.iter().cloned());
        args.push(id.to_owned());
        let rt = self.rt(args).redirections(&self.redirections);
        rt.files(&self.beside("out"), &self.beside("err"))
    }

    /// `create`, which has to succeed in silence.
    #[track_caller]
    pub(crate) fn create(self) -> Container {
        self.try_create().unwrap_or_else(|done| panic!("should have created\n{done}"))
    }

    #[track_caller]
    pub(crate) fn try_create(self) -> Result<Container, Done> {
        let done = self.launch(&["create"], &self.id()).run();
        if done.status == 0 { Ok(Container::of(self)) } else { Err(done) }
    }

    /// `create`, which has to fail and leave nothing, without any `delete`.
    #[track_caller]
    pub(crate) fn refused(self) -> Done {
        match self.try_create() {
            Ok(container) => panic!("{} should not have been created", container.id),
            Err(done) => done,
        }
    }

    /// `create` and `start`; it may fail at either, and leaves nothing then once it is deleted.
    #[track_caller]
    pub(crate) fn try_start(self) -> Result<Container, Done> {
        let container = self.try_create()?;
        let done = container.rt(["start", &container.id]).run();
        if done.status == 0 { Ok(container) } else { Err(done) }
    }

    #[track_caller]
    pub(crate) fn start(self) -> Container {
        self.try_start().unwrap_or_else(|done| panic!("should have started\n{done}"))
    }

    #[track_caller]
    pub(crate) fn run_detached(self) -> Container {
        self.launch(&["run", "--detach"], &self.id()).run().success();
        Container::of(self)
    }

    /// Foreground `run` to its end.
    #[track_caller]
    pub(crate) fn run(self) -> Done {
        self.launch(&["run"], &self.id()).run()
    }

    /// Foreground `run`, going on.
    #[track_caller]
    pub(crate) fn running(&self) -> Running {
        self.launch(&["run"], &self.id()).spawn()
    }
}

/// Not only a container, but also what a failed `create` leaves is an error.
impl Drop for Bundle {
    fn drop(&mut self) {
        let left = self.leftovers.since();
        if left.is_empty() {
            return;
        }
        let _ = self.rt(["delete", "--force", &self.id()]).run();
        self.leftovers.clear_away(&self.leftovers.since());
        let report = format!("{} left behind:\n  {}", self.id(), left.join("\n  "));
        if std::thread::panicking() {
            eprintln!("{report}");
        } else {
            panic!("{report}");
        }
    }
}

fn own_all(path: &Path, id: u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    std::os::unix::fs::lchown(path, Some(id), Some(id)).unwrap();
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            own_all(&entry.unwrap().path(), id);
        }
    } else if meta.is_file() {
        // A change of the owner clears set-id bits only; the mode of the image is kept.
        chown(path, Some(id), Some(id)).unwrap();
    }
}

fn applets() -> &'static [String] {
    static APPLETS: OnceLock<Vec<String>> = OnceLock::new();
    APPLETS.get_or_init(|| {
        let list = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
        let list = String::from_utf8(list).unwrap();
        list.lines().filter(|name| *name != "busybox").map(str::to_owned).collect()
    })
}
