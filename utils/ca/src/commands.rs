//! The subcommands.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write, stderr, stdin, stdout};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use time::OffsetDateTime;
use uakari_ca::limits::REQUEST_SIZE_MAX;
use uakari_ca::{Action, Authority, Founding, Host, Invitation, Kind, Name, Renewal, Signing, Wish};

use crate::options::{Flag, Options};

/// Exit status of a failed command.
const FAILED: u8 = 1;
/// Exit status of a wrong command line (EX_USAGE of sysexits.h).
const MISUSED: u8 = 64;
/// The folder of the authority.
const DIR: &str = "/var/lib/uakari/ca";

/// The subcommand that reads a file.
const SIGN: &str = "sign";

/// What it reads.
type Input = Box<dyn Read>;

/// The subcommand whose options are those of the sample servers.
const SERVE: &str = "serve";

/// A subcommand.
struct Command {
    name: &'static str,
    /// Its operand, as the help shows it.
    operand: Operand,
    about: &'static str,
    flags: &'static [&'static str],
    run: fn(&Authority, &Options, Option<Input>) -> Result<u8, Failure>,
}

/// What follows a subcommand's name.
enum Operand {
    None,
    One(&'static str),
    Optional(&'static str),
}

/// Why a command failed.
enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// It could not be done.
    Other(String),
}

impl From<uakari_ca::CaError> for Failure {
    fn from(error: uakari_ca::CaError) -> Failure {
        match error {
            uakari_ca::CaError::Value(_) => Failure::Usage(error.to_string()),
            _ => Failure::Other(error.to_string()),
        }
    }
}

impl From<String> for Failure {
    fn from(sentence: String) -> Failure {
        Failure::Usage(sentence)
    }
}

const FLAGS: &[Flag] = &[
    Flag { name: "dir", value: "dir", help: "folder of the authority (default /var/lib/uakari/ca)", is_list: false },
    Flag {
        name: "days",
        value: "n",
        help: "days of validity (default 365, of a renewal as before; at most 3650, servers' 397)",
        is_list: false,
    },
    Flag {
        name: "hours",
        value: "n",
        help: "hours for which the token can be used (default 24; at most 720)",
        is_list: false,
    },
    Flag {
        name: "name",
        value: "name",
        help: "common name (default: init a unique one, sign that of the CSR)",
        is_list: false,
    },
    Flag { name: "server", value: "", help: "for a server, with names and addresses", is_list: false },
    Flag { name: "client", value: "", help: "for a client (default); with --server for both", is_list: false },
    Flag {
        name: "for",
        value: "host",
        help: "DNS name or IP address of the server, besides NAME; may be repeated",
        is_list: true,
    },
    Flag {
        name: "new-key",
        value: "",
        help: "also a new key: certificates given out are then no longer trusted",
        is_list: false,
    },
    Flag {
        name: "storepass",
        value: "text",
        help: "password of ca.p12 and ca.jks (default the last one, at first changeit)",
        is_list: false,
    },
    Flag { name: "json", value: "", help: "as one JSON object", is_list: false },
];

const COMMANDS: &[Command] = &[
    Command { name: "init", operand: Operand::None, about: "make an authority", flags: &["days", "name"], run: init },
    Command {
        name: "status",
        operand: Operand::None,
        about: "tell whether it is valid; exit status 0: yes, 1: for 30 days at most, 2: no",
        flags: &["json"],
        run: status,
    },
    Command {
        name: "renew",
        operand: Operand::Optional("NAME"),
        about: "renew the authority's certificate, or issued/NAME.pem, with the same key",
        flags: &["days", "new-key"],
        run: renew,
    },
    Command {
        name: "issue",
        operand: Operand::One("NAME"),
        about: "make issued/NAME.key and issued/NAME.pem",
        flags: &["server", "client", "for", "days"],
        run: issue,
    },
    Command {
        name: SIGN,
        operand: Operand::One("CSR"),
        about: "sign a certificate signing request, a file or -, and print the certificate",
        flags: &["name", "server", "client", "days"],
        run: sign,
    },
    Command {
        name: "token",
        operand: Operand::One("NAME"),
        about: "print a one-time token with which a device gets a certificate",
        flags: &["server", "client", "for", "hours"],
        run: token,
    },
    Command {
        name: "withdraw",
        operand: Operand::One("NAME"),
        about: "make the tokens for NAME invalid",
        flags: &[],
        run: withdraw,
    },
    Command {
        name: "revoke",
        operand: Operand::One("SERIAL|NAME"),
        about: "revoke a certificate and all others with its name, and sign crl.pem",
        flags: &[],
        run: revoke,
    },
    Command {
        name: "export",
        operand: Operand::None,
        about: "write ca.p12 and ca.jks, the certificate alone, for Java",
        flags: &["storepass"],
        run: export,
    },
    Command {
        name: "self-signed",
        operand: Operand::None,
        about: "make or keep an authority and a certificate for this machine, as uakari --tls-self-signed does",
        flags: &["days"],
        run: self_signed,
    },
];

/// Runs the program with these words.
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.collect();
    if let Some(words) = words_of_serve(&words) {
        return uakari_ca::serve::run(DIR, words.into_iter());
    }
    match dispatch(words.into_iter()) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let (sentence, code) = match failure {
                Failure::Usage(sentence) => (sentence, MISUSED),
                Failure::Other(sentence) => (sentence, FAILED),
            };
            complain(&sentence);
            ExitCode::from(code)
        }
    }
}

