//! Programs that cannot be executed, and the reason that the kernel does not give.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use super::Attempts;
use crate::harness::{Bundle, Done, copy_program, write_program};

/// A bundle with every kind of file that is no program.
fn impostors() -> Bundle {
    let bundle = Bundle::busybox()
        .directory("/programs/directory")
        .file("/programs/empty", "")
        .file("/programs/text", "echo no first line\n")
        .file("/programs/plain", "#!/bin/sh\n")
        .file("/programs/no-interpreter", "#!/no/such/sh -e\n")
        .file("/programs/windows", "#!/bin/sh\r\necho hello\r\n")
        .file("/programs/blank", "#! \n")
        .file("/programs/long", &format!("#!/{}\n", "x".repeat(300)))
        .file("/programs/interpreter-directory", "#!/programs/directory\n")
        .file("/programs/interpreter-plain", "#!/programs/plain\n")
        .file("/programs/interpreter-without-loader", "#!/programs/dynamic\n")
        .link("/programs/dangling", "/no/such/target");
    let programs = bundle.rootfs().join("programs");
    let plain = programs.join("plain");
    fs::set_permissions(plain, fs::Permissions::from_mode(0o644)).unwrap();
    copy_program(Path::new("/bin/true"), &programs.join("dynamic"));
    // elf(5): e_type is at 16, e_machine at 18.
    for (name, offset, value) in [("foreign", 18, 0x1234_u16), ("mips", 18, 8), ("object", 16, 1)] {
        let mut elf = fs::read("/bin/busybox").unwrap();
        elf[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
        elf.truncate(4096);
        write_program(&programs.join(name), &elf);
    }
    bundle
}

const NOT_FOUND: &str = "no such file or directory";
const DENIED: &str = "permission denied";
const FORMAT: &str = "exec format error";

/// The words are those of which docker and podman make exit status 127 and 126.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("no-such-program", &["executable file not found in $PATH"]),
    ("/no/such/program", &[NOT_FOUND]),
    ("./no-such-program", &[NOT_FOUND]),
    ("/programs/dangling", &[NOT_FOUND]),
    ("/programs/directory", &[DENIED, "directory"]),
    ("/programs/plain", &[DENIED, "execute permission"]),
    ("plain", &[DENIED, "execute permission"]),
    ("/programs/empty", &[FORMAT, "empty"]),
    ("/programs/text", &[FORMAT, "#!"]),
    ("/programs/blank", &[FORMAT, "#!", "without an interpreter"]),
    ("/programs/long", &[FORMAT, "#!", "256"]),
    ("/programs/foreign", &[FORMAT, "machine 4660"]),
    ("/programs/mips", &[FORMAT, "mips"]),
    ("/programs/object", &[FORMAT, "no program"]),
    ("/programs/no-interpreter", &[NOT_FOUND, "interpreter", "/no/such/sh", "missing"]),
    ("no-interpreter", &[NOT_FOUND, "interpreter", "/no/such/sh", "missing"]),
    ("programs/no-interpreter", &[NOT_FOUND, "interpreter", "/no/such/sh", "missing"]),
    ("/programs/windows", &[NOT_FOUND, "/bin/sh\\r", "CR LF"]),
    ("/programs/interpreter-directory", &[DENIED, "interpreter", "directory"]),
    ("/programs/interpreter-plain", &[DENIED, "interpreter", "execute permission"]),
    ("/programs/dynamic", &[NOT_FOUND, "loader", "/ld-linux", "missing"]),
    ("/programs/interpreter-without-loader", &[NOT_FOUND, "interpreter", "loader", "/ld-linux"]),
];

#[test]
fn a_program_that_cannot_be_executed_is_refused_with_the_reason() {
    let attempts = Attempts::with(impostors().config(|c| {
        let path = c["process"]["env"][0].as_str().unwrap();
        c["process"]["env"][0] = format!("{path}:/programs").into();
    }));
    for (program, words) in PROGRAMS {
        for user in [0, 1000] {
            println!("{program} as {user}");
            let mut config = attempts.config.clone();
            config["process"]["args"] = json!([program]);
            config["process"]["user"]["uid"] = user.into();
            attempts.write(&config);
            let path = attempts.bundle.path();
            let id = attempts.bundle.id();
            let run = ["run", "--bundle", path.to_str().unwrap(), &id];
            attempts.refused(attempts.bundle.rt(run), words);
        }
    }
}

#[test]
fn exec_says_as_well_why_a_program_cannot_be_executed() {
    let c = impostors().args(["sleep", "1000"]).start();
    let exec = |program: &str| -> Done { c.exec([program]).one_line() };
    exec("/programs/mips").says(&[FORMAT, "mips"]);
    exec("/programs/windows").says(&[NOT_FOUND, "CR LF"]);
    exec("/programs/directory").says(&[DENIED, "directory"]);
    assert_eq!(exec("/programs/dynamic").says(&[NOT_FOUND, "loader"]).status, 255);
}
