//! `uakari-ca serve`: a UNIX server through which devices enrol and renew their certificates, and through which the page
//! `www/authority.html` shows and renews the authority. The authority's key is in this process, never in the gateway's.
//!
//! The modules, bottom up: `message.rs` parses messages, `framing.rs` finds them in a stream, `http.rs` in a request, `rates.rs` limits them
//! without a clock, `worker.rs` has the threads for the slow work, `client.rs` is a connection, `clients.rs` the loop.

mod client;
mod clients;
pub mod framing;
pub mod http;
pub mod limits;
pub mod message;
pub mod rates;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

use server::options::{Flag, Program, Protocol, run_with, store};
use time::OffsetDateTime;

use clients::Clients;
use worker::{Tools, Workers};

use crate::Authority;

static PROGRAM: Program = Program {
    name: "uakari-ca serve",
    about: "Lets devices enrol and renew their certificates, through a UNIX socket.",
    example: "--dir /var/lib/uakari/ca -R /run/websocket -n enroll --hello",
    protocols: "stream or packet",
    direct_message_size_max: None,
};

/// Options that this server alone has.
struct Own {
    /// Folder of the authority.
    dir: String,
    /// Database of users.
    users: Option<String>,
    /// Whether messages are requests of HTTP.
    http: bool,
}

type Options = server::options::Options<Own>;

/// Runs the subcommand with its arguments. `dir` is the authority's folder unless `--dir` is among them.
pub fn run(dir: &str, arguments: impl Iterator<Item = OsString>) -> ExitCode {
    run_with(&PROGRAM, Own { dir: dir.to_owned(), users: None, http: false }, flags(), arguments, serve)
}

fn flags() -> Vec<Flag<Own>> {
    let users = "database of users of authrpc.so, whose group root may see and renew all (default: nobody may)";
    vec![
        Flag::new("--dir", "dir", "folder of the authority (default /var/lib/uakari/ca)", |o: &mut Options, v| {
            store(&mut o.own.dir, Some(v).filter(|dir| !dir.is_empty()))
        }),
        Flag::new("--users", "file", users, |o, v| store(&mut o.own.users, Some(Some(v)))),
        Flag::new("--http", "", "messages are requests of HTTP, for a link of type http", |o, _| {
            store(&mut o.own.http, Some(true))
        }),
    ]
}

fn serve(options: &Options) -> Result<(), String> {
    if options.own.http && (options.hello || options.protocol == Protocol::Packet) {
        return Err("--http excludes --hello and --protocol packet: X-Forwarded-For tells the address".to_owned());
    }
    // Absolute, since -D changes the working directory.
    let absolute =
        |flag: &str, path: &str| std::path::absolute(path).map_err(|error| format!("{flag} {path}: {error}"));
    let users = options.own.users.as_ref().map(|users| absolute("--users", users)).transpose()?;
    let tools = Tools { dir: absolute("--dir", &options.own.dir)?, users };
    let authority = Authority::at(&tools.dir);
    if let Some(user) = &options.user {
        authority.expect_owner(user).map_err(|error| format!("-u {user}: {error}"))?;
    }
    if !authority.is_to_become_owner() {
        check(&tools)?;
    }
    let listener = options.listen()?;
    authority.become_owner().map_err(|error| error.to_string())?;
    // As the user that it has become.
    check(&tools)?;
    Clients::new(listener, Workers::start(&tools, options.clients_max)?, options).serve()
}

/// Whether the authority can be used, and the users read. The error is the operator's sentence.
fn check(tools: &Tools) -> Result<(), String> {
    Authority::at(&tools.dir).expect_usable(OffsetDateTime::now_utc()).map_err(|error| error.to_string())?;
    match &tools.users {
        None => Ok(()),
        Some(users) => authrpc::check_users(users)
            .map_err(|sentence| format!("--users: {sentence}: give a database of authrpc.so")),
    }
}
