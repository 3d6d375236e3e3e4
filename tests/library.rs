//! `libwebsocket.so.1` as installed: its symbols, its dependencies and its size.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::daemon::project;
use crate::direct_api::declared;
use crate::process::{DEADLINE, Folder, run};

/// It needs a release build.
const LINK_DEADLINE: Duration = Duration::from_secs(600);
const SIZE_MAX: u64 = 404 * 1024;

/// The library, linked by the script that `make install` uses.
fn link(folder: &Folder) -> PathBuf {
    let path = folder.path().join("libwebsocket.so.1");
    let mut command = Command::new(project().join("utils/libwebsocket/link"));
    // Variables of an outer build must not reach the inner one.
    let finished = run(command.arg(&path).env_remove("TARGET").env_remove("CC"), LINK_DEADLINE);
    assert!(finished.status.success(), "{finished:?}");
    path
}

/// The names of the functions that replace libc's.
fn replaced_functions() -> Vec<String> {
    let folder = fs::read_dir(project().join("utils/libwebsocket/src/symbols")).unwrap();
    // The variants with 64-bit times exist where time_t has 32 bits.
    let has_short_times = cfg!(target_pointer_width = "32");
    let files = folder.map(|entry| entry.unwrap().path()).filter(|path| has_short_times || !path.ends_with("wide.rs"));
    let texts = files.map(|path| fs::read_to_string(path).unwrap());
    let lines: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let names = lines.iter().filter_map(|line| line.strip_prefix("pub unsafe extern \"C\" fn ")?.split('(').next());
    names.map(str::to_owned).collect()
}

fn readelf(options: &[&str], path: &PathBuf) -> String {
    let finished = run(Command::new("readelf").arg("--wide").args(options).arg(path), DEADLINE);
    assert!(finished.status.success(), "{finished:?}");
    finished.out
}

/// The values of the entries of a kind in the dynamic section.
fn entries<'t>(dynamic: &'t str, kind: &str) -> Vec<&'t str> {
    let lines = dynamic.lines().filter(|line| line.contains(kind));
    lines.filter_map(|line| line.split_once('[')?.1.strip_suffix(']')).collect()
}

#[test]
fn installed_libraries_export_only_their_functions() {
    let folder = Folder::new();
    let path = link(&folder);
    let size = fs::metadata(&path).unwrap().len();
    assert!(size < SIZE_MAX, "{size} bytes");

    let dynamic = readelf(&["--dynamic"], &path);
    assert_eq!(entries(&dynamic, "(SONAME)"), ["libwebsocket.so.1"]);
    for needed in entries(&dynamic, "(NEEDED)") {
        let is_usual = ["libc.so.", "libgcc_s.so.", "ld-linux"].iter().any(|start| needed.starts_with(start));
        assert!(is_usual, "it needs {needed}");
    }
    assert!(dynamic.contains("BIND_NOW"), "nothing is looked up where a signal handler writes: {dynamic}");

    let table = readelf(&["--dyn-syms"], &path);
    let mut offered: Vec<&str> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        // Number, value, size, type, binding, visibility, section, name.
        .filter(|fields| matches!(fields[..], [_, _, _, _, "GLOBAL" | "WEAK", _, section, _] if section != "UND"))
        .map(|fields| fields[7])
        .collect();
    offered.sort_unstable();
    let own = declared().into_iter().map(|name| format!("{name}@@LIBWEBSOCKET_1"));
    let mut wanted: Vec<String> = own.chain(replaced_functions()).chain(["LIBWEBSOCKET_1".to_owned()]).collect();
    wanted.sort_unstable();
    assert!(wanted.len() > 60, "{wanted:?}");
    assert_eq!(offered, wanted);

    // A program without WebSocket clients is not affected.
    let mut command = Command::new("sh");
    command.args(["-c", "echo one; echo two | cat; (echo three) >&2; exec cat < /dev/null"]);
    let finished = run(command.env("LD_PRELOAD", &path), DEADLINE);
    assert_eq!((finished.out.trim(), finished.err.trim()), ("one\ntwo", "three"));
}
