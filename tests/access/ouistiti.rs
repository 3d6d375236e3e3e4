//! ouistiti's own configurations, which its tests run with: the same statuses and challenges.

use super::*;
use crate::process::{DEADLINE, expect_eq, free_port, run};
use crate::tls::authority;

/// The lines that ouistiti's configurations have beside `auth`, but a free port.
const SERVER: &str = "listen = \"127.0.0.1:0\"; hostname = \"www.ouistiti.net\"; keepalivetimeout = 50;
    document = { docroot = \"@/www\"; allow = \".html,.htm,.css,.js,.txt,*\"; deny = \".htaccess,.php\"; };";

/// `foo:bar`, as its tests send it.
const FOO: &str = "Authorization: Basic Zm9vOmJhcg==";

/// Starts a daemon with such a server.
fn ouistiti(folder: Folder, keys: &str) -> Daemon {
    let text = format!("limits = {{ {} }}; servers = ({{ {SERVER} {keys} }});", crate::daemon::patient(""));
    Daemon::start_configured_by(folder, &text, uakari())
}

/// The statuses of these requests, each with this field.
fn expect(daemon: &Daemon, cases: &[(&str, &str, u16, &str)]) {
    for (number, (path, field, status, challenge)) in cases.iter().enumerate() {
        let fields = if field.is_empty() { vec![] } else { vec![*field] };
        let response = Visitor::new(daemon, 1 + number as u8).get(path, &fields);
        let challenges = response.all("WWW-Authenticate");
        expect_eq(response.status, *status, (path, field, &response));
        let wanted = if challenge.is_empty() { 0 } else { 1 };
        assert_eq!(challenges.len(), wanted, "{path} {field}: {response:?}");
        assert!(challenges.iter().all(|got| got.starts_with(challenge)), "{path} {field}: {response:?}");
    }
}

/// test2: a user in the configuration (its tests 010 to 012). The realm is the hostname.
#[test]
fn a_user_in_the_configuration() {
    let daemon = ouistiti(new_folder(), "auth = { type=\"Basic\"; user=\"foo\"; passwd=\"bar\"; };");
    let challenge = "Basic realm=\"www.ouistiti.net\"";
    expect(
        &daemon,
        &[
            ("/index.html", "", 401, challenge),
            // ouistiti's test has `Authorization:test=error`, which is no credential.
            ("/index.html", &basic("foo", "baz"), 401, challenge),
            ("/index.html", FOO, 200, ""),
            ("/.htaccess", "", 401, challenge),
            ("/.htaccess", FOO, 404, ""),
        ],
    );
}

/// test8 and test19: a file of `ouipasswd -u foo -g users -H /users/foo -p bar -R ouistiti -A SHA-256` (tests 035, 036,
/// 046).
#[test]
fn a_file_of_ouipasswd() {
    for options in
        ["", "options = \"header\";", "options = \"jwt,header\"; secret = \"kXp2s5v8y/B?E(H+KbPeShVmYq3t6w9z\";"]
    {
        let folder = new_folder();
        let digest = ring::digest::digest(&ring::digest::SHA256, b"foo:ouistiti:bar");
        put(&folder, "passwd", &format!("foo:$a5$realm=ouistiti${}:users:/users/foo\n", STANDARD.encode(digest)));
        let keys = format!("auth = {{ type=\"Basic\"; file=\"@/passwd\"; {options} realm=\"www.ouistiti.net\"; }};");
        let daemon = ouistiti(folder, &keys);
        let challenge = "Basic realm=\"www.ouistiti.net\"";
        expect(
            &daemon,
            &[
                ("/index.html", "", 401, challenge),
                ("/index.html", &basic("foo", "baz"), 401, challenge),
                ("/index.html", FOO, 200, ""),
                ("/nosuch.html", FOO, 404, ""),
            ],
        );
        if !options.is_empty() {
            daemon.log().wait_for(&["warn", "options", "header"]);
        }
    }
}

/// test14: type None (test 064).
#[test]
fn none() {
    let daemon = ouistiti(new_folder(), "auth = { user = \"www-data\"; type = \"None\"; };");
    expect(&daemon, &[("/index.html", "", 200, ""), ("/index.html", FOO, 200, ""), ("/nosuch", "", 404, "")]);
}

/// test15 and test17: an address that is refused. Its own tests only see that others come in.
#[test]
fn a_filter_of_clients() {
    let daemon = ouistiti(new_folder(), "clientfilter = { deny = \"127.1.0.125\"; };");
    expect(&daemon, &[("/index.html", "", 200, ""), ("/index.html", "", 200, "")]);
    let mut wire = Visitor::new(&daemon, 125).wire();
    assert_eq!(wire.take_rest().len(), 0, "{}", wire.end());
    // A pattern without * is one of a beginning, as in ouistiti.
    let daemon = ouistiti(new_folder(), "clientfilter = { allow = \"127.1.0.3\"; deny = \"127.*\"; };");
    assert_eq!(Visitor::new(&daemon, 3).get("/index.html", &[]).status, 200);
    let mut wire = Visitor::new(&daemon, 125).wire();
    assert_eq!(wire.take_rest().len(), 0, "{}", wire.end());
}

/// test17: TLS, pages without a password, and http redirected (tests 072 and 080). Tokens are not issued, which is a
/// warning.
#[test]
fn tls_with_unprotected_pages() {
    let folder = new_folder();
    authority::issue(&folder);
    fs::create_dir(folder.join("www/trust")).unwrap();
    fs::write(folder.join("www/trust/signin.html"), "signin").unwrap();
    put(&folder, "passwd", "foo:bar:users:/users/foo\n");
    let auth = "auth = { realm = \"www.ouistiti.net\"; type = \"Basic\"; file=\"@/passwd\"; \
        secret = \"I am a great pretender\"; unprotect=\"^/trust/*\"; options = \"cookie\"; algorithm = \"SHA-256\"; };";
    let tls = "tls = { crtfile = \"@/tls/server-chain.crt\"; keyfile = \"@/tls/server.key\"; \
        cachain = \"@/tls/inter.crt\"; dhmfile = \"conf/ouistiti_dhparam.key\"; };";
    // A redirection needs a port that is known before the start.
    let on_port = |text: &str| text.replace(":0", &format!(":{}", free_port("127.0.0.1")));
    let http = format!(
        "{{ {} redirect = {{ options = \"hsts\"; }}; clientfilter = {{ deny = \"192.168.123.125\"; }}; }}",
        on_port(SERVER.split("document").next().unwrap())
    );
    let limits = crate::daemon::patient("");
    let text = format!("limits = {{ {limits} }}; servers = ({{ {} {auth} {tls} }}, {http});", on_port(SERVER));
    let daemon = Daemon::start_configured_by(folder, &text, uakari());
    let port_of = |scheme: &str| {
        let line = daemon.announced().wait_for(&[&format!("listening on {scheme}://")]);
        line.rsplit(':').next().unwrap().parse::<u16>().unwrap()
    };
    for (path, field, status) in [
        ("/index.html", "", 401),
        ("/index.html", FOO, 200),
        ("/trust/signin.html", "", 200),
        ("/trust/../index.html", "", 401),
        ("/trusty", "", 401),
    ] {
        let mut wire = crate::tls::wire(port_of("https"), crate::tls::client_config(&daemon, crate::tls::ALL, None));
        let fields = if field.is_empty() { vec![] } else { vec![field] };
        wire.send(request("GET", path, &fields));
        let response = wire.response();
        expect_eq(response.status, status, (path, field));
        let wanted = if status == 401 { "Basic realm=\"www.ouistiti.net\", charset=\"UTF-8\"" } else { "" };
        assert_eq!(response.field("WWW-Authenticate"), wanted, "{path} {field}");
    }
    let mut wire = Wire::connect(port_of("http"));
    wire.send(request("GET", "/index.html", &["Upgrade-Insecure-Requests: 1"]));
    let response = wire.response();
    assert_eq!(response.status, 301, "{response:?}");
    assert!(response.field("Location").starts_with("https://www.ouistiti.net"), "{response:?}");
}

/// test13: tokens. The secret is no file there, which is an error that says what to write; then the token of its test
/// 054, which ended in 1970, is refused, as are others.
#[test]
fn bearer() {
    let folder = new_folder();
    put(&folder, "secret", "kXp2s5v8y/B?E(H+KbPeShVmYq3t6w9z");
    let auth = "type=\"Bearer\"; options = \"jwt,cookie\"; issuer = \"sqlite\"; realm = \"www.ouistiti.net\"; \
        token_ep = \"https://auth.ouistiti.net:8080/token\";";
    let secret = "secret = \"kXp2s5v8y/B?E(H+KbPeShVmYq3t6w9z\";";
    let text = format!("servers = ({{ {SERVER} auth = {{ {auth} {secret} }}; }});");
    fs::write(folder.join("uakari.conf"), text.replace('@', folder.path().to_str().unwrap())).unwrap();
    let finished = run(uakari().args(["--check", "-f"]).arg(folder.join("uakari.conf")), DEADLINE);
    assert!(!finished.status.success(), "{finished:?}");
    assert!((finished.err + &finished.out).contains("algorithm = \"HS256\""), "no remedy is named");
    let key = "key = \"@/secret\"; algorithm = \"HS256\"; user-claim = \"user\";";
    let daemon = ouistiti(folder, &format!("auth = {{ {auth} {key} }};"));
    let old = "eyJhbGciOiAiSFMyNTYiLCAidHlwIjogIkpXVCJ9.eyJ1c2VyIjogImZvbyIsICJob21lIjogIi9ob21lL2ZvbyIsICJzdGF0dXMi\
        OiAiYWN0aXZhdGVkIiwgInJvbGVzIjogInVzZXJzIiwgImV4cCI6IDE4MDAsICJpc3MiOiAic3FsaXRlIn0.s3ceCBoZG55hnZ-1AKRSt-Yn\
        cJGvWW1TchZJAqBV2HM";
    let challenge = "Bearer realm=\"www.ouistiti.net\"";
    expect(
        &daemon,
        &[
            ("/index.html", "", 401, challenge),
            ("/index.html", FOO, 401, challenge),
            ("/index.html", &format!("Authorization: Bearer {old}"), 401, challenge),
            ("/index.html", &format!("Authorization: Bearer f{}", &old[1..]), 401, challenge),
        ],
    );
}

/// Its databases of test12, as ouistiti creates them: users, and rules for them.
const DATABASES: &str = r#"
import sqlite3, sys
users = sqlite3.connect(sys.argv[1] + "/passwd.db")
users.executescript("""
create table groups (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
insert into groups values (0, 'root'), (1, 'anonymous'), (2, 'users');
create table status (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
insert into status values (1, 'approving'), (2, 'activated'), (3, 'repudiated'), (4, 'reapproving');
create table users (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, groupid INTEGER DEFAULT 1, home TEXT);
create table passwds (userid INTEGER NOT NULL, passwd TEXT, issuer TEXT, statusid INTEGER DEFAULT 1);
insert into users values (1, 'root', 0, null), (2, 'foo', 2, '/home/foo'), (3, 'new', 2, null);
insert into passwds values (1, 'root', null, 2), (2, 'bar', null, 2), (3, 'bar', null, 1);
""")
rules = sqlite3.connect(sys.argv[1] + "/filter.db")
rules.executescript("""
create table methods (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
insert into methods (name) values ('GET'), ('POST'), ('PUT'), ('DELETE'), ('HEAD');
create table roles (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
insert into roles (id, name) values (0, 'root'), (1, 'anonymous'), (2, 'users');
create table rules (exp TEXT NOT NULL, methodid INTEGER NOT NULL, roleid INTEGER NOT NULL);
insert into rules values ('^/*', 1, 0), ('^/%g/%u/*', 1, 2), ('^/chat$', 1, 2);
""")
"#;

/// A folder with the databases, and with these pages.
fn with_databases(pages: &[&str]) -> Folder {
    let folder = new_folder();
    let made = run(crate::foreign::command("python3").args(["-c", DATABASES]).arg(folder.path()), DEADLINE);
    assert!(made.status.success(), "{made:?}");
    for name in pages {
        let path = folder.path().join("www").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    folder
}

/// test12: a database of users and a userfilter (tests 087 to 090). Bearer with tokens of another host is not served, so
/// users have passwords here; virtual hosts are servers of the same address.
#[test]
#[ignore = "needs python3"]
fn users_and_their_rules() {
    let folder = with_databases(&["users/foo/index.html", "users/root/index.html", "trust/x"]);
    let keys = "hostnames = (\"www.ouistiti.net\", \"gate.example\"); websocket = { docroot = \"@/run\"; };
        auth = { type=\"Basic\"; dbname = \"@/passwd.db\"; realm = \"www.ouistiti.local\"; };
        userfilter = { dbname = \"@/filter.db\"; allow = \"^/token$,^/trust/,^/index.html$\"; superuser = \"root\"; \
        configuri = \"^/filter/config*\"; };";
    let daemon = ouistiti(folder, keys);
    let (foo, root) = (FOO, basic("root", "root"));
    let challenge = "Basic realm=\"www.ouistiti.local\"";
    expect(
        &daemon,
        &[
            ("/users/foo/index.html", "", 401, challenge),
            ("/users/foo/index.html", foo, 200, ""),
            ("/users/foo/nosuch.html", foo, 404, ""),
            ("/users/root/index.html", foo, 403, ""),
            ("/users/foo/../root/index.html", foo, 403, ""),
            ("/users/root/index.html", &root, 200, ""),
            ("/index.html", foo, 200, ""),
            ("/trust/x", foo, 200, ""),
            ("/trust/../../../../../etc/passwd", foo, 403, ""),
            ("/page", foo, 403, ""),
            ("/page", &root, 200, ""),
            ("/users/foo/index.html", &basic("new", "bar"), 401, challenge),
            ("/users/foo/index.html", &basic("foo", "' or 1=1 --"), 401, challenge),
        ],
    );
    let post = Visitor::new(&daemon, 50).ask(&request("POST", "/users/foo/index.html", &[foo, "Content-Length: 0"])).1;
    assert_eq!(post.status, 403, "{post:?}");
    // WebSockets have the method GET.
    let servers = ["chat", "other"].map(|name| daemon.listen(name));
    let visitor = Visitor::new(&daemon, 51);
    assert_eq!(visitor.upgrade("/chat", &[foo]).status, 101);
    drop(servers[0].accept());
    assert_eq!(visitor.upgrade("/other", &[foo]).status, 403);
    assert!(servers[1].is_idle());
}

/// Its configuration test12: servers for other hosts within a server, with ports and files of the test.
const NESTED: &str = "servers = ({ hostname = \"www.ouistiti.local\"; addr = \"127.0.0.1\"; port = 8080; service = \"main\";
    keepalivetimeout = 5; version = \"HTTP11\";
    vhost = ({ hostname = \"auth.ouistiti.local\"; service = \"ouistitiauth\"; AUTH },
        { hostname = \"totp.ouistiti.local\"; service = \"ouistititoto\"; auth = { type = \"Basic\"; authz = \"totp\"; }; });
    auth = { type = \"Bearer\"; authz = \"jwt\"; options = \"token,cookie\"; secret = \"kXp2s5v8y/B?E(H+KbPeShVmYq3t6w9z\";
        signin = \"http://auth.ouistiti.local:8080/token\"; };
    MAIN });";

/// What the host of the passwords has in it.
const AUTH: &str = "auth = { type = \"Basic\"; dbname = \"@/passwd.db\"; options = \"token,cookie\";
        secret = \"kXp2s5v8y/B?E(H+KbPeShVmYq3t6w9z\"; unprotect = \"^/trust/*\"; signin = \"/trust/signin.html\"; };
    redirect = { links = ({ options = \"query,temporary\"; origin = \"^/token\"; }); };
    document = { docroot = \"@/www\"; allow = \"signin.html,.css,.js,\"; deny = \".htaccess,.php\"; };
    cors = { origin = \"localhost,ouistiti\"; };";

/// What the first host has in it, but its `auth`.
const MAIN: &str =
    "userfilter = { dbname = \"@/filter.db\"; allow = \"^/token$,^/trust/,^/index.html$\"; superuser = \"root\";
        configuri = \"^/filter/config*\"; };
    document = { docroot = \"@/www\"; allow = \".html,.htm,.css,.js,.txt,*\"; deny = \".htaccess,.php\"; };
    redirect = { links = ({ options = \"error\"; origin = 401; }); };
    cors = { origin = \"localhost,ouistiti\"; };";

/// test12 with its virtual hosts (tests 087 to 090): `--check` says what to write for them, and then each host has the
/// `auth` of its own.
#[test]
#[ignore = "needs python3 and openssl"]
fn virtual_hosts() {
    let folder = with_databases(&["users/root/index.html", "trust/signin.html", "style.css", "index.cgi"]);
    let place = folder.path().to_str().unwrap().to_owned();
    fs::write(folder.join("uakari.conf"), NESTED.replace("AUTH", AUTH).replace("MAIN", MAIN).replace('@', &place))
        .unwrap();
    let finished = run(uakari().args(["--check", "-f"]).arg(folder.join("uakari.conf")), DEADLINE);
    let told = finished.err + &finished.out;
    assert!(!finished.status.success(), "{told}");
    for part in ["vhost: ", "write a server with the same port and another hostname", "algorithm = \"HS256\""] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    // As it says: the keys of each host are in a server of its own. The one whose passwords are used once is not served.
    put(&folder, "jwt", "kXp2s5v8y/B?E(H+KbPeShVmYq3t6w9z");
    let listen = format!("listen = \"127.0.0.1:{}\"; keepalivetimeout = 50;", free_port("127.0.0.1"));
    let main = "auth = { type = \"Bearer\"; options = \"token,cookie\"; key = \"@/jwt\"; algorithm = \"HS256\"; \
        user-claim = \"user\"; };";
    let text = format!(
        "limits = {{ {} }}; servers = ({{ {listen} hostname = \"www.ouistiti.local\"; {main} {MAIN} }},
            {{ {listen} hostname = \"auth.ouistiti.local\"; {AUTH} }});",
        crate::daemon::patient("")
    );
    let token = |user: &str, roles: &str| {
        let exp = methods::now_s() + 600;
        let claims = format!(
            r#"{{"user":"{user}","home":"/home/foo","status":"activated","roles":"{roles}","exp":{exp},"iss":"sqlite"}}"#
        );
        format!("Authorization: Bearer {}", methods::jwt(&folder, &claims))
    };
    let (foo, root) = (&*token("foo", "users"), &*token("root", "root"));
    let daemon = Daemon::start_configured_by(folder, &text, uakari());
    let [www, auth, totp] = ["www", "auth", "totp"].map(|name| format!("{name}.ouistiti.local"));
    let (bearer, basic_auth) = ("Bearer realm=\"www.ouistiti.local\"", "Basic realm=\"auth.ouistiti.local\"");
    for (number, (host, path, field, status, challenge)) in [
        // 087: ouistiti answers 403, since a client without a token is \"anonymous\" to its filter.
        ("127.0.0.1", "/index.cgi", FOO, 401, bearer),
        ("127.0.0.1", "/index.cgi", foo, 403, ""),
        (&*www, "/index.cgi", root, 200, ""),
        // 088 and 089, with a token that has not expired.
        (&www, "/users/foo/index.html", foo, 404, ""),
        (&www, "/users/root/index.html", foo, 403, ""),
        (&www, "/users/root/index.html", root, 200, ""),
        (&www, "/index.html", "", 401, bearer),
        (&www, "/index.html", FOO, 401, bearer),
        (&www, "/trust/signin.html", "", 401, bearer),
        (&www, "/trust/signin.html", foo, 200, ""),
        // 090.
        ("127.0.0.1", "/trust/../../../../../etc/passwd", foo, 403, ""),
        ("127.0.0.1", "/trust/../../../../../etc/passwd", FOO, 401, bearer),
        // The host of the passwords: what it serves, and no token of the first one.
        (&auth, "/trust/signin.html", "", 200, ""),
        (&auth, "/style.css", "", 401, basic_auth),
        (&auth, "/style.css", foo, 401, basic_auth),
        (&auth, "/style.css", &basic("foo", "baz"), 401, basic_auth),
        (&auth, "/style.css", FOO, 200, ""),
        (&auth, "/trust/../index.html", "", 401, basic_auth),
        (&auth, "/index.html", FOO, 403, ""),
        (&auth, "/users/root/index.html", FOO, 403, ""),
        // A host that is not served has the first one's answer.
        (&totp, "/style.css", FOO, 401, bearer),
        (&totp, "/trust/signin.html", "", 401, bearer),
    ]
    .into_iter()
    .enumerate()
    {
        let fields = if field.is_empty() { vec![] } else { vec![field] };
        let text = request("GET", path, &fields).replace("gate.example", host);
        let response = Visitor::new(&daemon, 1 + number as u8).ask(&text).1;
        expect_eq(response.status, status, (host, path, field, &response));
        let challenges = response.all("WWW-Authenticate");
        assert_eq!(challenges.len(), usize::from(!challenge.is_empty()), "{host} {path} {field}: {response:?}");
        assert!(challenges.iter().all(|got| got.starts_with(challenge)), "{host} {path} {field}: {response:?}");
    }
}
