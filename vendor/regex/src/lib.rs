//! [`regex_lite`] under the name of `regex`, for oci-spec.

pub use regex_lite::*;
