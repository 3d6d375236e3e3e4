//! libwebsocket.so: functions of libc with which an ordinary socket server, unchanged, speaks WebSocket.
//!
//! The gateway's direct mode hands a client's own connection over (docs/backends.md). Linked to a server, or preloaded,
//! the library takes it at accept(2), and from then on what the server reads are payloads, and each write is a message.
//! All other file descriptors are as they were. For servers that speak WebSocket themselves there is `api`. The modules
//! in the order in which a client meets them.

mod limits;

/// What the operator has set.
mod settings;

/// What stands behind the functions that are stood in for.
mod real;

/// What threads and signal handlers share.
mod lock;

/// What is known of each file descriptor.
mod table;

/// Who watches it by epoll(7).
mod watches;

/// A client, from its coming to its going.
mod client;

mod arrival;

/// What it is told before it is there.
mod early;

/// What its server has not told it whole.
mod cut;

mod incoming;

mod reading;

mod writing;

mod waiting;

mod leaving;

/// Who else has it.
mod ledger;

mod process;

#[cfg(test)]
mod played;

/// The functions themselves.
mod symbols;

/// For servers that speak WebSocket themselves: include/websocket.h.
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
