use oci_spec::runtime::LinuxDeviceCgroup;
use proptest::prelude::*;

use super::exceptions::{Write, v1_changes, v1_writes};
use super::program::assemble;
use super::program::tests::run;
use super::rule::{ALL, DeviceKind, DeviceRule, Devices, MKNOD, READ, WRITE};
use super::{allow_list, rules};

const NUMBERS: [u32; 3] = [1, 3, u32::MAX];

fn rule(json: &str) -> LinuxDeviceCgroup {
    serde_json::from_str(json).unwrap()
}

fn config(rules: &[&str]) -> Vec<LinuxDeviceCgroup> {
    rules.iter().map(|json| rule(json)).collect()
}

/// What the rules mean: for each access the last rule that matches.
fn decide(rules: &[DeviceRule], asked: Devices) -> bool {
    [MKNOD, READ, WRITE]
        .into_iter()
        .filter(|bit| asked.access & bit != 0)
        .all(|bit| {
            let asked = Devices {
                access: bit,
                ..asked
            };
            let matches = |rule: &&DeviceRule| {
                rule.devices
                    .is_none_or(|devices| devices.covers(&asked) && devices.access & bit != 0)
            };
            rules
                .iter()
                .rev()
                .find(matches)
                .is_some_and(|rule| rule.allow)
        })
}

/// What version 1 does after `writes`, for one access at a time: the kernel's own algorithm, with
/// removal by equality.
fn v1(writes: &[Write], asked: Devices) -> bool {
    let mut default = true;
    let mut exceptions: Vec<Devices> = Vec::new();
    for write in writes {
        if write.text == "a" {
            default = write.allow;
            exceptions.clear();
            continue;
        }
        let devices = read(&write.text);
        let same = exceptions.iter_mut().find(|e| e.same_numbers(&devices));
        match (same, write.allow == default) {
            (Some(same), true) => same.access &= !devices.access,
            (None, true) => {}
            (Some(same), false) => same.access |= devices.access,
            (None, false) => exceptions.push(devices),
        }
    }
    let found = exceptions
        .iter()
        .any(|e| e.covers(&asked) && e.access & asked.access != 0);
    found != default
}

fn read(text: &str) -> Devices {
    Devices::read(text).unwrap()
}

/// Returns the `devices.list` of a cgroup after `writes`.
fn list(writes: &[Write]) -> String {
    match writes[0].allow {
        true => "a *:* rwm\n".to_owned(),
        false => writes[1..]
            .iter()
            .map(|write| format!("{}\n", write.text))
            .collect(),
    }
}

fn all_asked() -> Vec<Devices> {
    let mut all = Vec::new();
    for kind in [DeviceKind::Block, DeviceKind::Char] {
        for major in NUMBERS.into_iter().chain([10, 136]) {
            for minor in NUMBERS.into_iter().chain([200]) {
                for access in 1..=ALL {
                    all.push(Devices {
                        kind,
                        major: Some(major),
                        minor: Some(minor),
                        access,
                    });
                }
            }
        }
    }
    all
}

fn check(rules: &[DeviceRule]) {
    let program = assemble(rules);
    let writes = v1_writes(rules);
    for asked in all_asked() {
        let kind = if asked.kind == DeviceKind::Char { 2 } else { 1 };
        let context = (
            kind,
            asked.access.into(),
            asked.major.unwrap(),
            asked.minor.unwrap(),
        );
        let expected = decide(rules, asked);
        let answer = program.as_ref().is_none_or(|program| run(program, context));
        assert_eq!(answer, expected, "v2 {asked} by {rules:?}");
        if asked.access.count_ones() == 1 {
            // A default rule may have given way to one of the configuration.
            if let Ok(writes) = &writes {
                let answer = v1(writes, asked);
                assert!(!answer || expected, "v1 {asked} by {rules:?}, {writes:?}");
                if rules.iter().all(|rule| rule.index.is_some()) {
                    assert_eq!(answer, expected, "v1 {asked} by {rules:?}, {writes:?}");
                }
            }
        }
    }
}

fn any_rule() -> impl Strategy<Value = DeviceRule> {
    let number = || {
        prop_oneof![
            Just(None),
            prop::sample::select(&NUMBERS[..]).prop_map(Some)
        ]
    };
    let kind = prop_oneof![Just(DeviceKind::Block), Just(DeviceKind::Char)];
    let some =
        (kind, number(), number(), 1..=ALL).prop_map(|(kind, major, minor, access)| Devices {
            kind,
            major,
            minor,
            access,
        });
    let devices = prop_oneof![1 => Just(None), 5 => some.prop_map(Some)];
    (any::<bool>(), devices).prop_map(|(allow, devices)| DeviceRule {
        allow,
        devices,
        index: Some(0),
    })
}

