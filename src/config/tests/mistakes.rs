//! Errors of invalid configurations, and warnings about keys of ouistiti.

use super::*;

fn expect(cases: &[(String, &str)]) {
    for (text, said) in cases {
        let problems = load_text(text, &[]).map(|loaded| loaded.config).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(said)), "{text}\n{said:?} is not in {problems:#?}");
    }
}

/// A configuration with this line in the file.
fn top(line: &str) -> String {
    format!("servers = ({{ document = {{ docroot = \"/w\"; }}; }}); {line}")
}

/// A configuration with this line in a server.
fn server(line: &str) -> String {
    format!("servers = ({{ document = {{ docroot = \"/w\"; }}; {line} }});")
}

/// A configuration with this line in `document`.
fn document(line: &str) -> String {
    format!("servers = ({{ document = {{ docroot = \"/w\"; {line} }}; }});")
}

/// A configuration with this line in `websocket`.
fn websocket(line: &str) -> String {
    format!("servers = ({{ websocket = {{ docroot = \"/d\"; {line} }}; }});")
}

/// A configuration with this line in a link.
fn link(line: &str) -> String {
    websocket(&format!("links = ({{ origin = \"a\"; {line} }});"))
}

#[test]
fn files_and_servers() {
    expect(&[
        ("".to_owned(), "f has no server: write servers = ( { ... } );"),
        ("servers = ();".to_owned(), "f has no server: write servers = ( { ... } );"),
        ("servers = {};".to_owned(), "f:1: servers: is a group: write a list of groups ( { }, { } )"),
        ("servers = (1);".to_owned(), "f:1: servers[0]: is an integer: write a group { }"),
        ("servers = ({});".to_owned(), "f:1: servers[0]: serves nothing: write document"),
        (top("user = \" \";"), "f:1: user: is empty: write a value, or leave it out"),
        (top("log-level = \"loud\";"), "f:1: log-level: \"loud\" is not known: write one of error, warn, info, debug"),
        (top("driver = \"poll\";"), "f:1: driver: \"poll\" is not known: write one of auto, uring, epoll"),
        (top("limits = { clients = 0; };"), "f:1: limits.clients: 0 is out of bounds: write 1 to 1000000 clients"),
        (top("limits = { idle-ms = -1; };"), "f:1: limits.idle-ms: -1 is out of bounds: write 0 to 2592000000 ms"),
        (top("limits = { idle-ms = \"9\"; };"), "f:1: limits.idle-ms: is a string: write 0 to 2592000000 ms"),
        (top("limits = { idle-ms = 1.5; };"), "f:1: limits.idle-ms: is a number with a fraction: write 0 to"),
        (
            top("limits = { pool-buffers = 100; };"),
            "limits.pool-buffers: 100 is not a power of two: write one such as 64",
        ),
        (top("limits = { when-over = \"x\"; };"), "limits.when-over: \"x\" is not known: write one of slow, close"),
        (
            server("limits = { drain-ms = 1; };"),
            "servers[0].limits.drain-ms: unknown key here: it belongs in the file's",
        ),
        (server("port = 65536;"), "servers[0].port: 65536 is out of bounds: write 0 to 65535"),
        (server("port = 80; listen = \"[::]:1\";"), "servers[0].port: listen is set too: keep one of them"),
        (server("addr = \"::\"; listen = \"[::]:1\";"), "servers[0].addr: listen is set too: keep one of them"),
        (
            server("addr = \"eth0\";"),
            "servers[0].addr: \"eth0\" is not an IP address: write one such as 192.0.2.1 or ::1",
        ),
        (server("listen = [];"), "servers[0].listen: is empty"),
        (server("listen = (1);"), "servers[0].listen: contains an integer: write a string or a list of strings"),
        (server("listen = (\"[::]:1\", \"80\");"), "servers[0].listen: \"80\" is not an address: write 127.0.0.1:8080"),
        (server("listen = [\"[::]:1\", \"[::]:1\"];"), "servers[0]: http://[::]:1 is listed twice: keep one of them"),
        (
            server("hostname = \"a:80\";"),
            "servers[0].hostname: \"a:80\" is not a host name: write one such as app.example",
        ),
        (server("keepalivetimeout = 3601;"), "servers[0].keepalivetimeout: 3601 is out of bounds: write 0 to 3600 s"),
        (server("maxclients = 1; limits = { clients = 1; };"), "maxclients: clients of limits is set too: keep one"),
        (server("keepalivetimeout = 1; limits = { keepalive-ms = 1; };"), "keepalive-ms of limits is set too"),
        (server("websocket = {};"), "servers[0].websocket: serves nothing: write docroot = \"DIR\"; or links"),
        (server("colour = 1;"), "servers[0].colour: unknown key: leave it out"),
        (
            "servers = ({ document = {}; });".to_owned(),
            "servers[0].document: serves nothing: write docroot = \"DIR\"; or links = ( { ... } );",
        ),
        (document("cache-control = \"a\\n\";"), "cache-control: \"a\\n\" is not a valid header value"),
    ]);
}

