//! How the project is written: which module may name which, names that are used once, banned words. A reader may rely
//! on what stands here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use crate::daemon::{project, uakari};
use crate::process::{DEADLINE, run};

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

    /// As `code`, without the module `tests` at the end of a file.
    fn code_without_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code().take_while(|(_, line)| *line != "mod tests {")
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
            // A corpus is generated.
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

/// Whether a line has this word, and not as a part of a longer one.
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

/// A name, the paths that may have it, and the path within which the fence holds.
const FENCES: &[(&str, &[&str], &str)] = &[
    ("io_uring", &["src/driver/uring/"], "src/"),
    ("httparse", &["src/http/head.rs", "src/http/response.rs"], ""),
    ("sha1", &["src/http/upgrade.rs", "utils/auth/src/passwords.rs"], ""),
    (
        "base64",
        &[
            "src/http/upgrade.rs",
            "src/access/credential.rs",
            "utils/jsonrpc/",
            "utils/ca/src/enrolment.rs",
            "utils/auth/src/",
        ],
        "",
    ),
    (
        "rusqlite",
        &["utils/jsonrpc/sqlite/", "utils/jsonrpc/authrpc/", "utils/jsonrpc/jsonsql/", "utils/auth/src/database.rs"],
        "",
    ),
    ("argon2", &["utils/jsonrpc/authrpc/src/passwords.rs", "utils/auth/src/passwords.rs"], ""),
    ("bcrypt", &["utils/auth/src/passwords.rs"], ""),
    ("sha_crypt", &["utils/auth/src/passwords.rs"], ""),
    ("zeroize", &["utils/auth/wire/src/"], ""),
    ("argh", &["src/cli.rs", "src/main.rs", "utils/auth/src/main.rs"], ""),
    ("lexopt", &["utils/server/src/options.rs", "utils/ca/src/options.rs"], ""),
    // In the daemon it is a dependency of the tests.
    ("rcgen", &["utils/ca/src/"], "utils/"),
    ("x509_parser", &["utils/ca/src/request.rs", "utils/ca/src/certificate.rs", "utils/ca/src/crl.rs"], ""),
    ("p12_keystore", &["utils/ca/src/export.rs"], ""),
    ("jks", &["utils/ca/src/export.rs"], ""),
    ("caps", &["src/process/privileges.rs"], ""),
    ("rustls", &["src/tls/", "src/transport/tls", "src/gateway/simulation/codec.rs"], "src/"),
    ("der", &["src/tls/"], "src/"),
    ("ring::digest", &["src/tls/"], "src/"),
    ("ring::hmac", &["src/access/"], "src/"),
    ("std::net", &[], "src/access/"),
    ("std::fs", &[], "src/access/"),
    ("Instant", &[], "src/access/"),
    ("libloading", &["utils/jsonrpc/src/library/"], ""),
    ("libconfig", &["src/config/syntax/differential.rs"], ""),
    (
        "nix",
        &["src/driver/", "src/gateway/listen_socket.rs", "src/observe/", "src/process/", "src/daemon/", "utils/"],
        "",
    ),
    ("unsafe", &["src/driver/", "utils/"], ""),
    ("std::fs", &["src/config/mod.rs"], "src/config/"),
    ("std::net", &[], "src/exchange/"),
    ("std::net", &[], "utils/rfc6455/"),
    ("std::net", &[], "utils/auth/wire/"),
    // It parses addresses and opens no sockets.
    ("std::net", &["src/http/authority.rs"], "src/http/"),
    ("std::fs", &[], "src/exchange/"),
    ("std::fs", &[], "utils/rfc6455/"),
    ("std::fs", &[], "utils/auth/wire/"),
    ("std::fs", &[], "src/http/"),
    ("Instant", &[], "src/exchange/"),
    ("Instant", &[], "utils/rfc6455/"),
    ("Instant", &["utils/auth/src/process.rs", "utils/auth/src/server.rs"], "utils/auth/"),
    ("Instant", &[], "src/http/"),
    // What has no I/O uses the driver's plain types alone.
    ("Driver", &[], "src/exchange/"),
    ("Op", &[], "src/exchange/"),
    ("Lease", &[], "src/exchange/"),
    ("Segment", &[], "src/exchange/"),
    ("OwnedFd", &[], "src/exchange/"),
    ("Errno", &[], "src/exchange/"),
];

