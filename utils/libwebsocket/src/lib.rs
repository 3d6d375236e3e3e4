//! libwebsocket.so: interposes libc functions, so that an unchanged socket server speaks WebSocket.
//!
//! In direct mode the gateway passes a client's connection to the server (docs/backends.md). The library, linked or
//! preloaded, receives it in accept(2) and puts it in place of the accepted connection. After that, reads return
//! message payload, and each write sends a message. Other file descriptors are not affected. Servers that speak
//! WebSocket themselves use `api`.
//!
//! Each module uses only those above it here (tests/style.rs, table `LIBRARY_MODULES`).

mod limits;

/// libc's own functions.
mod real;

mod settings;

mod lock;

mod incoming;

mod early_writes;

mod watches;

mod cut;

/// Which processes have which client.
mod ledger;

mod client;

/// The entry of each file descriptor.
mod table;

/// close(2), shutdown(2), exit(3): the close frame.
mod leaving;

mod cut_timer;

mod fork;

/// accept(2) and the hand-over.
mod arrival;

mod reading;

mod writing;

mod waiting;

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