#[test]
fn page_headers() {
    let headers = |group: &str| document(&format!("headers = ({{ {group} }});"));
    expect(&[
        (headers("name = \"Date\"; value = \"x\";"), "headers[0].name: \"Date\" is set by uakari itself: leave it out"),
        (
            headers("path = \",\"; name = \"X\"; value = \"a\\r\\nY: b\";"),
            "headers[0].value: \"a\\r\\nY: b\" is not a valid header value",
        ),
        (headers("name = \"X\";"), "headers[0]: value is missing"),
        (
            headers(&format!("name = \"X\"; value = \"{}\";", "a".repeat(8192))),
            "headers: have more than 8192 bytes in all: write fewer or shorter ones",
        ),
    ]);
}

#[test]
fn websockets() {
    expect(&[
        (websocket("protocl = \"x\";"), "servers[0].websocket.protocl: unknown key: did you mean \"protocol\"?"),
        (websocket("idle-ms = 1;"), "servers[0].websocket.idle-ms: unknown key here: it belongs in limits = { }"),
        (websocket("hello = 1;"), "servers[0].websocket.hello: is an integer: write true or false"),
        (
            websocket("options = \"direct\"; protocol = \"lines\";"),
            "servers[0].websocket.protocol: options has \"direct\", which needs protocol = \"stream\"",
        ),
        (
            websocket("origins = \"x\";"),
            "servers[0].websocket.origins: \"x\" is not an origin: write same, *, or origins",
        ),
        (websocket("origins = (\"same\", \"*\");"), "servers[0].websocket.origins: \"same\" cannot be combined"),
        (websocket("type = \"text\"; message-type = \"text\";"), "websocket.message-type: type is set too: keep one"),
        (
            websocket("limits = { head-ms = 1000; };"),
            "websocket.limits.head-ms: unknown key here: it belongs in the file's",
        ),
        (
            websocket("links = ({});"),
            "servers[0].websocket.links[0]: destination is missing: write destination = VALUE;",
        ),
    ]);
}