#[test]
fn fences() {
    let mut faults = Vec::new();
    for file in sources() {
        for (word, allowed, within) in FENCES {
            if !file.path.starts_with(within) || allowed.iter().any(|path| file.path.starts_with(path)) {
                continue;
            }
            // A crate's name precedes "::"; alone it may be an ordinary word.
            let crates = [
                "io_uring",
                "httparse",
                "sha1",
                "base64",
                "rusqlite",
                "argon2",
                "bcrypt",
                "sha_crypt",
                "zeroize",
                "argh",
                "lexopt",
                "rcgen",
                "x509_parser",
                "p12_keystore",
                "jks",
                "caps",
                "rustls",
                "der",
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

/// The modules of src, lowest first, and the modules that each may name outside of its tests. Each names only modules
/// above it in this table, so that there is no cycle.
const MODULES: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("types", &[]),
    ("permit", &[]),
    ("observe", &["limits"]),
    ("driver", &["limits", "types"]),
    ("http", &["limits"]),
    ("clients", &["limits", "types", "permit", "http"]),
    ("tls", &["limits"]),
    ("access", &["limits", "types", "http", "clients", "tls"]),
    ("upstream", &["limits", "types", "permit", "observe", "driver", "http", "tls"]),
    ("route", &["limits", "types", "permit", "driver", "http", "clients", "tls", "access", "upstream"]),
    ("exchange", &["limits", "types", "observe", "driver", "http", "clients", "tls", "access", "upstream", "route"]),
    ("transport", &["limits", "types", "driver", "clients", "tls"]),
    (
        "gateway",
        &[
            "limits",
            "types",
            "permit",
            "observe",
            "driver",
            "http",
            "clients",
            "tls",
            "access",
            "upstream",
            "route",
            "exchange",
            "transport",
        ],
    ),
    (
        "config",
        &["limits", "types", "permit", "observe", "driver", "http", "clients", "tls", "access", "route", "upstream"],
    ),
    ("process", &["types", "observe", "driver"]),
    (
        "daemon",
        &["limits", "types", "permit", "observe", "driver", "tls", "upstream", "route", "gateway", "config", "process"],
    ),
    ("cli", &["observe", "config", "daemon"]),
    ("main", &["observe", "config", "daemon", "cli"]),
];

/// The same for utils/libwebsocket/src.
const LIBRARY_MODULES: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("real", &[]),
    ("settings", &["limits", "real"]),
    ("lock", &["limits"]),
    ("incoming", &[]),
    ("early_writes", &["limits"]),
    ("watches", &["real"]),
    ("cut", &["real"]),
    ("ledger", &["limits", "real", "lock"]),
    ("client", &["real", "lock", "incoming", "early_writes", "watches", "cut", "ledger"]),
    ("table", &["limits", "client"]),
    ("leaving", &["real", "incoming", "ledger", "client", "table"]),
    ("cut_timer", &["limits", "real", "lock", "cut", "client", "leaving"]),
    ("fork", &["ledger", "client", "table", "cut_timer"]),
    ("arrival", &["limits", "real", "settings", "ledger", "client", "table", "leaving", "cut_timer", "fork"]),
    ("reading", &["limits", "real", "lock", "incoming", "client", "table"]),
    ("writing", &["limits", "real", "lock", "client", "table", "cut_timer", "arrival"]),
    ("waiting", &["real", "watches", "table", "leaving", "arrival", "reading"]),
    (
        "symbols",
        &[
            "limits", "real", "watches", "ledger", "client", "table", "leaving", "arrival", "reading", "writing",
            "waiting",
        ],
    ),
    ("api", &["table", "arrival"]),
];

#[test]
fn modules_name_only_those_below_them() {
    let mut faults = layer_faults("src", MODULES);
    faults.extend(layer_faults("utils/libwebsocket/src", LIBRARY_MODULES));
    expect_none(&faults, "modules name others that their row of the tables does not have");
}

/// Modules in this folder that name others than their row of the table has, and rows that are not in order.
fn layer_faults(folder: &str, table: &[(&str, &[&str])]) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, (module, allowed)) in table.iter().enumerate() {
        for name in *allowed {
            if !table[..at].iter().any(|(lower, _)| lower == name) {
                faults.push(format!("the table: {module} may not name {name}, which is not above it"));
            }
        }
    }
    let sources = files(&[folder]);
    let tests = test_paths(&sources);
    for file in sources.iter().filter(|file| file.path != format!("{folder}/lib.rs")) {
        let module = file.path[folder.len() + 1..].split('/').next().unwrap().trim_end_matches(".rs");
        if tests.iter().any(|path| file.path.starts_with(path)) {
            continue;
        }
        let Some((_, allowed)) = table.iter().find(|(name, _)| *name == module) else {
            faults.push(format!("{}: the table lacks the module {module}", file.path));
            continue;
        };
        for (number, line) in file.code_without_tests() {
            for named in modules_named(line) {
                if named != module && !allowed.contains(&named) && table.iter().any(|(name, _)| *name == named) {
                    faults.push(format!("{}:{number}: {module} names {named}: {}", file.path, line.trim()));
                }
            }
        }
    }
    faults
}

