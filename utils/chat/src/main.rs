//! A UNIX server that sends each member's messages to all others. It is one process, waits with poll(2) for all members
//! at once, and limits what each of them can make it store: an incomplete message, a receive, and a queue.
//!
//! The modules, bottom up: `commands.rs` parses messages, `names.rs` maps names to members, `framing.rs` splits bytes
//! into messages, `pace.rs` limits a member's rate, `connection.rs` is a member's socket, `chat.rs` the loop.

mod chat;
mod commands;
mod connection;
mod framing;
mod limits;
mod names;
mod pace;

use std::process::ExitCode;

use server::options::{Flag, Program, run, store};

use crate::chat::Chat;
use crate::limits::MESSAGE_SIZE_MAX;

static PROGRAM: Program = Program {
    name: "websocket_chat",
    about: "Sends each member's messages to all others, through a UNIX socket.",
    example: "-R /run/websocket -n chat -w --protocol packet",
    protocols: "stream, packet, lines, nul or frames",
    direct_message_size_max: Some(MESSAGE_SIZE_MAX),
};

/// Options that the chat alone has.
#[derive(Default)]
struct Own {
    /// Obey the commands of `commands.rs`.
    has_commands: bool,
}

type Options = server::options::Options<Own>;

fn main() -> ExitCode {
    let help = "obey WSHello, WSPrivate and WSWhois, and announce who leaves";
    let commands = Flag::new("-w, --commands", "", help, |options: &mut Options, _| {
        store(&mut options.own.has_commands, Some(true))
    });
    run(&PROGRAM, Own::default(), vec![commands], |options| Chat::new(options.listen()?, options).serve())
}
