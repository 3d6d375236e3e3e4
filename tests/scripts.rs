//! The scripts that run the tests: missing tools are named at once, and counts are right.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::daemon::project;
use crate::foreign::SCRIPT_TIME;
use crate::process::{Folder, run, write_program};

/// Programs that scripts use and that every machine has.
const BASE: [&str; 29] = [
    "awk", "basename", "bash", "cat", "chmod", "cp", "cut", "dirname", "env", "flock", "grep", "head", "id", "kill",
    "ls", "mkdir", "mktemp", "mv", "printf", "rm", "sed", "sh", "sleep", "sort", "tee", "test", "timeout", "tr",
    "uname",
];

/// A folder for PATH with the programs that every machine has, and these, which print nothing.
pub fn only_these(folder: &Folder, more: &[&str]) -> String {
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    for name in BASE {
        let places = ["/usr/bin", "/bin"].map(|place| format!("{place}/{name}"));
        let place =
            places.iter().find(|place| fs::exists(place).unwrap()).unwrap_or_else(|| panic!("there is no {name}"));
        symlink(place, format!("{bin}/{name}")).unwrap();
    }
    for name in more {
        script(&bin, name, "true");
    }
    bin
}

/// A program of one line.
fn script(bin: &str, name: &str, line: &str) {
    let path = format!("{bin}/{name}");
    // It may be a link to the machine's program.
    let _ = fs::remove_file(&path);
    write_program(&path, &format!("#!/bin/sh\n{line}\n"));
}

/// As an unprivileged user, on a machine with few programs.
#[test]
fn all_missing_tools_are_listed_at_once() {
    let folder = Folder::new();
    let bin = only_these(&folder, &["apt-get", "cc"]);
    script(&bin, "id", "echo 1000");
    // One is installed, another was removed.
    script(
        &bin,
        "dpkg-query",
        "case $* in *liblua5.3-0*) echo installed ;; *socat*) echo config-files ;; *) exit 1 ;; esac",
    );
    let install = |flags: &[&str]| {
        let mut command = Command::new(project().join("tests/install-tools"));
        let finished =
            run(command.args(flags).env("PATH", &bin).env("UAKARI_TOOLS", folder.join("tools")), SCRIPT_TIME);
        assert_eq!((finished.status.code(), finished.out.as_str()), (Some(1), ""), "{finished:?}");
        finished.err
    };
    let err = install(&[]);
    let commands: Vec<&str> = err.lines().filter(|line| line.contains("sudo apt-get install -y")).collect();
    let [command] = commands[..] else { panic!("not one command: {err}") };
    for package in ["chromium", "socat", "ncat", "nodejs", "npm", "python3"] {
        assert!(command.split(' ').any(|word| word == package), "{package}: {err}");
    }
    assert!(!command.contains(" gcc"), "cc is there: {err}");
    assert!(!err.contains("liblua5.3-0"), "it is installed: {err}");
    assert!(err.contains("make check"), "{err}");
    // A flag's needs are in the same list, and what apt cannot install.
    let err = install(&["--fuzz"]);
    assert!(err.contains(" g++") && err.contains(" chromium") && err.contains("no cargo"), "{err}");
    // Once all packages are installed, no password is asked for; it fails at a fake program.
    script(&bin, "dpkg-query", "echo installed");
    let err = install(&[]);
    assert!(err.contains("installed, but unusable: chromium") && !err.contains("sudo"), "{err}");
}

/// The summary of `tests/tally` for a command with this output and exit status.
fn tally(printed: &str, status: i32) -> String {
    let mut command = Command::new(project().join("tests/tally"));
    let finished =
        run(command.args(["sh", "-c", "printf '%s\\n' \"$0\"; exit $1", printed, &status.to_string()]), SCRIPT_TIME);
    let said = finished.out.strip_prefix(printed).unwrap_or_else(|| panic!("{finished:?}")).trim_start().to_owned();
    assert_eq!(finished.status.success(), said.ends_with(" passed, 0 failed"), "{said}");
    said
}

#[test]
fn the_tally_counts_correctly() {
    let good = "test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s";
    let bad = "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";
    for (printed, status, said) in [
        (good, 0, "5 passed, 0 failed"),
        (bad, 101, "3 passed, 1 failed"),
        (&format!("{good}\n{bad}"), 101, "8 passed, 1 failed"),
        // The command failed without a failing test.
        (good, 2, "tally: ended with 2 before anything could fail\n5 passed, 1 failed"),
        ("", 0, "tally: ended with 0 before anything could fail\n0 passed, 1 failed"),
        // Inner tallies replace the lines before them.
        (&format!("{good}\n4 passed, 0 failed\n{good}\n1 passed, 0 failed"), 0, "5 passed, 0 failed"),
    ] {
        assert_eq!(tally(printed, status), said, "{printed}");
    }
}

/// For libtest a test that returns early has passed.
#[test]
fn skipped_tests_are_listed_and_not_counted_as_passed() {
    let printed = "test a::one ... ignored, needs socat\ntest b ... ignored, needs socat\n\
         skipped: c::d: only root can\ntest c::d ... ok\n\
         test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s";
    let list = "left out (1, only root can): c::d\nleft out (2, needs socat): a::one, b\n";
    assert_eq!(tally(printed, 0), format!("{list}4 passed, 0 failed"));
    assert_eq!(tally(&format!("{printed}\n{list}4 passed, 0 failed"), 0), "4 passed, 0 failed");
}
