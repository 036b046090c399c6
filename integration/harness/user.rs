//! An ordinary user who is in no file of this machine.

/// His user and group id.
pub(crate) const ID: u32 = 65_533;

/// What makes a command his.
pub(crate) const PLAIN: &[&str] =
    &["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", "--"];

/// The same where he has subordinate ids; behind `unshare -m`.
pub(crate) const WITH_MORE_IDS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/integration/views/user.sh");

/// The maps that he may have there.
pub(crate) const MORE_IDS: [[u32; 3]; 2] = [[0, ID, 1], [1, 200_000, 65_535]];

/// The user of the guests' image (`vm/vm.sh`) who may have a systemd of his own.
pub(crate) const OF_GUEST: u32 = 1000;
