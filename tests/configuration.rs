//! Configuration files: what `--check` prints about those of tests/configurations.txt, and the daemon that runs on one.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User};
use uakari::config::keys::{self, ConfigKey, Scope};

use crate::daemon::{Daemon, START_LINE, configuration, patient, project, uakari};
use crate::process::{DEADLINE, Finished, Folder, Process, run};
use crate::wire::{Wire, handshake, request};

/// A file of the table tests/configurations.txt.
struct Case {
    name: String,
    text: String,
    /// What `--check` prints about it; None of a file that others include.
    printed: Option<String>,
}

fn table() -> PathBuf {
    project().join("tests/configurations.txt")
}

/// The table's first paragraph, and its files.
fn cases() -> (String, Vec<Case>) {
    let table = fs::read_to_string(table()).unwrap();
    let mut sections = table.split("\n=== ");
    let head = sections.next().unwrap().to_owned();
    let cases = sections.map(|section| {
        let (name, rest) = section.split_once('\n').unwrap();
        let (text, printed) = match rest.split_once("--- printed\n") {
            Some((text, printed)) => (text, Some(printed.trim_end_matches('\n').to_owned() + "\n")),
            None => (rest, None),
        };
        Case { name: name.to_owned(), text: text.to_owned(), printed }
    });
    (head, cases.collect())
}

/// A folder with all files of the table.
fn folder() -> Folder {
    let folder = Folder::new();
    for Case { name, text, .. } in cases().1 {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        // Keys that others may read are warned about.
        fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    }
    folder
}

fn check(folder: &Path, flags: &[&str]) -> Finished {
    run(uakari().current_dir(folder).arg("--check").args(flags), DEADLINE)
}

/// The user who runs the tests.
fn user() -> String {
    User::from_uid(Uid::effective()).unwrap().expect("the user of the tests has a name").name
}

