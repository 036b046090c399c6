use proptest::prelude::*;

use crate::config::mount_options::*;

fn options(words: &str) -> MountOptions {
    let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
    parse(&words, "mounts[0].options").unwrap()
}

#[test]
fn words_are_sorted_and_known() {
    assert!(words().is_sorted());
    assert_eq!(words().count(), 65);
    for name in words() {
        assert!(options(name).data.is_empty(), "{name}");
    }
}

#[test]
fn attributes_follow_the_last_word() {
    const ATIME: u64 = MOUNT_ATTR__ATIME;
    for (words, set, clear) in [
        ("ro", MOUNT_ATTR_RDONLY, 0),
        ("ro rw", 0, MOUNT_ATTR_RDONLY),
        ("rw,ro", MOUNT_ATTR_RDONLY, 0),
        (
            "nosuid nodev exec",
            MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
            MOUNT_ATTR_NOEXEC,
        ),
        ("defaults iversion silent loud", 0, 0),
        ("noatime", MOUNT_ATTR_NOATIME, ATIME),
        ("noatime relatime", 0, ATIME),
        ("noatime strictatime", MOUNT_ATTR_STRICTATIME, ATIME),
        ("noatime atime", 0, ATIME),
        ("strictatime atime", MOUNT_ATTR_STRICTATIME, ATIME),
        ("norelatime", 0, ATIME),
        (
            "nodiratime noatime",
            MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOATIME,
            ATIME,
        ),
        ("nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0),
    ] {
        let parsed = options(words);
        assert_eq!((parsed.attr_set, parsed.attr_clr), (set, clear), "{words}");
        assert_eq!(
            (parsed.rec_attr_set, parsed.rec_attr_clr),
            (0, 0),
            "{words}"
        );
    }
}

#[test]
fn recursive_words_are_kept_apart() {
    let parsed = options("rro rnosuid rrw rnoatime bind");
    assert_eq!(
        (parsed.attr_set, parsed.attr_clr, parsed.bind),
        (0, 0, Bind::Plain)
    );
    assert_eq!(parsed.rec_attr_set, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOATIME);
    assert_eq!(parsed.rec_attr_clr, MOUNT_ATTR_RDONLY | MOUNT_ATTR__ATIME);
}

#[test]
fn the_superblock_gets_one_flag_of_each_pair() {
    for (words, flags) in [
        ("ro sync", vec!["ro", "sync"]),
        ("ro sync rw async", vec!["rw", "async"]),
        ("dirsync dirsync lazytime", vec!["dirsync", "lazytime"]),
        ("mand lazytime nolazytime", vec!["mand", "nolazytime"]),
    ] {
        assert_eq!(options(words).sb_flags, flags, "{words}");
    }
}

#[test]
fn the_rest_of_the_table() {
    let rslave = Propagation {
        flag: libc::MS_SLAVE,
        recursive: true,
    };
    let parsed = options("rbind shared rslave remount tmpcopyup");
    let shared = Propagation {
        flag: libc::MS_SHARED,
        recursive: false,
    };
    assert_eq!(
        (parsed.bind, parsed.propagation),
        (Bind::Recursive, vec![shared, rslave])
    );
    assert!(parsed.remount && parsed.tmpcopyup);
    assert_eq!(propagation("rslave"), Some(rslave));
    assert_eq!(propagation("ro"), None);
}

#[test]
fn what_is_left_is_data() {
    let data = |words| options(words).data;
    let pair = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
    assert_eq!(
        data("size=64k,mode=755 ,"),
        [pair("size", "64k"), pair("mode", "755")]
    );
    assert_eq!(data("newinstance"), [("newinstance".to_owned(), None)]);
    assert_eq!(
        data(r#"context="a:b:c1,c2""#),
        [pair("context", "a:b:c1,c2")]
    );
    assert_eq!(data(r"lowerdir=/a\,b:/c"), [pair("lowerdir", r"/a\,b:/c")]);
    assert_eq!(data("x=a=b y="), [pair("x", "a=b"), pair("y", "")]);
}

#[test]
fn a_bind_mount_tolerates_size_and_mode_only() {
    assert_eq!(options("bind ro size=1m mode=755").beyond_bind(), None);
    assert_eq!(options("bind size=1m mods=755").beyond_bind(), Some("mods"));
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    let error = parse(
        &["bind".to_owned(), "si\0ze".to_owned()],
        "mounts[0].options",
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "mounts[0].options[1]: contains a NUL byte"
    );
}

#[test]
fn a_bind_mount_loses_what_is_not_given() {
    assert_eq!(options("bind rprivate size=1 silent").bind_attr(), None);
    let (set, clear) = options("bind ro").bind_attr().unwrap();
    assert_eq!(set, MOUNT_ATTR_RDONLY);
    assert_eq!(clear, CLEARED & !MOUNT_ATTR_RDONLY);
    assert_eq!(options("bind rw").bind_attr(), Some((0, CLEARED)));
    let remount = options("bind remount nosuid rw").bind_attr();
    assert_eq!(remount, Some((MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY)));
}

#[test]
fn locked_attributes_are_kept_or_refused() {
    let source = statfs_attr(0x1 | 0x2 | 0x400);
    assert_eq!(
        source,
        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOATIME
    );
    let (set, clear) = options("bind nodev").bind_attr_locked(source).unwrap();
    assert_eq!(
        set,
        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    );
    assert_eq!(clear, MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW);
    assert!(options("bind noatime").bind_attr_locked(source).is_ok());
    let error = |words| {
        options(words)
            .bind_attr_locked(source)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error("bind rw suid"),
        "nosuid, ro: locked, cannot be cleared"
    );
    assert_eq!(
        error("bind relatime"),
        "access times are locked and cannot be changed"
    );
    assert_eq!(statfs_attr(0x1000), 0);
    assert_eq!(statfs_attr(0), MOUNT_ATTR_STRICTATIME);
}

proptest! {
    /// What `mount_setattr(2)` refuses must never come out: access times are
    /// cleared as a whole or not at all, and hold one of three values.
    #[test]
    fn masks_are_what_the_kernel_takes(
        list in prop::collection::vec((0..WORDS.len()).prop_map(|i| WORDS[i].0), 0..12),
        source in any::<u64>(),
    ) {
        let parsed = options(&list.join(" "));
        let source = statfs_attr(source);
        let mut pairs = vec![
            (parsed.attr_set, parsed.attr_clr),
            (parsed.rec_attr_set, parsed.rec_attr_clr),
        ];
        pairs.extend(parsed.bind_attr());
        pairs.extend(parsed.bind_attr_locked(source).ok());
        for (set, clear) in pairs {
            let times = (set & MOUNT_ATTR__ATIME, clear & MOUNT_ATTR__ATIME);
            prop_assert!(matches!(times, (0, 0) | (0 | 0x10 | 0x20, 0x70)), "{times:x?}");
            prop_assert_eq!(set & clear & !MOUNT_ATTR__ATIME, 0);
        }
        prop_assert!(parsed.data.is_empty());
    }

    #[test]
    fn any_text_is_answered(list in prop::collection::vec(".*", 0..4)) {
        let _ = parse(&list, "mounts[0].options");
    }
}
