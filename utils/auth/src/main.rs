//! The command line of the helper: parse, serve, one line on failure.

use std::ffi::OsString;
use std::io::{Write, stderr, stdin, stdout};
use std::os::fd::AsFd;
use std::process::ExitCode;

use argh::FromArgs;

use uakari_auth::check::check;
use uakari_auth::process::{ServeError, serve};

/// Exit status of a wrong command line (EX_USAGE of sysexits.h).
const MISUSED: u8 = 64;

/// Verifies passwords and tokens for uakari, which starts it with a socket as standard input.
#[derive(FromArgs, Debug)]
#[argh(
    example = "Report problems and weak hashes of password files:\n  {command_name} --check /etc/uakari/users",
    error_code(1, "A file cannot be used, or the process had to stop."),
    error_code(64, "The command line is wrong.")
)]
struct Arguments {
    /// check password files, print all problems, and exit
    #[argh(switch)]
    check: bool,
    /// print the version
    #[argh(switch)]
    version: bool,
    /// password files for --check
    #[argh(positional, arg_name = "file")]
    files: Vec<String>,
}

fn main() -> ExitCode {
    let words: Result<Vec<String>, OsString> = std::env::args_os().skip(1).map(OsString::into_string).collect();
    let words = match words {
        Ok(words) => words,
        Err(word) => return fail(MISUSED, &format!("{word:?} is not UTF-8: write another one")),
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let arguments = match Arguments::from_args(&["uakari-auth"], &words) {
        Ok(arguments) => arguments,
        Err(exit) if exit.status.is_ok() => return print(&[exit.output.trim_end().to_owned()], ExitCode::SUCCESS),
        Err(exit) => {
            let sentence = exit.output.trim_end().trim_end_matches('.').to_owned();
            return fail(MISUSED, &format!("{sentence}: see uakari-auth --help"));
        }
    };
    if arguments.version {
        return print(&[format!("uakari-auth {}", env!("CARGO_PKG_VERSION"))], ExitCode::SUCCESS);
    }
    match (arguments.check, &arguments.files[..]) {
        (true, []) => fail(MISUSED, "--check needs a file: see uakari-auth --help"),
        (true, files) => {
            let checked = check(files);
            print(&checked.lines, if checked.is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        (false, [file, ..]) => fail(MISUSED, &format!("{file} is given without --check: see uakari-auth --help")),
        (false, []) => match serve(stdin().as_fd()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error @ ServeError::NoSocket) => fail(MISUSED, &error.to_string()),
            Err(error) => fail(1, &error.to_string()),
        },
    }
}

fn print(lines: &[String], code: ExitCode) -> ExitCode {
    let written = lines.iter().try_for_each(|line| writeln!(stdout(), "{line}"));
    written.map_or_else(|error| fail(1, &format!("standard output: {error}")), |()| code)
}

fn fail(code: u8, sentence: &str) -> ExitCode {
    // There is no other place to tell it.
    let _ = writeln!(stderr(), "uakari-auth: {sentence}");
    ExitCode::from(code)
}