/// Without the lines about this machine: its folders, and the user of the tests.
fn without_system(said: &str) -> String {
    let is_of_system = |line: &&str| {
        line.contains(": the folder ") && line.ends_with(": waiting for it") || line.contains("this daemon stays root")
    };
    said.lines().filter(|line| !is_of_system(line)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn each_file_of_the_table() {
    let ((head, cases), folder, me) = (cases(), folder(), user());
    let whole = folder.path().canonicalize().unwrap().join("");
    let (mut good, mut found, mut wrong) = (0, head, Vec::new());
    for Case { name, text, printed } in &cases {
        found += &format!("\n=== {name}\n{text}");
        let Some(printed) = printed else { continue };
        // These files name a user that not every machine has, or that may not read the files here.
        let flags: &[&str] =
            if ["appliance.conf", "replacement.conf", "syntax.conf"].contains(&&**name) { &["-u", &me] } else { &[] };
        let Finished { status, out, err } = check(folder.path(), &[&["-f", name], flags].concat());
        // uakari-auth names files with their folder.
        let out = without_system(&out).replace(whole.to_str().unwrap(), "");
        assert_eq!(err, "", "{name}");
        let is_good = out.ends_with(&format!("{name} is good\n"));
        let would_start = is_good || out.ends_with(&format!("{name} would start, but unprotected\n"));
        assert_eq!(status.code(), Some(if would_start { 0 } else { 1 }), "{name}");
        good += usize::from(is_good);
        found += &format!("--- printed\n{out}");
        if out != *printed {
            wrong.push(format!("{name}:\n{out}instead of\n{printed}"));
        }
    }
    if std::env::var_os("UAKARI_BLESS").is_some() {
        fs::write(table(), found.trim_end_matches('\n').to_owned() + "\n").unwrap();
        return;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() >= 35 && good >= 7, "{} files, {good} of them good", cases.len());
}

/// In a comment any byte may stand; elsewhere what is no UTF-8 is shown as U+FFFD.
#[test]
fn invalid_utf_8() {
    let folder = Folder::new();
    for (text, said) in [
        (&b"# R\xe9glages\nservers = ({ document = { docroot = \"/w\"; }; });"[..], "a.conf is good\n"),
        (b"\x01\xaa-", "a.conf:1: expected a name, found \"\\u{1}\u{fffd}-\"\n"),
        (b"\xff\xfes\0", "a.conf has a NUL byte in line 1: save the file as UTF-8\n"),
    ] {
        fs::write(folder.path().join("a.conf"), text).unwrap();
        assert_eq!(without_system(&check(folder.path(), &["-f", "a.conf"]).out), said);
    }
}

/// Control characters of a file do not reach the terminal.
#[test]
fn control_characters_are_escaped() {
    let folder = Folder::new();
    let evil = "e\u{1b}[2Jvil\u{9b}\u{202e}";
    let good = "servers = ({ port = 8080; document = { docroot = \"/w\"; }; });";
    for (name, text) in [
        ("a.conf", format!("@include \"{evil}\"\n{good}")),
        ("a.conf", good.replace("/w", evil).replace("8080", "99999")),
        ("a.conf", good.replace("port = 8080", &format!("addr = \"{evil}\""))),
        ("a.conf", good.replace("port", evil)),
        ("a.conf", format!("@include \"b\u{1b}[2J.conf\"\n{good}")),
        ("c\u{1b}[2J.conf", good.to_owned()),
    ] {
        fs::write(folder.path().join("b\u{1b}[2J.conf"), "x = 1;").unwrap();
        fs::write(folder.path().join(name), &text).unwrap();
        let Finished { out, err, .. } = check(folder.path(), &["-f", name]);
        let is_harmful = |character: char| character != '\n' && (character.is_control() || character == '\u{202e}');
        assert!(!out.is_empty() && err.is_empty() && !out.contains(is_harmful), "{text:?}: {out:?}");
    }
}

/// The daemon refuses to start with the lines that `--check` prints.
#[test]
fn an_invalid_file_prevents_the_start() {
    let folder = folder();
    let checked = check(folder.path(), &["-f", "typos.conf"]);
    let mut command = uakari();
    let Finished { status, out, err } = run(command.current_dir(folder.path()).args(["-f", "typos.conf"]), DEADLINE);
    assert_eq!((status.code(), out.as_str()), (Some(1), ""));
    let said: Vec<&str> = err.lines().map(|line| line.split_once(" error ").unwrap().1).collect();
    assert_eq!(said, checked.out.lines().collect::<Vec<_>>());
}

#[test]
fn flags_are_checked_with_the_file() {
    let folder = folder();
    for (flags, code, lines) in [
        (&["-f", "pages.conf", "--log-level", "debug"][..], 0, &["pages.conf is good"][..]),
        (
            &["-f", "pages.conf", "--type", "json", "--listen", "80"],
            1,
            &[
                "--listen: \"80\" is not an address: write 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80 or unix:/run/uakari.sock",
                "--type \"json\" is not known: write one of auto, text, binary",
            ],
        ),
        (
            &["-f", "hosts.conf", "--www", "/srv"],
            1,
            &["--www applies to one server only, and the file has 3: write it in the file"],
        ),
        (&["--www", "/"], 0, &["what the flags say is good"]),
        (
            &["--config", "nowhere.conf"],
            1,
            &["nowhere.conf cannot be read: No such file or directory: name a file that this user may read"],
        ),
    ] {
        let Finished { status, out, err } = check(folder.path(), flags);
        assert_eq!((status.code(), err.as_str()), (Some(code), ""), "{flags:?}");
        assert_eq!(without_system(&out).lines().collect::<Vec<_>>(), lines, "{flags:?}");
    }
}

/// A file without flags is served; a key that only ouistiti serves is a warning in the log.
#[test]
fn a_file_is_served() {
    let folder = Folder::new();
    fs::create_dir(folder.join("www")).unwrap();
    fs::write(folder.join("www/index.html"), "the page").unwrap();
    let text = format!(
        "limits = {{ {} }}; servers = ({{ addr = \"127.0.0.1\"; port = 0; chunksize = 63; document = {{ docroot = \"{}\"; }}; }});",
        patient(""),
        folder.join("www")
    );
    fs::write(folder.join("uakari.conf"), text).unwrap();
    let mut command = uakari();
    let process = Process::start(command.current_dir(folder.path()).args(["-f", "uakari.conf"]));
    let line = process.out.wait_for(&["listening on http://127.0.0.1:"]);
    let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(Wire::connect(port).get("/").body, b"the page");
    process.err.wait_for(&[" warn ", "uakari.conf:1: servers[0].chunksize: is not served: "]);
}

/// Files of a folder by name, one file whatever its name, and a path without its first slash, as ouistiti's packages
/// write it.
#[test]
fn files_of_config_d() {
    let folder = Folder::new();
    fs::create_dir_all(folder.join("servers.d/folder.conf")).unwrap();
    let servers = folder.path().join("servers.d");
    for (port, name) in ["b.conf", "a.conf", "10.conf", ".#a.conf", "a.conf~", "conf", "c.CONF"].iter().enumerate() {
        let text =
            format!("user = \"x\";\nservers = ({{ port = {}; document = {{ docroot = \"/\"; }}; }});", 81 + port);
        fs::write(servers.join(name), text).unwrap();
    }
    symlink(servers.join("a.conf~"), servers.join("z.conf")).unwrap();
    symlink(servers.join("nowhere"), servers.join("x.conf")).unwrap();
    let all = &["10.conf", "a.conf", "b.conf", "z.conf"][..];
    let path = folder.join("servers.d");
    for (config_d, expected) in [
        (path.clone(), all),
        (format!("{path}/"), all),
        (path.trim_start_matches('/').to_owned(), all),
        ("servers.d".to_owned(), all),
        (format!("{path}/a.conf~"), &["a.conf~"]),
    ] {
        fs::write(folder.join("uakari.conf"), format!("config_d = \"{config_d}\";")).unwrap();
        let Finished { status, out, .. } = check(folder.path(), &["-f", "uakari.conf"]);
        let files: Vec<&str> = out.lines().filter(|line| line.contains(":1: user: is not used")).collect();
        assert!(status.success() && files.len() == expected.len(), "{config_d}: {out}");
        for (line, name) in files.iter().zip(expected) {
            assert!(line.contains(&format!("servers.d/{name}:1: ")), "{config_d}: {name} is not in {line}");
        }
    }
}

/// allow, deny and denylast of `document` reach the rules, whose cases are in `route::names::tests::pages`.
#[test]
fn pages_are_allowed_and_denied() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("allow = \".html\";", &["/", "/%61.html", "/sub/", "/sub/../a.html"], &["/secret.db", "/nosuch"]),
        ("deny = \".php\";", &["/a.html", "/secret.db"], &["/sub/a.php", "/sub/a%2ephp", "//sub/./a.php?x"]),
        ("allow = \".html,*\"; deny = \"^private/*\";", &["/sub/private/x"], &["/private/x", "/sub/../private/x"]),
        ("allow = \".html\"; deny = \"*\"; denylast = true;", &["/a.html", "/sub/"], &["/secret.db"]),
    ];
    let folder = Folder::new();
    for path in ["index.html", "a.html", "secret.db", "sub/index.html", "sub/a.php", "private/x", "sub/private/x"] {
        let path = folder.path().join("www").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "a page").unwrap();
    }
    for (keys, sent, refused) in cases {
        let text = format!(
            "limits = {{ {} }}; servers = ({{ listen = \"127.0.0.1:0\"; document = {{ docroot = \"{}\"; {keys} }}; }});",
            patient(""),
            folder.join("www")
        );
        fs::write(folder.join("uakari.conf"), text).unwrap();
        let process = Process::start(uakari().arg("-f").arg(folder.join("uakari.conf")));
        let line = process.out.wait_for(&["listening on http://127.0.0.1:"]);
        let mut wire = Wire::connect(line.rsplit(':').next().unwrap().parse().unwrap());
        for path in *sent {
            assert_eq!(wire.get(path).status, 200, "{keys} {path}");
        }
        for path in *refused {
            assert_eq!(wire.get(path).status, 403, "{keys} {path}");
        }
    }
}