#[test]
fn links() {
    expect(&[
        (
            link("type = \"udp\"; destination = \"/a\";"),
            "links[0].type: \"udp\" is not known: write one of unix, tcp, tty, fifo",
        ),
        (
            link("type = \"unix\"; destination = \"a\";"),
            "links[0].destination: \"a\" is not absolute: write the full path",
        ),
        (link("type = \"tcp\"; destination = \"/a\";"), "links[0].destination: \"/a\" is not a TCP address"),
        (
            link("type = \"tcp\"; destination = \"::1\"; port = \"x\";"),
            "links[0].port: \"x\" is out of bounds: write 0 to 65535",
        ),
        (
            link("type = \"unix\"; destination = \"/a\"; port = 1;"),
            "links[0].port: is for type = \"tcp\" only: leave it out",
        ),
        (
            link("type = \"fifo\"; destination = \"/a\"; baud = 9600;"),
            "links[0].baud: is for type = \"tty\" only: leave it out",
        ),
        (
            link("type = \"tty\"; destination = \"/a\"; baud = 9601;"),
            "links[0].baud: 9601 is not a speed of a tty: write one",
        ),
        (
            link("type = \"tty\"; destination = \"/a\"; baud = \"5000000\";"),
            "baud: \"5000000\" is out of bounds: write 50 to",
        ),
        (
            link("type = \"tty\"; destination = \"/a\"; limits = { clients = 1025; };"),
            "clients: 1025 is too many for a tty or fifo: write 1 to 1024",
        ),
        (
            link("type = \"tcp\"; destination = \"[::1]:1\"; protocol = \"packet\";"),
            "links[0].protocol: packet needs type = \"unix\"",
        ),
        (
            link("type = \"unix\"; destination = \"/a\"; options = \"follow\";"),
            "links[0].options: follow applies to docroot only: leave",
        ),
        (
            link("type = \"tty\"; destination = \"/a\"; options = \"direct\";"),
            "links[0].options: direct needs type = \"unix\": leave it out",
        ),
        (
            link("type = \"unix\"; destination = \"/a\"; options = \"direct\"; protocol = \"nul\";"),
            "links[0].protocol: options has \"direct\", which needs protocol = \"stream\"",
        ),
        (link("").replace("\"a\"", "\" , \""), "links[0].origin: is empty: write patterns such as \"^/gps$\""),
    ]);
}

/// An inherited value may be wrong for a link.
#[test]
fn inherited_mistakes() {
    let text = "servers = ({ websocket = { protocol = \"packet\"; links = (\n{ origin = \"a\"; type = \"tty\"; destination = \"/a\"; }); }; });";
    let said = ["f:2: servers[0].websocket.links[0]: packet needs type = \"unix\": write another protocol in the link"];
    assert_eq!(load_text(text, &[]).unwrap_err(), said);
}

#[test]
fn conflicting_servers() {
    let pair = |one: &str, two: &str| {
        let document = "document = { docroot = \"/w\"; };";
        format!("servers = ({{ {document} {one} }},\n{{ {document} {two} }});")
    };
    for (one, two, said) in [
        ("", "", Some("f:2: servers[1]: http://0.0.0.0:80 is used by servers[0] too: give them different hostnames")),
        ("hostname = \"a\";", "hostname = \"A\";", Some("different hostnames")),
        ("hostname = \"a\";", "hostname = \"A.\";", Some("different hostnames")),
        ("hostname = \"[::1]\";", "hostname = \"[0::1]\";", Some("different hostnames")),
        ("hostname = \"a\";", "hostname = \"b\";", None),
        ("hostname = \"a\";", "", None),
        ("addr = \"127.0.0.1\";", "addr = \"::1\";", None),
        (
            "addr = \"127.0.0.1\";",
            "",
            Some("f:1: servers[0]: 0.0.0.0:80 of servers[1] includes 127.0.0.1:80: listen on one"),
        ),
        ("addr = \"127.0.0.1\"; port = 81;", "", None),
        ("listen = \"127.0.0.1:0\";", "listen = \"0.0.0.0:0\";", None),
        ("listen = \"unix:/a\";", "listen = \"unix:/a\";", Some("unix:/a is used by servers[0] too")),
        ("listen = \"unix:/a\";", "listen = \"unix:/b\";", None),
    ] {
        let loaded = load_text(&pair(one, two), &[]);
        match (said, &loaded) {
            (None, Ok(_)) => {}
            (Some(said), Err(problems)) => {
                assert!(problems.iter().any(|problem| problem.contains(said)), "{one} {two}: {problems:?}");
            }
            _ => panic!("{one} {two}: {loaded:?}"),
        }
    }
}

