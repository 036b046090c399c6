//! Finds out why a program could not be executed: the errno of execve(2) does not say which of
//! several files it is about. All of this happens after the failure; if the files cannot be read,
//! the error has the text of the errno only. The kernel's rules are those of `fs/binfmt_script.c`
//! and `fs/binfmt_elf.c`.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::anyhow;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};

use super::rootfs;
use crate::sys;
use crate::sys::rootfd::{RootFd, kind};

/// How much of a file the kernel reads to recognise its format, in bytes (`BINPRM_BUF_SIZE`).
const HEAD: usize = 256;
/// How many files are examined at most: the program, interpreters of interpreters, a loader.
const DEPTH: usize = 6;
/// How much of a table of program headers is read at most, in bytes; the kernel's limit.
const HEADERS_MAX: usize = 65536;

/// The greatest length of a loader's path, in bytes (`PATH_MAX`).
const LOADER_MAX: usize = 4096;

/// elf(5): values of `e_type` and `p_type`.
const ET_EXEC: u64 = 2;
const ET_DYN: u64 = 3;
const PT_INTERP: u64 = 3;

/// elf(5): values of `e_machine`, and Rust's names.
const MACHINES: [(u64, &str); 10] = [
    (3, "x86"),
    (8, "mips"),
    (20, "powerpc"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv"),
    (258, "loongarch64"),
];

/// Returns the error for a program that cannot be executed, in the lower-case words that docker and
/// podman look for. `name` is the program's name in the configuration, `path` the file that was
/// found, as a path from the root.
pub(super) fn refusal(name: &str, path: &Path, errno: Errno) -> anyhow::Error {
    let text = match errno {
        Errno::EACCES => "permission denied".to_string(),
        Errno::ENOENT => "no such file or directory".to_string(),
        Errno::ENOEXEC => "exec format error".to_string(),
        errno => errno.desc().to_lowercase(),
    };
    match rootfs::current()
        .ok()
        .and_then(|root| fault(&root, path, DEPTH))
    {
        Some(fault) => anyhow!("exec: {name:?}: {text} ({fault})"),
        None => anyhow!("exec: {name:?}: {text}"),
    }
}

/// Returns what is wrong with the file or with another file that it needs; `None` if nothing wrong
/// is found.
fn fault(root: &RootFd, path: &Path, depth: usize) -> Option<String> {
    let stat = match root.open(path, OFlag::O_PATH) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Some("missing".to_string()),
        result => fstat(result.ok()?).ok()?,
    };
    match kind(&stat) {
        SFlag::S_IFREG => {}
        SFlag::S_IFDIR => return Some("a directory".to_string()),
        _ => return Some("not a regular file".to_string()),
    }
    if stat.st_mode & 0o111 == 0 {
        return Some("no execute permission".to_string());
    }
    // The file may have been replaced since it was examined: opening a fifo must not block.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = root.open(path, flags).ok()?;
    let head = sys::read_range(&file, 0, HEAD).ok()?;
    let needs = match &head[..] {
        [] => return Some("an empty file".to_string()),
        [b'#', b'!', line @ ..] => interpreter(line, head.len() == HEAD),
        [0x7f, b'E', b'L', b'F', ..] => loader(&file, &head)?,
        _ => Err("neither an ELF file nor a script with a #! line".to_string()),
    };
    match needs {
        Err(fault) => Some(fault),
        Ok(ProgramNeeds { what, path }) => {
            let fault = fault(
                root,
                Path::new(OsStr::from_bytes(&path)),
                depth.checked_sub(1)?,
            )?;
            let name = String::from_utf8_lossy(&path);
            let ends = if name.ends_with('\r') {
                ", and its lines end in CR LF"
            } else {
                ""
            };
            Some(format!("its {what} {name:?}: {fault}{ends}"))
        }
    }
}

/// Another file without which this one does not run.
#[derive(Debug, PartialEq)]
struct ProgramNeeds {
    what: &'static str,
    path: Vec<u8>,
}

/// Returns the interpreter of a script. `head` begins behind the `#!` of its first line. `is_cut`
/// says that the file may go on where the kernel stops reading.
fn interpreter(head: &[u8], is_cut: bool) -> Result<ProgramNeeds, String> {
    let begin = head
        .iter()
        .position(|byte| !b" \t".contains(byte))
        .unwrap_or(head.len());
    let rest = &head[begin..];
    match rest.iter().position(|byte| b" \t\n\0".contains(byte)) {
        None if is_cut => Err(format!("a #! line of more than {HEAD} bytes")),
        Some(0) => Err("a #! line without an interpreter".to_string()),
        end => Ok(ProgramNeeds {
            what: "interpreter",
            path: rest[..end.unwrap_or(rest.len())].to_vec(),
        }),
    }
}