/// `allow` is for pages: a plain GET of a server's name is still a 426.
#[test]
fn a_backend_whose_name_is_not_allowed_as_a_page() {
    let text = configuration("", "").replace("@/www\";", "@/www\"; allow = \".html\";");
    let daemon = Daemon::start_configured(&text);
    let _server = daemon.listen("server");
    assert_eq!((daemon.get("/server").status, daemon.get("/other").status), (426, 403));
}

/// A server without TLS leads all requests to the one with TLS, here at an address that no machine has (RFC 5737).
#[test]
fn a_server_redirects_all_requests_to_https() {
    let folder = folder();
    let text = "servers = ({ listen = \"192.0.2.77:8443\"; document = { docroot = \"/\"; };
        tls = { crtfile = \"conf/server.crt\"; keyfile = \"conf/server.key\"; }; },
        { listen = \"127.0.0.1:0\"; redirect = { options = \"hsts\"; }; });";
    fs::write(folder.join("uakari.conf"), format!("limits = {{ {} }}; {text}", patient(""))).unwrap();
    let process = Process::start(uakari().current_dir(folder.path()).args(["-f", "uakari.conf"]));
    let line = process.out.wait_for(&["listening on http://127.0.0.1:"]);
    let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
    let mut wire = Wire::connect(port);
    for (asked, status, location) in [
        (request("GET", "/a%20b?c=%2f", &[]), 301, "https://gate.example:8443/a%20b?c=%2f"),
        (request("GET", "//evil.example/", &[]), 301, "https://gate.example:8443//evil.example/"),
        (request("POST", "/x", &["Content-Length: 3"]) + "abc", 308, "https://gate.example:8443/x"),
        (request("OPTIONS", "*", &[]), 308, "https://gate.example:8443/"),
        // Bytes that follow a handshake are not read as a request.
        (handshake("/echo", &[], &[]) + &request("GET", "/", &[]), 301, "https://gate.example:8443/echo"),
    ] {
        wire.send(asked);
        let response = wire.response();
        assert_eq!((response.status, response.field("Location")), (status, location), "{response:?}");
        assert_eq!(response.all("Strict-Transport-Security"), [""; 0], "{response:?}");
    }
    wire.expect_end();
    process.err.wait_for(&["end", "name=\"echo\"", "status=301", "answered"]);
}

/// A server whose protection is not served starts only with `unprotected`.
#[test]
fn a_server_that_would_lose_a_protection_is_refused() {
    let text = |unprotected: &str| {
        format!(
            "servers = ({{ listen = \"127.0.0.1:0\"; auth = {{ type = \"oAuth2\"; }}; {unprotected} document = {{ docroot = \"/\"; }}; }});"
        )
    };
    let folder = Folder::new();
    fs::write(folder.join("uakari.conf"), text("")).unwrap();
    let Finished { status, out, err } = run(uakari().arg("-f").arg(folder.join("uakari.conf")), DEADLINE);
    assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("servers[0].auth.type: is not served: neither OAuth nor a form asks clients"), "{err}");
    fs::write(folder.join("uakari.conf"), text("unprotected = (\"auth\");")).unwrap();
    let process = Process::start(uakari().arg("-f").arg(folder.join("uakari.conf")));
    process.out.wait_for(&["listening on http://127.0.0.1:"]);
    process.err.wait_for(&[" warn ", "servers[0].auth.type: is not served, as unprotected allows"]);
}

/// Root without `-u` is warned, by `--check` and by the daemon.
#[test]
fn root_without_a_user_is_warned() {
    let folder = Folder::new();
    let flags = ["--listen", "127.0.0.1:0", "--www", folder.path().to_str().unwrap()];
    let me = user();
    let by_name = [&flags[..], &["-u", &me]].concat();
    let warning = "this daemon stays root, since no user is named";
    let is_root = Uid::effective().is_root();
    let checked = check(folder.path(), &flags);
    assert_eq!((checked.out.contains(warning), checked.status.code()), (is_root, Some(0)), "{checked:?}");
    assert!(!check(folder.path(), &by_name).out.contains(warning));
    let process = Process::start(uakari().args(flags));
    process.out.wait_for(&["listening on "]);
    process.err.wait_for(&[if is_root { warning } else { START_LINE }]);
    assert_eq!(process.err.text().contains(warning), is_root);
    // A user that may not switch users can still check the file for root.
    if !is_root {
        let checked = check(folder.path(), &[&flags[..], &["-u", "root"]].concat());
        assert!(checked.status.success() && checked.out.ends_with("would start, but not by this user"), "{checked:?}");
    }
}

/// All that cannot be opened is reported at once, each with the line that names it.
#[test]
fn errors_of_opening_name_the_line() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port();
    let server = |port: u16, docroot: &str| {
        format!(
            "{{\n listen = [\"127.0.0.1:{port}\", \"127.0.0.78:{port}\"];\n websocket = {{ docroot = \"{docroot}\"; }};\n}}"
        )
    };
    let servers = |list: &[String]| format!("servers = ({});", list.join(","));
    for (text, expected) in [
        (
            servers(&[server(0, "/nonexistent"), server(taken, "/etc/passwd")]),
            &[
                "uakari.conf:6: servers[1].websocket.docroot: the folder /etc/passwd cannot be opened: Not a directory: name another one",
                "uakari.conf:5: servers[1].listen: cannot listen on http://127.0.0.1:",
            ][..],
        ),
        (
            format!("\nlog-file = \"/nonexistent/log\"; {}", servers(&[server(0, "/tmp")])),
            &[
                "uakari.conf:2: log-file /nonexistent/log: cannot be opened: No such file or directory: create its folder",
            ],
        ),
    ] {
        let folder = Folder::new();
        fs::write(folder.join("uakari.conf"), text).unwrap();
        let Finished { status, err, .. } =
            run(uakari().current_dir(folder.path()).args(["-f", "uakari.conf"]), DEADLINE);
        let errors: Vec<&str> = err.lines().filter(|line| line.contains(" error ")).collect();
        assert_eq!((status.code(), errors.len()), (Some(1), expected.len()), "{err}");
        for (line, part) in errors.iter().zip(expected) {
            assert!(line.contains(part), "{part:?} is not in {line:?}");
        }
    }
}

