//! Starts real proxies, each as one process with a free port, with the parts of its configuration that a test gives.

use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use crate::foreign::{command, tool};
use crate::process::{Folder, Process, eventually, free_port};

/// Free ports that are tried: one can be taken before the program binds it.
const PORTS_MAX: usize = 5;

/// Starts a program with a free TCP port and waits until it listens there.
pub fn start_on_free_port(name: &str, start: impl Fn(u16) -> Process) -> (Process, u16) {
    let mut said = String::new();
    for _ in 0..PORTS_MAX {
        let port = free_port("127.0.0.1");
        let mut process = start(port);
        let mut has_ended = false;
        eventually(name, || {
            has_ended = process.has_ended();
            has_ended || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        if !has_ended {
            return (process, port);
        }
        said += &format!("{}{}\n", process.out.text(), process.err.text());
    }
    panic!("{name} does not start:\n{said}");
}

/// nginx with this text of its block `http` for a port.
pub fn nginx(folder: &Folder, http: impl Fn(u16) -> String) -> (Process, u16) {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", folder.join(name)))
        .concat();
    start_nginx(folder, |port| format!("http {{ access_log off;\n{temporary}{} }}\n", http(port)))
}

/// nginx with this text of its block `stream` for a port.
pub fn nginx_stream(folder: &Folder, stream: impl Fn(u16) -> String) -> (Process, u16) {
    let module = tool("nginx-stream/usr/lib/nginx/modules/ngx_stream_module.so");
    start_nginx(folder, |port| format!("load_module {};\nstream {{ {} }}\n", module.display(), stream(port)))
}

fn start_nginx(folder: &Folder, text: impl Fn(u16) -> String) -> (Process, u16) {
    start_on_free_port("nginx", |port| {
        let pid = folder.join("pid");
        let text = format!("daemon off; master_process off; pid {pid};\n{}events {{}}\n", text(port));
        std::fs::write(folder.join("nginx.conf"), text).unwrap();
        let mut command = Command::new(tool("bin/nginx"));
        Process::start(command.args(["-e", "stderr", "-p", &folder.join(""), "-c", &folder.join("nginx.conf")]))
    })
}

/// Apache with these modules besides those of every proxy, and this text for a port.
pub fn apache(folder: &Folder, modules: &[&str], text: impl Fn(u16) -> String) -> (Process, u16) {
    start_on_free_port("apache2", |port| {
        let modules: String = [&["mpm_event", "authz_core", "proxy", "proxy_http"], modules]
            .concat()
            .iter()
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
            .collect();
        let (root, pid, text) = (folder.join(""), folder.join("pid"), text(port));
        let text = format!(
            "ServerRoot {root}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {pid}\nMutex pthread\n\
             ErrorLog /dev/stderr\n{modules}{text}"
        );
        std::fs::write(folder.join("apache.conf"), text).unwrap();
        // A single process: killed, it leaves no children.
        let mut program = command("/usr/sbin/apache2");
        Process::start(program.args(["-X", "-f", &folder.join("apache.conf")]))
    })
}

/// The first section of haproxy's configuration in this mode. Its timeouts are those of a busy machine.
pub fn haproxy_defaults(mode: &str) -> String {
    let timeouts = ["connect", "client", "server", "check"].map(|name| format!("    timeout {name} 60s\n"));
    format!("defaults\n    mode {mode}\n{}", timeouts.concat())
}

/// haproxy with this configuration for a port.
pub fn haproxy(folder: &Folder, text: impl Fn(u16) -> String) -> (Process, u16) {
    start_on_free_port("haproxy", |port| {
        std::fs::write(folder.join("haproxy.cfg"), text(port)).unwrap();
        Process::start(Command::new(tool("bin/haproxy")).args(["-db", "-f", &folder.join("haproxy.cfg")]))
    })
}

/// stunnel with these services for a port.
pub fn stunnel(folder: &Folder, services: impl Fn(u16) -> String) -> (Process, u16) {
    start_on_free_port("stunnel4", |port| {
        let text = format!("foreground = yes\npid =\n{}", services(port));
        std::fs::write(folder.join("stunnel.conf"), text).unwrap();
        Process::start(Command::new(tool("bin/stunnel4")).arg(folder.join("stunnel.conf")))
    })
}
