//! How the project is written: fences, sizes, banned words. What a reader may rely on is a test.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::daemon::{UAKARI, project};
use crate::process::{DEADLINE, run};

const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 70;

/// A file of the project.
struct File {
    /// Its path within the project.
    path: String,
    text: String,
}

impl File {
    /// Its lines with their numbers, comments cut off.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(number, line)| {
            let is_comment = |at: usize| line[..at].trim_end().is_empty() || line[..at].ends_with(' ');
            let cut = line.match_indices("//").map(|(at, _)| at).find(|at| is_comment(*at));
            (number + 1, &line[..cut.unwrap_or(line.len())])
        })
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// All text files under these folders that are the project's own.
fn files(folders: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    let mut open: Vec<_> = folders.iter().map(|folder| project().join(folder)).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            // A corpus is what a fuzzer made up.
            if ["target", "__pycache__", "Cargo.lock", "corpus"].contains(&name) {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(project()).unwrap().to_str().unwrap().to_owned();
                found.push(File { path, text });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!found.is_empty(), "no files in {folders:?}");
    found
}

/// The sources of the daemon and of the programs beside it.
fn sources() -> Vec<File> {
    let mut all = files(&["src", "utils"]);
    all.retain(File::is_rust);
    all
}

/// Whether a word stands in a line, and not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = line.as_bytes();
    line.match_indices(word).any(|(at, _)| {
        !is_part(at.checked_sub(1).and_then(|before| bytes.get(before))) && !is_part(bytes.get(at + word.len()))
    })
}

fn expect_none(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}:\n{}", faults.join("\n"));
}

/// What is named, where it may be, and where alone the fence stands.
const FENCES: &[(&str, &[&str], &str)] = &[
    (
        "io_uring",
        &[
            "src/driver/uring/",
            "src/driver/handover.rs",
            "src/driver/start.rs",
            "src/driver/buffers.rs",
            "src/driver/results.rs",
            "src/driver/in_flight.rs",
        ],
        "src/",
    ),
    ("httparse", &["src/http/head.rs"], ""),
    ("sha1", &["src/websocket/upgrade.rs"], ""),
    ("base64", &["src/websocket/upgrade.rs", "utils/jsonrpc/"], ""),
    ("rusqlite", &["utils/jsonrpc/sqlite/", "utils/jsonrpc/authrpc/", "utils/jsonrpc/jsonsql/"], ""),
    ("argon2", &["utils/jsonrpc/authrpc/src/passwords.rs"], ""),
    ("argh", &["src/cli.rs", "src/main.rs"], ""),
    ("caps", &["src/process/privileges.rs"], ""),
    ("libloading", &["utils/jsonrpc/src/library/"], ""),
    ("libconfig", &["src/config/syntax/differential.rs"], ""),
    (
        "nix",
        &[
            "src/driver/",
            "src/gateway/listener.rs",
            "src/observe/",
            "src/process/",
            "src/route/docroot.rs",
            "src/daemon/",
            "utils/",
        ],
        "",
    ),
    ("unsafe", &["src/driver/", "utils/"], ""),
    ("std::fs", &["src/config/mod.rs"], "src/config/"),
    ("std::net", &[], "src/exchange/"),
    ("std::net", &[], "src/websocket/"),
    // It knows addresses as text, and no sockets.
    ("std::net", &["src/http/authority.rs"], "src/http/"),
    ("std::fs", &[], "src/exchange/"),
    ("std::fs", &[], "src/websocket/"),
    ("std::fs", &[], "src/http/"),
    ("Instant", &[], "src/exchange/"),
    ("Instant", &[], "src/websocket/"),
    ("Instant", &[], "src/http/"),
];

#[test]
fn fences() {
    let mut faults = Vec::new();
    for file in sources() {
        for (word, allowed, within) in FENCES {
            if !file.path.starts_with(within) || allowed.iter().any(|path| file.path.starts_with(path)) {
                continue;
            }
            // A crate is named before "::"; its name alone may be an ordinary word.
            let crates = [
                "io_uring",
                "httparse",
                "sha1",
                "base64",
                "rusqlite",
                "argon2",
                "argh",
                "caps",
                "libloading",
                "libconfig",
                "nix",
            ];
            let is_crate = crates.contains(word);
            let named = if is_crate { format!("{word}::") } else { (*word).to_owned() };
            for (number, line) in file.code() {
                if line.match_indices(&named).next().is_some() && has_word(line, word) {
                    faults.push(format!("{}:{number}: {}", file.path, line.trim()));
                }
            }
        }
    }
    expect_none(&faults, "these names are beyond their fences");
}

