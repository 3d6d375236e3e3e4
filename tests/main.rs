//! End-to-end tests of the daemon: each starts it on a free port, in a folder of its own. UAKARI_DRIVER (auto, uring or
//! epoll) chooses its driver, unless a test does.
//!
//! First what the tests stand on, then the tests in the order in which a connection meets what they look at.

/// Child processes: their lines and their end, each with a deadline.
mod process;

/// The daemon in a new folder, as every test needs it.
mod daemon;

/// TLS in the kernel, record by record.
mod records;

/// A TCP connection and HTTP on it, byte by byte, which a library would hide.
mod wire;

/// Frames and a WebSocket client, which can send what no library would.
mod client;

/// UNIX servers that the test plays: it sees what arrives and when.
mod server;

/// Both sides of a hand-over in direct mode.
mod handover;

/// Flags, and failures to start.
mod flags;

/// Which driver a daemon uses, and refused system calls.
mod drivers;

/// Privileges that are dropped.
mod privileges;

/// Configuration files.
mod configuration;

/// Folders, addresses and hosts that are missing at the start.
mod waiting;

/// Certificates and keys as files.
mod certificates;

/// Certificates that the daemon gets by itself: `--tls-self-signed`.
mod first_use;

/// TLS.
mod tls;

/// The certificate authority.
mod authority;

/// The helper that verifies passwords and tokens.
mod auth;

/// The daemon with that helper.
mod supervision;

/// Pages and other plain requests.
mod http;

/// Bodies of requests, and requests that hide others in them.
mod bodies;

/// Health checks of proxies, and connections without a request.
mod probes;

/// Pages: dates and tags, ranges, precompressed variants.
mod files;

/// The opening handshake: origins, subprotocols, and servers that cannot be reached.
mod handshake;

/// From a path to a socket, and never to one outside.
mod names;

/// Messages as plain bytes, the default.
mod stream;

/// Messages as packets.
mod packet;

/// Messages as frames.
mod frames;

/// Messages as lines, and as text that ends with a NUL.
mod lines;

/// Behind proxies: the address, scheme and host of the true client.
mod proxies;

/// Who may come in: passwords, tokens, addresses.
mod access;

/// The hello record, which describes the client to the backend.
mod hello;

/// Links.
mod links;

/// Direct mode.
mod direct;

/// HTTP and WebSocket servers behind the gateway, and clusters of them.
mod upstreams;

/// Terminal lines.
mod devices;

/// Named pipes, and the end of a conversation with a device.
mod pipes;

/// How connections end.
mod endings;

/// Requests that nodes answer, byte by byte.
mod forwarding;

/// Slow readers, slow servers, large messages, and the memory that they take.
mod pressure;

/// The limits of a configuration.
mod limits;

/// Clients that are silent, gone or idle.
mod keepalive;

/// SIGHUP: what changes, and what stays.
mod reload;

/// Folders that change while they are served.
mod releases;

/// The daemon from its start to its end.
mod lifecycle;

/// Faults around the daemon.
mod faults;

/// The inputs of the fuzz targets.
mod corpus;

/// Servers whose backlogs are full.
mod backlog;

/// A daemon that is stopped for a while.
mod standstill;

/// Each place where ouistiti breaks.
mod compatibility;

/// The echo server.
mod echo_server;

/// The chat and its page.
mod chat;

/// JSON-RPC with the methods of libraries.
mod jsonrpc;

/// The server through which devices enrol.
mod enrollment;

/// Servers in C that speak WebSocket with the library's functions.
mod direct_api;

/// Unchanged servers under libwebsocket.so.
mod preload;

/// libwebsocket.so as installed.
mod library;

/// `make run`.
mod showing;

/// The scripts that run the tests.
mod scripts;

/// `make install`.
mod install;

/// Foreign clients, a browser among them.
mod foreign;

/// The configurations of docs/recipes.md, run with their programs.
mod recipes;

/// Autobahn's test suite.
mod conformance;

/// A long run of everything.
mod soak;

/// How the project is written: fences, names, banned words.
mod style;
