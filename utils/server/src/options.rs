//! Options that all sample servers have. Each server lists them in a struct of its own, so that its help is whole; here
//! is what is done with them.

use std::process::ExitCode;

use argh::FromArgs;
use nix::sys::socket::SockType;

/// The options that were typed, or None where help was asked for and printed. The error is the operator's sentence.
pub fn parse<T: FromArgs>(program: &str) -> Result<Option<T>, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> =
        arguments.iter().map(|argument| if argument == "-h" { "--help" } else { argument.as_str() }).collect();
    match T::from_args(&[&program_name(program)], &arguments) {
        Ok(options) => Ok(Some(options)),
        Err(exit) if exit.status.is_ok() => {
            println!("{}", exit.output);
            Ok(None)
        }
        Err(exit) => Err(format!("{}: see --help", exit.output.trim_end().trim_end_matches('.'))),
    }
}

/// How a server ends. The error is the operator's sentence.
pub fn exit_code(program: &str, result: Result<(), String>) -> ExitCode {
    let Err(sentence) = result else { return ExitCode::SUCCESS };
    eprintln!("{program}: {sentence}");
    ExitCode::FAILURE
}

/// The name by which the program was called, which is the socket's where none is given.
pub fn program_name(otherwise: &str) -> String {
    let path = std::env::args().next().unwrap_or_default();
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(otherwise).to_owned()
}

/// What would serve nobody: a socket's name with a slash in it, or no client.
pub fn check(name: &str, clients_max: usize) -> Result<(), String> {
    if name.is_empty() || name.contains('/') {
        return Err(format!("-n {name:?} is no file name: give a name without a slash"));
    }
    if clients_max == 0 {
        return Err("-m 0 would serve nobody: give 1 or more".to_owned());
    }
    Ok(())
}

/// Access rights of the socket.
pub fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("{text:?} is no mode: write an octal number such as 660")),
    }
}

/// What tells where a message ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Nothing.
    Stream,
    /// Packets (SOCK_SEQPACKET).
    Packet,
    /// A newline.
    Lines,
    /// A NUL.
    Nul,
    /// RFC 6455 frames without masks.
    Frames,
}

impl Protocol {
    /// The type of the socket that such messages travel on.
    pub fn socket_type(self) -> SockType {
        if self == Protocol::Packet { SockType::SeqPacket } else { SockType::Stream }
    }
}

/// A protocol by its name.
pub fn protocol(text: &str) -> Result<Protocol, String> {
    Ok(match text {
        "stream" => Protocol::Stream,
        "packet" => Protocol::Packet,
        "lines" => Protocol::Lines,
        "nul" => Protocol::Nul,
        "frames" => Protocol::Frames,
        _ => return Err(format!("{text:?} is not known: write stream, packet, lines, nul or frames")),
    })
}
