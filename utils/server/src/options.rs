//! Command lines of the sample servers: the common flags, and those of one program. Short flags may be joined as with
//! getopt(3), since ouistiti's servers are started that way: `-wD` is `-w -D`, and `-R/run` is `-R /run`.

use std::ffi::OsString;
use std::fmt::{Display, Write as _};
use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;

use lexopt::Arg;

/// A sample server.
#[derive(Debug)]
pub struct Program {
    /// Its name, in the help and before each message.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub about: &'static str,
    /// Arguments for a gateway whose docroot is /run/websocket.
    pub example: &'static str,
    /// The protocols that it accepts, as the help lists them.
    pub protocols: &'static str,
    /// Bytes of a message in direct mode; None: there is no `--direct`.
    pub direct_message_size_max: Option<usize>,
}

/// How messages are delimited on a plain connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// No boundaries: a SOCK_STREAM socket.
    Stream,
    /// One packet for each message: a SOCK_SEQPACKET socket.
    Packet,
    /// Each message is a line.
    Lines,
    /// Each message ends with a NUL.
    Nul,
    /// RFC 6455 frames without masks.
    Frames,
}

const PROTOCOLS: [(&str, Protocol); 5] = [
    ("stream", Protocol::Stream),
    ("packet", Protocol::Packet),
    ("lines", Protocol::Lines),
    ("nul", Protocol::Nul),
    ("frames", Protocol::Frames),
];

/// The options of a sample server.
#[derive(Debug)]
pub struct Options<T> {
    /// The program that these options start.
    pub program: &'static Program,
    /// Folder of the socket, created if missing.
    pub root: String,
    /// File name of the socket.
    pub name: String,
    /// User to become; None: the user stays the same.
    pub user: Option<String>,
    /// Clients at once, at least 1.
    pub clients_max: usize,
    /// Whether to run in the background.
    pub daemonize: bool,
    /// Access rights of the socket.
    pub mode: u32,
    /// How messages are delimited; `Stream` in direct mode.
    pub protocol: Protocol,
    /// Whether the gateway hands over the clients' own connections.
    pub is_direct: bool,
    /// Whether each connection begins with a hello record.
    pub hello: bool,
    /// The program's own options.
    pub own: T,
}

impl<T> Options<T> {
    /// Prints a message on standard error.
    pub fn complain(&self, message: impl Display) {
        complain(self.program.name, message);
    }
}

/// Prints a message of this program on standard error. A closed standard error is ignored.
pub fn complain(program: &str, message: impl Display) {
    let _ = writeln!(stderr(), "{program}: {message}");
}

/// A command-line flag.
#[derive(Debug)]
pub struct Flag<T> {
    names: &'static str,
    value: &'static str,
    help: String,
    set: Set<T>,
}

type Set<T> = fn(&mut Options<T>, String) -> bool;

impl<T> Flag<T> {
    /// `names` are `--long` or `-l, --long`. `value` is what the help calls the value; empty: a switch. `help` says which
    /// values are valid; for others `set` returns false.
    pub fn new(names: &'static str, value: &'static str, help: &str, set: Set<T>) -> Flag<T> {
        Flag { names, value, help: help.to_owned(), set }
    }

    /// The flag as the help shows it.
    fn title(&self) -> String {
        if self.value.is_empty() { self.names.to_owned() } else { format!("{} <{}>", self.names, self.value) }
    }
}

/// For [`Flag::new`]: stores a value. False: `value` is None.
pub fn store<V>(slot: &mut V, value: Option<V>) -> bool {
    value.map(|value| *slot = value).is_some()
}

/// Reads the command line, and runs the server unless help was asked for. `own` are the defaults of the program's own
/// options. The error of `serve` is the operator's sentence.
pub fn run<T>(
    program: &'static Program,
    own: T,
    flags: Vec<Flag<T>>,
    serve: impl FnOnce(&Options<T>) -> Result<(), String>,
) -> ExitCode {
    run_with(program, own, flags, std::env::args_os().skip(1), serve)
}