/// The words after `serve`, which has the options of the sample servers: no `=`. `--dir DIR` or `--dir=DIR` may precede it.
fn words_of_serve(words: &[OsString]) -> Option<Vec<OsString>> {
    let (dir, rest) = match words {
        [first, dir, rest @ ..] if first == "--dir" => (Some(dir.as_os_str()), rest),
        [first, rest @ ..] => match first.as_bytes().strip_prefix(b"--dir=") {
            Some(dir) => (Some(OsStr::from_bytes(dir)), rest),
            None => (None, words),
        },
        [] => return None,
    };
    let (serve, rest) = rest.split_first()?;
    let before = dir.map(|dir| [OsString::from("--dir"), dir.to_owned()]);
    (serve == SERVE).then(|| before.into_iter().flatten().chain(rest.iter().cloned()).collect())
}

fn dispatch(words: impl Iterator<Item = OsString>) -> Result<u8, Failure> {
    let mut options = Options::parse(words, FLAGS)?;
    if options.wants_version {
        print(&format!("uakari-ca {}\n", env!("CARGO_PKG_VERSION")))?;
        return Ok(0);
    }
    let name = if options.operands.is_empty() { None } else { Some(options.operands.remove(0)) };
    let Some(name) = name.filter(|name| name != "help") else {
        if options.wants_help || !options.operands.is_empty() {
            print(&help())?;
            return Ok(0);
        }
        return Err(
            "no command: write one of init, status, renew, issue, sign, revoke, export, token, serve (see --help)"
                .to_owned()
                .into(),
        );
    };
    let command = COMMANDS.iter().find(|command| command.name == name);
    let command = command.ok_or_else(|| format!("{} is not known: see --help", name.escape_debug()))?;
    if options.wants_help {
        print(&command.help())?;
        return Ok(0);
    }
    command.check(&options)?;
    // As the user who has called it, who may read other files than the owner of the folder.
    let input = if command.name == SIGN { Some(open(operand(&options))?) } else { None };
    let authority = Authority::at(options.value("dir").unwrap_or(DIR));
    authority.become_owner()?;
    (command.run)(&authority, &options, input)
}

