//! Several gateways behind stunnel and haproxy, one behind the other.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use super::{Proxy, TRUSTED, gateway, programs, proxy_folder};
use crate::client::Client;
use crate::daemon::Daemon;
use crate::hello::parser::read_hello;
use crate::process::{DEADLINE, Folder, eventually, expect_eq, free_port};
use crate::server::{Backend, Listener};
use crate::tls::authority;

/// A gateway and its backend.
struct Node {
    daemon: Daemon,
    server: Listener,
}

impl Node {
    /// With these keys besides `trusted`, and two clients of each address.
    fn start(keys: &str) -> Node {
        // The port stays free when the gateway has stopped.
        let port = free_port("127.0.0.1");
        let text = gateway("clients-per-address = 2;", &format!("{TRUSTED} {keys}"));
        let daemon = Daemon::start_configured(&text.replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1));
        let server = daemon.listen("who");
        Node { daemon, server }
    }
}

/// A WebSocket, and the number of its node.
struct Member {
    client: Client,
    backend: Backend,
    node: usize,
}

/// Joins from this address, which the node learns. None: the node has no place for this address.
fn join(entrance: &Proxy, nodes: &[Node], last: u8, origin: &str) -> Option<Member> {
    let (wire, response) = entrance.ask(last, origin);
    if response.status == 503 {
        assert!(response.text().contains("limits.clients-per-address"), "{response:?}");
        return None;
    }
    expect_eq(response.status, 101, &response);
    let mut found = None;
    eventually("a node has the client", || {
        found = nodes.iter().position(|node| !node.server.is_idle());
        found.is_some()
    });
    let node = found.unwrap();
    let backend = nodes[node].server.accept();
    let own = wire.stream().local_addr().unwrap();
    let told = read_hello(&mut backend.stream()).unwrap().client;
    expect_eq(told.map(|client| client.ip()), Some(own.ip()), "the address");
    Some(Member { client: Client::new(wire), backend, node })
}

impl Member {
    fn exchange(&mut self) {
        self.client.text("question");
        self.backend.expect("question");
        self.backend.send("answer");
        self.client.expect_text("answer");
    }
}

/// Three gateways with these keys behind haproxy with this frontend and these words of a server, behind stunnel.
fn expect_served_by_the_others(keys: &str, mode: &str, frontend: &str, server: &str) {
    let folders = [proxy_folder(), Folder::new()];
    let mut nodes = [keys; 3].map(Node::start);
    let servers: String = nodes
        .iter()
        .enumerate()
        .map(|(number, node)| format!("    server node{number} 127.0.0.1:{} {server}\n", node.daemon.port))
        .collect();
    let (_haproxy, inner) = programs::haproxy(&folders[1], |port| {
        format!(
            "{}    option redispatch 1\nfrontend web\n    bind 127.0.0.1:{port} accept-proxy\n    {frontend}\n    \
             default_backend nodes\nbackend nodes\n    balance roundrobin\n{servers}",
            programs::haproxy_defaults(mode)
        )
    });
    let stunnel = programs::stunnel(&folders[0], |port| {
        let pem = authority::path(&folders[0], "gate.pem");
        format!("[web]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{inner}\ncert = {pem}\nprotocol = proxy\n")
    });
    let entrance = Proxy::secure(stunnel, &folders[0]);

    let origin = "Origin: https://gate.example";
    let mut members = Vec::from([2, 3, 4].map(|last| join(&entrance, &nodes, last, origin).expect("a place")));
    members.sort_by_key(|member| member.node);
    expect_eq(members.iter().map(|member| member.node).collect(), vec![0, 1, 2], "one on each node");
    // One node stops, and the clients of the others stay.
    let mut left = members.remove(1);
    nodes[left.node].daemon.signal(Signal::SIGTERM);
    left.client.expect_close(1001);
    drop(left);
    expect_eq(nodes[1].daemon.wait(DEADLINE).status.success(), true, "the end of a node");
    members.iter_mut().for_each(Member::exchange);
    // Others are served without it.
    for last in 10..16 {
        let mut member = join(&entrance, &nodes, last, origin).expect("a place");
        assert_ne!(member.node, 1);
        member.exchange();
        members.push(member);
    }
    // An address has two places on each node.
    let crowd: Vec<Member> = (0..5).filter_map(|_| join(&entrance, &nodes, 20, "")).collect();
    assert!((2..=4).contains(&crowd.len()), "{} of an address have a place", crowd.len());
    members.iter_mut().for_each(Member::exchange);
    for mut member in members.into_iter().chain(crowd) {
        let own: SocketAddr = member.client.wire.stream().local_addr().unwrap();
        drop(member.backend);
        member.client.expect_close_handshake(1000);
        nodes[member.node].daemon.log().wait_for(&[&format!("end client={}", own.ip()), "status=101"]);
    }
}

#[test]
#[ignore = "needs stunnel"]
fn requests_of_a_stopped_node() {
    let fields = "option forwardfor\n    http-request set-header X-Forwarded-Proto https";
    expect_served_by_the_others("", "http", fields, "");
}

#[test]
#[ignore = "needs stunnel"]
fn connections_of_a_stopped_node() {
    expect_served_by_the_others("proxy = \"required\";", "tcp", "", "send-proxy-v2");
}