/// The beginnings of the paths of modules that are compiled for tests and simulations alone.
fn test_paths(sources: &[File]) -> Vec<String> {
    let mut paths = Vec::new();
    for file in sources {
        let folder = match file.path.rsplit_once('/').unwrap() {
            (folder, "mod.rs" | "lib.rs" | "main.rs") => folder,
            _ => file.path.trim_end_matches(".rs"),
        };
        let lines: Vec<&str> = file.code().map(|(_, line)| line.trim()).collect();
        for pair in lines.windows(2) {
            let is_test = pair[0].starts_with("#[cfg(") && (pair[0].contains("test") || pair[0].contains("sim"));
            let name = pair[1].rsplit(' ').next().unwrap().strip_suffix(';');
            if let (true, true, Some(name)) = (is_test, has_word(pair[1], "mod"), name) {
                paths.extend([format!("{folder}/{name}.rs"), format!("{folder}/{name}/")]);
            }
        }
    }
    paths
}

/// The first names of the paths into this crate: `driver` of `crate::driver::Op`.
fn modules_named(line: &str) -> Vec<&str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut named = Vec::new();
    for root in ["crate::", "uakari::"] {
        for (at, _) in line.match_indices(root) {
            let rest = &line[at + root.len()..];
            let list = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
            let paths = list.map_or(vec![rest], |list| list.split(", ").collect());
            named.extend(paths.into_iter().map(|path| path.split(|letter| !is_part(letter)).next().unwrap()));
        }
    }
    named
}

/// Modules for tests and simulations aside.
#[test]
fn type_names_are_unique() {
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let sources = files(&["src"]);
    let tests = test_paths(&sources);
    let is_test = |file: &&File| tests.iter().any(|path| file.path.starts_with(path));
    for file in sources.iter().filter(|file| file.is_rust() && !is_test(file)) {
        for (_, line) in file.code() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [visibility, "struct" | "enum" | "trait" | "type", name, ..] = words[..] else { continue };
            if visibility.starts_with("pub") {
                let name = name.split(|letter: char| !letter.is_ascii_alphanumeric()).next().unwrap();
                types.entry(name.to_owned()).or_default().push(file.path.clone());
            }
        }
    }
    let shared = types.into_iter().filter(|(_, files)| files.len() > 1);
    let faults: Vec<String> = shared.map(|(name, files)| format!("{name}: {}", files.join(", "))).collect();
    expect_none(&faults, "several types have one name");
}

/// The compiler reports unused private functions, but not public ones.
#[test]
fn public_functions_are_called() {
    let mut all = sources();
    let count = all.len();
    all.extend(files(&["tests", "benches"]).into_iter().filter(File::is_rust));
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for (_, line) in all.iter().flat_map(File::code) {
        for word in line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_') {
            *uses.entry(word).or_default() += 1;
        }
    }
    let mut faults = Vec::new();
    for file in &all[..count] {
        for (number, line) in file.code() {
            let Some((_, rest)) = line.split_once("pub fn ") else { continue };
            let name = rest.split(['(', '<']).next().unwrap();
            if uses[name] < 2 {
                faults.push(format!("{}:{number}: {name}", file.path));
            }
        }
    }
    expect_none(&faults, "these functions are never called");
}