/// The files that a page shows: the text between these two lines.
fn shown(page: &str, begin: &str, end: &str) -> Vec<String> {
    let text = fs::read_to_string(project().join(page)).unwrap();
    let (begin, end) = (format!("\n{begin}\n"), format!("\n{end}\n"));
    text.split(&begin).skip(1).map(|rest| rest.split(&end).next().unwrap().to_owned()).collect()
}

/// A file of users: alice, whose password is "secret", by `openssl passwd -6`.
const USERS: &str = "alice:$6$abcdefghijklmnop$J/AWykHqo2Tx5UtavGnFc3ytI33la50JpzLTarSWVhkIXK6wOjNwwZjsrIw2UgmrER2EKrSHCeQyAINEEXAk1/\n";

#[test]
fn documented_configurations_are_valid() {
    let mut all = shown("docs/configuration.md", "```libconfig", "```");
    all.extend(shown("docs/upstreams.md", "```libconfig", "```"));
    all.extend(shown("docs/cluster.md", "```libconfig", "```"));
    all.extend(shown("docs/man/uakari.conf.5", ".Bd -literal", ".Ed"));
    all.push(fs::read_to_string(project().join("utils/install/uakari.conf")).unwrap());
    assert!(all.len() >= 7, "{} files", all.len());
    // It has certificates.
    let folder = folder();
    fs::write(folder.join("conf/users"), USERS).unwrap();
    for text in all {
        let me = user();
        let text = text.replace("\"www-data\"", &format!("{me:?}")).replace("\"uakari\"", &format!("{me:?}"));
        let text = text.replace("\"/etc/uakari/", "\"conf/").replace("\"/etc/ssl/", "\"conf/");
        fs::write(folder.join("uakari.conf"), text.replace("/var/log/ouistiti.log", "/tmp/log")).unwrap();
        let Finished { status, out, .. } = check(folder.path(), &["-f", "uakari.conf"]);
        assert!(status.success(), "{out}\n{text}");
        let warnings = text.matches("# warning: is not served").count();
        assert_eq!(out.matches("is not served").count(), warnings, "{out}\n{text}");
    }
}

