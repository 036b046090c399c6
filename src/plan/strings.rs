//! Strings as system calls take them.

use std::ffi::CString;

use anyhow::{Context, Result};

pub(super) fn c_string(text: &str, origin: &str) -> Result<CString> {
    CString::new(text).with_context(|| format!("{origin}: {text:.64?}"))
}

pub(super) fn c_strings<T: AsRef<str>>(
    texts: impl Iterator<Item = T>,
    origin: &str,
) -> Result<Vec<CString>> {
    texts
        .enumerate()
        .map(|(i, text)| c_string(text.as_ref(), &format!("{origin}[{i}]")))
        .collect()
}
