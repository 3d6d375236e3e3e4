//! The library of the methods, in the process that its calls run in: found, asked which interface it has, called.

pub mod jansson;
pub mod native;

use libloading::os::unix::{Library as Handle, RTLD_LAZY, RTLD_LOCAL};

use crate::request::Outcome;
use crate::wire::Opening;

/// A library that was loaded.
pub enum Library {
    /// It has the interface of `uakari_rpc.h`.
    Native(native::Library),
    /// It has that of ouistiti's.
    Jansson(jansson::Library),
}

/// A connection that was opened.
pub enum Session {
    /// With a library of `uakari_rpc.h`.
    Native(native::Session),
    /// With one of ouistiti's.
    Jansson(jansson::Session),
}

impl Library {
    /// Loads it. The error is the operator's sentence.
    pub fn load(path: &str) -> Result<Library, String> {
        // What it gives stays valid, since it is never unloaded.
        let handle = Box::leak(Box::new(open(path)?));
        if let Some(library) = native::Library::find(handle, path)? {
            return Ok(Library::Native(library));
        }
        if let Some(library) = jansson::Library::find(handle, path)? {
            return Ok(Library::Jansson(library));
        }
        Err(format!("-L {path}: it exports neither uakari_rpc nor jsonrpc_init: give a library of methods"))
    }

    /// Has it look at its configuration. The error is the operator's sentence.
    pub fn start(&self, opening: &Opening) -> Result<(), String> {
        match self {
            Library::Native(library) => library.start(opening),
            // There is no such function; opening a connection may have effects.
            Library::Jansson(_) => Ok(()),
        }
    }

    /// Opens a connection. The error is the text of an error object.
    pub fn open(self, opening: &Opening) -> Result<Session, String> {
        match self {
            Library::Native(library) => library.open(opening).map(Session::Native),
            Library::Jansson(library) => library.open(opening).map(Session::Jansson),
        }
    }
}

impl Session {
    /// Calls a method; `params` is the text of an array or object.
    pub fn call(&mut self, method: &str, params: Option<&str>) -> Outcome {
        match self {
            Session::Native(session) => session.call(method, params),
            Session::Jansson(session) => session.call(method, params),
        }
    }

    /// Ends the connection.
    pub fn close(self) {
        match self {
            Session::Native(session) => session.close(),
            Session::Jansson(session) => session.close(),
        }
    }
}

/// Functions that it does not have are looked for when they are called, so that jansson may come later.
fn open(path: &str) -> Result<Handle, String> {
    // SAFETY: loading runs the library's own code, which is what the operator asks for.
    let opened = unsafe { Handle::open(Some(path), RTLD_LAZY | RTLD_LOCAL) };
    opened.map_err(|error| {
        let fix = match path.contains('/') {
            true => "give a library that this machine can load",
            false => "give its path, with a slash in it, unless it lies where the linker looks",
        };
        format!("-L {path}: {}: {fix}", reason(&error))
    })
}

/// What the dynamic linker says, in one line.
fn reason(error: &libloading::Error) -> String {
    let text = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    text.lines().collect::<Vec<_>>().join(" ")
}
