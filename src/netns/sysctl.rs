//! The few settings below `/proc/sys/net` that a network needs, of the network namespace of the
//! calling thread.

use std::fs;
use std::io;

const ROOT: &str = "/proc/sys/net";

/// Returns the value without its line break; `None` if there is no such setting.
pub(super) fn read_sysctl(name: &str) -> Option<String> {
    fs::read_to_string(format!("{ROOT}/{name}"))
        .ok()
        .map(|value| value.trim_end().to_owned())
}

/// Sets the value, unless the setting has it already: then a read-only `/proc/sys` does not matter.
pub(super) fn set(name: &str, value: &str) -> io::Result<()> {
    if read_sysctl(name).as_deref() == Some(value) {
        return Ok(());
    }
    fs::write(format!("{ROOT}/{name}"), value)
}
