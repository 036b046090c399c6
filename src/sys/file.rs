//! Reads files to their end. The kernel gives files of procfs and of cgroups in pieces: a read(2)
//! of `/proc/PID/mountinfo` ends at the end of a line within about 4 KiB, however large the buffer
//! is, and a read from a FUSE file system may end anywhere. Only a read of 0 bytes means the end.

use std::os::fd::AsFd;
use std::path::Path;

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;
use nix::unistd::read;

/// The first size of the buffer, in bytes. It is doubled whenever it is full.
const FIRST: usize = 4096;

/// Reads the whole file `name`, relative to `directory`.
pub fn read_file_at(directory: impl AsFd, name: &(impl AsRef<Path> + ?Sized)) -> Result<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    read_all(openat(directory, name.as_ref(), flags, Mode::empty())?)
}

/// Reads an open file from its current offset to its end.
pub fn read_all(file: impl AsFd) -> Result<Vec<u8>> {
    read_at_most(file, usize::MAX)
}

/// Reads an open file from its current offset to its end, but at most `limit` bytes.
pub fn read_at_most(file: impl AsFd, limit: usize) -> Result<Vec<u8>> {
    gather(limit, |buffer, _| read(&file, buffer))
}

/// Reads `limit` bytes of an open file from `offset` on (fewer if the file ends before), without
/// use of its current offset.
pub fn read_range(file: impl AsFd, offset: u64, limit: usize) -> Result<Vec<u8>> {
    let place = |length: usize| i64::try_from(offset.saturating_add(length as u64));
    gather(limit, |buffer, length| {
        let place = place(length).map_err(|_| Errno::EOVERFLOW)?;
        pread(&file, buffer, place)
    })
}

/// Calls `read` until it returns 0 or `limit` bytes have been read, and returns these bytes. `read`
/// gets the buffer for the next piece, and how many bytes came before it. `EINTR` repeats the call.
fn gather(
    limit: usize,
    mut read: impl FnMut(&mut [u8], usize) -> Result<usize>,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while length < limit {
        if length == bytes.len() {
            // On the heap: the stack may be as small as the engine's limit (`ulimit -s`).
            bytes.resize(length.saturating_mul(2).max(FIRST).min(limit), 0);
        }
        match read(&mut bytes[length..], length) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;

    use nix::unistd::pipe;

    use super::*;

    #[test]
    fn only_a_read_of_nothing_is_the_end() {
        let pieces = [
            Ok(3),
            Err(Errno::EINTR),
            Ok(1),
            Ok(FIRST),
            Ok(2),
            Ok(0),
            Ok(9),
        ];
        let mut next = pieces.into_iter();
        let all = gather(usize::MAX, |buffer, before| {
            let length = next.next().unwrap()?.min(buffer.len());
            (0..length).for_each(|i| buffer[i] = (before + i) as u8);
            Ok(length)
        });
        let expected: Vec<u8> = (0..FIRST + 2).map(|i| i as u8).collect();
        assert_eq!(
            all.unwrap(),
            expected,
            "a piece fills what is left of the place for it"
        );
        assert_eq!(next.next(), Some(Ok(9)));
    }

    #[test]
    fn an_error_after_a_piece_is_an_error() {
        let mut next = [Ok(3), Err(Errno::EIO)].into_iter();
        assert_eq!(
            gather(usize::MAX, |_, _| next.next().unwrap()),
            Err(Errno::EIO)
        );
    }

    #[test]
    fn a_pipe_is_read_until_it_is_closed() {
        let (reader, writer) = pipe().unwrap();
        let writes = std::thread::spawn(move || {
            let mut writer = File::from(writer);
            for _ in 0..50 {
                writer.write_all(&[7; 999]).unwrap();
                std::thread::yield_now();
            }
        });
        assert_eq!(read_all(reader.as_fd()).unwrap(), vec![7; 50 * 999]);
        writes.join().unwrap();
    }

    #[test]
    fn a_limit_is_kept_and_a_range_starts_where_it_is_to() {
        let file = File::open("/proc/self/exe").unwrap();
        let whole = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(read_range(&file, 5, 100_000).unwrap(), whole[5..100_005]);
        let tail = whole.len() as u64 - 7;
        assert_eq!(
            read_range(&file, tail, 100).unwrap(),
            whole[whole.len() - 7..]
        );
        assert_eq!(read_range(&file, u64::MAX, 1), Err(Errno::EOVERFLOW));
        assert_eq!(read_at_most(&file, 10_001).unwrap(), whole[..10_001]);
        assert_eq!(read_all(&file).unwrap(), whole[10_001..]);
    }

    /// The kernel gives `smaps` in several pieces, however large the buffer is.
    #[test]
    fn a_long_file_of_procfs_is_read_whole() {
        let all = read_file_at(nix::fcntl::AT_FDCWD, "/proc/self/smaps").unwrap();
        assert!(all.len() > FIRST && all.ends_with(b"\n"), "{}", all.len());
    }
}
