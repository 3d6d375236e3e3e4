//! Options that all sample servers have. Each server lists them in a struct of its own, so that its help is whole; here
//! is what is done with them.

use std::io::{Write, stdout};
use std::process::ExitCode;

use argh::FromArgs;
use nix::sys::socket::SockType;
use uakari::config::{PROTOCOLS, word};

pub use uakari::route::Protocol;

/// The options that were typed, or None where help was asked for and printed. The error is the operator's sentence.
pub fn parse<T: FromArgs>(program: &str) -> Result<Option<T>, String> {
    let arguments = apart(std::env::args().skip(1));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match T::from_args(&[&program_name(program)], &arguments) {
        Ok(options) => Ok(Some(options)),
        Err(exit) if exit.status.is_ok() => {
            // Who closes the pipe early has read enough.
            let _ = writeln!(stdout(), "{}", exit.output);
            Ok(None)
        }
        Err(exit) => Err(format!("{}: see --help", exit.output.trim_end().trim_end_matches('.'))),
    }
}

/// Options of one letter that a value follows, and those without one, of all sample servers.
const WITH_VALUE: &str = "RnumLC";
const SWITCHES: &str = "Dtwh";

/// The arguments with what getopt(3) takes written together, as ouistiti's servers may be started: `-wD` is `-w -D`, and
/// `-R/run` is `-R /run`.
fn apart(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let (mut apart, mut is_value) = (Vec::new(), false);
    for argument in arguments {
        let letters = if std::mem::take(&mut is_value) { "" } else { argument.strip_prefix('-').unwrap_or_default() };
        let (switches, rest) = letters.split_at(letters.len() - letters.trim_start_matches(is_switch).len());
        let value = rest.strip_prefix(|letter| WITH_VALUE.contains(letter));
        if letters.is_empty() || !rest.is_empty() && value.is_none() {
            apart.push(argument);
            continue;
        }
        apart.extend(switches.chars().map(|switch| if switch == 'h' { "--help".into() } else { format!("-{switch}") }));
        if let Some(value) = value {
            apart.push(format!("-{}", &rest[..1]));
            is_value = value.is_empty();
            apart.extend((!is_value).then(|| value.to_owned()));
        }
    }
    apart
}

fn is_switch(letter: char) -> bool {
    SWITCHES.contains(letter)
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

/// The type of the socket that messages travel on.
pub fn socket_type(protocol: Protocol) -> SockType {
    if protocol == Protocol::Packet { SockType::SeqPacket } else { SockType::Stream }
}

/// A protocol by the name that the gateway has for it.
pub fn protocol(text: &str) -> Result<Protocol, String> {
    let known = word(&PROTOCOLS, text);
    known.ok_or_else(|| format!("{text:?} is not known: write stream, packet, lines, nul or frames"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_together_is_taken_apart() {
        for (together, wanted) in [
            ("-R /run -n echo -D", "-R /run -n echo -D"),
            ("-R/run -necho -m50", "-R /run -n echo -m 50"),
            ("-wDR /run -n-wD", "-w -D -R /run -n -wD"),
            ("-n -wD -w", "-n -wD -w"),
            ("-C -R/run", "-C -R/run"),
            ("-h", "--help"),
            ("-Dh", "-D --help"),
            ("-n -h", "-n -h"),
            ("-Dx -x - -- --mode 660 --hello", "-Dx -x - -- --mode 660 --hello"),
            ("run", "run"),
        ] {
            assert_eq!(apart(together.split(' ').map(str::to_owned)).join(" "), wanted, "{together}");
        }
        assert_eq!(apart(["-n", "", "-Dw"].map(str::to_owned).into_iter()), ["-n", "", "-D", "-w"]);
    }
}
