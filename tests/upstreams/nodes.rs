//! Nodes in Python, Node.js and Java, each as one process.

use std::path::PathBuf;

use crate::daemon::project;
use crate::foreign::{command, tools};
use crate::http::noise;
use crate::process::{Process, free_port};
use crate::proxies::programs::start_on_free_port;

/// A body of the nodes is this many bytes of `noise`, again and again. A prime: blocks in a wrong order are seen.
const BLOCK_SIZE: usize = 65_521;

/// A running node.
pub struct Node {
    pub process: Process,
    pub port: u16,
    /// Where it has WebSockets.
    pub websocket_port: u16,
}

fn script(name: &str) -> PathBuf {
    project().join("tests/upstreams").join(name)
}

/// A node in Python, which has all faults. `address` is HOST:PORT or unix:PATH.
pub fn python(name: &str, address: &str) -> Process {
    let process = Process::start(command("python3").arg(script("node.py")).args([name, address]));
    process.out.wait_for(&["listening on "]);
    process
}

/// A node in Python with a free port, which no other program gets while it is stopped.
pub fn python_on_tcp(name: &str) -> Node {
    let (process, port) = start_on_free_port("node.py", |port| {
        Process::start(command("python3").arg(script("node.py")).args([name, &format!("127.0.0.1:{port}")]))
    });
    Node { process, port, websocket_port: port }
}

/// A node in Node.js. `address` is HOST:PORT or unix:PATH.
fn start_node_js(name: &str, address: &str) -> Process {
    let mut program = command("node");
    Process::start(program.arg(script("node.cjs")).args([name, address]).env("UAKARI_TOOLS", tools()))
}

/// As `python`, in Node.js.
pub fn node_js(name: &str, address: &str) -> Process {
    let process = start_node_js(name, address);
    process.out.wait_for(&["listening on "]);
    process
}

/// As `python_on_tcp`, in Node.js.
pub fn node_js_on_tcp(name: &str) -> Node {
    let (process, port) = start_on_free_port("node.cjs", |port| start_node_js(name, &format!("127.0.0.1:{port}")));
    Node { process, port, websocket_port: port }
}

/// A node in Java.
pub fn java(name: &str) -> Node {
    let websocket_port = free_port("127.0.0.1");
    let (process, port) = start_on_free_port("Node.java", |port| {
        let ports = [port, websocket_port].map(|port| port.to_string());
        Process::start(command("java").arg(script("Node.java")).args([name, "127.0.0.1"]).args(ports))
    });
    process.out.wait_for(&["listening on "]);
    Node { process, port, websocket_port }
}

/// The bytes of a body with seed 1, of which no copy is made.
pub struct Body {
    block: Vec<u8>,
    left: u64,
}

impl Body {
    pub fn new(size: u64) -> Body {
        Body { block: noise(BLOCK_SIZE), left: size }
    }

    /// The next part; None at the end.
    pub fn part(&mut self) -> Option<&[u8]> {
        let size = self.left.min(BLOCK_SIZE as u64);
        self.left -= size;
        Some(&self.block[..size as usize]).filter(|part| !part.is_empty())
    }
}