/// As [`run`], with these arguments: the server is a subcommand of another program.
pub fn run_with<T>(
    program: &'static Program,
    own: T,
    mut flags: Vec<Flag<T>>,
    arguments: impl Iterator<Item = OsString>,
    serve: impl FnOnce(&Options<T>) -> Result<(), String>,
) -> ExitCode {
    flags.extend(common_flags(program));
    let result = parse(program, own, &flags, arguments).and_then(|options| match options {
        Some(options) => serve(&options),
        None => {
            // A closed pipe is no failure: its reader may have read enough.
            let _ = write!(stdout(), "{}", help(program, &flags));
            Ok(())
        }
    });
    let Err(sentence) = result else { return ExitCode::SUCCESS };
    complain(program.name, sentence);
    ExitCode::FAILURE
}

fn common_flags<T>(program: &Program) -> Vec<Flag<T>> {
    let protocols = format!("how messages are marked: {} (default stream)", program.protocols);
    let mut flags = vec![
        Flag::new(
            "-R, --root",
            "dir",
            "folder of the socket, created if missing (default /var/run/websocket)",
            |o, v| store(&mut o.root, Some(v)),
        ),
        Flag::new("-n, --name", "name", "name of the socket, without a slash (default: the program's name)", |o, v| {
            store(&mut o.name, Some(v).filter(|name| !name.is_empty() && !name.contains('/')))
        }),
        Flag::new("-u, --user", "name", "user to become", |o, v| store(&mut o.user, Some(Some(v)))),
        Flag::new("-m, --maxclients", "n", "clients at once, 1 or more (default 50)", |o, v| {
            store(&mut o.clients_max, v.parse().ok().filter(|count| *count > 0))
        }),
        Flag::new("-D, --daemonize", "", "run in the background", |o, _| store(&mut o.daemonize, Some(true))),
        Flag::new("--mode", "octal", "access rights of the socket, octal such as 660 (default 777)", |o, v| {
            store(&mut o.mode, u32::from_str_radix(&v, 8).ok().filter(|mode| *mode <= 0o777))
        }),
        Flag::new("--protocol", "name", &protocols, |o, v| {
            let is_accepted = o.program.protocols.split([',', ' ']).any(|name| name == v);
            let known = PROTOCOLS.iter().find(|(name, _)| is_accepted && *name == v);
            store(&mut o.protocol, known.map(|(_, protocol)| *protocol))
        }),
        Flag::new("--hello", "", "expect the gateway's hello record first, which says who the client is", |o, _| {
            store(&mut o.hello, Some(true))
        }),
    ];
    if program.direct_message_size_max.is_some() {
        let help = "receive the clients' own connections (the gateway's options = \"direct\") and speak WebSocket";
        flags.push(Flag::new("--direct", "", help, |o, _| store(&mut o.is_direct, Some(true))));
    }
    flags
}

/// Parses the command line. None: it asks for the help text. The error is the operator's sentence.
fn parse<T>(
    program: &'static Program,
    own: T,
    flags: &[Flag<T>],
    arguments: impl Iterator<Item: Into<OsString>>,
) -> Result<Option<Options<T>>, String> {
    let mut options = Options {
        program,
        root: "/var/run/websocket".to_owned(),
        name: program_name(program.name),
        user: None,
        clients_max: 50,
        daemonize: false,
        mode: 0o777,
        protocol: Protocol::Stream,
        is_direct: false,
        hello: false,
        own,
    };
    let mut parser = lexopt::Parser::from_args(arguments);
    // As with getopt(3), the value in `-n=echo` is "=echo".
    parser.set_short_equals(false);
    let (mut argument, mut given) = (String::new(), Vec::new());
    loop {
        // None: the last argument has more joined letters.
        if let Some(rest) = parser.try_raw_args() {
            let Some(next) = rest.peek() else { break };
            argument = next.to_string_lossy().into_owned();
        }
        let name = match parser.next() {
            Ok(Some(Arg::Short(letter))) => format!("-{letter}"),
            // A long name, or no flag at all: `--name=echo`, `--` and operands are refused as typed.
            _ => argument.clone(),
        };
        if matches!(name.as_str(), "-h" | "--help" | "help") {
            return Ok(None);
        }
        let flag = flags.iter().find(|flag| flag.names.split(", ").any(|own| own == name));
        let flag = flag.ok_or_else(|| format!("{argument} is not known: see --help"))?;
        if flag.value.is_empty() {
            (flag.set)(&mut options, String::new());
            continue;
        }
        let value = parser.value().map_err(|_| format!("{name} needs a value: see --help"))?;
        if given.contains(&flag.names) {
            return Err(format!("{name} is given twice: see --help"));
        }
        given.push(flag.names);
        let shown = value.to_string_lossy().escape_debug().to_string();
        if !value.into_string().is_ok_and(|value| (flag.set)(&mut options, value)) {
            return Err(format!("{name} {shown} is not valid: expected {}", flag.help));
        }
    }
    if options.is_direct && options.protocol != Protocol::Stream {
        return Err("--direct has messages of its own: leave --protocol out".to_owned());
    }
    Ok(Some(options))
}

