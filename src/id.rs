//! The ids of containers, with the rules of runc.

use anyhow::{Result, bail};

/// The longest id, in bytes.
const ID_MAX: usize = 1024;

/// Checks an id by the rule of runc: letters, digits, `_ + - .`, not `.` or `..`, 1 to 1024 bytes.
pub fn check_id(id: &str) -> Result<()> {
    if id.is_empty() {
        bail!("container id cannot be empty");
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id == "." || id == ".." || id.len() > ID_MAX || !id.chars().all(good) {
        let begin: String = id.chars().take(64).collect();
        bail!(
            "invalid container ID format: {begin:?} (letters, digits, _ + - . and at most {ID_MAX} of them)"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_as_runc_takes_them() {
        for id in ["a", "A_1+b-c.d", "..."] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "ä", "a\0", &"x".repeat(1025)] {
            let line = check_id(id).unwrap_err().to_string();
            assert!(line.len() < 200, "{line}");
        }
    }
}