fn is_served(key: &&ConfigKey) -> bool {
    key.kind.is_served()
}

/// The rows that docs/configuration.md must have, section by section, from the table of keys.
fn rows() -> Vec<(&'static str, Vec<String>)> {
    let row = |key: &ConfigKey| format!("| `{}` | {key} | {} | {} |", key.name, key.default_text(), key.meaning);
    let of = |scope| keys::of(scope).filter(is_served).map(row).collect::<Vec<String>>();
    let limits = |key: &&ConfigKey| key.scopes.iter().all(|scope| scope.title().ends_with("limits"));
    let gone = |key: &ConfigKey| format!("| `{}` | {} | {} |", key.name, key.scopes[0].title(), key.meaning);
    let of_upstreams = [Scope::Upstream, Scope::Node, Scope::Sticky, Scope::Health, Scope::UpstreamTls];
    let upstreams = of_upstreams.into_iter().flat_map(of).collect();
    vec![
        ("The file itself", of(Scope::Top)),
        ("upstreams", upstreams),
        ("A server", of(Scope::Server)),
        ("Who may come in", of(Scope::AccessPath).into_iter().chain(of(Scope::Addresses)).collect()),
        ("auth", of(Scope::Auth).into_iter().chain(of(Scope::AuthKey)).collect()),
        ("userfilter and clientfilter", of(Scope::UserFilter).into_iter().chain(of(Scope::ClientFilter)).collect()),
        ("tls", of(Scope::Tls)),
        ("redirect", of(Scope::Redirect)),
        ("document", of(Scope::Document)),
        ("headers", of(Scope::PageHeader)),
        ("A link of document", of(Scope::PageLink)),
        ("websocket", of(Scope::WebSocket)),
        ("A link", of(Scope::Link)),
        ("limits", keys::all().filter(limits).map(row).collect()),
        ("Keys of ouistiti's that are not served", keys::all().filter(|key| !is_served(key)).map(gone).collect()),
    ]
}