/// The last component of argv[0].
fn program_name(otherwise: &str) -> String {
    let path = std::env::args().next().unwrap_or_default();
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(otherwise).to_owned()
}

fn help<T>(program: &Program, flags: &[Flag<T>]) -> String {
    let Program { name, about, example, .. } = program;
    let mut text = format!("Usage: {name} [OPTIONS]\n\n{about}\n\nOptions:\n");
    let described = flags.iter().map(|flag| (flag.title(), flag.help.as_str()));
    for (title, help) in described.chain([("-h, --help".to_owned(), "print this text")]) {
        let _ = writeln!(text, "  {title:22}  {help}");
    }
    let _ = writeln!(text, "\nExample, where the gateway's docroot is /run/websocket:\n  {name} {example}");
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    static PROGRAM: Program = Program {
        name: "sample",
        about: "Does nothing.",
        example: "-n sample",
        protocols: "stream, lines or nul",
        direct_message_size_max: Some(1),
    };

    fn parsed(line: &str) -> Result<Option<Options<bool>>, String> {
        let own = Flag::new("-w, --commands", "", "obey", |o: &mut Options<bool>, _| store(&mut o.own, Some(true)));
        let flags: Vec<Flag<bool>> = std::iter::once(own).chain(common_flags(&PROGRAM)).collect();
        parse(&PROGRAM, false, &flags, line.split(' ').map(str::to_owned))
    }

    #[test]
    fn letters_may_be_joined() {
        for line in ["-w -D -R /run -n echo -m 50", "-wDR /run -necho -m50", "-R/run -wDm50 --name echo"] {
            let options = parsed(line).unwrap().unwrap();
            assert!(options.own && options.daemonize && !options.hello, "{line}");
            assert_eq!((&*options.root, &*options.name, options.clients_max), ("/run", "echo", 50), "{line}");
        }
        let options = parsed("-n -wD -R -h --protocol nul --mode 660").unwrap().unwrap();
        assert_eq!((&*options.name, &*options.root, options.own), ("-wD", "-h", false));
        assert_eq!((options.protocol, options.mode), (Protocol::Nul, 0o660));
        assert_eq!(parsed("-n=echo").unwrap().unwrap().name, "=echo");
        assert!(["-h", "--help", "help", "-Dh"].into_iter().all(|line| parsed(line).unwrap().is_none()));
    }

    #[test]
    fn errors_say_what_is_valid() {
        for (line, part) in [
            ("-Dx", "-Dx is not known"),
            ("-", "- is not known"),
            ("--", "-- is not known"),
            ("run", "run is not known"),
            ("--name=echo", "--name=echo is not known"),
            ("-D -n", "-n needs a value"),
            ("-R a -R b", "-R is given twice"),
            ("-m 0", "-m 0 is not valid: expected clients at once, 1 or more"),
            ("--mode 999", "such as 660"),
            ("-n a/b", "without a slash"),
            ("--protocol packet", "stream, lines or nul"),
            ("--protocol or", "stream, lines or nul"),
            ("--direct --protocol nul", "leave --protocol out"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_are_an_error() {
        let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        for (line, expected) in [
            (vec![bytes(b"\xff")], "\u{fffd} is not known: see --help"),
            (vec![bytes(b"-D\xff")], "-D\u{fffd} is not known: see --help"),
            (vec![bytes(b"-u"), bytes(b"\xff")], "-u \u{fffd} is not valid: expected user to become"),
        ] {
            let error = parse(&PROGRAM, false, &common_flags(&PROGRAM), line.into_iter()).unwrap_err();
            assert_eq!(error, expected);
        }
    }
}
