//! The daemon as its users meet it: started for real, on a free port, in a folder of its own.
//!
//! First what the tests stand on, then the tests in the order in which a connection meets what they look at.

/// Child processes: what they say, line by line, and their end, each with a deadline.
mod process;

/// The daemon in a fresh folder, because every test begins with one.
mod daemon;

/// A TCP connection and HTTP on it, byte by byte, because a library would hide what is looked at.
mod wire;

/// Frames and a client of WebSockets, because a test must be able to send what no library would.
mod client;

/// UNIX servers that the test itself plays, because only so it knows what arrived and when.
mod server;

/// Both sides of a hand-over in direct mode, because a test must see the bare message.
mod handover;

/// What was typed, and what is said when it is wrong.
mod flags;

/// Rights that are given up, as the kernel sees them.
mod privileges;

/// Configuration files.
mod configuration;

/// Folders, addresses and hosts that come later than the daemon.
mod waiting;

/// Pages and other plain requests.
mod http;

/// Bodies of requests, and requests that hide others in them.
mod bodies;

/// Health checks of proxies, and connections without a request.
mod probes;

/// Files: their dates and tags, parts of them, compressed neighbours.
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

/// Messages as lines, and as what stands before a NUL.
mod lines;

/// The first record, which tells a server who its client is.
mod hello;

/// Names that are served by something else than a socket in docroot.
mod links;

/// Clients whose sockets are handed over.
mod direct;

/// Terminal lines.
mod devices;

/// Named pipes, and what ends with a conversation of any device.
mod pipes;

/// How connections end, and what each side and the log hear of it.
mod endings;

/// Slow readers, slow servers and large messages, with an eye on the memory.
mod pressure;

/// The limits that a configuration sets, each met from outside.
mod limits;

/// Clients that are silent, gone or idle.
mod keepalive;

/// SIGHUP: what changes, and what stays.
mod reload;

/// Folders that change while they are served.
mod releases;

/// From the start of a daemon to its end.
mod lifecycle;

/// What goes wrong around the daemon.
mod faults;

/// Servers whose backlogs are full.
mod backlog;

/// A daemon that is stopped for a while.
mod standstill;

/// Each place where the daemon that uakari replaces breaks.
mod compatibility;

/// The sample server that sends everything back.
mod echo_server;

/// The chat, on every way that its members may come, and its page.
mod chat;

/// JSON-RPC with the methods of libraries.
mod jsonrpc;

/// Servers in C that speak WebSocket with the library's functions.
mod direct_api;

/// Unchanged servers, with libwebsocket.so before them.
mod preload;

/// The library that both use, as it is installed.
mod library;

/// What `make run` shows, and what it says where it cannot.
mod showing;

/// The scripts that run the tests.
mod scripts;

/// What `make install` puts where.
mod install;

/// Clients that others wrote, a browser among them.
mod foreign;

/// The configurations of docs/recipes.md, run with the programs they are for.
mod recipes;

/// Autobahn's test suite.
mod conformance;

/// A long run of everything.
mod soak;

/// How the project is written: fences, sizes, banned words.
mod style;
