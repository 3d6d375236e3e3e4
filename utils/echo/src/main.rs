//! A UNIX server that sends back what it receives. It knows nothing of HTTP or WebSocket: it listens on a socket file,
//! waits with poll(2) for all its clients at once, and stores at most one receive for each of them.
//!
//! With `--protocol lines`, `nul` or `frames` it receives lines, strings that end with a NUL, or RFC 6455 frames without
//! masks. Sent back unchanged, they keep the message boundaries, and frames their types.
//!
//! With `--direct` it is another server: the gateway hands over the clients' own connections.

mod direct;
mod limits;
mod plain;

use std::process::ExitCode;

use crate::limits::MESSAGE_SIZE_MAX;
use server::options::{Flag, Program, run, store};

static PROGRAM: Program = Program {
    name: "websocket_echo",
    about: "Sends back what it receives, through a UNIX socket.",
    example: "-R /run/websocket -n echo",
    protocols: "stream, packet, lines, nul or frames",
    direct_message_size_max: Some(MESSAGE_SIZE_MAX),
};

/// Options that echo alone has.
#[derive(Default)]
struct Own {
    /// Serve one connection and answer once.
    once: bool,
}

type Options = server::options::Options<Own>;

fn main() -> ExitCode {
    let once = Flag::new("-t, --test", "", "serve one connection, answer once, exit", |options: &mut Options, _| {
        store(&mut options.own.once, Some(true))
    });
    run(&PROGRAM, Own::default(), vec![once], |options| {
        let listener = options.listen()?;
        if options.is_direct { direct::serve(listener, options) } else { plain::serve(listener, options) }
    })
}

/// Clients that may be connected at once.
fn clients_max(options: &Options) -> usize {
    if options.own.once { 1 } else { options.clients_max }
}
