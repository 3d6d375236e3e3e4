//! The library with the methods, in the worker process: loaded by either of two interfaces, and called.

pub(crate) mod jansson;
pub(crate) mod native;

use libloading::os::unix::{Library as Handle, RTLD_LAZY, RTLD_LOCAL};

use crate::request::Outcome;
use crate::wire::Connection;

pub(crate) enum Library {
    /// With the interface of `uakari_rpc.h`.
    Native(native::Library),
    /// With ouistiti's interface.
    Jansson(jansson::Library),
}

/// An open connection.
pub(crate) enum Session {
    Native(native::Session),
    Jansson(jansson::Session),
}

impl Library {
    /// The error is the operator's sentence.
    pub(crate) fn load(path: &str) -> Result<Library, String> {
        // Never unloaded, so that its functions stay valid.
        let handle = Box::leak(Box::new(open(path)?));
        if let Some(library) = native::Library::find(handle, path)? {
            return Ok(Library::Native(library));
        }
        if let Some(library) = jansson::Library::find(handle, path)? {
            return Ok(Library::Jansson(library));
        }
        Err(format!("-L {path}: it exports neither uakari_rpc nor jsonrpc_init: give a library of methods"))
    }

    /// Lets the library check its configuration. The error is the operator's sentence.
    pub(crate) fn start(&self, connection: &Connection) -> Result<(), String> {
        match self {
            Library::Native(library) => library.start(connection),
            // It has no such function, and connection a connection may have side effects.
            Library::Jansson(_) => Ok(()),
        }
    }

    /// The error is the JSON text of an error object.
    pub(crate) fn open(self, connection: &Connection) -> Result<Session, String> {
        match self {
            Library::Native(library) => library.open(connection).map(Session::Native),
            Library::Jansson(library) => library.open(connection).map(Session::Jansson),
        }
    }
}

impl Session {
    /// Calls a method; `params` is the JSON text of an array or object.
    pub(crate) fn call(&mut self, method: &str, params: Option<&str>) -> Outcome {
        match self {
            Session::Native(session) => session.call(method, params),
            Session::Jansson(session) => session.call(method, params),
        }
    }

    pub(crate) fn close(self) {
        match self {
            Session::Native(session) => session.close(),
            Session::Jansson(session) => session.close(),
        }
    }
}

/// Binds undefined functions lazily, so that jansson can be loaded afterwards.
fn open(path: &str) -> Result<Handle, String> {
    // SAFETY: loading runs the library's own code, which is what the operator asks for.
    let opened = unsafe { Handle::open(Some(path), RTLD_LAZY | RTLD_LOCAL) };
    opened.map_err(|error| {
        let fix = match path.contains('/') {
            true => "give a library that this machine can load",
            false => "give its path, with a slash in it, unless it is in the linker's search path",
        };
        format!("-L {path}: {}: {fix}", reason(&error))
    })
}

/// The dynamic linker's message in one line.
fn reason(error: &libloading::Error) -> String {
    let text = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    text.lines().collect::<Vec<_>>().join(" ")
}