#[test]
fn maximum_numbers() {
    let servers = |count: usize| {
        let one = |number| format!("{{ port = {}; document = {{ docroot = \"/w\"; }}; }},\n", number + 1);
        format!("servers = ({});", (0..count).map(one).collect::<String>())
    };
    assert_eq!(good(&servers(limits::SERVERS_MAX)).servers.len(), limits::SERVERS_MAX);
    let said = ["f:257: servers[256]: is beyond the maximum of 256: leave it out"];
    assert_eq!(load_text(&servers(limits::SERVERS_MAX + 1), &[]).unwrap_err(), said);
    let addresses: Vec<String> = (0..=limits::LISTEN_MAX).map(|port| format!("\"[::]:{}\"", port + 1)).collect();
    let text = format!("servers = ({{ listen = [{}]; document = {{ docroot = \"/w\"; }}; }});", addresses.join(","));
    let said = ["f:1: servers[0].listen: has more than 64 addresses: make several servers"];
    assert_eq!(load_text(&text, &[]).unwrap_err(), said);
}

/// Each key of ouistiti that is not served is ignored with one warning.
#[test]
fn ignored_keys_of_ouistiti() {
    let ignored: Vec<&keys::ConfigKey> = keys::all().filter(|key| matches!(key.kind, keys::Kind::Ignored)).collect();
    assert!(ignored.len() > 25, "{}", ignored.len());
    for key in ignored {
        let extra = format!("{} = {{ anything = (1, \"x\"); }};", key.name);
        let place = |scope| if key.scopes == [scope] { extra.as_str() } else { "" };
        let text = format!(
            "{} servers = ({{ {} document = {{ docroot = \"/w\"; {} }}; websocket = {{ docroot = \"/d\"; {} }}; \
             tls = {{ crtfile = \"/c\"; {} }}; auth = {{ type = \"basic\"; file = \"/f\"; {} }}; \
             userfilter = {{ dbname = \"/f\"; {} }}; }});",
            place(Scope::Top),
            place(Scope::Server),
            place(Scope::Document),
            place(Scope::WebSocket),
            place(Scope::Tls),
            place(Scope::Auth),
            place(Scope::UserFilter)
        );
        let loaded = load_text(&text, &[]).unwrap();
        let [warning] = &loaded.warnings[..] else { panic!("{}: {:?}", key.name, loaded.warnings) };
        assert_eq!(warning.level, Level::Warn);
        assert!(warning.to_string().contains(&format!("{}: is not served: ", key.name)), "{warning}");
    }
}

/// An old name of a key is an error, unless the new one is set: ouistiti reads that one alone.
#[test]
fn renamed_keys_of_ouistiti() {
    let renamed = keys::all().filter_map(|key| match key.kind {
        keys::Kind::Renamed(new) => Some((key.name, new, key.scopes[0])),
        _ => None,
    });
    for (old, new, scope) in renamed {
        let within = |line: &str| if scope == Scope::Document { document(line) } else { websocket(line) };
        let key = format!("f:1: servers[0].{}.{old}", scope.title());
        let text = within(&format!("{old} = \"x\";"));
        assert_eq!(
            load_text(&text, &[]).unwrap_err(),
            [format!("{key}: ouistiti renamed it to {new}: write {new} instead")]
        );
        let loaded = load_text(&within(&format!("{old} = \"x\"; {new} = \"y\";")), &[]).unwrap();
        let said = [format!("{key}: has no effect: {new}, its new name, is set")];
        assert_eq!(loaded.warnings.iter().map(Problem::to_string).collect::<Vec<_>>(), said);
    }
    let config = good("servers = ({ static_file = { docroot = \"/w\"; }; });");
    assert_eq!(config.servers[0].www.as_deref(), Some("/w"));
    let text = server("static_file = { docroot = \"/w\"; };");
    assert_eq!(
        load_text(&text, &[]).unwrap_err(),
        ["f:1: servers[0].static_file: document is set too: keep one of them"]
    );
}

#[test]
fn files_that_cannot_be_read() {
    for (name, said) in [
        (
            "/nonexistent/f",
            "/nonexistent/f cannot be read: No such file or directory: name a file that this user may read",
        ),
        ("/dev/null", "/dev/null is not a regular file: name another one"),
        ("/", "/ is not a regular file: name another one"),
    ] {
        let problems = load(Some(name), &[]).map(|loaded| loaded.config).unwrap_err();
        assert_eq!(problems.iter().map(Problem::to_string).collect::<Vec<_>>(), [said]);
    }
}
