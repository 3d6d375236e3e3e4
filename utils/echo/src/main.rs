//! An ordinary UNIX server that sends back what it receives. It knows nothing of HTTP or WebSocket: it listens on
//! a socket file, waits with poll(2) for all its clients at once, and keeps little for each of them.
//!
//! With `--protocol lines`, `nul` or `frames` what it receives are lines, strings that end with a NUL, or RFC 6455
//! frames without masks. Sending them back as they are keeps the borders of the messages, and of frames the types.
//!
//! With `--direct` it is another server: the gateway hands it the clients' own connections.

mod direct;
mod limits;
mod options;
mod plain;

use std::process::ExitCode;

use server::options::{exit_code, socket_type};
use server::start::{Entrance, Start, Way};

use crate::limits::MESSAGE_SIZE_MAX;
use crate::options::{Options, PROGRAM};

fn main() -> ExitCode {
    let result = options::parse().and_then(|options| options.map_or(Ok(()), |options| run(&options)));
    exit_code(PROGRAM, result)
}

fn run(options: &Options) -> Result<(), String> {
    let way = match options.protocol {
        _ if options.is_direct => Way::Direct(MESSAGE_SIZE_MAX),
        protocol => Way::Plain(socket_type(protocol)),
    };
    let Options { root, name, mode, user, daemonize, .. } = options;
    let start = Start { program: PROGRAM, root, name, mode: *mode, user: user.as_deref(), daemonize: *daemonize, way };
    // Until the end: its file goes with it.
    let (entrance, _file) = start.start()?;
    match entrance {
        Entrance::Plain(listener) => plain::serve(&listener, options),
        Entrance::Direct(listener) => direct::serve(listener, options),
    }
}