#[test]
fn every_file_has_a_summary() {
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
        // The simulation prints the seed of a failed run, and the contract its cases.
        let printers = ["src/observe/log.rs", "src/gateway/simulation/", "src/driver/contract/"];
        let may_print = !file.path.starts_with("src/") || printers.iter().any(|path| file.path.starts_with(path));
        for (number, line) in file.code_without_tests().filter(|_| !may_print) {
            if prints.iter().any(|word| has_word(line, word)) || line.contains("process::exit") {
                faults.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    expect_none(&faults, "one place prints, one place exits, and nothing is left for later");
}

/// Phrases of comments that a reader has to decode.
const RIDDLES: [&str; 8] =
    ["so many", "none is one", "whoever", "somebody", "anybody", "as ever", "to be had", "told so"];

/// Doc comments of a word or two that repeat the name below them.
const FILLERS: [&str; 10] = ["It", "What", "To whom", "Whom", "Who", "Where", "Which", "How", "So", "Both"];

#[test]
fn comments_are_plain() {
    let mut faults = Vec::new();
    let mut all = files(&["src", "utils", "tests", "benches"]);
    all.retain(File::is_rust);
    for file in &all {
        for (number, line) in file.text.lines().enumerate() {
            let Some((code, comment)) = line.split_once("//") else { continue };
            let comment = comment.trim_start_matches(['/', '!', ' ']);
            let is_riddle = RIDDLES.iter().any(|phrase| has_word(&comment.to_lowercase(), phrase));
            let is_filler = code.trim().is_empty() && FILLERS.iter().any(|word| comment == format!("{word}."));
            if is_riddle || is_filler {
                faults.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    expect_none(&faults, "write plain technical English");
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
    let help = run(uakari().arg("--help"), DEADLINE).out;
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

/// The threat model names tests by their functions, and files of tests.
#[test]
fn tests_of_the_threat_model_exist() {
    let document = fs::read_to_string(project().join("docs/threat-model.md")).unwrap();
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    let mut functions = HashSet::new();
    for file in files(&["src", "utils", "tests"]).iter().filter(|file| file.is_rust()) {
        for (_, line) in file.code() {
            let name = line.split_once("fn ").and_then(|(_, rest)| rest.split(|letter| !is_name(letter)).next());
            functions.extend(name.map(str::to_owned));
        }
    }
    let (mut count, mut faults) = (0, Vec::new());
    for word in document.split('`').skip(1).step_by(2) {
        let last = word.rsplit("::").next().unwrap();
        let is_test = last.chars().all(is_name) && (word.contains("tests::") || last.matches('_').count() > 2);
        let is_missing = if word.starts_with("tests/") {
            !project().join(word).exists()
        } else {
            is_test && !functions.contains(last)
        };
        count += usize::from(is_test);
        if is_missing {
            faults.push(word.to_owned());
        }
    }
    assert!(count > 50, "only {count} tests were found");
    expect_none(&faults, "docs/threat-model.md names tests that do not exist");
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
fn pages_load_no_external_resources() {
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
fn tests_declare_foreign_programs() {
    // What every machine with a C compiler and Rust has, and what a test does without.
    let base = ["c++", "cat", "cc", "date", "env", "id", "ldd", "make", "readelf", "rustc", "sh"];
    let optional = ["nsenter", "prlimit", "setpriv", "ss", "strace", "systemd-analyze", "unshare", "valgrind"];
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

/// What servers load, and the benchmarks, come without the daemon and what it needs (io-uring, argh, caps).
#[test]
fn packages_for_servers_do_not_depend_on_the_daemon() {
    let mut faults = Vec::new();
    for (path, allowed) in [
        ("utils/rfc6455/Cargo.toml", &[][..]),
        ("utils/websocket/Cargo.toml", &["nix", "rfc6455"][..]),
        ("utils/libwebsocket/Cargo.toml", &["nix", "rfc6455", "server"][..]),
    ] {
        let text = fs::read_to_string(project().join(path)).unwrap();
        let own = text.split("[dependencies]\n").nth(1).unwrap_or_default().split("\n[").next().unwrap();
        let named = own.lines().filter_map(|line| line.split(['.', ' ']).next()).filter(|name| !name.is_empty());
        faults.extend(named.filter(|name| !allowed.contains(name)).map(|name| format!("{path}: {name}")));
    }
    let benches = fs::read_to_string(project().join("benches/Cargo.toml")).unwrap();
    assert!(benches.contains("\nrfc6455 = ") && !benches.contains("\nuakari = "), "{benches}");
    expect_none(&faults, "dependencies that these packages must not have");
}
