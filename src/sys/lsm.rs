//! Asks the kernel which Linux security modules it uses.

use nix::Result;
use nix::errno::Errno;

use super::call::call;

/// `LSM_ID_*` of <linux/lsm.h>, which libc does not have.
pub const LSM_ID_SELINUX: u64 = 101;
pub const LSM_ID_APPARMOR: u64 = 104;

/// The number is the same on every architecture: since Linux 5.1 new calls have one table.
const SYS_LSM_LIST_MODULES: i64 = 461;
/// More modules than the kernel knows: it refuses a buffer that is too short for the list.
const MODULES_MAX: usize = 64;

/// Returns the `LSM_ID_*` of the active modules (lsm_list_modules(2), since Linux 6.8).
pub fn lsm_list_modules() -> Result<Vec<u64>> {
    let mut ids = [0u64; MODULES_MAX];
    let mut size = u32::try_from(size_of_val(&ids)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `size` is the length of `ids` in bytes, and the kernel writes no more than that.
    let count = call(unsafe {
        libc::syscall(
            SYS_LSM_LIST_MODULES as _,
            ids.as_mut_ptr(),
            &raw mut size,
            0,
        )
    })?;
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    Ok(ids.iter().take(count).copied().collect())
}