#[test]
fn files_are_short() {
    let mut faults = Vec::new();
    for file in files(&["src", "utils", "tests", "benches", "www"]) {
        let (lines, name) = (file.text.lines().count(), &file.path);
        if lines > FILE_LINES_MAX && name != "tests/conformance/expected.txt" {
            faults.push(format!("{name}: {lines} lines"));
        }
    }
    expect_none(&faults, &format!("these files have more than {FILE_LINES_MAX} lines"));
}

#[test]
fn functions_are_short() {
    let mut faults = Vec::new();
    for file in files(&["src", "utils", "tests", "benches"]).iter().filter(|file| file.is_rust()) {
        // The formatter puts a function's last brace as far to the right as its first word.
        let mut begun: Option<(usize, String, &str)> = None;
        for (number, line) in file.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_start = line.trim_start().split(' ').take(5).any(|word| word == "fn") && line.contains('(');
            if is_start && begun.is_none() && !line.trim_start().starts_with("//") {
                begun = Some((number, format!("{}}}", &line[..indent]), line.trim()));
            }
            if let Some((first, end, head)) = &begun {
                let (is_end, lines) = (line == end, number + 1 - first);
                if is_end && lines > FUNCTION_LINES_MAX {
                    faults.push(format!("{}:{}: {lines} lines: {head}", file.path, first + 1));
                }
                // On one line, or declared without a body.
                let is_bodiless = line.ends_with(';') && (number == *first || line.starts_with(&end.replace('}', ")")));
                if is_end || is_bodiless || number == *first && line.ends_with('}') {
                    begun = None;
                }
            }
        }
    }
    expect_none(&faults, &format!("these functions have more than {FUNCTION_LINES_MAX} lines"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let headless = |file: &File| !file.text.starts_with("//! ");
    let mut all = sources();
    all.extend(files(&["tests", "benches"]).into_iter().filter(File::is_rust));
    let faults: Vec<String> = all.into_iter().filter(headless).map(|file| file.path).collect();
    expect_none(&faults, "these files do not begin with //!");
}

#[test]
fn folders_and_names() {
    let mut faults = Vec::new();
    for file in files(&["src", "utils", "tests", "benches"]) {
        let parts: Vec<&str> = file.path.split('/').collect();
        if parts[0] == "src" && parts.len() > 4 {
            faults.push(format!("{}: more than two folders below src", file.path));
        }
        let is_vague =
            |part: &&str| ["utils.rs", "helpers.rs", "util.rs", "helper.rs", "common.rs", "misc.rs"].contains(part);
        if parts.last().is_some_and(is_vague) {
            faults.push(format!("{}: a name that says nothing", file.path));
        }
    }
    expect_none(&faults, "places and names");
}

#[test]
fn banned_words() {
    let everywhere = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("dbg", "!")];
    let prints = ["println!", "eprintln!", "print!", "eprint!"];
    let mut faults = Vec::new();
    for file in files(&["src", "utils", "tests", "benches", "www"]) {
        for (number, line) in file.text.lines().enumerate() {
            if everywhere.iter().any(|word| has_word(line, word)) {
                faults.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
        // The simulation tells the seed of a run that failed.
        let printers = ["src/observe/log.rs", "src/gateway/simulation/"];
        let may_print = !file.path.starts_with("src/") || printers.iter().any(|path| file.path.starts_with(path));
        for (number, line) in file.code().filter(|_| !may_print) {
            if prints.iter().any(|word| has_word(line, word)) || line.contains("process::exit") {
                faults.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    expect_none(&faults, "one place prints, one place exits, and nothing is left for later");
}

#[test]
fn every_limit_has_a_unit_and_a_reason() {
    let units =
        ["_MS", "_SIZE", "_BUFFERS", "_ENTRIES", "_MAX", "_MIN", "_LOW", "_HIGH", "_HEADROOM", "_RESERVED", "_PARTS"];
    let text = fs::read_to_string(project().join("src/limits.rs")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut faults = Vec::new();
    let mut count = 0;
    for (number, line) in lines.iter().enumerate() {
        let Some(name) = line.trim().strip_prefix("pub const ").and_then(|rest| rest.split(':').next()) else {
            continue;
        };
        count += 1;
        if !units.iter().any(|unit| name.ends_with(unit)) {
            faults.push(format!("{name} has no unit at its end"));
        }
        if !lines[number.saturating_sub(1)].trim().starts_with("///") {
            faults.push(format!("{name} has no comment"));
        }
    }
    assert!(count > 10, "only {count} limits were found");
    expect_none(&faults, "src/limits.rs");
}

/// The flags that `--help` lists.
fn flags() -> Vec<String> {
    let help = run(Command::new(UAKARI).arg("--help"), DEADLINE).out;
    let options = help.split("Options:").nth(1).and_then(|rest| rest.split("Examples:").next()).unwrap();
    let firsts = options.lines().filter_map(|line| line.strip_prefix("  -").map(|rest| format!("-{rest}")));
    let words: Vec<String> = firsts
        .flat_map(|line| line.split(' ').take(2).map(|word| word.trim_end_matches(',').to_owned()).collect::<Vec<_>>())
        .collect();
    words.into_iter().filter(|word| word.starts_with('-')).collect()
}

#[test]
fn the_documents_name_every_flag() {
    let document = fs::read_to_string(project().join("docs/commands.md")).unwrap();
    let flags = flags();
    assert!(flags.len() > 10 && flags.contains(&"--docroot".to_owned()), "{flags:?}");
    let is_end = |byte: Option<&u8>| !byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    let names =
        |flag: &str| document.match_indices(flag).any(|(at, _)| is_end(document.as_bytes().get(at + flag.len())));
    let faults: Vec<String> = flags.into_iter().filter(|flag| !names(flag)).collect();
    expect_none(&faults, "docs/commands.md does not name these flags");
}

/// The anchor of a heading, as GitHub makes it: lower case, punctuation dropped, blanks as hyphens.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Relative links of the documents name files and headings that exist.
#[test]
fn links_in_documents_resolve() {
    let mut documents = files(&["docs"]);
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    documents.push(File { path: "README.md".to_owned(), text: readme });
    documents.retain(|file| file.path.ends_with(".md"));
    let (mut count, mut faults) = (0, Vec::new());
    for file in &documents {
        for (at, _) in file.text.match_indices("](") {
            let target = file.text[at + 2..].split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            count += 1;
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let folder = project().join(&file.path).parent().unwrap().to_owned();
            let path = if path.is_empty() { project().join(&file.path) } else { folder.join(path) };
            let is_good = path.exists()
                && (heading.is_empty()
                    || fs::read_to_string(&path)
                        .unwrap()
                        .lines()
                        .any(|line| line.starts_with('#') && anchor(line.trim_start_matches('#').trim()) == heading));
            if !is_good {
                faults.push(format!("{}: {target}", file.path));
            }
        }
    }
    assert!(count > 50, "only {count} links were found");
    expect_none(&faults, "links that lead nowhere");
}

#[test]
fn pages_fetch_nothing_from_elsewhere() {
    let mut faults = Vec::new();
    for file in files(&["www"]) {
        // Written as browsers read them: what fetches, and what is named.
        for fetch in ["src=", "href=", "url(", "import ", "import(", "fetch(", "action=", "srcset=", "@import", "from "]
        {
            for (at, _) in file.text.match_indices(fetch) {
                let rest = file.text[at + fetch.len()..].trim_start_matches([' ', '"', '\'', '`', '(']);
                if ["http://", "https://", "//"].iter().any(|scheme| rest.starts_with(scheme)) {
                    let shown: String = rest.chars().take(60).collect();
                    faults.push(format!("{}: {fetch}{shown}", file.path));
                }
            }
        }
    }
    expect_none(&faults, "pages fetch from elsewhere");
}

#[test]
fn scripts_run_in_strict_mode() {
    let mut faults = Vec::new();
    for file in files(&["utils", "tests", "benches", ".ci"]) {
        let is_bash = file.text.starts_with("#!/usr/bin/env bash");
        if is_bash && !file.text.contains("set -euo pipefail") {
            faults.push(format!("{}: no set -euo pipefail", file.path));
        }
        let is_script = file.text.starts_with("#!") && !file.path.contains('.');
        let mode = fs::metadata(Path::new(project()).join(&file.path)).unwrap();
        if is_script && std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o111 == 0 {
            faults.push(format!("{}: may not be run", file.path));
        }
    }
    expect_none(&faults, "scripts");
}

/// `make check` runs without the tools of `tests/install-tools`: tests that use one take it from `foreign::command`, which
/// sees to it that they are left out there.
#[test]
fn tests_ask_for_the_programs_that_others_wrote() {
    // What every machine with a C compiler and Rust has, and what a test does without.
    let base = ["c++", "cat", "cc", "date", "env", "id", "ldd", "make", "readelf", "rustc", "sh"];
    let optional = ["nsenter", "prlimit", "setpriv", "ss", "systemd-analyze", "unshare", "valgrind"];
    let mut faults = Vec::new();
    for file in files(&["tests"]).iter().filter(|file| file.is_rust() && !file.path.starts_with("tests/fuzz/")) {
        for (number, line) in file.code() {
            let Some((_, rest)) = line.split_once("Command::new(\"") else { continue };
            let program = rest.split('"').next().unwrap();
            if !base.contains(&program) && !optional.contains(&program) {
                faults.push(format!("{}:{number}: write foreign::command({program:?})", file.path));
            }
        }
    }
    expect_none(&faults, "programs that not every machine has");
}
