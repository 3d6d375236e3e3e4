//! What messages of clients with TLS cost the gateway and its backend, by each way. Nothing is asserted.

use std::fs;

use nix::unistd::Pid;

use super::{ALL, Server, client_config, start, wire};
use crate::client::Client;
use crate::daemon::Daemon;
use crate::process::{Process, measured};

const CLIENTS: usize = 100;
/// Payload size, and messages of each client.
const WORKLOADS: [(usize, usize); 2] = [(64, 10), (16 * 1024, 2)];

/// The name, keys of the server, keys of `websocket`, and options of the echo server.
const WAYS: [(&str, &str, &str, &[&str]); 3] = [
    ("direct", "", "options = \"direct\";", &["--direct"]),
    ("direct, relayed", "tls-offload = \"off\";", "options = \"direct\";", &["--direct"]),
    ("proxied", "tls-offload = \"off\";", "protocol = \"frames\";", &["--protocol", "frames"]),
];

/// CPU time of all threads, with that which the kernel spends in their system calls (Documentation/scheduler/
/// sched-stats.rst of Linux). The ticks of proc_pid_stat(5) are too coarse.
fn processor_ns(pid: Pid) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread may end meanwhile.
    let texts = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("schedstat")).ok());
    texts.map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Each client sends messages and reads them back. Returns the CPU time of daemon and server.
fn converse(clients: &mut [Client], daemon: &Daemon, server: &Process, size: usize, count: usize) -> [u64; 2] {
    let pids = [daemon.pid(), server.pid()];
    let before = pids.map(processor_ns);
    let payload = vec![b'x'; size];
    for _ in 0..count {
        clients.iter_mut().for_each(|client| client.binary(&payload));
        clients.iter_mut().for_each(|client| client.expect_binary(&payload));
    }
    [0, 1].map(|at| processor_ns(pids[at]) - before[at])
}

#[test]
#[ignore = "prints figures: `make kernels KERNELS=6.1 WHAT='--ignored figures_of_each_way'`"]
fn figures_of_each_way() {
    for (name, keys, websocket, options) in WAYS {
        let daemon = start(&[Server { keys, websocket, ..Server::default() }]);
        let server = daemon.echo("echo", &[options, &["-m", "200"]].concat());
        let config = client_config(&daemon, ALL, None);
        let mut clients: Vec<Client> = (0..CLIENTS)
            .map(|_| {
                let mut wire = wire(daemon.port, config.clone());
                assert_eq!(wire.upgrade("/echo", &[]).status, 101);
                Client::new(wire)
            })
            .collect();
        // The last hand-over is over once its client is served.
        converse(&mut clients, &daemon, &server, 64, 2);
        for (size, count) in WORKLOADS {
            let [gateway, backend] = converse(&mut clients, &daemon, &server, size, count);
            let messages = (CLIENTS * count) as f64;
            let [gateway, backend] = [gateway, backend].map(|ns| ns as f64 / 1000.0 / messages);
            measured(&format!("{name}, {size} B: gateway {gateway:.2} us, backend {backend:.2} us a message"));
        }
        let line = daemon.log().text().lines().rfind(|line| line.contains("status=101")).map(str::to_owned);
        measured(&format!("{name}: {}", line.unwrap_or_default()));
    }
}
