//! Servers that decide: they allow, deny, are slow, and are gone.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::{Value, json};

use super::*;
use crate::process::{eventually, expect_eq, peak_kib_of};
use crate::reload::{TAKEN, reload};

/// A server that answers each question by a function; None: never.
struct Decider {
    shared: Arc<Shared>,
}

/// What the threads of a server know.
#[derive(Default)]
struct Shared {
    /// The questions so far.
    asked: Mutex<Vec<Value>>,
    /// The cookies of those that are not answered.
    open: Mutex<Vec<String>>,
    connections: Mutex<Vec<UnixStream>>,
    /// While it is locked, no question is answered.
    gate: Mutex<()>,
}

impl Decider {
    /// Listens at `decide` in the folder.
    fn start<F>(folder: &Folder, decide: F) -> Decider
    where
        F: Fn(&Value) -> Option<Value> + Clone + Send + 'static,
    {
        let listener = UnixListener::bind(folder.join("decide")).unwrap();
        let shared = Arc::<Shared>::default();
        let decider = Decider { shared: shared.clone() };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                shared.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let (shared, decide) = (shared.clone(), decide.clone());
                thread::spawn(move || serve(&stream, &shared, &decide));
            }
        });
        decider
    }

    /// The number of questions so far.
    fn asked(&self) -> usize {
        self.shared.asked.lock().unwrap().len()
    }

    /// The newest connection, once the helper has made this number of them.
    fn newest(&self, number: usize) -> UnixStream {
        let count = || self.shared.connections.lock().unwrap().len();
        eventually("the helper connects", || count() >= number);
        assert_eq!(count(), number, "the helper connects once for a configuration");
        self.shared.connections.lock().unwrap().last().unwrap().try_clone().unwrap()
    }

    /// Says it on the newest connection.
    fn say(&self, message: &Value) {
        send(self.shared.connections.lock().unwrap().last().unwrap(), message);
    }

    /// Answers nothing until the guard is dropped, and waits until there is a question about each of these cookies.
    fn hold(&self, cookies: &[String]) -> MutexGuard<'_, ()> {
        let held = self.shared.gate.lock().unwrap();
        eventually("a question about each client is open", || {
            let open = self.shared.open.lock().unwrap();
            cookies.iter().all(|cookie| open.contains(cookie))
        });
        held
    }

    /// Waits for a new question about each of these cookies.
    fn wait_for_questions(&self, cookies: &[String]) {
        let before = self.asked();
        eventually("it is asked about each client", || {
            let asked = self.shared.asked.lock().unwrap();
            let about: HashSet<&str> = asked[before..].iter().map(cookie_of).collect();
            cookies.iter().all(|cookie| about.contains(&**cookie))
        });
    }
}

/// The cookie of a question.
fn cookie_of(params: &Value) -> &str {
    params["headers"]["cookie"].as_str().unwrap_or_default()
}

/// Answers the questions of a connection, in any order.
fn serve<F>(stream: &UnixStream, shared: &Arc<Shared>, decide: &F)
where
    F: Fn(&Value) -> Option<Value> + Clone + Send + 'static,
{
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        let question: Value = serde_json::from_str(&line).unwrap();
        let cookie = cookie_of(&question["params"]).to_owned();
        shared.asked.lock().unwrap().push(question["params"].clone());
        shared.open.lock().unwrap().push(cookie.clone());
        let (stream, shared, decide) = (stream.try_clone().unwrap(), shared.clone(), decide.clone());
        thread::spawn(move || {
            // Poisoned by a test that has failed.
            drop(shared.gate.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(result) = decide(&question["params"]) {
                send(&stream, &json!({ "jsonrpc": "2.0", "id": question["id"], "result": result }));
            }
            let mut open = shared.open.lock().unwrap();
            let place = open.iter().position(|other| *other == cookie).unwrap();
            open.remove(place);
        });
    }
}

/// Sends a line in one write, so that no other one comes between.
fn send(mut stream: &UnixStream, message: &Value) {
    // The helper may be gone.
    let _ = stream.write_all(format!("{message}\n").as_bytes());
}