#[test]
fn the_page_has_every_key_and_no_other() {
    let text = fs::read_to_string(project().join("docs/configuration.md")).unwrap();
    for (title, rows) in rows() {
        let section = text.split("\n## ").find(|section| section.starts_with(&format!("{title}\n"))).unwrap();
        let found: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(found, rows, "docs/configuration.md, {title}: these rows are wanted:\n{}", rows.join("\n"));
    }
}

#[test]
fn the_manual_page_has_every_key_and_no_other() {
    let text = fs::read_to_string(project().join("docs/man/uakari.conf.5")).unwrap();
    let mut wanted: Vec<String> = Vec::new();
    for key in keys::all() {
        let terms = match key.default_text() {
            default if default == "required" => format!("{key}; required.\n"),
            default => format!("{key}; default {default}.\n"),
        };
        let terms = if is_served(&key) { terms } else { String::new() };
        wanted.push(format!("{}\n{terms}{}\n", key.name, key.meaning));
    }
    let mut found: Vec<String> = Vec::new();
    for item in text.split(".It Ic ").skip(1) {
        found.push(item.split_inclusive('\n').take_while(|line| !line.starts_with('.')).collect());
    }
    wanted.sort();
    wanted.dedup();
    found.sort();
    assert_eq!(found, wanted, "docs/man/uakari.conf.5: these items are wanted:\n{}", wanted.join(".It Ic "));
}

/// Long flags and short ones.
#[test]
fn the_manual_page_has_every_flag() {
    let text = fs::read_to_string(project().join("docs/man/uakari.8")).unwrap();
    let help = run(uakari().arg("--help"), DEADLINE).out;
    let mut count = 0;
    for line in help.lines().filter(|line| line.starts_with("  -")) {
        for flag in line.split_whitespace().take(2).map(|word| word.trim_end_matches(',')) {
            let Some(name) = flag.strip_prefix('-') else { continue };
            let is_there = text.lines().any(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                words[0] == ".It" && words.windows(2).any(|pair| pair == ["Fl", name])
            });
            assert!(is_there, "docs/man/uakari.8 lacks {flag}");
            count += 1;
        }
    }
    assert!(count > 15, "{count} flags in:\n{help}");
}

/// mandoc and groff report no fault, where they are installed.
#[test]
fn the_manual_pages_are_well_formed() {
    let asks: [(&str, &[&str]); 2] =
        [("mandoc", &["-Tlint", "-Wwarning"]), ("groff", &["-mdoc", "-ww", "-z", "-Tutf8"])];
    let mut asked = 0;
    for (program, flags) in asks {
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("{program} is not here; the manual pages were not shown to it");
            continue;
        }
        for page in ["docs/man/uakari.8", "docs/man/uakari-auth.8", "docs/man/uakari-ca.8", "docs/man/uakari.conf.5"] {
            let Finished { status, out, err } =
                run(Command::new(program).args(flags).arg(project().join(page)), DEADLINE);
            assert!(status.success() && out.is_empty() && err.is_empty(), "{program} {page}:\n{out}\n{err}");
            asked += 1;
        }
    }
    eprintln!("{asked} times a manual page was found well formed");
}
