//! The C interface of `uakari_rpc.h`, for both the server and `library`. Libraries in Rust do not need it.

use std::ffi::{c_char, c_int, c_void};

/// The version of the interface.
pub const VERSION: u32 = 1;

/// The call was answered.
pub const OK: c_int = 0;
/// Not a request (JSON-RPC 2.0 section 5.1).
pub const INVALID_REQUEST: c_int = -32600;
/// No such method.
pub const METHOD_NOT_FOUND: c_int = -32601;
/// Parameters that the method does not take.
pub const INVALID_PARAMS: c_int = -32602;
/// The library failed.
pub const INTERNAL_ERROR: c_int = -32603;

/// The client. What is not known is null.
#[repr(C)]
#[derive(Debug)]
pub struct Peer {
    /// An address without a port.
    pub address: *const c_char,
    /// The connection's name in the gateway's log.
    pub id: *const c_char,
}

/// Receives a function's answer.
#[repr(C)]
#[derive(Debug)]
pub struct Reply {
    /// The server's own.
    pub server: *mut c_void,
    /// Appends to the result's JSON text.
    pub write: unsafe extern "C" fn(*mut Reply, *const c_char, usize) -> c_int,
    /// Appends bytes as a JSON string.
    pub quote: unsafe extern "C" fn(*mut Reply, *const c_char, usize) -> c_int,
    /// Makes the answer an error: code, message or null, data or null.
    pub fail: unsafe extern "C" fn(*mut Reply, c_int, *const c_char, *const c_char) -> c_int,
}

/// Checks the configuration, once.
pub type Start = unsafe extern "C" fn(*const c_char, *mut Reply) -> c_int;
/// Opens a connection.
pub type Open = unsafe extern "C" fn(*mut *mut c_void, *const c_char, *const Peer, *mut Reply) -> c_int;
/// Calls a method.
pub type Call = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char, usize, *mut Reply) -> c_int;
/// Closes a connection.
pub type Close = unsafe extern "C" fn(*mut c_void);

/// The table of a library's functions.
#[repr(C)]
#[derive(Debug)]
pub struct Library {
    /// `VERSION`.
    pub version: u32,
    /// Once, when the server starts.
    pub start: Option<Start>,
    /// Once for each connection.
    pub open: Option<Open>,
    /// Once for each call.
    pub call: Option<Call>,
    /// Once for each connection that was opened.
    pub close: Option<Close>,
}

/// The function that a library exports, by the name `uakari_rpc`.
pub type Entry = unsafe extern "C" fn() -> *const Library;
