"""The servers to measure, each started with what stands behind it, and how one is measured."""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from processes import LOAD_SECONDS_MAX, Failed, Process, answers, pss

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BENCH_TARGET = TARGET / "benches"
UAKARI = TARGET / "release" / "uakari"
ECHO = TARGET / "release" / "websocket_echo"
LIBRARY = TARGET / "release" / "libwebsocket.so"
LOAD, RELAY, RELAY_EPOLL, BACKEND = (
    BENCH_TARGET / "release" / name for name in ("load", "relay", "relay_epoll", "backend")
)
# Programs that tests/install-tools unpacks.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
TOOLS = Path(os.environ.get("UAKARI_TOOLS") or CACHE / "uakari-tools")
PLACES = os.pathsep.join([str(TOOLS / "bin"), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
NGINX, HAPROXY = (shutil.which(name, path=PLACES) for name in ("nginx", "haproxy"))

IDLE_FIRST = 500
IDLE_ALL = 9500
IDLE_ALL_TLS = 5000

# In the benchmark all clients have one address.
UAKARI_CONFIG = """
log-level = "error";
driver = "{driver}";
limits = {{ clients = 20000; clients-per-address = 0; handshakes = 20000; tls-handshakes = 20000; }};
servers = ({{ listen = "127.0.0.1:0"; {tls}websocket = {{ docroot = "{folder}"; {how}; }}; }});
"""

NGINX_CONFIG = """{user}
worker_processes 1;
worker_rlimit_nofile {files};
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
# Two connections for each idle client. nginx closes idle ones if fewer than a sixteenth are free.
events {{ worker_connections 20500; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {address}{kind} backlog=4096;
        {tls}
        location / {{
            proxy_pass http://unix:{backend}:/;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
        }}
    }}
}}
"""

NGINX_TLS = """
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_tickets on;
"""

HAPROXY_CONFIG = """
global
    nbthread 1
    maxconn {clients}
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    option http-ignore-probes
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend clients
    bind {address} backlog 4096 ssl crt {pem}
    default_backend echo
backend echo
    server echo unix@{backend}
"""


class Server:
    """What clients talk to: a gateway with its backend, or a backend alone."""

    def __init__(self, gateway, backend, address, load, binary=None):
        self.gateway = gateway
        self.backend = backend
        self.load = ["--addr", address, *load]
        self.binary = binary

    def gateway_pids(self):
        return self.gateway.pids() if self.gateway else []

    def pss(self):
        return sum(pss(pid) for pid in self.gateway_pids())

    def outputs(self):
        parts = [line for process in (self.gateway, self.backend) if process for line in process.output]
        return "".join(parts) and "servers' output:\n" + "".join(parts)


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()


class Bench:
    """The cores, the folder for sockets, and all started processes."""

    def __init__(self, options, stack):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise Failed("two cores are needed, one for the servers and one for the load")
        self.options = options
        self.stack = stack
        self.server_core, self.load_core = cores[:2]
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="uakari-bench-")))
        self.count = 0

    def start(self, core, *words, stack=None):
        process = Process(core, words)
        (stack or self.stack).callback(process.end)
        return process

    def new_folder(self):
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        return folder

    def start_backend(self, mode, path, stack):
        backend = self.start(self.server_core, BACKEND, "--unix", path, "--mode", mode, stack=stack)
        backend.wait_for_line(r"listening on ")
        return backend

    def start_server(self, name, stack=None):
        return getattr(self, "start_" + name.replace("-", "_"))(stack)

    def certificate(self):
        """The files of a certificate, of its key, and of both (ECDSA P-256), made when they are needed."""
        certificate, key, pem = (self.folder / name for name in ("certificate.pem", "key.pem", "both.pem"))
        if not pem.exists():
            words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            words += ["-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-days", "60"]
            words += ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost"]
            subprocess.run(words, check=True, capture_output=True)
            pem.write_text(certificate.read_text() + key.read_text())
        return certificate, key, pem

    def start_gateway(self, stack, how, echo_words, load_words=(), driver="uring", tls=False):
        """uakari before the sample server."""
        folder = self.new_folder()
        words = [*echo_words, "-R", folder, "-n", "echo", "-m", "20000"]
        backend = self.start(self.server_core, *words, stack=stack)
        backend.wait_until(lambda: answers(socket.AF_UNIX, str(folder / "echo")))
        config = folder / "uakari.conf"
        security = ""
        if tls:
            certificate, key, _ = self.certificate()
            security = f'tls = {{ crtfile = "{certificate}"; keyfile = "{key}"; }}; '
            load_words = [*load_words, "--tls", certificate]
        config.write_text(UAKARI_CONFIG.format(folder=folder, how=how, driver=driver, tls=security))
        gateway = self.start(self.server_core, UAKARI, "-f", config, stack=stack)
        address = gateway.wait_for_line(r"listening on https?://([^\s/]+)")[1]
        return Server(gateway, backend, address, ["--path", "/echo", *load_words], UAKARI)

    def start_uakari(self, stack, driver="uring", tls=False):
        words = [ECHO, "--protocol", "frames"]
        return self.start_gateway(stack, 'protocol = "frames"', words, driver=driver, tls=tls)

    def start_uakari_epoll(self, stack):
        return self.start_uakari(stack, "epoll")

    def start_uakari_tls(self, stack):
        return self.start_uakari(stack, tls=True)

    def start_uakari_epoll_tls(self, stack):
        return self.start_uakari(stack, "epoll", tls=True)

    def start_direct(self, stack, driver="uring", tls=False):
        """The sample server on the Rust API of utils/websocket."""
        return self.start_gateway(stack, 'options = "direct"', [ECHO, "--direct"], driver=driver, tls=tls)

    def start_direct_epoll(self, stack):
        return self.start_direct(stack, "epoll")

    def start_direct_tls(self, stack):
        """By TLS of the kernel if it has it, else relayed."""
        return self.start_direct(stack, tls=True)

    def start_preload(self, stack):
        """The sample server as it is for streams, which knows nothing of WebSocket."""
        words = ["env", f"LD_PRELOAD={LIBRARY}", ECHO]
        return self.start_gateway(stack, 'options = "direct"', words, ["--stream"])

    def start_alone(self, name, stack, *load_words):
        """A server without a gateway."""
        backend = self.start(self.server_core, BENCH_TARGET / "release" / name, "--listen", "127.0.0.1:0", stack=stack)
        address = backend.wait_for_line(r"listening on (\S+)")[1]
        return Server(None, backend, address, load_words)

    def start_epoll(self, stack):
        return self.start_alone("epoll", stack, "--raw")

    def start_uring(self, stack):
        return self.start_alone("uring", stack, "--raw")

    def start_library(self, stack):
        return self.start_alone("library", stack)

    def start_relay(self, stack, binary=RELAY):
        path = self.new_folder() / "raw"
        backend = self.start_backend("raw", path, stack)
        words = [binary, "--listen", "127.0.0.1:0", "--unix", path]
        gateway = self.start(self.server_core, *words, stack=stack)
        address = gateway.wait_for_line(r"listening on (\S+)")[1]
        return Server(gateway, backend, address, ["--raw"], binary)

    def start_relay_epoll(self, stack):
        return self.start_relay(stack, RELAY_EPOLL)

    def start_nginx(self, stack, tls=False):
        folder = self.new_folder()
        backend = self.start_backend("ws", folder / "ws", stack)
        host, port = free_address()
        security, load_words = "", []
        if tls:
            certificate, key, _ = self.certificate()
            security = NGINX_TLS.format(certificate=certificate, key=key)
            load_words = ["--tls", certificate]
        config = NGINX_CONFIG.format(
            user="user root;" if os.geteuid() == 0 else "",
            files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            folder=folder,
            address=f"{host}:{port}",
            backend=folder / "ws",
            kind=" ssl" if tls else "",
            tls=security,
        )
        (folder / "nginx.conf").write_text(config)
        words = [NGINX, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"]
        gateway = self.start(self.server_core, *words, stack=stack)
        gateway.wait_until(lambda: answers(socket.AF_INET, (host, port)))
        gateway.wait_until(lambda: len(gateway.pids()) > 1)
        return Server(gateway, backend, f"{host}:{port}", load_words, NGINX)

    def start_nginx_tls(self, stack):
        return self.start_nginx(stack, tls=True)

    def start_haproxy_tls(self, stack):
        folder = self.new_folder()
        backend = self.start_backend("ws", folder / "ws", stack)
        host, port = free_address()
        certificate, _, pem = self.certificate()
        config = folder / "haproxy.conf"
        words = {"address": f"{host}:{port}", "clients": IDLE_ALL, "pem": pem, "backend": folder / "ws"}
        config.write_text(HAPROXY_CONFIG.format(**words))
        gateway = self.start(self.server_core, HAPROXY, "-db", "-f", config, stack=stack)
        gateway.wait_until(lambda: answers(socket.AF_INET, (host, port)))
        return Server(gateway, backend, f"{host}:{port}", ["--tls", certificate], HAPROXY)

    def measure(self, server, workload):
        """One run: a dictionary of figures, or one with `error`."""
        gateway, backend = server.gateway_pids(), server.backend.pids()
        words = ["taskset", "-c", self.load_core, LOAD, *server.load, *workload.split()]
        words += ["--seconds", self.options.seconds, "--warmup", self.options.seconds / 5]
        words += ["--cpu", ",".join(map(str, gateway + backend))]
        words = [str(word) for word in words]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=LOAD_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            return {"error": "the load generator did not end"}
        if done.returncode != 0:
            return {"error": f"{' '.join(words)}\n{done.stderr}{server.outputs()}"}
        figures = dict(pair.split("=") for pair in done.stdout.split())
        cpu = [float(part) for part in figures.pop("cpu_us").split(",")]
        figures = {key: float(value) for key, value in figures.items()}
        return figures | {"cpu_gateway_us": sum(cpu[: len(gateway)]), "cpu_all_us": sum(cpu)}

    def measure_memory(self, name):
        """A new server's memory: empty, with a few idle clients, with many."""
        with contextlib.ExitStack() as stack:
            server = self.start_server(name, stack)
            files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            clients = min(IDLE_ALL_TLS if self.options.tls else IDLE_ALL, (files - 500) // 2)
            empty = server.pss()
            self.hold_idle(server, IDLE_FIRST, stack)
            few = server.pss()
            self.hold_idle(server, clients - IDLE_FIRST, stack)
            full = server.pss()
            return {
                "clients": clients,
                "pss_empty": empty,
                "pss_full": full,
                "growth_per_client": (full - empty) / clients,
                "growth_per_further_client": (full - few) / (clients - IDLE_FIRST),
                "binary_size": os.path.getsize(server.binary),
            }

    def hold_idle(self, server, clients, stack):
        words = [LOAD, *server.load, "--idle", "--clients", clients]
        self.start(self.load_core, *words, stack=stack).wait_for_line("^ready$", LOAD_SECONDS_MAX)
