//! Tokens that openssl has signed, databases that another program has made, and a server that decides.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::time::{SystemTime, UNIX_EPOCH};

use auth_wire::{Jwt, JwtAlgorithm, JwtKey, Secret};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

/// Unix time in seconds.
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Helper {
    /// With a rule for each of these.
    fn with_rules(rules: Vec<Rule>) -> Helper {
        let mut helper = Helper::start();
        helper.tell(&ToHelper::Rules { generation: 1, rules, is_trial: false });
        let message = helper.hear();
        assert_eq!(message, ToDaemon::Ready { generation: 1, warnings: Vec::new() });
        helper
    }

    /// Asks and waits for the answer.
    fn ask(&mut self, rule: u32, path: &str, credential: Credential) -> Verdict {
        self.asked += 1;
        let (id, method) = (self.asked, "GET".to_owned());
        let path = path.to_owned();
        let question = Question { id, generation: 1, rule, credential, path, method, ..Question::default() };
        self.tell(&ToHelper::Ask(Box::new(question)));
        let (answered, verdict) = self.answer();
        assert_eq!(answered, id, "{verdict:?}");
        verdict
    }
}

fn token(text: &str) -> Credential {
    Credential::Token(Secret::from(text))
}

fn allow(user: &str, groups: &[&str], until_ms: Option<u64>) -> Verdict {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Verdict::Allow { user: user.to_owned(), groups, until_ms, headers: Vec::new() }
}

/// The numbers of an ECDSA signature in DER, each with 32 bytes (RFC 7518 section 3.4).
fn raw_signature(der: &[u8]) -> Vec<u8> {
    let size = usize::from(der[3]);
    let (r, s) = (&der[4..4 + size], &der[6 + size..]);
    let fixed = |number: &[u8]| {
        let number: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
        [vec![0; 32 - number.len()], number].concat()
    };
    [fixed(r), fixed(s)].concat()
}

#[test]
#[ignore = "needs openssl"]
fn tokens_signed_by_openssl() {
    let folder = Folder::new();
    let path = |name: &str| folder.path().join(name);
    let openssl = |arguments: &[&str]| {
        output(command("openssl").current_dir(folder.path()).args(arguments));
    };
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "RS256.key"]);
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "ES256.key"]);
    openssl(&["genpkey", "-algorithm", "ED25519", "-out", "EdDSA.key"]);
    for name in ["RS256", "ES256", "EdDSA"] {
        openssl(&["pkey", "-in", &format!("{name}.key"), "-pubout", "-out", name]);
    }
    openssl(&["rand", "-hex", "-out", "HS256", "32"]);
    let secret = write(&folder, "HS256", &fs::read_to_string(path("HS256")).unwrap());
    let secret = fs::read_to_string(secret).unwrap();
    // Each key by itself, and all of them.
    let key =
        |name: &str, algorithm, id: Option<&str>| JwtKey { path: path(name), algorithm, id: id.map(str::to_owned) };
    let names = ["RS256", "ES256", "EdDSA", "HS256"];
    let algorithm = |name: &str| (name == "HS256").then_some(JwtAlgorithm::Hs256);
    let mut sets: Vec<Vec<JwtKey>> = names.iter().map(|name| vec![key(name, algorithm(name), None)]).collect();
    sets.push(names.iter().map(|name| key(name, algorithm(name), Some(name))).collect());
    let rule = |keys| Rule {
        sources: vec![Source::Jwt(Jwt { keys, audience: Some("here".to_owned()), ..Jwt::default() })],
        ..Rule::default()
    };
    let mut helper = Helper::with_rules(sets.into_iter().map(rule).collect());
    let exp = now_s() + 3_600;
    for (number, name) in names.iter().enumerate() {
        let header = json!({ "alg": name, "typ": "JWT", "kid": name });
        let claims = json!({ "sub": "alice", "groups": ["users"], "aud": ["here"], "exp": exp });
        let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        fs::write(path("message"), &message).unwrap();
        let key = format!("{name}.key");
        match *name {
            "EdDSA" => openssl(&["pkeyutl", "-sign", "-inkey", &key, "-rawin", "-in", "message", "-out", "signature"]),
            "HS256" => {
                let key = format!("key:{}", secret.trim_end());
                openssl(&[
                    "dgst",
                    "-sha256",
                    "-mac",
                    "HMAC",
                    "-macopt",
                    &key,
                    "-binary",
                    "-out",
                    "signature",
                    "message",
                ]);
            }
            _ => openssl(&["dgst", "-sha256", "-sign", &key, "-out", "signature", "message"]),
        }
        let mut signature = fs::read(path("signature")).unwrap();
        if *name == "ES256" {
            signature = raw_signature(&signature);
        }
        let text = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
        for rule in 0..5 {
            let verdict = helper.ask(u32::try_from(rule).unwrap(), "/", token(&text));
            if rule == number || rule == 4 {
                assert_eq!(verdict, allow("alice", &["users"], Some((exp + 30) * 1_000)), "{name}, rule {rule}");
            } else {
                assert!(matches!(verdict, Verdict::Refused { .. }), "{name}, rule {rule}: {verdict:?}");
            }
        }
        let unsigned =
            format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), message.split('.').nth(1).unwrap());
        assert!(matches!(helper.ask(4, "/", token(&unsigned)), Verdict::Refused { .. }));
    }
    helper.end();
}

