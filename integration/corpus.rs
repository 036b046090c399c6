//! The containers of real clients run. Only paths and the program are ours: the root file system,
//! sources of bind mounts, namespaces of other containers, cgroups, hooks. A script then looks at
//! what it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use crate::harness::corpus::{Input, inputs, take_out};
use crate::harness::terminal::{ConsoleSocket, Terminal};
use crate::harness::{Bundle, Container, proc_status};

/// The process looks at itself. The environment comes last, it may have lines of its own.
const LOOK: &str = "id -u; id -g; id -G; umask; pwd; hostname; cat /proc/self/mountinfo; env";

/// Destinations that are files.
const FILES: [&str; 8] = [
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/passwd",
    "/etc/ff",
    "/run/.containerenv",
    "/run/podman-init",
    "/sbin/docker-init",
];

/// The numbers of some disk of this host.
fn block_device() -> (Value, Value) {
    let mut disks = fs::read_dir("/sys/block").unwrap().map(Result::unwrap);
    let disk = disks.next().expect("a block device");
    let numbers = fs::read_to_string(disk.path().join("dev")).unwrap();
    let (major, minor) = numbers.trim().split_once(':').unwrap();
    (major.parse::<i64>().unwrap().into(), minor.parse::<i64>().unwrap().into())
}

/// The configuration with paths of this host; `neighbour` is the other container.
fn supply(mut config: Value, bundle: &Bundle, neighbour: &Container) -> Value {
    config["root"]["path"] = json!("rootfs");
    config["process"]["args"] = json!(["/bin/sh", "-c", LOOK]);
    let env = config["process"]["env"].as_array_mut().unwrap();
    env.push(json!(format!("RT_TEST={}", bundle.mark())));
    for (i, mount) in config["mounts"].as_array_mut().unwrap().iter_mut().enumerate() {
        let options = mount["options"].as_array().cloned().unwrap_or_default();
        let is_bind = options.iter().any(|word| word == "bind" || word == "rbind");
        let of_host = mount["source"].as_str().is_some_and(|source| source.starts_with("/sys"));
        if is_bind && !of_host {
            let source = bundle.beside(&format!("source-{i}"));
            match FILES.contains(&mount["destination"].as_str().unwrap()) {
                true => fs::write(&source, "").unwrap(),
                false => fs::create_dir(&source).unwrap(),
            }
            mount["source"] = json!(source);
        }
    }
    let linux = &mut config["linux"];
    for namespace in linux["namespaces"].as_array_mut().unwrap() {
        if namespace.get("path").is_some() {
            let file = match namespace["type"].as_str().unwrap() {
                "network" => "net",
                other => other,
            };
            namespace["path"] = json!(neighbour.namespace(file));
        }
    }
    if let Some(path) = linux["cgroupsPath"].as_str() {
        linux["cgroupsPath"] = json!(format!("/{}{path}", bundle.mark()));
    }
    if let Some(cpus) = linux.pointer_mut("/resources/cpu/cpus") {
        *cpus = json!(proc_status(std::process::id() as i32, "Cpus_allowed_list"));
    }
    let throttled = linux.pointer_mut("/resources/blockIO/throttleReadBpsDevice");
    for device in throttled.and_then(Value::as_array_mut).into_iter().flatten() {
        (device["major"], device["minor"]) = block_device();
    }
    let hooks = config.get_mut("hooks").and_then(Value::as_object_mut);
    for hook in hooks.into_iter().flat_map(|hooks| hooks.values_mut()) {
        hook.as_array_mut().unwrap().iter_mut().for_each(|hook| hook["path"] = json!("/bin/true"));
    }
    config
}

/// By what is refused, the names of the inputs.
type Refused = BTreeMap<String, BTreeSet<String>>;

