//! libwebsocket.so: functions of libc with which an ordinary socket server, unchanged, speaks WebSocket.
//!
//! The gateway's direct mode hands a client's own connection over (docs/backends.md). Linked to a server, or preloaded,
//! the library takes it at accept(2), and from then on what the server reads are payloads, and each write is a message.
//! All other file descriptors are as they were. For servers that speak WebSocket themselves there is `api`. The modules
//! in the order in which a client meets them.

mod limits;

mod settings;

/// libc's own functions.
mod real;

mod lock;

/// What is known of each file descriptor.
mod table;

mod client;

/// accept(2) and the hand-over.
mod arrival;

mod incoming;

mod reading;

mod writing;

/// Incomplete UTF-8 at the end of a write.
mod cut;

mod waiting;

/// close(2), shutdown(2), exit(3): the close frame.
mod leaving;

/// Which processes have which client.
mod ledger;

mod fork;

#[cfg(test)]
mod conversation;

/// The functions that replace libc's.
mod symbols;

/// The C interface of include/websocket.h.
pub mod api;

extern "C" fn at_start() {
    real::look_up_all();
    settings::get();
}

extern "C" fn at_exit() {
    leaving::leave_all();
}

#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = at_start;

#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = at_exit;
