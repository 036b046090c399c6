//! Names of interfaces. The host's interfaces that lead to containers are named by hashes of what
//! is at their ends. Pure.

use anyhow::{Result, bail};

/// IFNAMSIZ of `<net/if.h>` without the final zero.
pub(super) const INTERFACE_MAX: usize = 15;
/// How many point-to-point links are looked for if the record of a container cannot be read.
pub(super) const POINTS_MAX: usize = 16;

/// Refuses a name that dev_valid_name() of the kernel refuses, or that has unusual characters, or
/// is `rt`, which is a word of nft's.
pub(super) fn check_interface(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let bad = name.is_empty() || name.len() > INTERFACE_MAX || [".", "..", "rt"].contains(&name);
    if bad || !name.chars().all(good) {
        bail!("{name:.64?}: not a name for an interface");
    }
    Ok(())
}

/// Returns the FNV-1a hash. Names of interfaces are made from longer names with it.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Returns the name of the host's end of the container's interface in the network. It is the same
/// each time that the container joins the network.
pub(super) fn host_interface(id: &str, network: &str) -> String {
    format!(
        "rtv{:012x}",
        hash(&format!("{network}/{id}")) & 0xffff_ffff_ffff
    )
}

/// Returns the name of the peer's end of the `at`-th link of container `id`.
pub(super) fn peer_interface(peer: &str, id: &str, at: usize) -> String {
    format!(
        "rtp{:012x}",
        hash(&format!("{peer}/{id}/{at}")) & 0xffff_ffff_ffff
    )
}

/// Whether the name has the form of [`host_interface`].
pub(super) fn is_hash(name: &str) -> bool {
    let digits = name.strip_prefix("rtv").unwrap_or_default();
    digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_on_the_host_have_short_names_of_their_own() {
        let name = host_interface("a", "default");
        assert_eq!(name.len(), 15);
        assert_ne!(name, host_interface("a", "other"));
        assert_ne!(name, host_interface("b", "default"));
        assert!(check_interface(&name).is_ok());
    }

    #[test]
    fn names_of_ours_are_hashes() {
        assert!(is_hash(&host_interface("a", "default")));
        assert!(!is_hash("rtv0123") && !is_hash("rtp0123456789ab") && !is_hash("veth0123456789ab"));
    }
}
