//! crun's `idmap=uids=0-1000-1#1-2000-9;gids=@0-5-10`: id maps of one mount in its options (crun(1)
//! "idmap mount options").

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount};

use crate::namespace::IdMap;

/// The words that may have id maps as a value, which [`take`] parses.
pub(super) const WITH_IDS: [&str; 2] = ["idmap", "ridmap"];

/// Moves id maps from the options of mount `i` to its `uidMappings` and `gidMappings`, where the
/// specification has them. `container` has the maps of the container's user and group ids.
///
/// # Errors
/// `mounts[3].options[1]: …`.
pub fn take(i: usize, mount: &mut Mount, container: &[IdMap; 2]) -> Result<()> {
    let options = mount.options().iter().flatten().enumerate();
    let mut maps = None;
    for (j, piece) in options.flat_map(|(j, option)| split(option).map(move |piece| (j, piece))) {
        let Some((word, value)) = piece.split_once('=') else {
            continue;
        };
        if WITH_IDS.contains(&word) && !value.is_empty() {
            let path = format!("mounts[{i}].options[{j}]: {word}");
            let both = maps.is_some() || mount.uid_mappings().is_some();
            ensure!(!both, "{path}: not with other maps");
            maps = Some(parse(value, container).context(path)?);
        }
    }
    if let Some([uids, gids]) = maps {
        mount
            .set_uid_mappings(Some(uids))
            .set_gid_mappings(Some(gids));
    }
    Ok(())
}

/// Splits an option at its commas, but not at commas that are quoted (as in an SELinux context) or
/// escaped (as in an overlay's directory).
pub(super) fn split(option: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    option.split(move |c| {
        let separates = c == ',' && !quoted && !escaped;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        separates
    })
}

fn parse(text: &str, container: &[IdMap; 2]) -> Result<[Vec<LinuxIdMapping>; 2]> {
    let mut maps = [const { Vec::new() }; 2];
    for list in text.split(';').filter(|list| !list.is_empty()) {
        let (which, ranges) = match list.split_once('=') {
            Some(("uids", ranges)) => (0, ranges),
            Some(("gids", ranges)) => (1, ranges),
            _ => bail!("{list:?} is neither uids= nor gids="),
        };
        ensure!(maps[which].is_empty(), "{list:?}: a second one");
        let ranges = ranges.split('#').map(|one| range(one, &container[which]));
        maps[which] = ranges.collect::<Result<_>>()?;
    }
    ensure!(
        !maps.iter().any(Vec::is_empty),
        "uids and gids: only together"
    );
    Ok(maps)
}

/// Parses `FILES-HOST-COUNT`: the first id in the file system, the first id on the host, the number
/// of ids. After a leading `@` the second number is an id of the container.
fn range(text: &str, container: &IdMap) -> Result<LinuxIdMapping> {
    let numbers = text
        .strip_prefix('@')
        .unwrap_or(text)
        .split('-')
        .map(str::parse);
    let numbers: Vec<u32> = numbers.collect::<Result<_, _>>().unwrap_or_default();
    let [first, host, count] = numbers[..] else {
        bail!("{text:?} is not ID-ID-COUNT")
    };
    let host = match text.starts_with('@') {
        true => container.outside(host).with_context(|| {
            format!("{text:?}: {host} is not mapped in the container's user namespace")
        })?,
        false => host,
    };
    let range = LinuxIdMappingBuilder::default()
        .container_id(first)
        .host_id(host)
        .size(count);
    Ok(range.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(options: &[&str]) -> Result<String, String> {
        let container = r#"[{"containerID":0,"hostID":0,"size":1},
            {"containerID":1,"hostID":2,"size":1000}]"#;
        let container =
            [container, "null"].map(|text| IdMap::new(&serde_json::from_str(text).unwrap()));
        let mut mount: Mount = serde_json::from_value(
            serde_json::json!({ "destination": "/m", "source": "/", "options": options }),
        )
        .unwrap();
        take(3, &mut mount, &container).map_err(|error| format!("{error:#}"))?;
        let text = |list: &Option<Vec<LinuxIdMapping>>| {
            let lines = list.iter().flatten();
            let lines = lines.map(|m| format!("{} {} {}", m.container_id(), m.host_id(), m.size()));
            lines.collect::<Vec<_>>().join(", ")
        };
        Ok(format!(
            "{}; {}",
            text(mount.uid_mappings()),
            text(mount.gid_mappings())
        ))
    }

    #[test]
    fn maps_of_options_are_maps_of_the_mount() {
        for (option, seen) in [
            (
                "bind,idmap=uids=0-1-10#10-11-10;gids=0-100-10",
                "0 1 10, 10 11 10; 0 100 10",
            ),
            // The example of crun(1).
            ("ridmap=uids=@1-3-10;gids=5-6-7;", "1 4 10; 5 6 7"),
            ("idmap", "; "),
            ("idmap=", "; "),
        ] {
            assert_eq!(maps(&["rbind", option]).unwrap(), seen, "{option}");
        }
    }

    #[test]
    fn maps_that_are_none_are_refused() {
        for (option, cause) in [
            ("uids=0-1", "\"0-1\" is not ID-ID-COUNT"),
            ("uids=0-1-2-3;gids=0-1-2", "\"0-1-2-3\" is not ID-ID-COUNT"),
            ("uids=0-1-x;gids=0-1-2", "\"0-1-x\" is not ID-ID-COUNT"),
            ("uids=;gids=0-1-2", "\"\" is not ID-ID-COUNT"),
            (
                "uids=0-1-4294967296;gids=0-1-2",
                "\"0-1-4294967296\" is not ID-ID-COUNT",
            ),
            ("uids=0-1-2#;gids=0-1-2", "\"\" is not ID-ID-COUNT"),
            ("uids=0-1-2", "uids and gids: only together"),
            ("0-1-2", "\"0-1-2\" is neither uids= nor gids="),
            ("uids=0-1-2;uids=0-1-2", "\"uids=0-1-2\": a second one"),
            (
                "uids=@0-5000-1;gids=0-1-2",
                "\"@0-5000-1\": 5000 is not mapped in the container's user namespace",
            ),
            (
                "uids=0-1-2;gids=@0-0-1",
                "\"@0-0-1\": 0 is not mapped in the container's user namespace",
            ),
        ] {
            let error = maps(&["bind", &format!("idmap={option}")]).unwrap_err();
            assert_eq!(error, format!("mounts[3].options[1]: idmap: {cause}"));
        }
        let twice = maps(&["idmap=uids=0-1-2;gids=0-1-2,ridmap=uids=0-1-2;gids=0-1-2"]);
        assert_eq!(
            twice.unwrap_err(),
            "mounts[3].options[0]: ridmap: not with other maps"
        );
    }
}
