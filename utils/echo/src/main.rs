//! An ordinary UNIX server that sends back what it receives. It knows nothing of HTTP or WebSocket: it listens on
//! a socket file, waits with poll(2) for all its clients at once, and keeps little for each of them.
//!
//! With `--protocol lines`, `nul` or `frames` what it receives are lines, strings that end with a NUL, or RFC 6455
//! frames without masks. Sending them back as they are keeps the borders of the messages, and of frames the types.
//!
//! With `--direct` it is another server: the gateway hands it the clients' own connections.

mod direct;
mod options;
mod record;
mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match options::parse() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("websocket_echo: {sentence}");
            return ExitCode::FAILURE;
        }
    };
    match server::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("websocket_echo: {sentence}");
            ExitCode::FAILURE
        }
    }
}
