//! Extended attributes of open files.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::Result;
use nix::errno::Errno;
use rustix::fs::{XattrFlags, fgetxattr, fgetxattr_query, flistxattr, flistxattr_query, fsetxattr};
use rustix::io;

use super::call::errno;

/// Copies the extended attributes of one open file to another (xattr(7)): file capabilities, access
/// control lists, attributes of the user. Attributes that the file system of `to` refuses
/// (`ENOTSUP`, `EPERM`) are left out.
pub fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let names = match read(flistxattr_query(from), |buffer| flistxattr(from, buffer)) {
        Err(Errno::ENOTSUP) => return Ok(()),
        names => names?,
    };
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let value = match read(fgetxattr_query(from, name), |buffer| {
            fgetxattr(from, name, buffer)
        }) {
            // The attribute has been removed meanwhile.
            Err(Errno::ENODATA) => continue,
            value => value?,
        };
        match set_attribute(to, name, &value) {
            Err(Errno::ENOTSUP | Errno::EPERM) => {}
            result => result?,
        }
    }
    Ok(())
}

/// Reads a value whose length is known by a query.
///
/// # Errors
/// `ERANGE` if the value has grown between the two calls.
fn read(
    length: io::Result<usize>,
    read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
) -> Result<Vec<u8>> {
    let mut buffer = vec![0; length.map_err(errno)?];
    if !buffer.is_empty() {
        let length = read(&mut buffer).map_err(errno)?;
        buffer.truncate(length);
    }
    Ok(buffer)
}

/// Sets an extended attribute (fsetxattr(2)). The kernel refuses a `file` opened with `O_PATH`.
pub fn set_attribute(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    fsetxattr(file, name, value, XattrFlags::empty()).map_err(errno)
}
