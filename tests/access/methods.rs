//! Each kind of credential: pages and WebSockets, what the log and the backend learn, and what nobody learns.

use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::foreign::command;
use crate::process::{DEADLINE, run};
use crate::tls::{ALL, authority, client_config, shake};

/// Hashes of "secret" of most kinds; others are made by the programs of the test.
const HASHES: [(&str, &str); 6] = [
    ("argon", "$argon2id$v=19$m=64,t=1,p=1$BwcHBwcHBwcHBwcHBwcHBw$KZPUOLGLizJml/FSeZ6SFFyNRK3qVTDAYXMv76Gi6Ns"),
    ("apr", "$apr1$saltsalt$APR"),
    ("sha", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="),
    ("crypt", "$6$CRYPT"),
    ("clear", "secret:guests:"),
    ("row", "$5$K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=:guests,staff:/home/row"),
];

/// A token that is in `tokens`.
const TOKEN: &str = "d4f1a9c07be2583661fa0c9db48e7532";
/// A token that is in no file.
const OTHER: &str = "00000000000000000000000000000000";

/// The keys of each kind, for paths that begin with its name.
const KEYS: &str = r#"hostname = "gate.example"; paths = (
    { path = "^/file"; auth = { type = "basic"; file = "@/users"; realm = "Users"; }; },
    { path = "^/inline"; auth = { type = "Basic"; user = "foo"; passwd = "bar"; group = "one, two"; }; },
    { path = "^/bearer"; auth = { type = "bearer"; tokens = "@/tokens"; token = "0123456789abcdef"; user = "tom"; }; },
    { path = "^/jwt"; auth = { type = "bearer"; key = "@/jwt"; algorithm = "HS256"; audience = "here"; }; },
    { path = "^/cookie"; auth = { type = "cookie"; name = "sid"; tokens = "@/tokens"; }; },
    { path = "^/query"; auth = { type = "query"; name = "key"; tokens = "@/tokens"; }; },
    { path = "^/group"; auth = { type = "basic"; file = "@/users"; groups = ("staff"); users = ("clear"); }; },
    { path = "^/two"; auth = ({ type = "basic"; file = "@/users"; }, { type = "bearer"; tokens = "@/tokens"; }); },
    { path = "^/none"; auth = { type = "None"; }; }
); auth = { type = "digest"; file = "@/users"; };"#;

const PREFIXES: [&str; 9] = ["file", "inline", "bearer", "jwt", "cookie", "query", "group", "two", "none"];

/// The output of a program without the last newline.
fn output(command: &mut std::process::Command) -> String {
    let finished = run(command, DEADLINE);
    assert!(finished.status.success(), "{command:?}: {finished:?}");
    finished.out.trim_end().to_owned()
}