/// A database of users of ouistiti and one of its userfilter.
const DATABASES: &str = r#"
import sqlite3
users = sqlite3.connect("users.db")
users.executescript("""
create table groups (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
insert into groups values (0, 'root'), (2, 'users');
create table status (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
insert into status values (1, 'approving'), (2, 'activated'), (3, 'repudiated'), (4, 'reapproving');
create table users (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, groupid INTEGER DEFAULT 1, home TEXT);
create table passwds (userid INTEGER NOT NULL, passwd TEXT, issuer TEXT, statusid INTEGER DEFAULT 1);
insert into users values (1, 'root', 0, null), (2, 'alice', 2, null), (3, 'gone', 2, null), (4, 'empty', 2, null);
insert into passwds values (1, 'geheim', null, 2), (2, 'geheim', null, 2), (3, 'geheim', null, 3), (4, '', null, 2);
""")
rules = sqlite3.connect("filter.db")
rules.executescript("""
create table methods (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
insert into methods (name) values ('GET'), ('POST');
create table roles (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
insert into roles (id, name) values (0, 'root'), (1, 'anonymous'), (2, 'users');
create table rules (exp TEXT NOT NULL, methodid INTEGER NOT NULL, roleid INTEGER NOT NULL);
insert into rules values ('^/*', 1, 0), ('^/%g/%u/*', 1, 2);
""")
"#;

#[test]
#[ignore = "needs python3"]
fn databases_of_ouistiti() {
    let folder = Folder::new();
    output(command("python3").current_dir(folder.path()).args(["-c", DATABASES]));
    let path = folder.path().join("users.db");
    let filter = Some(folder.path().join("filter.db"));
    let rule = Rule { sources: vec![Source::Database { path, layout: None }], filter, ..Rule::default() };
    let mut helper = Helper::with_rules(vec![rule]);
    for (user, password, path, expected) in [
        ("root", "geheim", "/anything", allow("root", &["root"], None)),
        ("alice", "geheim", "/users/alice/x", allow("alice", &["users"], None)),
        ("alice", "geheim", "/users/bob/x", Verdict::Forbidden),
        ("alice", "wrong", "/users/alice/x", Verdict::Deny),
        ("gone", "geheim", "/users/gone/x", Verdict::Deny),
        ("empty", "", "/users/empty/x", Verdict::Deny),
        ("' or 1=1 --", "geheim", "/", Verdict::Deny),
    ] {
        let credential = Credential::Password { user: user.to_owned(), password: password.into() };
        assert_eq!(helper.ask(0, path, credential), expected, "{user} {path}");
    }
    helper.end();
}

