//! Credentials that end while their WebSockets are open.

use super::methods::now_s;
use super::*;
use crate::process::eventually;

/// The gateway closes with 1008 and this reason.
fn expect_end(mut client: Client, mut backend: Backend, reason: &str) {
    backend.expect_end();
    drop(backend);
    assert_eq!(client.expect_close_handshake(1008), reason);
}

/// A password that is changed, and a token that is removed, end what they had opened.
#[test]
fn credentials_are_verified_again() {
    let keys = "paths = (
        { path = \"^/cookie\"; auth = { type = \"cookie\"; tokens = \"@/tokens\"; recheck-ms = 1000; }; },
        { path = \"^/once\"; auth = { type = \"basic\"; file = \"@/users\"; }; });
        auth = { type = \"basic\"; file = \"@/users\"; recheck-ms = 1000; };";
    let folder = new_folder();
    put(&folder, "tokens", "0123456789abcdef:tina\nfedcba9876543210:tom\n");
    let daemon = start_in(folder, keys);
    let servers = ["cookie", "basic", "once"].map(|name| daemon.listen(name));
    let visitor = Visitor::new(&daemon, 1);
    let cookies = ["0123456789abcdef", "fedcba9876543210"].map(|token| format!("Cookie: token={token}"));
    let [tina, tom] = cookies.each_ref().map(|field| visitor.join(&servers[0], "/cookie", &[field]));
    let passwords = ["ann", "bob"].map(|user| basic(user, "secret"));
    let [ann, bob] = passwords.each_ref().map(|field| visitor.join(&servers[1], "/basic", &[field]));
    let once = visitor.join(&servers[2], "/once", &[&passwords[0]]);
    put(daemon.folder(), "tokens", "fedcba9876543210:tom\n");
    put(daemon.folder(), "users", "bob:secret:guests:\n");
    for (client, _, backend) in [tina, ann] {
        expect_end(client, backend, "access revoked");
    }
    // New handshakes fail, even if they were remembered.
    eventually("the token is unknown", || Visitor::new(&daemon, 2).upgrade("/cookie", &[&cookies[0]]).status == 401);
    for (mut client, _, mut backend) in [tom, bob, once] {
        client.text("still here");
        backend.expect("still here");
        client.close(1000);
    }
    daemon.log().wait_for(&["end client=127.1.0.1:", "user=\"ann\"", "code=1008"]);
}

/// Without the helper nothing new is allowed, but what is open stays open for a while.
#[test]
fn an_open_websocket_outlives_the_helper() {
    let keys = "auth = { type = \"basic\"; file = \"@/users\"; recheck-ms = 1000; };";
    let daemon = start(keys);
    let server = daemon.listen("who");
    let (mut client, _, mut backend) = Visitor::new(&daemon, 1).join(&server, "/who", &[&basic("ann", "secret")]);
    for _ in 0..2 {
        let helper = crate::supervision::helper(&daemon);
        nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL).unwrap();
        eventually("another one is started", || crate::supervision::helpers(&daemon).iter().any(|pid| *pid != helper));
        client.text("still here");
        backend.expect("still here");
    }
    // The user is found gone by the new one.
    put(daemon.folder(), "users", "bob:secret:guests:\n");
    expect_end(client, backend, "access revoked");
}

/// A token ends 30 s after its `exp`, which is the time by which clocks may differ.
#[test]
#[ignore = "needs openssl"]
fn a_token_ends() {
    let folder = new_folder();
    put(&folder, "jwt", "0123456789abcdef0123456789abcdef");
    let keys = "auth = { type = \"query\"; key = \"@/jwt\"; algorithm = \"HS256\"; };";
    let exp = now_s() - 18;
    let token = methods::jwt(&folder, &format!(r#"{{"sub":"julia","exp":{exp}}}"#));
    let daemon = start_in(folder, keys);
    let server = daemon.listen("who");
    let (wire, response) = Visitor::new(&daemon, 1).ask(&handshake(&format!("/who?token={token}&a=b"), &[], &[]));
    if response.status == 401 && now_s() >= exp + 30 {
        return eprintln!("this machine stood still until the token was too old");
    }
    assert_eq!(response.status, 101);
    let backend = server.accept();
    let hello = read_hello(&mut backend.stream()).unwrap();
    assert_eq!((&*hello.user, &*hello.query), ("julia", "a=b"));
    expect_end(Client::new(wire), backend, "credentials expired");
    assert!(now_s() >= exp + 29, "it ended {} s too early", exp + 30 - now_s());
    assert_eq!(Visitor::new(&daemon, 2).upgrade(&format!("/who?token={token}"), &[]).status, 401);
}