impl Command {
    fn check(&self, options: &Options) -> Result<(), String> {
        let see = format!("see uakari-ca {} --help", self.name);
        let flags: Vec<&str> = self.flags.iter().copied().chain(["dir"]).collect();
        if let Some(flag) = options.other_than(&flags) {
            return Err(format!("--{flag} is no flag of {}: {see}", self.name));
        }
        if options.value("dir") == Some("") {
            return Err(format!("--dir is empty: {see}"));
        }
        match (&self.operand, &options.operands[..]) {
            (Operand::None | Operand::Optional(_), []) | (Operand::One(_) | Operand::Optional(_), [_]) => Ok(()),
            (Operand::One(operand), []) => Err(format!("{operand} is missing: {see}")),
            (Operand::None, [word, ..]) | (_, [_, word, ..]) => {
                Err(format!("{} is too much: {see}", word.escape_debug()))
            }
        }
    }

    fn usage(&self) -> String {
        match self.operand {
            Operand::None => self.name.to_owned(),
            Operand::One(operand) => format!("{} {operand}", self.name),
            Operand::Optional(operand) => format!("{} [{operand}]", self.name),
        }
    }

    fn help(&self) -> String {
        let mut text = format!("Usage: uakari-ca {} [OPTIONS]\n\n{}\n\nOptions:\n", self.usage(), self.about);
        for flag in FLAGS.iter().filter(|flag| flag.name == "dir" || self.flags.contains(&flag.name)) {
            let title =
                if flag.value.is_empty() { flag.name.to_owned() } else { format!("{} <{}>", flag.name, flag.value) };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  --{title:20}  {}", flag.help);
        }
        text
    }
}

fn help() -> String {
    let mut text =
        "Usage: uakari-ca COMMAND [OPTIONS]\n\nA small certificate authority in one folder.\n\nCommands:\n".to_owned();
    for command in COMMANDS {
        let _ = writeln!(text, "  {:20}  {}", command.usage(), command.about);
    }
    let _ = writeln!(text, "  {SERVE:20}  let devices enrol and renew through the gateway");
    text += "\nOptions of all commands:\n  --dir <dir>           folder of the authority (default /var/lib/uakari/ca)\n  \
             -h, --help            print this text, or that of a command\n  -V, --version         print the version\n";
    text
}

/// A closed pipe is no failure: its reader may have read enough.
fn print(text: &str) -> Result<(), Failure> {
    match stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Other(format!("standard output: {error}: the command has done its work, see status")))
        }
        _ => Ok(()),
    }
}

/// A closed standard error is ignored.
fn complain(sentence: &str) {
    let _ = writeln!(stderr(), "uakari-ca: {sentence}");
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn operand(options: &Options) -> &str {
    options.operands.first().map_or("", String::as_str)
}

fn kind(options: &Options) -> Kind {
    match (options.has("server"), options.has("client")) {
        (true, true) => Kind::Peer,
        (true, false) => Kind::Server,
        (false, _) => Kind::Client,
    }
}

fn hosts(options: &Options) -> Result<Vec<Host>, Failure> {
    Ok(options.all("for").map(Host::new).collect::<Result<_, _>>()?)
}

fn init(authority: &Authority, options: &Options, _: Option<Input>) -> Result<u8, Failure> {
    let founding = Founding { days: options.number("days")?, name: options.value("name").map(str::to_owned) };
    let status = authority.init(&founding, now())?;
    print(&format!("{}\n{status}\n", authority.certificate_path().display()))?;
    Ok(0)
}

fn status(authority: &Authority, options: &Options, _: Option<Input>) -> Result<u8, Failure> {
    let status = authority.status(now());
    print(&if options.has("json") { format!("{}\n", status.json()) } else { format!("{status}\n") })?;
    Ok(status.exit_code())
}

fn renew(authority: &Authority, options: &Options, _: Option<Input>) -> Result<u8, Failure> {
    let (days, new_key) = (options.number("days")?, options.has("new-key"));
    if options.operands.is_empty() {
        let status = authority.renew(&Renewal { days, new_key }, now())?;
        print(&format!("{}\n{status}\n", authority.certificate_path().display()))?;
        if new_key {
            print(
                "The key is new: give ca.pem to all clients, and renew each certificate with uakari-ca renew NAME.\n",
            )?;
        }
        return Ok(0);
    }
    if new_key {
        return Err("--new-key is for the authority: revoke the certificate and issue it again".to_owned().into());
    }
    let pair = authority.renew_issued(&Name::new(operand(options))?, days, now())?;
    print_pair(&pair)?;
    Ok(0)
}

fn issue(authority: &Authority, options: &Options, _: Option<Input>) -> Result<u8, Failure> {
    let wish = Wish {
        name: Name::new(operand(options))?,
        kind: kind(options),
        hosts: hosts(options)?,
        days: options.number("days")?,
    };
    print_pair(&authority.issue(&wish, now())?)?;
    Ok(0)
}

fn print_pair(pair: &uakari_ca::Pair) -> Result<(), Failure> {
    let mut text = format!("{}\n", pair.certificate.display());
    if let Some(key) = &pair.key {
        let _ = writeln!(text, "{}", key.display());
    }
    print(&text)
}

fn open(path: &str) -> Result<Input, Failure> {
    match path {
        "-" => Ok(Box::new(stdin())),
        _ => match std::fs::File::open(path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) => Err(unreadable(path, &error)),
        },
    }
}