#[test]
fn a_server_that_decides() {
    let folder = Folder::new();
    let path = folder.path().join("decide");
    let listener = UnixListener::bind(&path).unwrap();
    let rule = Rule { sources: vec![Source::Server(path.clone())], ..Rule::default() };
    let mut helper = Helper::with_rules(vec![rule]);
    let server = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
        let say = |message: Value| writeln!(&socket, "{message}").unwrap();
        for result in
            [json!({ "allow": true, "user": "alice", "groups": ["users"] }), json!({ "allow": false, "deny": 403 })]
        {
            let asked: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(asked["params"]["credential"]["token"], "any text");
            say(json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result }));
        }
        say(json!({ "jsonrpc": "2.0", "method": "revoked", "params": { "user": "alice" } }));
        // What it does not answer is unavailable when it ends.
        let _ = lines.next();
    });
    assert_eq!(helper.ask(0, "/a", token("any text")), allow("alice", &["users"], None));
    assert_eq!(helper.ask(0, "/b", token("any text")), Verdict::Forbidden);
    assert_eq!(helper.hear(), ToDaemon::Revoked { server: path, user: "alice".to_owned() });
    let verdict = helper.ask(0, "/c", token("any text"));
    assert!(matches!(verdict, Verdict::Unavailable { ref sentence } if sentence.contains("closed")), "{verdict:?}");
    server.join().unwrap();
    helper.end();
}

/// Its revocations wait at the server while the daemon reads nothing, and other questions have room.
#[test]
fn a_server_that_revokes_very_much() {
    const COUNT: usize = 100_000;
    let folder = Folder::new();
    let path = folder.path().join("decide");
    let listener = UnixListener::bind(&path).unwrap();
    let source = Source::TokenFile(write(&folder, "tokens", "0123456789abcdef:ann\n"));
    let rules = [Source::Server(path.clone()), source].map(|source| Rule { sources: vec![source], ..Rule::default() });
    let mut helper = Helper::with_rules(rules.to_vec());
    let (mut socket, _) = listener.accept().unwrap();
    let message =
        |number: usize| json!({ "jsonrpc": "2.0", "method": "revoked", "params": { "user": number.to_string() } });
    let before_kib = helper.process.peak_kib();
    // Until the helper has taken all, or takes nothing more.
    socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut text = String::new();
    let mut sent = 0;
    while text.is_empty() && sent < COUNT {
        text = format!("{}\n", message(sent));
        sent += 1;
        while let Ok(size) = socket.write(text.as_bytes())
            && size > 0
        {
            text.drain(..size);
        }
    }
    assert!(sent < COUNT, "the helper took all of them");
    helper.tell(&ToHelper::Ask(Box::new(Question {
        id: 1,
        generation: 1,
        rule: 1,
        credential: token("0123456789abcdef"),
        ..Question::default()
    })));
    socket.set_write_timeout(None).unwrap();
    let server = thread::spawn(move || {
        socket.write_all(text.as_bytes()).unwrap();
        (sent..COUNT).for_each(|number| writeln!(socket, "{}", message(number)).unwrap());
        socket
    });
    let (mut revoked, mut answers) = (0, Vec::new());
    while revoked < COUNT || answers.is_empty() {
        match helper.hear() {
            ToDaemon::Revoked { server, user } => {
                assert_eq!((server, user), (path.clone(), revoked.to_string()), "in their order");
                revoked += 1;
            }
            ToDaemon::Answer(answer) => answers.push(answer.verdict),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers, [allow("ann", &[], None)]);
    let grown_kib = helper.process.peak_kib() - before_kib;
    assert!(grown_kib < 8 * 1024, "{grown_kib} KiB");
    drop(server.join().unwrap());
    helper.end();
}
