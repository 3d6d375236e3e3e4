//! Digest (RFC 7616): curl, and responses made by hand.

use ring::digest::{SHA256, digest};

use super::*;
use crate::foreign::command;
use crate::process::{DEADLINE, run};

/// SHA-256 in hexadecimal.
fn sha256(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of dora's password that ouistiti stores for the realm "Here".
fn of_ouistiti() -> String {
    format!("dora:$a5$realm=Here${}:staff:\n", STANDARD.encode(digest(&SHA256, b"dora:Here:secret")))
}

/// A daemon with SHA-256 everywhere, but MD5 for paths that begin with "md5".
fn daemon() -> Daemon {
    let folder = new_folder();
    put(&folder, "users", &(USERS.to_owned() + &of_ouistiti()));
    fs::write(folder.join("www/md5"), "md5").unwrap();
    let keys = "auth = { type = \"Digest\"; file = \"@/users\"; realm = \"Here\"; opaque = \"op\"; };
        paths = ({ path = \"^/md5\"; auth = { type = \"digest\"; user = \"bob\"; passwd = \"secret\"; \
        realm = \"There\"; algorithm = \"MD5\"; }; });";
    start_in(folder, keys)
}

#[test]
#[ignore = "needs curl"]
fn curl_answers_challenges() {
    let daemon = daemon();
    let fetch = |number: u8, user: &str, path: &str, more: &[&str]| {
        let url = format!("http://127.0.0.1:{}{path}", daemon.port);
        let interface = format!("127.1.0.{number}");
        let fetch = || {
            let mut curl = command("curl");
            curl.args(["-s", "-S", "--digest", "--interface", &interface, "-u", user, "-w", " %{http_code}"]);
            run(curl.args(more).arg(&url), DEADLINE)
        };
        // Until the helper answers in time.
        let fetched = (0..20).map(|_| fetch());
        fetched.map(|finished| finished.out + &finished.err).find(|text| !text.ends_with("503")).unwrap()
    };
    for (number, (user, path, more, wanted)) in [
        ("bob:secret", "/page", &[][..], "page 200"),
        ("bob:secret", "/md5", &[], "md5 200"),
        ("bob:secret", "/admin/../page?a=1&b=%20", &["--path-as-is"], "page 200"),
        ("dora:secret", "/page", &[], "page 200"),
        ("bob:secret", "/nosuch", &[], "404"),
        ("bob:secret", "/page", &["-X", "POST", "-d", "body"], "405"),
        ("bob:wrong", "/page", &[], "401"),
        ("dora:wrong", "/page", &[], "401"),
        ("dora:secret", "/md5", &[], "401"),
        ("nobody:secret", "/page", &[], "401"),
        // A password that is stored as another hash cannot be verified with Digest.
        ("ann:secret", "/page", &[], "401"),
    ]
    .into_iter()
    .enumerate()
    {
        let got = fetch(number as u8 + 1, user, path, more);
        assert!(got.ends_with(wanted), "{user} {path}: {got}");
    }
    daemon.log().wait_for(&["end client=127.1.0.4:", "name=\"page\"", "user=\"dora\"", "status=200"]);
    // Basic is not served in its place.
    assert_eq!(Visitor::new(&daemon, 50).get("/page", &[&basic("bob", "secret")]).status, 401);
}

#[test]
fn a_websocket_with_a_response() {
    let daemon = daemon();
    let server = daemon.listen("who");
    let visitor = Visitor::new(&daemon, 1);
    let challenge = visitor.upgrade("/who", &[]);
    let challenge = (challenge.status, challenge.field("WWW-Authenticate").to_owned());
    assert_eq!(challenge.0, 401);
    for part in ["Digest realm=\"Here\"", "qop=\"auth\"", "algorithm=SHA-256", "opaque=\"op\""] {
        assert!(challenge.1.contains(part), "{part:?} is not in {challenge:?}");
    }
    let nonce = challenge.1.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let response = |user: &str, method: &str, uri: &str, nonce: &str| {
        let (secret, target) = (sha256(&format!("{user}:Here:secret")), sha256(&format!("{method}:{uri}")));
        let answer = sha256(&format!("{secret}:{nonce}:00000001:cn:auth:{target}"));
        format!(
            "Authorization: Digest username=\"{user}\", realm=\"Here\", nonce=\"{nonce}\", uri=\"{uri}\", \
             algorithm=SHA-256, qop=auth, nc=00000001, cnonce=\"cn\", opaque=\"op\", response=\"{answer}\""
        )
    };
    for (number, (user, method, uri, status)) in [
        ("bob", "GET", "/who?a", 101),
        ("dora", "GET", "/who?a", 101),
        ("dora", "GET", "/who", 401),
        ("dora", "GET", "/other", 401),
        ("dora", "POST", "/who?a", 401),
        ("ann", "GET", "/who?a", 401),
    ]
    .into_iter()
    .enumerate()
    {
        let visitor = Visitor::new(&daemon, 10 + number as u8);
        let field = response(user, method, uri, nonce);
        if status == 101 {
            let (_client, hello, _backend) = visitor.join(&server, "/who?a", &[&field]);
            assert_eq!((&*hello.user, &*hello.groups), (user, if user == "bob" { "guests" } else { "staff" }));
        } else {
            assert_eq!(visitor.upgrade("/who?a", &[&field]).status, status, "{user} {method} {uri}");
        }
    }
    // A nonce that the gateway did not make is too old: the client repeats the request with the new one.
    let forged = nonce.replacen(nonce.get(..16).unwrap(), "0000000068000000", 1);
    let stale = Visitor::new(&daemon, 30).upgrade("/who", &[&response("dora", "GET", "/who", &forged)]);
    assert!(stale.status == 401 && stale.field("WWW-Authenticate").contains("stale=true"), "{stale:?}");
    assert!(!challenge.1.contains("stale=true"));
}
