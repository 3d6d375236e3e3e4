//! The options that all sample servers have, and this one's own.

use std::ops::RangeInclusive;

use argh::FromArgs;
use server::options::{octal, program_name};

use crate::limits::{CALL_MS, CALL_MS_MAX, PROCESS_MIB, PROCESS_MIB_MAX, PROCESS_MIB_MIN};
use crate::splitter::Border;

/// Its name, in its help and before what it says.
pub const PROGRAM: &str = "websocket_jsonrpc";

/// Answers JSON-RPC 2.0 with the methods of a library, through a UNIX socket.
#[derive(FromArgs, Debug)]
#[argh(
    example = "Where the gateway's docroot is /run/websocket:\n  {command_name} -R /run/websocket -n rpc -L ./visits.so -C 1"
)]
pub struct Options {
    /// library of the methods: uakari_rpc.h says what it exports; ouistiti's work too
    #[argh(option, short = 'L', long = "library", arg_name = "file")]
    pub library: String,
    /// what the library is configured with; it says what that is
    #[argh(option, short = 'C', long = "config", arg_name = "text")]
    pub config: Option<String>,
    /// folder of the socket, made if missing (default /var/run/websocket)
    #[argh(option, short = 'R', long = "root", default = "String::from(\"/var/run/websocket\")", arg_name = "dir")]
    pub root: String,
    /// name of the socket (default: the program's name)
    #[argh(option, short = 'n', long = "name", default = "program_name(PROGRAM)", arg_name = "name")]
    pub name: String,
    /// user to become
    #[argh(option, short = 'u', long = "user", arg_name = "name")]
    pub user: Option<String>,
    /// clients at once (default 50)
    #[argh(option, short = 'm', long = "maxclients", default = "50", arg_name = "n")]
    pub clients_max: usize,
    /// run in the background
    #[argh(switch, short = 'D', long = "daemonize")]
    pub daemonize: bool,
    /// access rights of the socket, octal (default 777)
    #[argh(option, long = "mode", default = "0o777", from_str_fn(octal), arg_name = "octal")]
    pub mode: u32,
    /// what separates requests: stream (nothing need be there), lines or nul (default stream)
    #[argh(option, long = "protocol", default = "Protocol::Stream", from_str_fn(protocol), arg_name = "name")]
    pub protocol: Protocol,
    /// take a first record from the gateway, and tell the library who the client is
    #[argh(switch, long = "hello")]
    pub hello: bool,
    /// milliseconds that a call may take (default 5000)
    #[argh(option, long = "call-ms", default = "CALL_MS", from_str_fn(call_ms), arg_name = "n")]
    pub call_ms: u64,
    /// memory in MiB that a client's process may take (default 256)
    #[argh(option, long = "memory-mib", default = "PROCESS_MIB", from_str_fn(memory_mib), arg_name = "n")]
    pub memory_mib: u64,
}

/// What separates requests and answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Nothing need be between requests; an answer is a line.
    Stream,
    /// Each is a line.
    Lines,
    /// Each ends with a NUL.
    Nul,
}

impl Protocol {
    /// The border between requests.
    pub fn border(self) -> Border {
        match self {
            Protocol::Stream => Border::None,
            Protocol::Lines => Border::Byte(b'\n'),
            Protocol::Nul => Border::Byte(0),
        }
    }

    /// What follows an answer.
    pub fn end(self) -> u8 {
        if self == Protocol::Nul { 0 } else { b'\n' }
    }
}

/// The options, or None where help was asked for and printed.
pub fn parse() -> Result<Option<Options>, String> {
    let Some(options) = server::options::parse::<Options>(PROGRAM)? else { return Ok(None) };
    server::options::check(&options.name, options.clients_max)?;
    Ok(Some(options))
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "stream" => Ok(Protocol::Stream),
        "lines" => Ok(Protocol::Lines),
        "nul" => Ok(Protocol::Nul),
        _ => Err(format!("{text:?} is not known: write stream, lines or nul")),
    }
}

fn call_ms(text: &str) -> Result<u64, String> {
    number(text, 1..=CALL_MS_MAX)
}

fn memory_mib(text: &str) -> Result<u64, String> {
    number(text, PROCESS_MIB_MIN..=PROCESS_MIB_MAX)
}

fn number(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("{text:?} will not do: write a number from {} to {}", range.start(), range.end()))
}
