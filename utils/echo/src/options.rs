//! The options that all sample servers have, and echo's own.

use argh::FromArgs;

/// Sends back what it receives, through a UNIX socket.
#[derive(FromArgs, Debug)]
#[argh(example = "Where the gateway's docroot is /run/websocket:\n  {command_name} -R /run/websocket -n echo")]
pub struct Options {
    /// folder of the socket, made if missing (default /var/run/websocket)
    #[argh(option, short = 'R', long = "root", default = "String::from(\"/var/run/websocket\")", arg_name = "dir")]
    pub root: String,
    /// name of the socket (default: the program's name)
    #[argh(option, short = 'n', long = "name", default = "program_name()", arg_name = "name")]
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

/// How messages travel on the socket. Where they are marked within the bytes, sending the bytes back as they are
/// keeps the marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Bytes: marked by nothing, by line ends, by NULs, or as RFC 6455 frames without masks.
    Stream,
    /// Packets (SOCK_SEQPACKET).
    Packet,
}

/// The options, or None where help was asked for and printed.
pub fn parse() -> Result<Option<Options>, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> =
        arguments.iter().map(|argument| if argument == "-h" { "--help" } else { argument.as_str() }).collect();
    let options = match Options::from_args(&[&program_name()], &arguments) {
        Ok(options) => options,
        Err(exit) if exit.status.is_ok() => {
            println!("{}", exit.output);
            return Ok(None);
        }
        Err(exit) => return Err(format!("{}: see --help", exit.output.trim_end().trim_end_matches('.'))),
    };
    if options.name.is_empty() || options.name.contains('/') {
        return Err(format!("-n {:?} is no file name: give a name without a slash", options.name));
    }
    if options.clients_max == 0 {
        return Err("-m 0 would serve nobody: give 1 or more".to_owned());
    }
    if options.is_direct && options.protocol != Protocol::Stream {
        return Err("--direct has messages without packets: leave --protocol out".to_owned());
    }
    Ok(Some(options))
}

fn program_name() -> String {
    let path = std::env::args().next().unwrap_or_default();
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("websocket_echo").to_owned()
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("{text:?} is no mode: write an octal number such as 660")),
    }
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "stream" | "lines" | "nul" | "frames" => Ok(Protocol::Stream),
        "packet" => Ok(Protocol::Packet),
        _ => Err(format!("{text:?} is not known: write stream, packet, lines, nul or frames")),
    }
}