/// A token of JSON, signed by openssl with HS256.
pub fn jwt(folder: &Folder, claims: &str) -> String {
    let secret = fs::read_to_string(folder.join("jwt")).unwrap();
    let message = [r#"{"alg":"HS256","typ":"JWT"}"#, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    fs::write(folder.join("message"), &message).unwrap();
    let mut openssl = command("openssl");
    openssl.args(["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("key:{}", secret.trim()), "-binary"]);
    output(openssl.args(["-out", &folder.join("signature"), &folder.join("message")]));
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(fs::read(folder.join("signature")).unwrap()))
}

/// Unix time in seconds.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A folder with users and tokens of each kind.
fn folder() -> Folder {
    let folder = new_folder();
    let mut text: String = HASHES.iter().map(|(user, hash)| format!("{user}:{hash}\n")).collect();
    let crypt = output(command("openssl").args(["passwd", "-6", "-salt", "saltsalt", "secret"]));
    let apr = output(command("openssl").args(["passwd", "-apr1", "-salt", "saltsalt", "secret"]));
    text = text.replace("$6$CRYPT", &crypt).replace("$apr1$saltsalt$APR", &apr);
    let bcrypt = output(command("htpasswd").args(["-nbB", "-C", "4", "bcrypt", "secret"]));
    put(&folder, "users", &(text + bcrypt.trim_end() + "\n"));
    put(&folder, "tokens", &format!("{TOKEN}:tina:guests\n"));
    put(&folder, "jwt", &output(command("openssl").args(["rand", "-hex", "32"])));
    for prefix in PREFIXES {
        fs::write(folder.path().join("www").join(prefix), prefix).unwrap();
    }
    folder
}

#[test]
#[ignore = "needs htpasswd and openssl"]
fn each_kind_of_credential() {
    let folder = folder();
    let claims = |exp: u64, audience: &str| {
        format!(r#"{{"sub":"julia","groups":["guests","staff"],"aud":"{audience}","exp":{exp}}}"#)
    };
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let good_jwt = bearer(&jwt(&folder, &claims(now_s() + 3_600, "here")));
    let old_jwt = bearer(&jwt(&folder, &claims(now_s() - 3_600, "here")));
    let strange_jwt = bearer(&jwt(&folder, &claims(now_s() + 3_600, "there")));
    let daemon = start_in(folder, KEYS);
    // The weak ones have warnings at the start.
    for (user, weakness) in [("apr", "has a weak hash: $apr1$"), ("sha", "has a weak hash"), ("clear", "clear text")] {
        daemon.log().wait_for(&["warn", "users", &format!("the password of {user} "), weakness]);
    }
    daemon.log().wait_for(&["warn", "passwd of the configuration: the password of foo is in clear text"]);
    let users = ["file", "two"].map(|prefix| {
        ["argon", "bcrypt", "apr", "sha", "crypt", "clear", "row"].map(|user| {
            let groups = match user {
                "clear" => "guests",
                "row" => "guests,staff",
                _ => "",
            };
            (prefix, basic(user, "secret"), "", user, groups)
        })
    });
    let others = [
        ("inline", basic("foo", "bar"), "", "foo", "one,two"),
        ("inline", basic("foo", "bar").replace("Basic", "bASIC"), "", "foo", "one,two"),
        ("bearer", bearer(TOKEN), "", "tina", "guests"),
        ("bearer", bearer("0123456789abcdef"), "", "tom", ""),
        ("jwt", good_jwt.clone(), "", "julia", "guests,staff"),
        ("cookie", format!("Cookie: a=b; sid={TOKEN}; c=d"), "", "tina", "guests"),
        ("query", String::new(), "?a=1&key=d4f1a9c07be2583661fa0c9db48e753%32&b=2", "tina", "guests"),
        ("group", basic("row", "secret"), "", "row", "guests,staff"),
        ("group", basic("clear", "secret"), "", "clear", "guests"),
        ("two", bearer(TOKEN), "", "tina", "guests"),
        ("none", String::new(), "", "", ""),
        ("none", basic("sha", "wrong"), "", "", ""),
    ];
    let servers = PREFIXES.map(|prefix| (prefix, daemon.listen(&format!("{prefix}-who"))));
    for (prefix, field, query, user, groups) in users.as_flattened().iter().cloned().chain(others) {
        let what = format!("{prefix} {user} {query}");
        let visitor = Visitor::new(&daemon, 1);
        let fields = if field.is_empty() { vec![] } else { vec![field.as_str()] };
        let page = visitor.get(&format!("/{prefix}{query}"), &fields);
        assert_eq!((page.status, page.text().as_str()), (200, prefix), "{what}");
        let server = &servers.iter().find(|(name, _)| *name == prefix).unwrap().1;
        let (client, hello, backend) = visitor.join(server, &format!("/{prefix}-who{query}"), &fields);
        assert_eq!((&*hello.user, &*hello.groups), (user, groups), "{what}");
        // What is left of the query, without the token.
        assert_eq!(hello.query, if query.is_empty() { "" } else { "a=1&b=2" }, "{what}");
        drop(backend);
        let mut client = client;
        client.expect_close_handshake(1000);
        let name = format!("name=\"{prefix}-who\"");
        match user {
            "" => daemon.log().wait_for(&["end client=127.1.0.1:", &name]),
            user => daemon.log().wait_for(&["end client=127.1.0.1:", &name, &format!("user=\"{user}\"")]),
        };
    }
    // Nobody comes in with anything else. Each has an address of its own, since failures count.
    let challenges = |prefix: &str| match prefix {
        "file" => vec!["Basic realm=\"Users\", charset=\"UTF-8\""],
        "inline" | "group" => vec!["Basic realm=\"gate.example\", charset=\"UTF-8\""],
        "cookie" => vec!["Cookie realm=\"gate.example\""],
        "two" => vec!["Basic realm=\"gate.example\", charset=\"UTF-8\"", "Bearer realm=\"gate.example\""],
        _ => vec!["Bearer realm=\"gate.example\""],
    };
    let refused = [
        ("file", String::new(), ""),
        ("file", basic("sha", "Secret"), ""),
        ("file", basic("sha", ""), ""),
        ("file", basic("nobody", "secret"), ""),
        ("file", basic("foo", "bar"), ""),
        ("file", bearer(TOKEN), ""),
        ("file", basic("sha", "secret").replace("Authorization", "Proxy-Authorization"), ""),
        ("inline", basic("foo", "secret"), ""),
        ("bearer", String::new(), &format!("?token={TOKEN}")),
        ("bearer", format!("Cookie: token={TOKEN}"), ""),
        ("bearer", bearer(OTHER), ""),
        ("bearer", bearer(&TOKEN.to_uppercase()), ""),
        ("jwt", old_jwt, ""),
        ("jwt", strange_jwt, ""),
        ("jwt", good_jwt[..good_jwt.len() - 2].to_owned(), ""),
        ("jwt", bearer(TOKEN), ""),
        ("cookie", format!("Cookie: sid={OTHER}"), ""),
        ("cookie", format!("Cookie: SID={TOKEN}"), ""),
        ("query", String::new(), &format!("?key={OTHER}")),
        ("query", String::new(), &format!("?Key={TOKEN}")),
        ("query", bearer(TOKEN), ""),
        ("two", basic("sha", "wrong"), ""),
        ("two", bearer(OTHER), ""),
    ];
    for (number, (prefix, field, query)) in refused.iter().enumerate() {
        let what = format!("{prefix} {field} {query}");
        let fields = if field.is_empty() { vec![] } else { vec![field.as_str()] };
        let visitor = Visitor::new(&daemon, 10 + number as u8);
        let is_bad = field.starts_with("Authorization: Bearer") && prefix != &"file" && prefix != &"query";
        let wanted: Vec<String> = challenges(prefix)
            .into_iter()
            .map(|text| match text.starts_with("Bearer") && is_bad {
                true => format!("{text}, error=\"invalid_token\""),
                false => text.to_owned(),
            })
            .collect();
        let page = visitor.get(&format!("/{prefix}{query}"), &fields);
        assert_eq!(
            (page.status, page.all("WWW-Authenticate")),
            (401, wanted.iter().map(|it| &**it).collect()),
            "{what}"
        );
        let socket = visitor.upgrade(&format!("/{prefix}-who{query}"), &fields);
        assert_eq!(
            (socket.status, socket.all("WWW-Authenticate")),
            (401, wanted.iter().map(|it| &**it).collect()),
            "{what}"
        );
    }
    // Any client can cause this line. It belongs to the client's connection.
    let line = daemon.log().wait_for(&["the token is for another audience"]);
    assert!(line.contains(" info  c") && !line.contains("auth:"), "{line}");
    assert!(servers.iter().all(|(_, server)| server.is_idle()), "a backend has a client who may not come in");
    // A good user who may not.
    for (number, (prefix, user)) in [("group", "sha"), ("group", "argon")].into_iter().enumerate() {
        let visitor = Visitor::new(&daemon, 100 + number as u8);
        let page = visitor.get(&format!("/{prefix}"), &[&basic(user, "secret")]);
        assert_eq!((page.status, page.all("WWW-Authenticate").len()), (403, 0), "{user}");
        assert_eq!(visitor.upgrade(&format!("/{prefix}-who"), &[&basic(user, "secret")]).status, 403, "{user}");
    }
    // The log has no credential.
    let log = daemon.log().text();
    for secret in
        [TOKEN, "e753%32", OTHER, "secret", &basic("sha", "secret")[21..], "0123456789abcdef", &good_jwt[22..]]
    {
        assert!(!log.contains(secret), "{secret:?} is in the log:\n{log}");
    }
}

#[test]
fn more_than_one_credential() {
    let daemon = start("auth = { type = \"basic\"; file = \"@/users\"; };");
    let ann = basic("ann", "secret");
    for (number, (fields, status)) in [
        (vec![ann.clone(), ann.clone()], 400),
        (vec![basic("ann", "wrong"), ann.clone()], 400),
        (vec![ann.clone(), "Authorization: Bearer x".to_owned()], 400),
        (vec!["Authorization: Basic".to_owned()], 400),
        (vec!["Authorization: Basic %%%".to_owned()], 400),
        (vec![format!("Authorization: Basic {}", STANDARD.encode("ann"))], 400),
        (vec![format!("{ann},x")], 400),
        (vec!["Authorization: Negotiate abc".to_owned()], 401),
        (vec![ann.clone()], 200),
    ]
    .into_iter()
    .enumerate()
    {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let response = Visitor::new(&daemon, number as u8 + 1).get("/page", &fields);
        assert_eq!(response.status, status, "{fields:?}: {response:?}");
    }
}

#[test]
fn certificates_as_credentials() {
    let folder = new_folder();
    authority::issue(&folder);
    let keys = "tls = { crtfile = \"@/tls/server-chain.crt\"; keyfile = \"@/tls/server.key\";
            clientca = \"@/tls/members.crt\"; verify = \"optional\"; };
        paths = ({ path = \"^/admin\"; auth = { type = \"clientcert\"; users = (\"root\", \"boss\"); }; },
            { path = \"^/open\"; auth = { type = \"none\"; }; });
        auth = ({ type = \"clientcert\"; }, { type = \"basic\"; file = \"@/users\"; });";
    let daemon = start_in(folder, keys);
    let server = daemon.listen("who");
    let wire = |presented: Option<&str>| {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).unwrap();
        Wire::over_tls(shake(stream, &Arc::new(client_config(&daemon, ALL, presented)), "127.0.0.1").unwrap())
    };
    for (presented, path, status) in [
        (None, "/open/page", 200),
        (None, "/page", 401),
        (None, "/admin/page", 403),
        (Some("client"), "/open/page", 200),
        (Some("client"), "/page", 200),
        (Some("client"), "/admin/page", 403),
    ] {
        let response = wire(presented).get(path);
        assert_eq!(response.status, status, "{presented:?} {path}");
        assert_eq!(response.all("WWW-Authenticate").len(), usize::from(status == 401), "{presented:?} {path}");
    }
    assert_eq!(wire(None).upgrade("/who", &[]).status, 401);
    let mut client = wire(Some("client"));
    assert_eq!(client.upgrade("/who", &[]).status, 101);
    let backend = server.accept();
    let hello = read_hello(&mut backend.stream()).unwrap();
    assert_eq!((&*hello.user, &*hello.common_name), ("client", "client"));
    drop(backend);
    Client::new(client).expect_close_handshake(1000);
    daemon.log().wait_for(&["end client=", "name=\"who\"", "user=\"client\""]);
}
