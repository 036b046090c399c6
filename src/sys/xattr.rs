//! Extended attributes of open files.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::Result;
use nix::errno::Errno;

use super::call::call;

/// Copies the extended attributes of one open file to another (xattr(7)): file capabilities, access
/// control lists, attributes of the user. Attributes that the file system of `to` refuses
/// (`ENOTSUP`, `EPERM`) are left out.
pub(crate) fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let names = match sized(|buffer| list(from, buffer)) {
        Err(Errno::ENOTSUP) => return Ok(()),
        names => names?,
    };
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let value = match sized(|buffer| get(from, name, buffer)) {
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

/// Calls `read` with an empty buffer for the length, then with a buffer of that length.
///
/// # Errors
/// `ERANGE` if the attribute has grown between the two calls.
fn sized(read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let length = read(&mut [])?;
    let mut buffer = vec![0; length];
    if length > 0 {
        let length = read(&mut buffer)?;
        buffer.truncate(length);
    }
    Ok(buffer)
}

fn list(file: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: pointer and length are those of `buffer`; a length of 0 only asks how long it is.
    let length =
        unsafe { libc::flistxattr(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    Ok(call(length as _)? as usize)
}

fn get(file: BorrowedFd<'_>, name: &CStr, buffer: &mut [u8]) -> Result<usize> {
    let (pointer, length) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: the name is NUL-terminated, pointer and length are those of `buffer`; a length of 0
    // only asks how long the value is.
    let length = unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), pointer, length) };
    Ok(call(length as _)? as usize)
}

/// Sets an extended attribute (fsetxattr(2)). The kernel refuses a `file` opened with `O_PATH`.
pub(crate) fn set_attribute(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    let (pointer, length) = (value.as_ptr().cast(), value.len());
    // SAFETY: the name is NUL-terminated, pointer and length are those of `value`.
    Errno::result(unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), pointer, length, 0) })
        .map(drop)
}