/// Returns the loader of a dynamic program; `None` if it has none and nothing is wrong.
fn loader(file: &OwnedFd, head: &[u8]) -> Option<Result<ProgramNeeds, String>> {
    let elf = ElfHeader {
        is_wide: *head.get(4)? == 2,
        is_big_endian: *head.get(5)? == 2,
    };
    let machine = elf.field(head, 18, 2)?;
    if !runs_here(machine) {
        let known = MACHINES.iter().find(|(number, _)| *number == machine);
        let name = known.map_or_else(
            || format!("machine {machine}"),
            |(_, name)| name.to_string(),
        );
        return Some(Err(format!("built for {name}")));
    }
    if !matches!(elf.field(head, 16, 2)?, ET_EXEC | ET_DYN) {
        return Some(Err("an ELF file, but no program".to_string()));
    }
    let (offset, size, count) = elf.program_headers(head)?;
    let table = sys::read_range(file, offset, (size * count).min(HEADERS_MAX)).ok()?;
    let (offset, length) = table
        .chunks_exact(size)
        .find_map(|header| elf.loader(header))?;
    let mut path = sys::read_range(file, offset, length.min(LOADER_MAX)).ok()?;
    path.truncate(path.iter().position(|byte| *byte == 0)?);
    Some(Ok(ProgramNeeds {
        what: "loader",
        path,
    }))
}

/// Whether this kernel runs programs for `machine`. A 64-bit kernel also runs programs of its
/// 32-bit forerunner: on aarch64 those of arm, elsewhere those of the architecture whose name its
/// own name begins with (x86_64 and x86).
fn runs_here(machine: u64) -> bool {
    let name = MACHINES
        .iter()
        .find(|(number, _)| *number == machine)
        .map_or("", |(_, name)| name);
    let here = std::env::consts::ARCH;
    here.starts_with(name) && !name.is_empty() || matches!((here, name), ("aarch64", "arm"))
}

/// The format of an ELF file, which says where its numbers stand.
struct ElfHeader {
    /// Whether the file is a 64-bit one.
    is_wide: bool,
    is_big_endian: bool,
}

impl ElfHeader {
    fn field(&self, bytes: &[u8], offset: usize, length: usize) -> Option<u64> {
        let bytes = bytes.get(offset..offset + length)?;
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.is_big_endian {
            true => bytes.iter().fold(0, add),
            false => bytes.iter().rev().fold(0, add),
        })
    }

    /// Returns the table of program headers: its offset in the file, the size of an entry in bytes,
    /// and the number of entries.
    fn program_headers(&self, head: &[u8]) -> Option<(u64, usize, usize)> {
        let (offset, size, count) = match self.is_wide {
            true => (
                self.field(head, 32, 8)?,
                self.field(head, 54, 2)?,
                self.field(head, 56, 2)?,
            ),
            false => (
                self.field(head, 28, 4)?,
                self.field(head, 42, 2)?,
                self.field(head, 44, 2)?,
            ),
        };
        (size > 0).then_some((offset, size as usize, count as usize))
    }

    /// Returns offset and length of the loader's path, if this header is about it.
    fn loader(&self, header: &[u8]) -> Option<(u64, usize)> {
        if self.field(header, 0, 4)? != PT_INTERP {
            return None;
        }
        let (offset, length) = match self.is_wide {
            true => (self.field(header, 8, 8)?, self.field(header, 32, 8)?),
            false => (self.field(header, 4, 4)?, self.field(header, 16, 4)?),
        };
        Some((offset, usize::try_from(length).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_is_the_first_word_of_the_line() {
        let word = |line: &str| interpreter(line.as_bytes(), false).unwrap().path;
        for line in [
            "/bin/sh\nrest",
            " /bin/sh\n",
            "\t/bin/sh -e\n",
            "/bin/sh",
            "/bin/sh\0\0",
        ] {
            assert_eq!(word(line), b"/bin/sh", "{line:?}");
        }
        assert_eq!(word("/bin/sh\r\n"), b"/bin/sh\r");
    }

    #[test]
    fn a_line_that_names_no_interpreter_says_so() {
        for line in ["\n", "  \n/bin/sh"] {
            assert!(
                interpreter(line.as_bytes(), true)
                    .unwrap_err()
                    .contains("without"),
                "{line:?}"
            );
        }
        let long = "x".repeat(HEAD - 2);
        assert!(
            interpreter(long.as_bytes(), true)
                .unwrap_err()
                .contains("more than 256 bytes")
        );
        assert!(interpreter(format!("/bin/sh {long}").as_bytes(), true).is_ok());
    }

    #[test]
    fn this_architecture_runs_here_and_others_do_not() {
        let own: Vec<&str> = MACHINES
            .iter()
            .filter(|(n, _)| runs_here(*n))
            .map(|(_, n)| *n)
            .collect();
        assert!(
            own.iter()
                .any(|name| std::env::consts::ARCH.starts_with(name)),
            "{own:?}"
        );
        assert!(own.len() <= 2, "{own:?}");
        assert!(!runs_here(0) && !runs_here(65535));
    }
}