proptest! {
    #[test]
    fn both_versions_do_what_the_rules_mean(
        mut list in prop::collection::vec(any_rule(), 0..6),
        defaults in any::<bool>(),
    ) {
        if defaults {
            list.extend(rules(&[]).unwrap());
        }
        check(&list);
    }
}

proptest! {
    #[test]
    fn an_update_on_version_1_takes_away_only_what_goes_and_gives_only_what_comes(
        before in prop::collection::vec(any_rule(), 0..5),
        after in prop::collection::vec(any_rule(), 0..5),
    ) {
        let (Ok(before), Ok(after)) = (v1_writes(&before), v1_writes(&after)) else { return Ok(()) };
        let changes = v1_changes(&list(&before), after.clone());
        let in_steps = !before[0].allow && !after[0].allow;
        for asked in all_asked().into_iter().filter(|asked| asked.access.count_ones() == 1) {
            let (was, will_be) = (v1(&before, asked), v1(&after, asked));
            for step in 0..=changes.len() {
                let now = v1(&[&before[..], &changes[..step]].concat(), asked);
                let end = step == changes.len();
                prop_assert!(!end || now == will_be, "{asked} {before:?} {changes:?}");
                prop_assert!(!in_steps || was != will_be || now == was, "{asked} {changes:?}");
            }
        }
    }
}

#[test]
fn every_shape_of_rule() {
    for kind in [DeviceKind::Block, DeviceKind::Char] {
        for (major, minor) in [
            (None, None),
            (Some(1), None),
            (None, Some(3)),
            (Some(1), Some(3)),
        ] {
            for access in 1..=ALL {
                for (first, allow) in [(false, true), (true, false), (true, true), (false, false)] {
                    let one = Devices {
                        kind,
                        major,
                        minor,
                        access,
                    };
                    check(&[
                        DeviceRule {
                            allow: first,
                            devices: None,
                            index: Some(0),
                        },
                        DeviceRule {
                            allow,
                            devices: Some(one),
                            index: Some(1),
                        },
                    ]);
                }
            }
        }
    }
}

#[test]
fn without_rules_the_default_list_is_all_that_is_allowed() {
    let none = rules(&[]).unwrap();
    let null = read("c 1:3 rw");
    assert!(decide(&none, null) && !decide(&none, read("b 8:0 r")));
    check(&none);
    let texts: Vec<String> = v1_writes(&none)
        .unwrap()
        .into_iter()
        .map(|w| w.text)
        .collect();
    assert_eq!(texts[..4], ["a", "c *:* m", "b *:* m", "c 1:3 rwm"]);
    assert_eq!(texts.len(), 12);
}

#[test]
fn a_device_that_is_denied_by_its_number_is_not_allowed_by_default() {
    const DENY_ALL: &str = r#"{"allow":false,"access":"rwm"}"#;
    const DENY_TUN: &str = r#"{"allow":false,"type":"c","major":10,"minor":200,"access":"rwm"}"#;
    const ALLOW_TUN: &str = r#"{"allow":true,"type":"c","major":10,"minor":200,"access":"r"}"#;
    const DENY_MEMORY: &str = r#"{"allow":false,"type":"a","major":1,"minor":-1,"access":"w"}"#;
    let answers = |json: &[&str], asked: &[&str]| -> Vec<bool> {
        let rules = rules(&config(json)).unwrap();
        check(&rules);
        asked
            .iter()
            .map(|device| decide(&rules, read(device)))
            .collect()
    };
    let tun = ["c 10:200 r", "c 10:200 w"];
    assert_eq!(answers(&[DENY_ALL], &tun), [true, true]);
    for denied in [
        &[DENY_ALL, DENY_TUN][..],
        &[DENY_TUN, DENY_ALL],
        &[DENY_TUN],
    ] {
        assert_eq!(answers(denied, &tun), [false, false]);
    }
    assert_eq!(
        answers(&[DENY_ALL, DENY_TUN, ALLOW_TUN], &tun),
        [true, false]
    );
    let others = [
        "c 1:3 r", "c 1:3 w", "c 1:9 w", "c 5:0 w", "c 1:3 m", "c 5:1 r", "c 5:1 m",
    ];
    assert_eq!(
        answers(&[DENY_ALL, DENY_MEMORY], &others),
        [true, false, false, true, true, false, true]
    );
}

