//! Methods for `websocket_jsonrpc` in Rust: implement [`Methods`] and name the type to [`export!`] in a package with
//! `crate-type = ["cdylib"]`.
//!
//! ```
//! use jsonrpc_library::{Failure, Methods, Peer};
//!
//! /// One connection.
//! struct Counter(u64);
//!
//! impl Methods for Counter {
//!     fn open(config: &str, _: &Peer) -> Result<Counter, Failure> {
//!         config.parse().map(Counter).map_err(|_| Failure::internal("-C has to be a number"))
//!     }
//!
//!     fn call(&mut self, method: &str, _: Option<&str>) -> Result<String, Failure> {
//!         match method {
//!             "next" => {
//!                 self.0 += 1;
//!                 Ok(self.0.to_string())
//!             }
//!             _ => Err(Failure::method_not_found()),
//!         }
//!     }
//! }
//!
//! jsonrpc_library::export!(Counter);
//! ```
//!
//! Parameters and results are JSON texts. A panic ends the connection's worker process; only its caller gets an error.

pub mod abi;

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_int, c_void};

/// The client. What is not known is None.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    /// Address without a port.
    pub address: Option<String>,
    /// The connection's name in the gateway's log.
    pub id: Option<String>,
}

/// An error for a caller (JSON-RPC 2.0 section 5.1), or for the operator when the server starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// A code of JSON-RPC, or the library's own. 0 would be success, and is sent as -32603.
    pub code: i32,
    /// Plain text; empty: the usual message of the code.
    pub message: String,
    /// JSON text; empty: none.
    pub data: String,
}

impl Failure {
    /// An error with a message.
    pub fn new(code: i32, message: &str) -> Failure {
        Failure { code, message: message.to_owned(), data: String::new() }
    }

    /// There is no such method.
    pub fn method_not_found() -> Failure {
        Failure::new(abi::METHOD_NOT_FOUND, "")
    }

    /// The parameters are not valid; `data` is JSON text with the reason, or empty.
    pub fn invalid_params(data: &str) -> Failure {
        Failure { data: data.to_owned(), ..Failure::new(abi::INVALID_PARAMS, "") }
    }

    /// The library has failed.
    pub fn internal(message: &str) -> Failure {
        Failure::new(abi::INTERNAL_ERROR, message)
    }
}

/// A connection, and the methods that it can call.
pub trait Methods: Sized {
    /// Called once, when the server starts and before it listens: checks the configuration (-C, or empty) and creates what
    /// is missing. After a failure, whose message is for the operator, the server does not start.
    fn start(config: &str) -> Result<(), Failure> {
        let _ = config;
        Ok(())
    }

    /// Opens a connection, before its first call. Connections may be in different processes.
    fn open(config: &str, peer: &Peer) -> Result<Self, Failure>;

    /// Handles a call or a notification: `params` is the JSON text of an array or object, the result is JSON text.
    fn call(&mut self, method: &str, params: Option<&str>) -> Result<String, Failure>;
}

/// Exports the methods of a type as `uakari_rpc`, the function that the server looks up. Use it once in a library.
#[macro_export]
macro_rules! export {
    ($methods:ty) => {
        /// The library's table of functions.
        #[unsafe(no_mangle)]
        pub extern "C" fn uakari_rpc() -> *const $crate::abi::Library {
            static LIBRARY: $crate::abi::Library = $crate::library::<$methods>();
            &LIBRARY
        }
    };
}

/// The table that [`export!`] exports.
pub const fn library<T: Methods>() -> abi::Library {
    abi::Library {
        version: abi::VERSION,
        start: Some(start::<T>),
        open: Some(open::<T>),
        call: Some(call::<T>),
        close: Some(close::<T>),
    }
}

unsafe extern "C" fn start<T: Methods>(config: *const c_char, reply: *mut abi::Reply) -> c_int {
    // SAFETY: the interface requires a string that is valid until this returns.
    let config = unsafe { text(config) };
    match T::start(config.as_deref().unwrap_or_default()) {
        Ok(()) => abi::OK,
        // SAFETY: `reply` comes from the server.
        Err(failure) => unsafe { fail(reply, &failure) },
    }
}

unsafe extern "C" fn open<T: Methods>(
    context: *mut *mut c_void,
    config: *const c_char,
    peer: *const abi::Peer,
    reply: *mut abi::Reply,
) -> c_int {
    // SAFETY: the interface requires a string that is valid until this returns.
    let config = unsafe { text(config) };
    // SAFETY: the interface requires a peer that is valid until this returns.
    let abi::Peer { address, id } = unsafe { &*peer };
    // SAFETY: its strings are valid until this returns, or null.
    let address = unsafe { text(*address) };
    // SAFETY: as above.
    let id = unsafe { text(*id) };
    let peer = Peer { address: address.map(Cow::into_owned), id: id.map(Cow::into_owned) };
    match T::open(config.as_deref().unwrap_or_default(), &peer) {
        Ok(methods) => {
            // SAFETY: the interface requires a place for a pointer.
            unsafe { *context = Box::into_raw(Box::new(methods)).cast() };
            abi::OK
        }
        // SAFETY: `reply` comes from the server.
        Err(failure) => unsafe { fail(reply, &failure) },
    }
}

unsafe extern "C" fn call<T: Methods>(
    context: *mut c_void,
    method: *const c_char,
    params: *const c_char,
    _: usize,
    reply: *mut abi::Reply,
) -> c_int {
    // SAFETY: `open` has made it, `close` was not called, and there is one call at a time.
    let methods = unsafe { &mut *context.cast::<T>() };
    // SAFETY: the interface requires a string that is valid until this returns.
    let method = unsafe { text(method) };
    // SAFETY: the same, or null.
    let params = unsafe { text(params) };
    match methods.call(method.as_deref().unwrap_or_default(), params.as_deref()) {
        Ok(result) => {
            // SAFETY: `reply` comes from the server.
            let write = unsafe { (*reply).write };
            // SAFETY: it copies the text, whose size is given.
            unsafe { write(reply, result.as_ptr().cast(), result.len()) }
        }
        // SAFETY: `reply` comes from the server.
        Err(failure) => unsafe { fail(reply, &failure) },
    }
}

unsafe extern "C" fn close<T: Methods>(context: *mut c_void) {
    // SAFETY: `open` has made it, and nothing uses it after this.
    drop(unsafe { Box::from_raw(context.cast::<T>()) });
}

/// # Safety
/// `text` is null, or a string that ends with a NUL and outlives the result.
unsafe fn text<'a>(text: *const c_char) -> Option<Cow<'a, str>> {
    if text.is_null() {
        return None;
    }
    // SAFETY: by the function's contract.
    let text = unsafe { CStr::from_ptr(text) };
    // UTF-8, except that -C comes from a command line and may be anything.
    Some(text.to_string_lossy())
}

/// # Safety
/// `reply` comes from the server.
unsafe fn fail(reply: *mut abi::Reply, failure: &Failure) -> c_int {
    let code = if failure.code == abi::OK { abi::INTERNAL_ERROR } else { failure.code };
    let given = |text: &str| (!text.is_empty()).then(|| CString::new(text.replace('\0', "")).unwrap_or_default());
    let (message, data) = (given(&failure.message), given(&failure.data));
    let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: by the function's contract.
    let fail = unsafe { (*reply).fail };
    // SAFETY: it copies the strings, which may be null.
    unsafe { fail(reply, code, pointer(&message), pointer(&data)) }
}

#[cfg(test)]
mod tests;