fn unreadable(path: &str, error: &std::io::Error) -> Failure {
    Failure::Other(format!("{}: {error}: give the file of a CSR, or -", path.escape_debug()))
}

fn sign(authority: &Authority, options: &Options, input: Option<Input>) -> Result<u8, Failure> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(REQUEST_SIZE_MAX).unwrap_or(u64::MAX).saturating_add(1);
    if let Some(input) = input {
        input.take(limit).read_to_end(&mut bytes).map_err(|error| unreadable(operand(options), &error))?;
    }
    let name = options.value("name").map(Name::new).transpose()?;
    let issued =
        authority.sign(&bytes, &Signing { name, kind: kind(options), days: options.number("days")? }, now())?;
    print(&issued.certificate_pem)?;
    Ok(0)
}

fn token(authority: &Authority, options: &Options, _: Option<Input>) -> Result<u8, Failure> {
    let invitation = Invitation {
        name: Name::new(operand(options))?,
        kind: kind(options),
        hosts: hosts(options)?,
        hours: options.number("hours")?,
    };
    print(&format!("{}\n", authority.token(&invitation, now())?.text))?;
    Ok(0)
}

fn withdraw(authority: &Authority, options: &Options, _: Option<Input>) -> Result<u8, Failure> {
    match authority.withdraw(&Name::new(operand(options))?, now())? {
        0 => Err(Failure::Other(format!("{}: no token with this name is outstanding", operand(options)))),
        count => {
            print(&format!("{count}\n"))?;
            Ok(0)
        }
    }
}

fn revoke(authority: &Authority, options: &Options, _: Option<Input>) -> Result<u8, Failure> {
    for serial in authority.revoke(operand(options), now())? {
        print(&format!("{serial}\n"))?;
    }
    Ok(0)
}

fn export(authority: &Authority, options: &Options, _: Option<Input>) -> Result<u8, Failure> {
    let exports = authority.export(options.value("storepass"), now())?;
    for path in [exports.certificate, exports.pkcs12, exports.jks] {
        print(&format!("{}\n", path.display()))?;
    }
    Ok(0)
}

fn self_signed(authority: &Authority, options: &Options, _: Option<Input>) -> Result<u8, Failure> {
    let made = authority.self_signed(options.number("days")?, now())?;
    let action = match made.action {
        Action::Kept => "kept",
        Action::Issued => "issued",
        Action::Created => "created",
    };
    for notice in &made.notices {
        complain(notice);
    }
    let names: Vec<String> = made.hosts.iter().map(Host::to_string).collect();
    print(&format!(
        "authority={}\ncertificate={}\nkey={}\naction={action}\nnames={}\n",
        made.authority.display(),
        made.certificate.display(),
        made.key.display(),
        names.join(",")
    ))?;
    Ok(0)
}