#[test]
fn version_1_gets_the_rules_of_the_configuration_first_and_in_their_order() {
    let rules = rules(&config(&[
        r#"{"allow":false,"access":"rwm"}"#,
        r#"{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}"#,
        r#"{"allow":true,"type":"b","major":8,"minor":20,"access":"rwm"}"#,
        r#"{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}"#,
    ]))
    .unwrap();
    let writes = v1_writes(&rules).unwrap();
    let texts: Vec<&str> = writes.iter().map(|w| w.text.as_str()).collect();
    assert_eq!(
        texts[..5],
        ["a", "c 10:229 rw", "b 8:20 rwm", "c 1:3 rwm", "c *:* m"]
    );
    assert!(!writes[0].allow && writes[1..].iter().all(|write| write.allow));
    assert_eq!(texts.iter().filter(|text| **text == "c 1:3 rwm").count(), 1);
}

#[test]
fn allowing_everything_needs_no_program() {
    let rules = rules(&config(&[r#"{"allow":true,"access":"rwm"}"#])).unwrap();
    assert_eq!(assemble(&rules), None);
    assert_eq!(v1_writes(&rules).unwrap().len(), 1);
}

#[test]
fn a_narrow_rule_for_all_types_is_not_a_rule_for_everything() {
    let narrow = r#"{"allow":true,"type":"a","major":5,"minor":-1,"access":"r"}"#;
    let rules = rules(&config(&[narrow])).unwrap();
    let texts: Vec<String> = rules[..2]
        .iter()
        .map(|r| r.devices.unwrap().to_string())
        .collect();
    assert_eq!(texts, ["c 5:* r", "b 5:* r"]);
}

#[test]
fn a_hole_that_version_1_cannot_make_is_refused() {
    let hole = rules(&config(&[
        r#"{"allow":true,"type":"c","access":"rw"}"#,
        r#"{"allow":false,"type":"c","major":1,"minor":3,"access":"w"}"#,
    ]))
    .unwrap();
    let error = v1_writes(&hole).unwrap_err().to_string();
    assert!(
        error.starts_with("linux.resources.devices[1]: cgroup v1 cannot take `c 1:3 w`"),
        "{error}"
    );
}

#[test]
fn bad_rules_are_refused_by_their_json_path() {
    for (json, expected) in [
        (
            r#"{"allow":true}"#,
            "linux.resources.devices[0]: access: missing",
        ),
        (
            r#"{"access":"rx"}"#,
            "linux.resources.devices[0]: access: `x` is none of r, w, m",
        ),
        (
            r#"{"type":"p","access":"r"}"#,
            "linux.resources.devices[0]: type: `p` is none of a, b, c",
        ),
        (
            r#"{"type":"c","major":-2,"access":"r"}"#,
            "linux.resources.devices[0]: major: -2 is not a device number",
        ),
        (
            r#"{"type":"c","minor":4294967296,"access":"r"}"#,
            "linux.resources.devices[0]: minor: 4294967296 is not a device number",
        ),
    ] {
        assert_eq!(format!("{:#}", rules(&[rule(json)]).unwrap_err()), expected);
    }
}

#[test]
fn systemd_gets_a_list_of_what_is_allowed() {
    const ALLOW_ALL: &str = r#"{"allow":true,"access":"rwm"}"#;
    const DENY_ALL: &str = r#"{"allow":false,"access":"rwm"}"#;
    const DENY_NULL: &str = r#"{"allow":false,"type":"c","major":1,"access":"rw"}"#;
    let list = |json: &[&str]| allow_list(&rules(&config(json)).unwrap()).unwrap();
    let has = |list: &[(String, String)], device: &str, access: &str| {
        list.contains(&(device.into(), access.into()))
    };
    let allowed = list(&[DENY_ALL]).unwrap();
    assert!(has(&allowed, "/dev/char/1:3", "rwm") && has(&allowed, "char-136", "rwm"));
    assert!(has(&allowed, "char-*", "m") && has(&allowed, "block-*", "m"));
    let disks = r#"{"allow":true,"type":"b","major":8,"access":"rm"}"#;
    assert!(has(&list(&[DENY_ALL, disks]).unwrap(), "block-8", "rm"));
    assert_eq!(list(&[ALLOW_ALL]), None);
    assert_eq!(list(&[DENY_NULL, ALLOW_ALL]), None);
    let least = list(&[ALLOW_ALL, DENY_NULL]).unwrap();
    assert!(has(&least, "/dev/char/5:0", "rwm") && has(&least, "char-*", "m"));
    assert!(
        !least.iter().any(|(device, _)| device.contains("1:3")),
        "{least:?}"
    );
}
