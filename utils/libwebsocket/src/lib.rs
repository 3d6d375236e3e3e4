//! libwebsocket.so: interposes libc functions, so that an unchanged socket server speaks WebSocket.
//!
//! In direct mode the gateway passes a client's connection to the server (docs/backends.md). The library, linked or
//! preloaded, receives it in accept(2) and puts it in place of the accepted connection. After that, reads return
//! message payload, and each write sends a message. Other file descriptors are not affected. Servers that speak
//! WebSocket themselves use `api`.

mod limits;

mod settings;

/// libc's own functions.
mod real;

mod lock;

/// What is known of each file descriptor.
mod table;

mod early_writes;

/// Which epoll(7) instances watch a client.
mod watches;

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
