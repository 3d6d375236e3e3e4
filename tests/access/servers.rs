//! Servers that decide: they allow, deny, are slow, and are gone.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::*;
use crate::process::{eventually, expect_eq};

/// A server that answers each question by this function; None: never.
struct Decider {
    /// The questions so far.
    asked: Arc<Mutex<Vec<Value>>>,
    /// Its present connection.
    connection: Arc<Mutex<Option<UnixStream>>>,
}

impl Decider {
    /// Listens at `decide` in the folder. It serves one connection after the other.
    fn start(folder: &Folder, decide: fn(&Value) -> Option<Value>) -> Decider {
        let listener = UnixListener::bind(folder.join("decide")).unwrap();
        let decider = Decider { asked: Arc::default(), connection: Arc::default() };
        let (asked, connection) = (decider.asked.clone(), decider.connection.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                *connection.lock().unwrap() = Some(stream);
                for line in lines.map_while(Result::ok) {
                    let question: Value = serde_json::from_str(&line).unwrap();
                    asked.lock().unwrap().push(question["params"].clone());
                    if let Some(result) = decide(&question["params"]) {
                        let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
                        Decider::send(&connection, &answer);
                    }
                }
            }
        });
        decider
    }

    fn send(connection: &Mutex<Option<UnixStream>>, message: &Value) {
        let text = format!("{message}\n");
        // The helper may be gone.
        let _ = connection.lock().unwrap().as_mut().unwrap().write_all(text.as_bytes());
    }

    fn say(&self, message: &Value) {
        Decider::send(&self.connection, message);
    }
}

const KEYS: &str =
    "auth = { type = \"unix\"; path = \"@/decide\"; headers = (\"cookie\", \"X-Door\"); cache-ms = 0; };";

fn by_cookie(params: &Value) -> Option<Value> {
    match params["headers"]["cookie"].as_str().unwrap_or_default() {
        "s=ann" => Some(json!({ "allow": true, "user": "ann", "groups": ["staff", "ops"] })),
        "s=new" => Some(json!({ "allow": false, "deny": 401 })),
        "s=fast" => Some(json!({ "allow": false, "wait": 7 })),
        "s=slow" => None,
        _ => Some(json!({ "allow": false })),
    }
}

#[test]
fn a_server_decides() {
    let folder = new_folder();
    let decider = Decider::start(&folder, by_cookie);
    let daemon = start_in(folder, KEYS);
    let server = daemon.listen("who");
    let visitor = Visitor::new(&daemon, 1);
    for (cookie, status) in [("s=ann", 200), ("s=bob", 403), ("", 403), ("s=new", 401), ("s=fast", 429)] {
        let field = format!("Cookie: {cookie}");
        let fields = if cookie.is_empty() { vec![] } else { vec![&*field] };
        let page = visitor.get("/page", &fields);
        let retry = if status == 429 { "7" } else { "" };
        expect_eq((page.status, page.field("Retry-After")), (status, retry), cookie);
        assert_eq!(page.all("WWW-Authenticate").len(), usize::from(status == 401), "{cookie}");
        if status != 200 {
            expect_eq(visitor.upgrade("/who", &fields).status, status, cookie);
        }
    }
    assert!(server.is_idle());
    let fields = ["Cookie: s=ann", "X-Door: 7", "X-Window: 8"];
    let (mut client, hello, mut backend) = visitor.join(&server, "/who?room=1", &fields);
    assert_eq!((&*hello.user, &*hello.groups, &*hello.query), ("ann", "staff,ops", "room=1"));
    let question = decider.asked.lock().unwrap().last().cloned().unwrap();
    let wanted = json!({
        "method": "GET", "path": "/who", "query": "room=1", "host": "gate.example", "address": "127.1.0.1",
        "headers": { "cookie": "s=ann", "x-door": "7" }
    });
    assert_eq!(question, wanted);
    // What it takes back ends at once.
    decider.say(&json!({ "jsonrpc": "2.0", "method": "revoked", "params": { "user": "bob" } }));
    client.text("bob is another one");
    backend.expect("bob is another one");
    decider.say(&json!({ "jsonrpc": "2.0", "method": "revoked", "params": { "user": "ann" } }));
    backend.expect_end();
    drop(backend);
    assert_eq!(client.expect_close_handshake(1008), "access revoked");
}

/// Nothing is allowed by failing, and the gateway goes on.
#[test]
fn a_server_that_fails() {
    let folder = new_folder();
    let keys = format!("{KEYS} paths = ({{ path = \"^/open\"; auth = {{ type = \"none\"; }}; }});");
    let daemon = start_in(folder, &keys);
    let server = daemon.listen("who");
    let visitor = Visitor::new(&daemon, 1);
    let ask = |cookie: &str| {
        let (mut page, mut socket) = (visitor.wire(), visitor.wire());
        let field = format!("Cookie: {cookie}");
        page.send(request("GET", "/page", &[&field]));
        socket.send(handshake("/who", &[], &[&field]));
        // Others are served meanwhile.
        expect_eq(visitor.get("/open/page", &[]).status, 200, "another page");
        [page, socket].map(|mut wire| wire.response())
    };
    let expect_unavailable = |cookie: &str, what: &str| {
        for response in ask(cookie) {
            expect_eq(response.status, 503, what);
            assert_eq!((response.field("Retry-After").is_empty(), response.all("WWW-Authenticate").len()), (false, 0));
            assert!(!response.text().contains("decide"), "a client learns about the server: {response:?}");
        }
    };
    expect_unavailable("s=ann", "there is no server");
    daemon.log().wait_for(&["info", "no decision about a request", "decide"]);
    let decider = Decider::start(daemon.folder(), by_cookie);
    eventually("the server is asked", || visitor.get("/page", &["Cookie: s=ann"]).status == 200);
    expect_unavailable("s=slow", "it does not answer");
    eventually("it is asked after that", || visitor.get("/page", &["Cookie: s=ann"]).status == 200);
    // It says what is no answer.
    let asked = decider.asked.lock().unwrap().len();
    let mut wire = visitor.wire();
    wire.send(request("GET", "/page", &["Cookie: s=slow"]));
    eventually("it is asked", || decider.asked.lock().unwrap().len() > asked);
    decider.say(&json!({ "allow": true }));
    expect_eq(wire.response().status, 503, "an answer that is none");
    eventually("a new connection", || visitor.get("/page", &["Cookie: s=ann"]).status == 200);
    assert!(server.is_idle());
}
