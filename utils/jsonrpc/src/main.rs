//! An ordinary UNIX server that answers JSON-RPC 2.0 with the methods of a library. It knows nothing of HTTP or
//! WebSocket: it listens on a socket file, waits with poll(2) for all its clients at once, and finds their requests
//! in what they send, however that is cut.
//!
//! The library never runs here. Each connection that calls something gets a process of its own, this program once
//! more, which is all that a library can crash, hold up or fill.

mod client;
mod library;
mod limits;
mod options;
mod process;
mod request;
mod serve;
mod splitter;
mod wire;
mod worker;

use std::process::ExitCode;

use nix::sys::socket::SockType;
use server::options::exit_code;
use server::start::{Entrance, Start, Way};

use crate::options::{Options, PROGRAM};
use crate::process::Launcher;
use crate::wire::Opening;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, library, memory_mib] = &arguments[..]
        && flag == worker::FLAG
        && let Ok(memory_mib) = memory_mib.parse()
    {
        return worker::run(library, memory_mib);
    }
    let result = options::parse().and_then(|options| options.map_or(Ok(()), |options| run(&options)));
    exit_code(PROGRAM, result)
}

fn run(options: &Options) -> Result<(), String> {
    let launcher = launcher(options)?;
    // Before the socket is there, so that whoever finds it finds a server.
    launcher.check(options.user.as_deref())?;
    let Options { root, name, mode, user, daemonize, .. } = options;
    let way = Way::Plain(SockType::Stream);
    let start = Start { program: PROGRAM, root, name, mode: *mode, user: user.as_deref(), daemonize: *daemonize, way };
    // Until the end: its file goes with it.
    let (entrance, _file) = start.start()?;
    match entrance {
        Entrance::Plain(listener) => serve::serve(&listener, options, &launcher),
        Entrance::Direct(_) => Ok(()),
    }
}

/// What processes need to know, as it holds when the server has gone to the background.
fn launcher(options: &Options) -> Result<Launcher, String> {
    let library = &options.library;
    let library = match library.contains('/') {
        // Without a slash the dynamic linker looks for it.
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
    let opening = Opening { config: options.config.clone(), folder, ..Opening::default() };
    Ok(Launcher { library, memory_mib: options.memory_mib, opening })
}