/// Creates the container without what is not yet supported, which is noted.
#[track_caller]
fn create(
    input: &Input,
    neighbour: &Container,
    refused: &mut Refused,
) -> (Container, Option<Terminal>) {
    let mut bundle = Bundle::busybox();
    let config = supply(input.value.clone(), &bundle, neighbour);
    let socket = ConsoleSocket::at(bundle.beside("console"));
    let has_terminal = config["process"]["terminal"] == true;
    if has_terminal {
        bundle = bundle.options(["--console-socket", socket.path().to_str().unwrap()]);
    }
    if let Some(root) = config["linux"]["uidMappings"][0]["hostID"].as_u64() {
        bundle = bundle.owned_by(u32::try_from(root).unwrap());
    }
    bundle = bundle.config(|c| *c = config);
    loop {
        let done = bundle.launch(&["create"], &bundle.id()).run();
        if done.status == 0 {
            return (Container::of(bundle), has_terminal.then(|| socket.master()));
        }
        let line = done.one_line().stderr;
        let line = line.trim_end().trim_start_matches("rt: ");
        let on_v2 = line.strip_suffix("cgroup v2 has no such limit");
        let line = on_v2.map_or(line.to_owned(), |path| format!("{path}not yet supported"));
        bundle = bundle.config(|c| {
            let what = take_out(c, &line).unwrap_or_else(|| panic!("{}: {line}", input.name));
            if on_v2.is_none() {
                refused.entry(what).or_default().insert(input.name.clone());
            }
        });
    }
}

/// The process said of itself what the configuration wants.
#[track_caller]
fn assert_given(config: &Value, seen: &str) {
    let process = &config["process"];
    let user = &process["user"];
    let number = |id: &Value| id.as_u64().unwrap();
    let mut groups = vec![number(&user["gid"])];
    groups.extend(user["additionalGids"].as_array().into_iter().flatten().map(number));
    let lines: Vec<&str> = seen.lines().map(str::trim_end).collect();
    let [uid, gid, given, umask, cwd, hostname, rest @ ..] = &lines[..] else { panic!("{seen}") };
    assert_eq!((*uid, *gid), (&*user["uid"].to_string(), &*user["gid"].to_string()));
    let given: BTreeSet<u64> = given.split(' ').map(|id| id.parse().unwrap()).collect();
    assert_eq!(given, groups.into_iter().collect());
    assert_eq!(*umask, format!("{:04o}", user["umask"].as_u64().unwrap_or(0o022)));
    assert_eq!(*cwd, process["cwd"].as_str().unwrap());
    let wanted = config["hostname"].as_str().unwrap_or_default();
    assert!(wanted.is_empty() || *hostname == wanted, "{hostname} is not {wanted}");
    for mount in config["mounts"].as_array().unwrap() {
        let place = format!(" {} ", mount["destination"].as_str().unwrap());
        assert!(rest.iter().any(|line| line.contains(&place)), "{place}: {seen}");
    }
    for variable in process["env"].as_array().unwrap() {
        assert!(rest.contains(&variable.as_str().unwrap()), "{variable}: {seen}");
    }
}

/// Runs every container of a client; what is refused in how many of them.
fn run_all(client: &str) -> Vec<(String, usize)> {
    let neighbour = Bundle::busybox().args(["sleep", "1000"]).start();
    let mut refused = Refused::new();
    for input in inputs("create").iter().filter(|input| input.name.starts_with(client)) {
        println!("{}", input.name);
        let (c, terminal) = create(input, &neighbour, &mut refused);
        c.start();
        let output = terminal.map(Terminal::read_to_end);
        assert_eq!(c.wait(), 0, "{}", c.errors());
        let config = fs::read(c.bundle.path().join("config.json")).unwrap();
        let config = serde_json::from_slice(&config).unwrap();
        assert_given(&config, &output.unwrap_or_else(|| c.output()));
        c.delete();
    }
    refused.into_iter().map(|(what, by)| (what, by.len())).collect()
}

/// What this version refuses of a client's inputs is taken out of them, and listed here with the
/// number of inputs, as in `src/plan/tests/corpus.rs`. Whoever implements one deletes its line.
#[track_caller]
fn assert_all_run(client: &str, but_for: &[(&str, usize)]) {
    let refused = run_all(client);
    let refused: Vec<_> = refused.iter().map(|(what, inputs)| (what.as_str(), *inputs)).collect();
    assert_eq!(refused, but_for);
}

#[test]
fn every_container_of_containerd_runs() {
    assert_all_run("containerd.", &[]);
}

#[test]
fn every_container_of_docker_runs() {
    assert_all_run("docker.", &[]);
}

#[test]
fn every_container_of_podman_and_buildah_runs() {
    assert_all_run("podman.", &[]);
}
