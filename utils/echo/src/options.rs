//! The options that all sample servers have, and echo's own.

use argh::FromArgs;
use server::options::{Protocol, octal, program_name, protocol};

/// Its name, in its help and before what it says.
pub const PROGRAM: &str = "websocket_echo";

/// Sends back what it receives, through a UNIX socket.
#[derive(FromArgs, Debug)]
#[argh(example = "Where the gateway's docroot is /run/websocket:\n  {command_name} -R /run/websocket -n echo")]
pub struct Options {
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
    /// serve one connection, answer once, exit
    #[argh(switch, short = 't', long = "test")]
    pub once: bool,
    /// access rights of the socket, octal (default 777)
    #[argh(option, long = "mode", default = "0o777", from_str_fn(octal), arg_name = "octal")]
    pub mode: u32,
    /// how messages travel: stream, packet, lines, nul or frames (default stream)
    #[argh(option, long = "protocol", default = "Protocol::Stream", from_str_fn(protocol), arg_name = "name")]
    pub protocol: Protocol,
    /// be handed the clients' own connections (the gateway's options = "direct"), and speak WebSocket with them
    #[argh(switch, long = "direct")]
    pub is_direct: bool,
    /// take a first record from the gateway, and print who each client is
    #[argh(switch, long = "hello")]
    pub hello: bool,
}

/// The options, or None where help was asked for and printed.
pub fn parse() -> Result<Option<Options>, String> {
    let Some(options) = server::options::parse::<Options>(PROGRAM)? else { return Ok(None) };
    server::options::check(&options.name, options.clients_max)?;
    if options.is_direct && options.protocol != Protocol::Stream {
        return Err("--direct has messages of its own: leave --protocol out".to_owned());
    }
    Ok(Some(options))
}
