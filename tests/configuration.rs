//! Configuration files: what `--check` says about those in tests/configurations, and the daemon that runs on one.
//!
//! `UAKARI_BLESS=1 cargo test configuration` writes what is said into the `.expected` files; read the difference.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::{UAKARI, project};
use crate::process::{DEADLINE, Finished, Folder, Process, run};
use crate::wire::Wire;

fn folder() -> PathBuf {
    project().join("tests/configurations")
}

/// The names of all files there that end in `.conf`.
fn names() -> Vec<String> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name.ends_with(".conf")).collect();
    names.sort();
    names
}

fn check(folder: &Path, flags: &[&str]) -> Finished {
    run(Command::new(UAKARI).current_dir(folder).arg("--check").args(flags), DEADLINE)
}

#[test]
fn what_is_said_about_each_file() {
    let names = names();
    assert!(names.len() >= 38, "{names:?}");
    let bless = std::env::var_os("UAKARI_BLESS").is_some();
    let mut good = 0;
    for name in names {
        let Finished { status, out, err } = check(&folder(), &["-f", &name]);
        let path = folder().join(&name).with_extension("expected");
        let said = out + "\n";
        if bless {
            fs::write(&path, &said).unwrap();
        }
        assert_eq!(said, fs::read_to_string(&path).unwrap(), "{name}");
        assert_eq!(err, "", "{name}");
        let is_good = said.ends_with(&format!("{name} is good\n"));
        assert_eq!(status.code(), Some(if is_good { 0 } else { 1 }), "{name}");
        good += usize::from(is_good);
    }
    assert!(good >= 9, "{good} are good");
}

/// What keeps the daemon from starting is what `--check` says.
#[test]
fn a_bad_file_keeps_the_daemon_from_starting() {
    let checked = check(&folder(), &["-f", "typos.conf"]);
    let Finished { status, out, err } =
        run(Command::new(UAKARI).current_dir(folder()).args(["-f", "typos.conf"]), DEADLINE);
    assert_eq!((status.code(), out.as_str()), (Some(1), ""));
    let said: Vec<&str> = err.lines().map(|line| line.split_once(" error ").unwrap().1).collect();
    assert_eq!(said, checked.out.lines().collect::<Vec<_>>());
}

#[test]
fn flags_are_checked_with_the_file() {
    for (flags, code, lines) in [
        (&["-f", "pages.conf", "--log-level", "debug"][..], 0, &["pages.conf is good"][..]),
        (
            &["-f", "pages.conf", "--type", "json", "--listen", "80"],
            1,
            &[
                "--listen: \"80\" is no address: write 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80 or unix:/run/uakari.sock",
                "--type \"json\" is not known: write one of auto, text, binary",
            ],
        ),
        (
            &["-f", "hosts.conf", "--www", "/srv"],
            1,
            &["--www is for one server, and the file has 3: write it in the file"],
        ),
        (&["--www", "/srv"], 0, &["what the flags say is good"]),
        (
            &["--config", "nowhere.conf"],
            1,
            &["nowhere.conf cannot be read: No such file or directory: name a file that this user may read"],
        ),
    ] {
        let Finished { status, out, err } = check(&folder(), flags);
        assert_eq!((status.code(), err.as_str()), (Some(code), ""), "{flags:?}");
        assert_eq!(out.lines().collect::<Vec<_>>(), lines, "{flags:?}");
    }
}

/// A file alone, with a key of ouistiti's: it serves, and the log has the warning.
#[test]
fn a_file_is_served() {
    let folder = Folder::new();
    fs::create_dir(folder.join("www")).unwrap();
    fs::write(folder.join("www/index.html"), "the page").unwrap();
    let text = format!(
        "servers = ({{ addr = \"127.0.0.1\"; port = 0; chunksize = 63; document = {{ docroot = \"{}\"; }}; }});",
        folder.join("www")
    );
    fs::write(folder.join("uakari.conf"), text).unwrap();
    let mut command = Command::new(UAKARI);
    let process = Process::start(command.current_dir(folder.path()).args(["-f", "uakari.conf"]));
    let line = process.out.wait_for(&["listening on http://127.0.0.1:"]);
    let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(Wire::connect(port).get("/").body, b"the page");
    process.err.wait_for(&[" warn ", "uakari.conf:1: servers[0].chunksize: is not served: "]);
}

/// A folder that is not there is named with the line that names it.
#[test]
fn a_missing_folder_is_named_with_its_line() {
    let folder = Folder::new();
    let text = "servers = ({\n listen = \"127.0.0.1:0\";\n websocket = { docroot = \"/nonexistent\"; };\n});";
    fs::write(folder.join("uakari.conf"), text).unwrap();
    let Finished { status, err, .. } =
        run(Command::new(UAKARI).current_dir(folder.path()).args(["-f", "uakari.conf"]), DEADLINE);
    assert_eq!(status.code(), Some(1));
    assert!(err.contains("uakari.conf:3: servers[0].websocket.docroot: the folder /nonexistent"), "{err}");
}
