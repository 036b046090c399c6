//! Programs of the tests' own, in C: what a shell cannot do.

use std::path::Path;
use std::process::Command;

/// Compiles `source`, a file of `integration/`, to the static program `program`.
#[track_caller]
pub(crate) fn compile(source: &str, program: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration").join(source);
    let mut cc = Command::new("cc");
    let compiled = cc.args(["-O1", "-static"]).arg(source).arg("-o").arg(program).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
}
