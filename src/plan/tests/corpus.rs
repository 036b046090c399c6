//! What real clients have given to a runtime is parsed, checked and planned.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use oci_spec::runtime::{LinuxResources, Spec};
use serde_json::{Value, json};

use crate::cgroup::{Cgroup, Limits};
use crate::config::{Loaded, check_process, check_spec, parse_spec, process};
use crate::container::state::ContainerRecord;
use crate::namespace::Namespaces;
use crate::plan::{Extras, Plan, PlanSource};

#[path = "../../../integration/harness/corpus.rs"]
pub(super) mod inputs;

use inputs::{Input, inputs, take_out};

/// What this version refuses, and in how many inputs. It is taken out of them, and what is left
/// has to pass. Whoever implements one deletes its line, here and in `integration/corpus.rs`.
const NOT_YET: [(&str, usize); 0] = [];

/// What a host with cgroup v2 cannot do.
const NOT_ON_V2: [(&str, &str); 2] = [
    (
        "docker.run_memory_swap.create.1",
        "linux.resources.memory.swappiness: cgroup v2 has no such limit",
    ),
    (
        "docker.run_oom_kill_disable.create.1",
        "linux.resources.memory.disableOOMKiller: cgroup v2 has no such limit",
    ),
];

/// The cgroups on a host with version 2 alone, or with every controller on version 1.
fn groups(unified: bool) -> Cgroup {
    let all = "pids,memory,cpu,cpuset,blkio,hugetlb,devices";
    let controllers = if unified { "" } else { all };
    let group = json!({ "controllers": controllers, "directory": "/x", "existing": "/" });
    let groups = json!({ "unified": unified, "groups": [group], "owned": false });
    serde_json::from_str(&groups.to_string()).unwrap()
}

pub(super) fn plan(config: &Value) -> Result<(Spec, Plan)> {
    let Loaded {
        spec, mut warnings, ..
    } = parse_spec(&serde_json::to_vec(config)?)?;
    let checked = check_spec(&spec)?;
    let linux = spec.linux().as_ref().context("linux")?;
    let cgroup = groups(false);
    Limits::from_spec(linux.resources().as_ref(), &cgroup)?;
    let root = Path::new("/");
    let source = PlanSource {
        spec: &spec,
        checked: &checked,
        bundle: root,
        rootfs: root,
        id: "corpus",
    };
    let namespaces = Namespaces::from_spec(&spec)?.of_root();
    let extras = Extras::default();
    let plan = Plan::for_container(&source, &namespaces, &cgroup, extras, &mut warnings)?;
    assert_only_of_this_host(&warnings);
    Ok((spec, plan))
}

/// What a process may be given depends on what this one holds, and on the kernel.
fn assert_only_of_this_host(warnings: &[String]) {
    let ours = |warning: &&String| !warning.starts_with("process.capabilities");
    assert_eq!(warnings.iter().filter(ours).count(), 0, "{warnings:?}");
}

/// The containers whose namespaces are joined are not here.
pub(super) fn with_new_namespaces(mut config: Value) -> Value {
    for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
        namespace.as_object_mut().unwrap().remove("path");
    }
    config
}

#[test]
fn every_configuration_is_planned_but_for_what_is_listed() {
    let mut refused: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut not_on_v2 = Vec::new();
    let inputs = inputs("create");
    assert_eq!(inputs.len(), 189);
    for Input { name, value } in inputs {
        let mut config = with_new_namespaces(value);
        let spec = loop {
            let line = match plan(&config) {
                Ok((spec, _)) => break spec,
                Err(error) => crate::error::line(&error),
            };
            let what = take_out(&mut config, &line).unwrap_or_else(|| panic!("{name}: {line}"));
            refused.entry(what).or_default().insert(name.clone());
        };
        let resources = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.resources().as_ref());
        if let Err(error) = Limits::from_spec(resources, &groups(true)) {
            not_on_v2.push((name, crate::error::line(&error)));
        }
    }
    let refused: Vec<_> = refused
        .iter()
        .map(|(what, by)| (what.as_str(), by.len()))
        .collect();
    assert_eq!(refused, NOT_YET);
    let not_on_v2: Vec<_> = not_on_v2
        .iter()
        .map(|(name, why)| (&**name, &**why))
        .collect();
    assert_eq!(not_on_v2, NOT_ON_V2);
}

#[test]
fn every_process_of_exec_is_planned() {
    let inputs = inputs("exec");
    assert_eq!(inputs.len(), 20);
    for Input { name, value } in inputs {
        let loaded = process(&serde_json::to_vec(&value).unwrap());
        let mut loaded = loaded.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        check_process(&loaded.process).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let record = ContainerRecord::new("corpus", &Spec::default());
        let extras = Extras::default();
        Plan::for_exec(&loaded.process, &record, extras, &mut loaded.warnings)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_only_of_this_host(&loaded.warnings);
    }
}

#[test]
fn the_resources_of_every_update_become_limits() {
    let inputs = inputs("update");
    assert_eq!(inputs.len(), 5);
    for Input { name, value } in inputs {
        let resources: LinuxResources = serde_json::from_str(&value.to_string()).unwrap();
        for unified in [false, true] {
            let limits = Limits::from_resources(&resources, &groups(unified));
            assert!(limits.is_ok(), "{name}: {limits:?}");
        }
    }
}
