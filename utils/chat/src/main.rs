//! An ordinary UNIX server that passes what a member says on to all the others. It is one process, waits with poll(2)
//! for all members at once, and bounds what each of them can make it keep.
//!
//! The modules from the inside out: `commands.rs` is what a message asks for, `names.rs` who is called what,
//! `framing.rs` where a message ends and another begins, `pace.rs` how much a member may say, `connection.rs` a
//! member's socket, and `chat.rs` the loop that joins them.

mod chat;
mod commands;
mod connection;
mod framing;
mod limits;
mod names;
mod options;
mod pace;

use std::process::ExitCode;

use server::options::{exit_code, socket_type};
use server::start::{Start, Way};

use crate::chat::Chat;
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
    Chat::new(entrance, options).serve()
}
