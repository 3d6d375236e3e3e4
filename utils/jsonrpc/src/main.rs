//! A UNIX server that answers JSON-RPC 2.0 with the methods of a shared library. It knows nothing of HTTP or WebSocket:
//! it listens on a socket file, waits with poll(2) for all its clients at once, and finds requests in their bytes,
//! however those are split.
//!
//! The library never runs in this process. Each connection that calls a method gets a worker process, the same program
//! once more, so that a crash, a hang or a leak of the library affects one connection.

mod client;
mod library;
mod limits;
mod process;
mod request;
mod serve;
mod splitter;
mod wire;
mod worker;

use std::process::ExitCode;

use server::options::{Flag, Program, run, store};

use crate::limits::{CALL_MS, CALL_MS_MAX, PROCESS_MIB, PROCESS_MIB_MAX, PROCESS_MIB_MIN};
use crate::process::Launcher;
use crate::wire::Connection;

/// The program's name, before each of its messages.
const NAME: &str = "websocket_jsonrpc";

static PROGRAM: Program = Program {
    name: NAME,
    about: "Answers JSON-RPC 2.0 with the methods of a library, through a UNIX socket.",
    example: "-R /run/websocket -n rpc -L ./visits.so -C 1",
    protocols: "stream, lines or nul",
    direct_message_size_max: None,
};

/// Options that this server alone has.
struct Own {
    /// Path or name of the library.
    library: String,
    /// Configuration text for the library.
    config: Option<String>,
    /// Longest duration of a call.
    call_ms: u64,
    /// Memory of a worker process.
    memory_mib: u64,
}

type Options = server::options::Options<Own>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, library, memory_mib] = &arguments[..]
        && flag == worker::FLAG
        && let Ok(memory_mib) = memory_mib.parse()
    {
        return worker::run(library, memory_mib);
    }
    let own = Own { library: String::new(), config: None, call_ms: CALL_MS, memory_mib: PROCESS_MIB };
    run(&PROGRAM, own, flags(), |options| {
        let launcher = launcher(options)?;
        // Before the socket exists, so that every client that connects is served.
        launcher.check(options.user.as_deref())?;
        serve::serve(options.listen()?, options, &launcher)
    })
}

fn flags() -> Vec<Flag<Own>> {
    let library = "library with the methods, required: uakari_rpc.h says what it exports; ouistiti's work too";
    vec![
        Flag::new("-L, --library", "file", library, |o, v| store(&mut o.own.library, Some(v))),
        Flag::new("-C, --config", "text", "configuration of the library, which defines its meaning", |o, v| {
            store(&mut o.own.config, Some(Some(v)))
        }),
        Flag::new("--call-ms", "n", "longest call in milliseconds, from 1 to 3600000 (default 5000)", |o, v| {
            store(&mut o.own.call_ms, v.parse().ok().filter(|ms| (1..=CALL_MS_MAX).contains(ms)))
        }),
        Flag::new(
            "--memory-mib",
            "n",
            "memory of a client's process in MiB, from 16 to 65536 (default 256)",
            |o, v| {
                store(
                    &mut o.own.memory_mib,
                    v.parse().ok().filter(|mib| (PROCESS_MIB_MIN..=PROCESS_MIB_MAX).contains(mib)),
                )
            },
        ),
    ]
}

/// What worker processes need, valid also after the server has gone to the background.
fn launcher(options: &Options) -> Result<Launcher, String> {
    let library = &options.own.library;
    if library.is_empty() {
        return Err("--library is missing: see --help".to_owned());
    }
    let library = match library.contains('/') {
        // Without a slash the dynamic linker searches for it.
        false => library.clone(),
        true => {
            let path = std::fs::canonicalize(library)
                .map_err(|error| format!("-L {library}: {error}: give the path of a library"))?;
            path.into_os_string()
                .into_string()
                .map_err(|path| format!("-L {path:?} is not UTF-8: give another path"))?
        }
    };
    let folder = std::env::current_dir().ok().and_then(|folder| folder.into_os_string().into_string().ok());
    let connection = Connection { config: options.own.config.clone(), folder, ..Connection::default() };
    Ok(Launcher { library, memory_mib: options.own.memory_mib, connection })
}