fn revoked(user: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": "revoked", "params": { "user": user } })
}

/// The gateway closes the WebSocket, since the admission was revoked.
fn expect_revoked(mut client: Client, mut backend: Backend) {
    backend.expect_end();
    drop(backend);
    assert_eq!(client.expect_close_handshake(1008), "access revoked");
}

const KEYS: &str =
    "auth = { type = \"unix\"; path = \"@/decide\"; headers = (\"cookie\", \"X-Door\"); cache-ms = 0; };";

fn by_cookie(params: &Value) -> Option<Value> {
    match cookie_of(params) {
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
    let question = decider.shared.asked.lock().unwrap().last().cloned().unwrap();
    let wanted = json!({
        "method": "GET", "path": "/who", "query": "room=1", "host": "gate.example", "address": "127.1.0.1",
        "headers": { "cookie": "s=ann", "x-door": "7" }
    });
    assert_eq!(question, wanted);
    // What it takes back ends at once.
    decider.say(&revoked("bob"));
    client.text("bob is another one");
    backend.expect("bob is another one");
    decider.say(&revoked("ann"));
    expect_revoked(client, backend);
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
    let asked = decider.asked();
    let mut wire = visitor.wire();
    wire.send(request("GET", "/page", &["Cookie: s=slow"]));
    eventually("it is asked", || decider.asked() > asked);
    decider.say(&json!({ "allow": true }));
    expect_eq(wire.response().status, 503, "an answer that is none");
    eventually("a new connection", || visitor.get("/page", &["Cookie: s=ann"]).status == 200);
    assert!(server.is_idle());
}

/// It is the same server in each configuration, whatever else changes.
#[test]
fn a_server_revokes_what_it_allowed_before_reloads() {
    let keys = |password: &str| {
        let auth = format!("auth = {{ type = \"basic\"; user = \"x\"; passwd = \"{password}\"; }};");
        format!("{KEYS} paths = ({{ path = \"^/other\"; {auth} }});")
    };
    let folder = new_folder();
    let decider = Decider::start(&folder, by_cookie);
    let daemon = start_in(folder, &keys("1"));
    decider.newest(1);
    let server = daemon.listen("who");
    let visitor = Visitor::new(&daemon, 1);
    let [first, second, third] = [1, 2, 3].map(|number| {
        if number > 1 {
            reload(&daemon, &gateway("", &keys(&number.to_string())), TAKEN);
            // The older connection is left to the questions of older connections.
            decider.newest(number);
        }
        let (client, _, backend) = visitor.join(&server, "/who", &["Cookie: s=ann"]);
        (client, backend)
    });
    decider.say(&revoked("bob"));
    let mut all = [first, second, third];
    for (client, backend) in &mut all {
        client.text("bob is another one");
        backend.expect("bob is another one");
    }
    decider.say(&revoked("ann"));
    all.into_iter().for_each(|(client, backend)| expect_revoked(client, backend));
}

/// A new helper connects without a question.
#[test]
fn a_server_revokes_after_the_helper_was_killed() {
    let folder = new_folder();
    let decider = Decider::start(&folder, by_cookie);
    let daemon = start_in(folder, KEYS);
    decider.newest(1);
    let server = daemon.listen("who");
    let (mut client, _, mut backend) = Visitor::new(&daemon, 1).join(&server, "/who", &["Cookie: s=ann"]);
    nix::sys::signal::kill(crate::supervision::helper(&daemon), nix::sys::signal::Signal::SIGKILL).unwrap();
    decider.newest(2);
    client.text("still here");
    backend.expect("still here");
    decider.say(&revoked("ann"));
    expect_revoked(client, backend);
}

/// Others go on meanwhile, and the helper keeps few of them.
#[test]
fn a_server_revokes_very_much() {
    let folder = new_folder();
    let decider = Decider::start(&folder, by_cookie);
    let daemon = start_in(folder, KEYS);
    let mut stream = decider.newest(1);
    let helper = crate::supervision::helper(&daemon);
    let server = daemon.listen("who");
    let visitor = Visitor::new(&daemon, 1);
    let (mut client, _, mut backend) = visitor.join(&server, "/who", &["Cookie: s=ann"]);
    let before_kib = peak_kib_of(helper);
    let flood = thread::spawn(move || {
        (0..100_000).for_each(|number| writeln!(stream, "{}", revoked(&format!("user{number}"))).unwrap());
    });
    let mut echoes = 0;
    while echoes == 0 || !flood.is_finished() {
        client.text("still here");
        backend.expect("still here");
        backend.send("here too");
        client.expect_text("here too");
        echoes += 1;
    }
    flood.join().unwrap();
    decider.say(&revoked("ann"));
    expect_revoked(client, backend);
    let grown_kib = peak_kib_of(helper) - before_kib;
    assert!(grown_kib < 8 * 1024, "{grown_kib} KiB");
}

/// WebSockets whose credentials are being verified again while the configuration is reloaded, unchanged, changed in another
/// key, and changed in the `auth` itself: they stay open, the next verification is made, and what is revoked ends.
#[test]
fn reloads_while_rechecks_are_open() {
    /// As many as may be verified again at a time: a place that is lost would be missed.
    const ALL: usize = uakari::limits::AUTH_RECHECKS_MAX;
    let folder = new_folder();
    let revoked: Arc<Mutex<HashSet<String>>> = Arc::default();
    let is_revoked = revoked.clone();
    let decider = Decider::start(&folder, move |params| {
        let user = cookie_of(params).strip_prefix("s=")?;
        Some(json!({ "allow": !is_revoked.lock().unwrap().contains(user), "user": user }))
    });
    let auth = |headers: &str| {
        let path = "type = \"unix\"; path = \"@/decide\"; cache-ms = 0; recheck-ms = 1000;";
        gateway("", &format!("auth = {{ {path} headers = ({headers}); }};"))
    };
    let before = auth("\"cookie\"");
    let daemon = Daemon::start_configured_by(folder, &before, uakari());
    let server = daemon.listen("who");
    let visitor = Visitor::new(&daemon, 1);
    let cookies: Vec<String> = (0..ALL).map(|number| format!("s=user{number}")).collect();
    let join = |cookie: &String| visitor.join(&server, "/who", &[&format!("Cookie: {cookie}")]);
    let mut clients: Vec<(Client, Hello, Backend)> = cookies.iter().map(join).collect();
    decider.wait_for_questions(&cookies);
    let files = daemon.open_files();
    let other_key = before.replacen("document", "maxclients = 100; document", 1);
    for text in [&before, &other_key, &auth("\"cookie\", \"X-Door\"")] {
        let held = decider.hold(&cookies);
        reload(&daemon, text, TAKEN);
        drop(held);
        for round in ["the questions that were open", "the next ones"] {
            for (client, _, backend) in &mut clients {
                client.text(round);
                backend.expect(round);
            }
            decider.wait_for_questions(&cookies);
        }
    }
    // Before any of these is answered, two users are revoked. The other ones stay.
    let held = decider.hold(&cookies);
    revoked.lock().unwrap().extend(["user3", "user11"].map(str::to_owned));
    drop(held);
    for number in [11, 3] {
        let (mut client, _, mut backend) = clients.remove(number);
        backend.expect_end();
        drop(backend);
        assert_eq!(client.expect_close_handshake(1008), "access revoked");
    }
    let left: Vec<String> =
        cookies.into_iter().filter(|cookie| !["s=user3", "s=user11"].contains(&&**cookie)).collect();
    decider.wait_for_questions(&left);
    for (client, _, backend) in &mut clients {
        client.text("still here");
        backend.expect("still here");
    }
    assert_eq!(visitor.upgrade("/who", &["Cookie: s=user3"]).status, 403);
    // Those that are admitted by the new configuration are verified again, too.
    clients.push(join(&"s=new".to_owned()));
    decider.wait_for_questions(&["s=new".to_owned()]);
    eventually("no file is left open", || daemon.open_files() <= files);
}
